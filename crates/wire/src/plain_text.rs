//! Text of bounded length that is safe to show: what comes from a server is read as this, so that nobody
//! there writes more than a line into a status, a log or a terminal.

use std::{fmt, ops::Deref};

use serde::{Deserialize, Serialize};

/// Longest [`PlainText`] in bytes, where its type does not say otherwise.
pub const LONGEST_TEXT: usize = 512;

/// One line of text, at most `MAX` bytes long: control and formatting characters become spaces, and the
/// rest is cut. Both when it is made and when it is read.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String")]
pub struct PlainText<const MAX: usize = LONGEST_TEXT>(String);

/// A version, as a server names it.
pub type VersionText = PlainText<64>;

impl<const MAX: usize> PlainText<MAX> {
    /// As much of `text` as it may hold.
    pub fn new(text: &str) -> Self {
        let mut plain = String::with_capacity(text.len().min(MAX));
        let mut is_cut = false;
        for letter in text.chars().map(printable_letter) {
            if plain.len() + letter.len_utf8() > MAX {
                is_cut = true;
                break;
            }
            plain.push(letter);
        }
        if is_cut {
            while plain.len() + ELLIPSIS.len_utf8() > MAX {
                plain.pop();
            }
            plain.push(ELLIPSIS);
        }
        plain.shrink_to_fit();
        Self(plain)
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// All of `text` on one line, with control and formatting characters as spaces.
pub fn printable(text: &str) -> String {
    if text.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        return text.to_owned();
    }
    text.chars().map(printable_letter).collect()
}

const ELLIPSIS: char = '\u{2026}';

fn printable_letter(letter: char) -> char {
    if is_printable(letter) { letter } else { ' ' }
}

/// Not what moves the cursor, reverses the direction of text or cannot be seen.
fn is_printable(letter: char) -> bool {
    let is_format = matches!(
        letter,
        '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}'
    );
    !letter.is_control() && !is_format
}

impl<const MAX: usize> From<String> for PlainText<MAX> {
    fn from(text: String) -> Self {
        Self::new(&text)
    }
}

impl<const MAX: usize> From<&str> for PlainText<MAX> {
    fn from(text: &str) -> Self {
        Self::new(text)
    }
}

impl<const MAX: usize> Deref for PlainText<MAX> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl<const MAX: usize> PartialEq<&str> for PlainText<MAX> {
    fn eq(&self, other: &&str) -> bool {
        self.0 == *other
    }
}

impl<const MAX: usize> fmt::Display for PlainText<MAX> {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str(&self.0)
    }
}

impl<const MAX: usize> fmt::Debug for PlainText<MAX> {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, to)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn plain_text_is_one_bounded_line(text in "\\PC{0,300}|[\\s\\S]{0,300}") {
            let long = text.repeat(3);
            let plain: PlainText = serde_json::from_value(long.clone().into()).unwrap();
            prop_assert!(plain.len() <= LONGEST_TEXT);
            prop_assert!(plain.chars().all(is_printable));
            prop_assert_eq!(PlainText::new(&plain), plain.clone());
            if long.len() <= LONGEST_TEXT && long.chars().all(is_printable) {
                prop_assert_eq!(plain.as_str(), long.as_str());
            }
            prop_assert!(printable(&text).chars().all(is_printable));
            prop_assert_eq!(printable(&text).chars().count(), text.chars().count());
        }
    }

    #[test]
    fn a_long_version_is_cut_to_its_own_bound() {
        let version = VersionText::new(&"9".repeat(1_000_000));
        assert_eq!(version.len(), 64);
        assert!(version.ends_with(ELLIPSIS));
    }
}
