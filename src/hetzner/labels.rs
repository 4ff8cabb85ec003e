//! Labels and selectors, by which the operator knows its objects again.

use std::collections::BTreeMap;
use std::fmt;

/// Labels of an object. Keys: an optional DNS prefix and a name of up to 63 characters; values:
/// up to 63 characters.
pub type Labels = BTreeMap<String, String>;

/// A selector that wants all of its labels to match.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelSelector(String);

impl LabelSelector {
    /// Wants each key to have its value.
    pub fn all_of<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let terms: Vec<String> =
            pairs.into_iter().map(|(key, value)| format!("{key}={value}")).collect();
        Self(terms.join(","))
    }

    /// Wants in addition that a key has one of these values.
    #[must_use]
    pub fn and_one_of<'a>(self, key: &str, values: impl IntoIterator<Item = &'a str>) -> Self {
        let values: Vec<&str> = values.into_iter().collect();
        Self(format!("{},{key} in ({})", self.0, values.join(",")))
    }

    /// In Hetzner's syntax.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
