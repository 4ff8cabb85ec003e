//! What is commonly wrong with a value that was sealed: copied with what does not belong to it.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use moorage_wire::{CredentialType, Secret};
use zeroize::Zeroizing;

/// What was done to a value on its way; nothing of the value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hint {
    /// It is a right one in base64.
    Base64,
    /// It is a right one in quotation marks.
    Quotes,
    /// A name and an equals sign stand before a right one.
    Assignment,
}

impl fmt::Display for Hint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Base64 => "it is encoded in base64 once too often",
            Self::Quotes => "it stands in quotation marks",
            Self::Assignment => "a name and an equals sign stand before it",
        })
    }
}

/// What is wrong with a value that is not of its type, if it is one of the common things.
pub fn hint(kind: CredentialType, value: &Secret) -> Option<Hint> {
    let bytes = value.expose().trim_ascii();
    let is_right = |bytes: &[u8]| kind.check(bytes.trim_ascii()).is_ok();
    let decoded = STANDARD.decode(bytes).ok().map(Zeroizing::new);
    if decoded.is_some_and(|decoded| is_right(&decoded)) {
        return Some(Hint::Base64);
    }
    let quoted = [b'"', b'\'', b'`']
        .iter()
        .find_map(|mark| bytes.strip_prefix(&[*mark])?.strip_suffix(&[*mark]));
    if quoted.is_some_and(is_right) {
        return Some(Hint::Quotes);
    }
    let equals = bytes.iter().position(|byte| *byte == b'=')?;
    let name = bytes[..equals].iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'_');
    (name && is_right(&bytes[equals + 1..])).then_some(Hint::Assignment)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credentials::test_keys::ANTHROPIC;
    use rstest::rstest;

    const KIND: CredentialType = CredentialType::AnthropicApiKey;

    #[rstest]
    #[case::base64(STANDARD.encode(ANTHROPIC), Some(Hint::Base64))]
    #[case::base64_of_a_line(STANDARD.encode(format!("{ANTHROPIC}\n")) + "\n", Some(Hint::Base64))]
    #[case::quotes(format!("\"{ANTHROPIC}\"\n"), Some(Hint::Quotes))]
    #[case::assignment(format!("ANTHROPIC_API_KEY={ANTHROPIC}"), Some(Hint::Assignment))]
    #[case::nothing_common("hunter2=hunter2".to_owned(), None)]
    #[case::empty(String::new(), None)]
    fn what_is_commonly_wrong_is_recognised(#[case] value: String, #[case] expected: Option<Hint>) {
        assert_eq!(hint(KIND, &value.into()), expected);
    }
}
