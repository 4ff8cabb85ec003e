//! Values that travel to the worker and can be only what they should be.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use moorage_wire::Secret;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use zeroize::Zeroizing;

use crate::secret_text::SecretText;

/// The private key of an older agent, in the clear but for base64. It is overwritten when dropped, and
/// cannot be printed.
#[derive(PartialEq, Eq)]
pub(crate) struct PlaintextKey(SecretText);

impl PlaintextKey {
    pub(crate) fn new(text: SecretText) -> Self {
        Self(text)
    }

    pub(crate) fn into_inner(self) -> SecretText {
        self.0
    }
}

impl fmt::Debug for PlaintextKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

impl Serialize for PlaintextKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&Zeroizing::new(BASE64.encode(self.0.expose())))
    }
}

impl<'de> Deserialize<'de> for PlaintextKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl de::Visitor<'_> for Text {
            type Value = PlaintextKey;
            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a value in base64")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<PlaintextKey, E> {
                let value = BASE64.decode(text).map(Secret::new).ok();
                let text = value.as_ref().and_then(Secret::expose_str).map(SecretText::new);
                // Not `invalid_value`: that would repeat it.
                text.map(PlaintextKey).ok_or_else(|| E::custom("the value is not text in base64"))
            }
        }
        deserializer.deserialize_str(Text)
    }
}

/// The id of a pairing request: what may stand on a command line.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub(crate) struct PairingId(String);

impl PairingId {
    /// Takes 1 to 64 letters, digits, `-` and `_`, not beginning with `-`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        let valid =
            (1..=64).contains(&text.len()) && !text.starts_with('-') && text.bytes().all(allowed);
        valid.then(|| Self(text.to_owned()))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for PairingId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| de::Error::custom("no id of a pairing request"))
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("0b4c1f2e-6a0f-4d4e-9d7e-0a1b2c3d4e5f", true)]
    #[case("a_B-9", true)]
    #[case("--latest", false)]
    #[case("", false)]
    #[case("a b", false)]
    #[case("a\u{e9}", false)]
    #[case(&"a".repeat(65), false)]
    fn a_pairing_id_is_a_short_plain_word(#[case] text: &str, #[case] taken: bool) {
        assert_eq!(PairingId::parse(text).is_some(), taken);
    }
}
