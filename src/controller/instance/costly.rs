//! Work of the processor that gives the same whenever it is done: keys, signatures, sealed values,
//! user-data. The simulation depends on none of it and puts cheap stand-ins in its place.

use moorage_wire::{
    AgentPublicKey, Epoch, InstanceId, OperatorPublicKey, Receipt,
    sealing::{SealingCertificate, SealingKeyError},
};

use crate::{
    agent::ServerKeys,
    cloud::SecretText,
    credentials::{
        courier::{self, OwnCredential, Parcel, Recipient},
        refusal::Refusal,
    },
    master_key::MasterKey,
    user_data::{self, UserDataError, UserDataInput},
};

/// How each of it is done.
pub(super) struct Costly {
    /// Derives what the agent of one server is called with.
    pub(super) server_keys: fn(&MasterKey, InstanceId, Epoch) -> ServerKeys,
    /// Derives what the agent of one server knows the operator by.
    pub(super) operator_key: fn(&MasterKey, InstanceId, Epoch) -> OperatorPublicKey,
    /// Reads an agent's certificate.
    pub(super) certificate: fn(&str) -> Result<SealingCertificate, SealingKeyError>,
    /// Whether the agent with this key signed the receipt.
    pub(super) is_signed: fn(&Receipt, &AgentPublicKey) -> bool,
    /// Seals one of Moorage's own credentials.
    pub(super) seal_own: fn(OwnCredential<'_>, &Recipient<'_>) -> Result<Parcel, Refusal>,
    /// Renders what a server boots with first.
    pub(super) user_data: fn(&UserDataInput<'_>) -> Result<SecretText, UserDataError>,
}

impl Default for Costly {
    fn default() -> Self {
        Self {
            server_keys: ServerKeys::derive,
            operator_key: |master, instance, epoch| {
                master.operator_key(instance, epoch).public_key()
            },
            certificate: SealingCertificate::parse,
            is_signed: |receipt, key| receipt.verify(key).is_ok(),
            seal_own: courier::prepare_own,
            user_data: user_data::render,
        }
    }
}
