//! Cheap stand-ins for what would take most of the time and is not looked into here: keys that are
//! derived, signatures, sealed values, user-data. What is bound to a server by one of them is bound by
//! the server's instance and epoch.

use std::sync::{Arc, LazyLock};

use moorage_wire::{
    AgentPublicKey, CredentialName, CredentialType, Epoch, InstanceId, OperatorPublicKey, Receipt,
    Secret, Sha256,
    credential::{Binding, GATEWAY_TOKEN, SealedCredential, TUNNEL_TOKEN},
    enrolment::EnrolmentKey,
    envelope::Envelope,
    sealing::SealingKeyError,
    signature::OperatorKey,
};

use super::{super::costly::Costly, world::MASTER_KEYS};
use crate::{
    agent::ServerKeys,
    cloud::SecretText,
    credentials::{
        courier::{OwnCredential, Parcel},
        test_keys,
    },
    master_key::BearerToken,
};

const SIGNATURE: &str = "signed";

/// The operator's keys for all servers.
struct Operator {
    signing: Arc<OperatorKey>,
    bearer: Arc<BearerToken>,
    enrolment: Arc<EnrolmentKey>,
}

static OPERATOR: LazyLock<Operator> = LazyLock::new(|| {
    let (master, nobody) =
        (MASTER_KEYS.newest(), (InstanceId::from_bytes([0; 16]), Epoch::from_bytes([0; 8])));
    let keys = ServerKeys::derive(master, nobody.0, nobody.1);
    Operator { signing: keys.operator, bearer: keys.bearer, enrolment: keys.enrolment }
});

static ENVELOPE: LazyLock<Envelope> = LazyLock::new(|| {
    let value = Secret::from("value".to_owned());
    test_keys::key(1).certificate().seal(&value, "label").expect("it can be")
});

/// The certificate of every agent.
pub(super) static CERTIFICATE: LazyLock<String> =
    LazyLock::new(|| test_keys::key(1).certificate().pem().to_owned());

pub(super) fn costly() -> Costly {
    Costly {
        server_keys: |_, instance, epoch| ServerKeys {
            instance,
            epoch,
            operator: Arc::clone(&OPERATOR.signing),
            bearer: Arc::clone(&OPERATOR.bearer),
            enrolment: Arc::clone(&OPERATOR.enrolment),
        },
        operator_key: |_, instance, epoch| operator_key(instance, epoch),
        certificate: |pem| {
            let there = (pem == *CERTIFICATE).then(|| test_keys::key(1).certificate().clone());
            there.ok_or(SealingKeyError::InvalidCertificate)
        },
        is_signed: |receipt, key| {
            receipt.signature == SIGNATURE && *key == agent_key(receipt.instance_id, receipt.epoch)
        },
        seal_own: |own, _| {
            let (name, kind) = match own {
                OwnCredential::Tunnel(_) => (TUNNEL_TOKEN, CredentialType::TunnelToken),
                OwnCredential::Gateway(_) => (GATEWAY_TOKEN, CredentialType::GatewayToken),
            };
            let binding = Binding::Courier { source_sha256: own.source_sha256() };
            Ok(Parcel {
                name: name.parse().expect("it is a credential's name"),
                credential: SealedCredential { r#type: kind, envelope: ENVELOPE.clone(), binding },
                opened_with: None,
            })
        },
        user_data: |_| Ok(SecretText::new(String::new())),
    }
}

fn of_server(instance: InstanceId, epoch: Epoch) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes[..16].copy_from_slice(instance.as_bytes());
    bytes[16..24].copy_from_slice(epoch.as_bytes());
    bytes
}

/// What the agent of a server signs with.
pub(super) fn agent_key(instance: InstanceId, epoch: Epoch) -> AgentPublicKey {
    AgentPublicKey::from_bytes(of_server(instance, epoch))
}

/// What the agent of a server knows the operator by.
pub(super) fn operator_key(instance: InstanceId, epoch: Epoch) -> OperatorPublicKey {
    OperatorPublicKey::from_bytes(of_server(instance, epoch))
}

/// A receipt of the agent of a server.
pub(super) fn receipt(
    (instance_id, epoch): (InstanceId, Epoch),
    (credential, r#type): (CredentialName, CredentialType),
    source_sha256: Sha256,
    stored_at: jiff::Timestamp,
) -> Receipt {
    let signature = SIGNATURE.to_owned();
    Receipt { instance_id, epoch, credential, r#type, source_sha256, stored_at, signature }
}
