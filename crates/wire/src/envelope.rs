//! The sealed envelope, byte for byte that of sealed-secrets (`pkg/crypto` of
//! bitnami-labs/sealed-secrets), so that `kubeseal --raw` makes values for Moorage:
//! `u16 big-endian n ‖ n bytes RSA-OAEP(SHA-256) of a session key ‖ AES-256-GCM ciphertext and tag`,
//! with a zero nonce (the session key is used once) and the context as the OAEP label.

use std::fmt;

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey},
    rand,
    rsa::{OAEP_SHA256_MGF1SHA256, OaepPrivateDecryptingKey, OaepPublicEncryptingKey},
};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::{digest::Sha256, secret::Secret};

const SESSION_KEY_BYTES: usize = 32;
const TAG_BYTES: usize = 16;
/// Larger than any credential that Moorage delivers; bounds what a stranger can make us decrypt.
pub const MAX_ENVELOPE_BYTES: usize = 64 * 1024;

/// A sealed value: opaque ciphertext that is safe to store, print and compare.
#[derive(Clone, PartialEq, Eq)]
pub struct Envelope(Vec<u8>);

impl Envelope {
    /// Parses standard base64, as `kubeseal --raw` prints it; white space around it is ignored.
    ///
    /// # Errors
    /// When the text is not base64 or too short or long to be an envelope, which is what a value
    /// pasted in plaintext looks like. The error never contains the text.
    pub fn from_base64(text: &str) -> Result<Self, EnvelopeError> {
        let bytes = BASE64.decode(text.trim()).map_err(|_| EnvelopeError::NotSealed)?;
        Self::from_bytes(bytes)
    }

    /// Checks the outer shape of decoded bytes.
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self, EnvelopeError> {
        if bytes.len() > MAX_ENVELOPE_BYTES {
            return Err(EnvelopeError::TooLarge);
        }
        split(&bytes)?;
        Ok(Self(bytes))
    }

    /// Standard base64 with padding, as kubeseal writes it.
    pub fn to_base64(&self) -> String {
        BASE64.encode(&self.0)
    }

    /// SHA-256 of the decoded bytes: the name of this ciphertext in receipts and records.
    pub fn sha256(&self) -> Sha256 {
        Sha256::of(&self.0)
    }
}

impl fmt::Debug for Envelope {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Envelope({} bytes)", self.0.len())
    }
}

impl Serialize for Envelope {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.to_base64())
    }
}

impl<'de> Deserialize<'de> for Envelope {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        Self::from_base64(&text).map_err(serde::de::Error::custom)
    }
}

/// Why an envelope cannot be made or opened. No variant carries any of its bytes.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum EnvelopeError {
    /// Not base64, or not of the shape of an envelope.
    #[error("the value is not a sealed value")]
    NotSealed,
    /// Longer than [`MAX_ENVELOPE_BYTES`].
    #[error("the sealed value is larger than {MAX_ENVELOPE_BYTES} bytes")]
    TooLarge,
    /// Sealed to another key, or for another context.
    #[error("the sealed value was made for another key, namespace or name")]
    WrongKeyOrLabel,
    /// The operating system gave no randomness, or the key is unusable.
    #[error("sealing failed")]
    SealingFailed,
}

/// Splits into the wrapped session key and the ciphertext with its tag.
fn split(bytes: &[u8]) -> Result<(&[u8], &[u8]), EnvelopeError> {
    let (length, rest) = bytes.split_first_chunk::<2>().ok_or(EnvelopeError::NotSealed)?;
    let length = usize::from(u16::from_be_bytes(*length));
    // RSA moduli of 2048 to 8192 bits; anything else is not an envelope.
    if !(256..=1024).contains(&length) || rest.len() < length + TAG_BYTES {
        return Err(EnvelopeError::NotSealed);
    }
    Ok(rest.split_at(length))
}

fn session_cipher(key: &[u8]) -> Result<LessSafeKey, EnvelopeError> {
    UnboundKey::new(&AES_256_GCM, key)
        .map(LessSafeKey::new)
        .map_err(|_| EnvelopeError::WrongKeyOrLabel)
}

/// Seals `plaintext` for the holder of the private key, bound to `label`.
pub(crate) fn seal(
    key: &OaepPublicEncryptingKey,
    plaintext: &Secret,
    label: &[u8],
) -> Result<Envelope, EnvelopeError> {
    let failed = |_| EnvelopeError::SealingFailed;
    let mut session_key = Zeroizing::new([0; SESSION_KEY_BYTES]);
    rand::fill(session_key.as_mut()).map_err(failed)?;
    let mut wrapped = vec![0; key.ciphertext_size()];
    let wrapped = key
        .encrypt(&OAEP_SHA256_MGF1SHA256, session_key.as_ref(), &mut wrapped, Some(label))
        .map_err(failed)?;
    let length = u16::try_from(wrapped.len()).map_err(|_| EnvelopeError::SealingFailed)?;

    let mut body = Zeroizing::new(plaintext.expose().to_vec());
    let nonce = Nonce::assume_unique_for_key([0; 12]);
    let tag = session_cipher(session_key.as_ref())?
        .seal_in_place_separate_tag(nonce, Aad::empty(), &mut body)
        .map_err(failed)?;
    let bytes = [&length.to_be_bytes(), &*wrapped, body.as_slice(), tag.as_ref()].concat();
    Envelope::from_bytes(bytes)
}

/// Opens an envelope that was sealed with `label`.
pub(crate) fn unseal(
    key: &OaepPrivateDecryptingKey,
    envelope: &Envelope,
    label: &[u8],
) -> Result<Secret, EnvelopeError> {
    let wrong = |_| EnvelopeError::WrongKeyOrLabel;
    let (wrapped, ciphertext) = split(&envelope.0)?;
    if wrapped.len() != key.key_size_bytes() {
        return Err(EnvelopeError::WrongKeyOrLabel);
    }
    let mut session_key = Zeroizing::new(vec![0; key.min_output_size()]);
    let session_key = key
        .decrypt(&OAEP_SHA256_MGF1SHA256, wrapped, &mut session_key, Some(label))
        .map_err(wrong)?;
    let mut body = Zeroizing::new(ciphertext.to_vec());
    let nonce = Nonce::assume_unique_for_key([0; 12]);
    let plaintext = session_cipher(session_key)?
        .open_in_place(nonce, Aad::empty(), &mut body)
        .map_err(wrong)?;
    Ok(Secret::new(plaintext.to_vec()))
}
