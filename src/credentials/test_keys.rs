//! Sealing keys for tests: real RSA keys, made once for the whole test process because each takes a
//! noticeable time.

use std::sync::LazyLock;

use jiff::Timestamp;
use moorage_wire::{
    Secret,
    sealing::{KeyStrength, SealingKey},
};

use super::{key_ring::RingKey, lifetimes};

pub(crate) const ANTHROPIC: &str = "sk-ant-api03-abcdefghijklmnopqrstuvwxyz";

static KEYS: LazyLock<Vec<(SealingKey, Secret)>> = LazyLock::new(|| {
    let validity = lifetimes::CERTIFICATE_VALID_FOR.unsigned_abs();
    let make =
        |_| SealingKey::generate(KeyStrength::Agent, "test", Timestamp::UNIX_EPOCH, validity);
    (0..3).map(|number| make(number).unwrap()).collect()
});

/// The key with this number, 0 to 2; the same one every time.
pub(crate) fn key(number: usize) -> SealingKey {
    KEYS[number].0.clone()
}

/// The private half of [`key`], as it is stored.
pub(crate) fn pkcs8(number: usize) -> &'static Secret {
    &KEYS[number].1
}

/// [`key`] as a member of a ring, made at `created`.
pub(crate) fn ring_key(number: usize, created: &str) -> RingKey {
    RingKey { key: key(number), created: created.parse().unwrap() }
}
