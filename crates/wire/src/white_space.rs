//! White space around a value, which comes from editors and from `echo` and belongs to no key.

use crate::{CredentialType, Secret};

/// A byte order mark, which some editors put before a text.
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

impl CredentialType {
    /// The value as it should be, if all that is wrong with it is white space around it, such as the line
    /// end that `echo` writes. No type ends or begins so.
    pub fn trimmed(self, value: &Secret) -> Option<Secret> {
        let bytes = value.expose();
        let bytes = bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(bytes).trim_ascii();
        let differs = bytes.len() < value.len();
        (differs && self.check(bytes).is_ok()).then(|| Secret::new(bytes.to_vec()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    const KEY: &str = "sk-ant-api03-a-key-of-a-test-that-opens-nothing";

    #[rstest]
    #[case::unix(format!("{KEY}\n"), true)]
    #[case::windows(format!("{KEY}\r\n"), true)]
    #[case::around(format!("\u{feff}  {KEY}\t"), true)]
    #[case::right(KEY.to_owned(), false)]
    #[case::inside(format!("{} {KEY}", &KEY[..4]), false)]
    #[case::something_else("hunter2\n".to_owned(), false)]
    fn white_space_around_a_value_is_trimmed(#[case] value: String, #[case] expected: bool) {
        let trimmed = CredentialType::AnthropicApiKey.trimmed(&value.into());
        assert_eq!(trimmed.is_some(), expected);
        assert!(trimmed.is_none_or(|value| value.expose() == KEY.as_bytes()));
    }
}
