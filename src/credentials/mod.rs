//! Credentials on their way from a customer to a server: the operator's sealing keys and their
//! lifetimes, what customers hand in, and the sealing to an agent. What decides *when* a credential
//! is delivered or its Secret deleted is the reconciler's business, not this module's.

pub mod bundle;
pub mod courier;
pub mod key_ring;
pub mod key_ring_store;
pub mod lifetimes;
pub mod refusal;
pub mod secret_source;
#[cfg(test)]
pub(crate) mod test_keys;
pub mod wrapping_key;

/// The type of a Secret that holds sealed values.
pub const SEALED_SECRET_TYPE: &str = "moorage.dev/sealed-credentials";
/// Names the one instance that a Secret with sealed values is for.
pub const INSTANCE_LABEL: &str = "moorage.dev/instance";
/// Fingerprint of the certificate that a Secret's values were sealed to; written by `moorage seal`.
pub const SEALED_WITH_ANNOTATION: &str = "moorage.dev/sealed-with";
