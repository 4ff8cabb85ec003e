//! Credentials on their way from a customer to a server: the operator's sealing keys and their
//! lifetimes, what customers hand in, and the sealing to an agent. What decides *when* a credential
//! is delivered or its Secret deleted is the reconciler's business, not this module's.

pub mod bundle;
pub mod courier;
pub mod hints;
pub mod key_ring;
pub mod key_ring_store;
pub mod lifetimes;
pub mod published;
pub mod refusal;
pub mod rewrap;
pub mod secret_source;
#[cfg(test)]
pub(crate) mod test_keys;
pub mod undelivered;
pub mod wrapping_key;

pub(crate) use crate::api::{
    SEALED_SECRET_TYPE, annotation::INSTANCE_SEEN as INSTANCE_SEEN_ANNOTATION,
    annotation::SEALED_WITH as SEALED_WITH_ANNOTATION, label::INSTANCE as INSTANCE_LABEL,
};
