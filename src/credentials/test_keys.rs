//! Sealing keys for tests: three RSA keys of 3072 bits that were made once and open nothing else,
//! because making one takes a noticeable time and every test is a process of its own.

use std::sync::LazyLock;

use jiff::Timestamp;
use moorage_wire::{Secret, sealing::SealingKey};

use super::{key_ring::RingKey, lifetimes};

pub(crate) const ANTHROPIC: &str = "sk-ant-api03-abcdefghijklmnopqrstuvwxyz";

static KEYS: LazyLock<[(SealingKey, Secret); 3]> = LazyLock::new(|| {
    let pkcs8: [&[u8]; 3] = [
        include_bytes!("test_keys/0.der"),
        include_bytes!("test_keys/1.der"),
        include_bytes!("test_keys/2.der"),
    ];
    let validity = lifetimes::CERTIFICATE_VALID_FOR.unsigned_abs();
    pkcs8.map(|pkcs8| {
        let pkcs8 = Secret::new(pkcs8.to_vec());
        let key = SealingKey::self_signed(&pkcs8, "test", Timestamp::UNIX_EPOCH, validity);
        (key.unwrap(), pkcs8)
    })
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
