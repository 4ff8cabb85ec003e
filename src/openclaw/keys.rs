//! How a key in the clear is recognised: by the field it stands in, and by what it looks like. What is
//! asked where is in `check`; the same tables make the admission policy, in `crate::admission_policy`.

pub mod names;
pub mod patterns;
pub mod search;
pub mod values;

pub use search::search;

use names::Field;

/// What a text turns out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finding {
    /// A key, or what has to be taken for one.
    Key,
    /// No key, but a place where one is expected: a variable, a placeholder, a reference.
    Reference,
}

/// Where a text stands.
#[derive(Debug, Clone, Copy, Default)]
pub struct Place {
    /// What its field says of it.
    pub field: Field,
    /// Whether it belongs to a model on the same machine or network, which takes any word for a key.
    pub local: bool,
}

/// What a text of the configuration is, at its place.
pub fn judge(place: Place, text: &str) -> Option<Finding> {
    let plain = values::plain(text);
    if patterns::has_key(&plain) {
        return Some(Finding::Key);
    }
    let value = plain.trim();
    if value.is_empty() || values::is_no_value(value) {
        return None;
    }
    let expected = match place.field {
        Field::Other => return None,
        Field::ApiKey if place.local && values::is_dummy(value) => return None,
        Field::ApiKey | Field::Secret | Field::Password => true,
        Field::Several => values::is_random(value, 8),
        Field::Credentials => !values::is_path(value),
        Field::Suspicious => values::has_scheme(value) || values::is_random(value, 20),
    };
    if values::is_placeholder(value) {
        return (place.field != Field::Suspicious || values::has_scheme(value))
            .then_some(Finding::Reference);
    }
    expected.then_some(Finding::Key)
}

#[cfg(test)]
pub(super) mod tests;
