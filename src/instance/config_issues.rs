//! What OpenClaw has against a configuration, all of it in one message, with a word where the way that the
//! value was written explains it.

use moorage_wire::report::ConfigIssue;
use serde_json::{Map, Value};

/// How many are told at once: a condition's message is limited.
const TOLD: usize = 12;

const A_BOOLEAN: &str =
    "it is true or false here: in YAML off, on, yes and no mean that, unless they are quoted";
const A_NUMBER: &str = "it is a number here: quote it";

/// All issues, as far as there is room; `None` if there are none.
pub(super) fn told(config: &Map<String, Value>, issues: &[ConfigIssue]) -> Option<String> {
    if issues.is_empty() {
        return None;
    }
    let mut told: Vec<_> = issues.iter().take(TOLD).map(|issue| one(config, issue)).collect();
    if let more @ 1.. = issues.len().saturating_sub(TOLD) {
        told.push(format!("and {more} more"));
    }
    Some(told.join("; "))
}

fn one(config: &Map<String, Value>, issue: &ConfigIssue) -> String {
    let mut told = "spec.config".to_owned();
    if !issue.path.is_empty() {
        told.push('.');
        told.push_str(&issue.path);
    }
    if !issue.message.is_empty() {
        told.push_str(": ");
        told.push_str(&issue.message);
    }
    if let Some(hint) = hint(config, issue) {
        told.push_str(" (");
        told.push_str(hint);
        told.push(')');
    }
    told
}

/// Why a value is not what its author meant.
fn hint(config: &Map<String, Value>, issue: &ConfigIssue) -> Option<&'static str> {
    let wants_text = ["expected string", "expected one of"];
    if !wants_text.iter().any(|words| issue.message.contains(words)) {
        return None;
    }
    match find(config, &issue.path)? {
        Value::Bool(_) => Some(A_BOOLEAN),
        Value::Number(_) => Some(A_NUMBER),
        Value::Null | Value::String(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

/// What stands at a path. A key may have dots in it.
fn find<'a>(map: &'a Map<String, Value>, path: &str) -> Option<&'a Value> {
    map.iter().find_map(|(key, value)| below(value, path.strip_prefix(key.as_str())?))
}

fn below<'a>(value: &'a Value, rest: &str) -> Option<&'a Value> {
    if rest.is_empty() {
        return Some(value);
    }
    let rest = rest.strip_prefix('.')?;
    match value {
        Value::Object(map) => find(map, rest),
        Value::Array(items) => {
            let (index, after) = rest.split_at(rest.find('.').unwrap_or(rest.len()));
            below(items.get(index.parse::<usize>().ok()?)?, after)
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    fn issue(path: &str, message: &str) -> ConfigIssue {
        ConfigIssue { path: path.into(), message: message.into() }
    }

    #[rstest]
    #[case::off("sandbox.mode", "expected one of \"off\", \"all\"", Some(A_BOOLEAN))]
    #[case::an_id("allowFrom.0", "Invalid input: expected string, received number", Some(A_NUMBER))]
    #[case::a_key_with_dots(
        "models.a/b-1.5",
        "Invalid input: expected string, received boolean",
        Some(A_BOOLEAN)
    )]
    #[case::a_text("name", "expected one of \"a\", \"b\"", None)]
    #[case::another_type("sandbox.mode", "Invalid input: expected object, received boolean", None)]
    #[case::nothing_there(
        "allowFrom.7",
        "Invalid input: expected string, received undefined",
        None
    )]
    fn yaml_words_are_explained(
        #[case] path: &str,
        #[case] message: &str,
        #[case] hint: Option<&str>,
    ) {
        let config = json!({
            "sandbox": {"mode": false}, "allowFrom": [100_000_001], "name": "c", "models": {"a/b-1.5": true},
        });
        let told = told(config.as_object().unwrap(), &[issue(path, message)]).unwrap();
        let explained = hint.map(|hint| format!(" ({hint})")).unwrap_or_default();
        assert_eq!(told, format!("spec.config.{path}: {message}{explained}"));
    }

    #[test]
    fn all_are_told_as_far_as_there_is_room() {
        let issues: Vec<_> = (0..15).map(|number| issue(&number.to_string(), "no")).collect();
        let told = told(&Map::new(), &issues).unwrap();
        assert!(
            told.starts_with("spec.config.0: no; ") && told.ends_with("; and 3 more"),
            "{told}"
        );
    }

    #[test]
    fn the_document_as_a_whole_has_no_path() {
        let told = told(&Map::new(), &[issue("", "Unrecognized key: \"routing\"")]).unwrap();
        assert_eq!(told, "spec.config: Unrecognized key: \"routing\"");
    }
}
