//! Values that authenticate: kept out of logs by their types, wiped when dropped.
//!
//! Redaction of text that comes from outside lives in [`super::redact`].

use std::fmt;

use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// Text that must not be printed, cloned or serialized by accident, wiped when dropped.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct SecretText(String);

impl SecretText {
    /// Takes ownership, so that no other copy stays behind.
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The text itself. The name is long so that a reviewer finds every use.
    pub fn expose_secret(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretText(redacted)")
    }
}

impl<'de> serde::Deserialize<'de> for SecretText {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self)
    }
}

/// A cloud's API token: sent as `Authorization: Bearer …` and nowhere else.
pub struct ApiToken(SecretText);

/// Why a token was refused. Never holds the token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidToken {
    /// Nothing is left after trimming white space.
    #[error("the API token is empty")]
    Empty,
    /// A byte that cannot stand in a bearer token: a line break in the middle, for example.
    #[error(
        "the API token holds a character that is not visible ASCII; store the bare token, without quotes, line breaks or a key name"
    )]
    NotVisibleAscii,
    /// The bytes are no text.
    #[error("the API token is not UTF-8 text")]
    NotText,
}

impl ApiToken {
    /// Parses the bytes of a Secret's key; white space around the token (an editor's last line
    /// break) is dropped.
    pub fn parse(bytes: Vec<u8>) -> Result<Self, InvalidToken> {
        let bytes = Zeroizing::new(bytes);
        let text = std::str::from_utf8(&bytes).map_err(|_| InvalidToken::NotText)?.trim();
        if text.is_empty() {
            return Err(InvalidToken::Empty);
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(InvalidToken::NotVisibleAscii);
        }
        Ok(Self(SecretText::new(text.to_owned())))
    }

    pub(crate) fn expose_secret(&self) -> &str {
        self.0.expose_secret()
    }
}

impl fmt::Debug for ApiToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiToken(redacted)")
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[test]
    fn neither_type_prints_what_it_holds() {
        let token = ApiToken::parse(b"abcdef".to_vec()).unwrap();
        assert_eq!(format!("{token:?}"), "ApiToken(redacted)");
        assert_eq!(format!("{:?}", SecretText::new("abcdef".into())), "SecretText(redacted)");
    }

    #[test]
    fn white_space_around_a_token_is_dropped() {
        let token = ApiToken::parse(b" abcdef\n".to_vec()).unwrap();
        assert_eq!(token.expose_secret(), "abcdef");
    }

    #[rstest]
    #[case(b"", InvalidToken::Empty)]
    #[case(b" \n", InvalidToken::Empty)]
    #[case(b"abc\ndef", InvalidToken::NotVisibleAscii)]
    #[case(b"abc\xff", InvalidToken::NotText)]
    fn what_cannot_be_a_token_is_refused(#[case] bytes: &[u8], #[case] expected: InvalidToken) {
        assert_eq!(ApiToken::parse(bytes.to_vec()).unwrap_err(), expected);
    }
}
