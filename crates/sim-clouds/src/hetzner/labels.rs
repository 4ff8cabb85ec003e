//! Labels and label selectors. Source: the chapters "Labels" and "Label Selector" of the API
//! reference.

use std::collections::BTreeMap;

use super::ApiError;

/// The labels of a resource.
pub(crate) type Labels = BTreeMap<String, String>;

/// Refuses labels that Hetzner refuses.
pub(crate) fn check(labels: &Labels) -> Result<(), ApiError> {
    for (key, value) in labels {
        if !is_key(key) {
            return Err(ApiError::invalid("labels", format!("the key '{key}' is not valid")));
        }
        if !(value.is_empty() || is_name(value)) {
            return Err(ApiError::invalid(
                "labels",
                format!("the value '{value}' of '{key}' is not valid"),
            ));
        }
    }
    Ok(())
}

fn is_key(key: &str) -> bool {
    match key.split_once('/') {
        Some((prefix, name)) => is_dns_prefix(prefix) && prefix != "hetzner.cloud" && is_name(name),
        None => is_name(key),
    }
}

fn is_dns_prefix(prefix: &str) -> bool {
    prefix.len() <= 253 && prefix.split('.').all(super::validate::is_dns_label)
}

/// 1 to 63 characters, letters and digits at both ends, with `-`, `_` and `.` between.
fn is_name(name: &str) -> bool {
    let ends = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = name.as_bytes();
    bytes.len() <= 63
        && ends(bytes.first())
        && ends(bytes.last())
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(byte))
}

/// A parsed label selector: all of its requirements must hold.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Selector(Vec<Requirement>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Requirement {
    Exists(String),
    Absent(String),
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
}

impl Selector {
    pub(crate) fn parse(text: &str) -> Result<Self, ApiError> {
        let invalid =
            || ApiError::invalid("label_selector", format!("'{text}' is no valid label selector"));
        split_outside_parentheses(text)
            .map(|part| Requirement::parse(part.trim()).ok_or_else(invalid))
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// Whether a resource with these labels is selected.
    pub(crate) fn selects(&self, labels: &Labels) -> bool {
        self.0.iter().all(|requirement| match requirement {
            Requirement::Exists(key) => labels.contains_key(key),
            Requirement::Absent(key) => !labels.contains_key(key),
            Requirement::In(key, values) => {
                labels.get(key).is_some_and(|value| values.contains(value))
            }
            Requirement::NotIn(key, values) => {
                !labels.get(key).is_some_and(|value| values.contains(value))
            }
        })
    }
}

impl Requirement {
    fn parse(text: &str) -> Option<Self> {
        let key = |text: &str| Some(text.trim().to_owned()).filter(|key| is_key(key));
        let one = |text: &str| {
            Some(text.trim())
                .filter(|value| value.is_empty() || is_name(value))
                .map(|value| vec![value.to_owned()])
        };
        if let Some(rest) = text.strip_suffix(')') {
            let (head, values) = rest.split_once('(')?;
            let values: Vec<String> =
                values.split(',').map(one).collect::<Option<Vec<_>>>()?.concat();
            let head = head.trim_end();
            return if let Some(name) = head.strip_suffix(" notin") {
                Some(Self::NotIn(key(name)?, values))
            } else {
                Some(Self::In(key(head.strip_suffix(" in")?)?, values))
            };
        }
        if let Some((name, value)) = text.split_once("!=") {
            return Some(Self::NotIn(key(name)?, one(value)?));
        }
        if let Some((name, value)) = text.split_once("==").or_else(|| text.split_once('=')) {
            return Some(Self::In(key(name)?, one(value)?));
        }
        match text.strip_prefix('!') {
            Some(name) => Some(Self::Absent(key(name)?)),
            None => Some(Self::Exists(key(text)?)),
        }
    }
}

fn split_outside_parentheses(text: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0_u32;
    text.split(move |character| {
        match character {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        character == ',' && depth == 0
    })
}

#[cfg(test)]
mod tests {
    use super::{Labels, Selector, check};

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[rstest::rstest]
    #[case("env=prod", true)]
    #[case("env==prod", true)]
    #[case("env=test", false)]
    #[case("env!=test", true)]
    #[case("env!=prod", false)]
    #[case("env", true)]
    #[case("!env", false)]
    #[case("!other", true)]
    #[case("env in (test,prod)", true)]
    #[case("env in (test, stage)", false)]
    #[case("env notin (test,stage)", true)]
    #[case("env notin (prod)", false)]
    #[case("env=prod,moorage.dev/pool in (a,b),!gone", true)]
    #[case("env=prod,moorage.dev/pool=b", false)]
    fn a_selector_selects(#[case] selector: &str, #[case] expected: bool) {
        let labels = labels(&[("env", "prod"), ("moorage.dev/pool", "a")]);
        assert_eq!(Selector::parse(selector).expect("valid").selects(&labels), expected);
    }

    #[rstest::rstest]
    #[case("")]
    #[case("a b")]
    #[case("a in b")]
    #[case("a in (b")]
    #[case("-a=b")]
    #[case("a=b,,c=d")]
    fn a_broken_selector_is_refused(#[case] selector: &str) {
        assert!(Selector::parse(selector).is_err());
    }

    #[rstest::rstest]
    #[case("a", "", true)]
    #[case("moorage.dev/instance-id", "Ab.c_d-9", true)]
    #[case("a", "-b", false)]
    #[case("a", "b c", false)]
    #[case("", "b", false)]
    #[case("a/b/c", "d", false)]
    #[case("hetzner.cloud/x", "d", false)]
    #[case("a", "0123456789012345678901234567890123456789012345678901234567890123", false)]
    fn label_rules(#[case] key: &str, #[case] value: &str, #[case] valid: bool) {
        assert_eq!(check(&labels(&[(key, value)])).is_ok(), valid);
    }
}
