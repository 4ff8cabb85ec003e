//! The key that wraps the operator's private sealing keys while they lie in the cluster.

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use moorage_wire::Secret;
use thiserror::Error;
use zeroize::Zeroizing;

const TAG_BYTES: usize = 16;

/// AES-256-GCM with a random nonce. A wrapped key is `12 bytes nonce ‖ ciphertext ‖ 16 bytes tag`.
pub struct WrappingKey(RandomizedNonceKey);

/// The key cannot be wrapped: the system gave no randomness.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
#[error("the key cannot be wrapped")]
pub struct WrapFailed;

/// Damaged, wrapped under another key, or for another context.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
#[error("the wrapped key does not open: it is damaged or was wrapped under another master key")]
pub struct UnwrapFailed;

impl WrappingKey {
    /// Takes the 32 derived bytes.
    pub(crate) fn new(key: &Secret) -> Self {
        let key = RandomizedNonceKey::new(&AES_256_GCM, key.expose());
        Self(key.expect("derived keys have the 32 bytes of an AES-256 key"))
    }

    /// Wraps `key`, bound to `context`.
    pub fn wrap(&self, key: &Secret, context: &[u8]) -> Result<Vec<u8>, WrapFailed> {
        // Room for the tag, so that appending it does not move the plaintext.
        let mut body = Zeroizing::new(Vec::with_capacity(key.len() + TAG_BYTES));
        body.extend_from_slice(key.expose());
        let nonce = self
            .0
            .seal_in_place_append_tag(Aad::from(context), &mut *body)
            .map_err(|_| WrapFailed)?;
        Ok([nonce.as_ref().as_slice(), &body].concat())
    }

    /// Unwraps what [`Self::wrap`] gave for the same context.
    pub fn unwrap(&self, wrapped: &[u8], context: &[u8]) -> Result<Secret, UnwrapFailed> {
        let (nonce, body) = wrapped.split_first_chunk::<NONCE_LEN>().ok_or(UnwrapFailed)?;
        let mut body = Zeroizing::new(body.to_vec());
        let key = self
            .0
            .open_in_place(Nonce::from(nonce), Aad::from(context), &mut body)
            .map_err(|_| UnwrapFailed)?;
        Ok(Secret::new(key.to_vec()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> WrappingKey {
        WrappingKey::new(&Secret::from([byte; 32]))
    }

    #[test]
    fn a_wrapped_key_opens_under_the_same_key_and_context_only() {
        let wrapped = key(1).wrap(&Secret::from("private".to_owned()), b"fingerprint").unwrap();
        assert_eq!(key(1).unwrap(&wrapped, b"fingerprint").unwrap().expose(), b"private");
        assert_eq!(key(2).unwrap(&wrapped, b"fingerprint").unwrap_err(), UnwrapFailed);
        assert_eq!(key(1).unwrap(&wrapped, b"other").unwrap_err(), UnwrapFailed);
    }

    #[test]
    fn damaged_and_truncated_wrappings_are_errors() {
        let wrapped = key(1).wrap(&Secret::from("private".to_owned()), b"").unwrap();
        for length in 0..wrapped.len() {
            assert_eq!(key(1).unwrap(&wrapped[..length], b"").unwrap_err(), UnwrapFailed);
        }
        for index in 0..wrapped.len() {
            let mut damaged = wrapped.clone();
            damaged[index] ^= 1;
            assert_eq!(key(1).unwrap(&damaged, b"").unwrap_err(), UnwrapFailed);
        }
    }

    #[test]
    fn wrapping_twice_uses_two_nonces_and_shows_no_plaintext() {
        let secret = Secret::from("a private key in the clear".to_owned());
        let (one, two) = (key(1).wrap(&secret, b"").unwrap(), key(1).wrap(&secret, b"").unwrap());
        assert_ne!(one, two);
        assert!(!one.windows(7).any(|window| window == b"private"));
    }
}
