//! What OpenClaw has against a configuration, as `openclaw config validate --json` tells it: paths, and
//! messages without values. A message of the schema itself holds none; from any other, whatever stands in the
//! configuration is taken out.

use moorage_wire::report::{ConfigIssue, MOST_ISSUES};
use serde_json::Value;

/// How messages of the schema begin that name types, keys and what is allowed, and no value.
const OF_THE_SCHEMA: [&str; 3] =
    ["Invalid input: expected ", "Invalid option: expected one of ", "Unrecognized key"];
/// Shorter texts of the configuration are no secrets, and would take words out of every message.
const SHORTEST_VALUE: usize = 4;

/// The issues of an answer to `config`, which is the configuration's text.
pub(super) fn read(issues: &[Value], config: &[u8]) -> Vec<ConfigIssue> {
    let config: Value = serde_json::from_slice(config).unwrap_or_default();
    issues
        .iter()
        .take(MOST_ISSUES)
        .map(|issue| ConfigIssue {
            path: path_of(issue).as_str().into(),
            message: message_of(issue, &config).as_str().into(),
        })
        .collect()
}

/// The path of an issue, as text or as a list of keys; empty for the document as a whole.
fn path_of(issue: &Value) -> String {
    match issue.get("path") {
        Some(Value::String(text)) if text == "<root>" => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(keys)) => {
            let keys = keys.iter().map(|key| key.as_str().map_or(key.to_string(), str::to_owned));
            keys.collect::<Vec<_>>().join(".")
        }
        _ => String::new(),
    }
}

fn message_of(issue: &Value, config: &Value) -> String {
    let allowed = issue.get("allowedValues").and_then(Value::as_array);
    if let Some(allowed) = allowed.filter(|allowed| !allowed.is_empty()) {
        let allowed: Vec<_> = allowed.iter().map(ToString::to_string).collect();
        return format!("expected one of {}", allowed.join(", "));
    }
    let message = issue.get("message").and_then(Value::as_str).unwrap_or_default();
    if OF_THE_SCHEMA.iter().any(|start| message.starts_with(start)) {
        return message.to_owned();
    }
    let mut message = message.to_owned();
    remove_values(config, &mut message);
    message
}

fn remove_values(value: &Value, message: &mut String) {
    match value {
        Value::Object(map) => map.values().for_each(|inner| remove_values(inner, message)),
        Value::Array(items) => items.iter().for_each(|inner| remove_values(inner, message)),
        Value::String(text) => remove(text, message),
        Value::Number(number) => remove(&number.to_string(), message),
        Value::Null | Value::Bool(_) => {}
    }
}

fn remove(value: &str, message: &mut String) {
    if value.len() >= SHORTEST_VALUE && message.contains(value) {
        *message = message.replace(value, "\u{2026}");
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    fn only(issue: Value, config: &Value) -> (String, String) {
        let read = read(&[issue], config.to_string().as_bytes());
        (read[0].path.to_string(), read[0].message.to_string())
    }

    #[rstest]
    #[case(json!({"path": "agents.defaults", "message": "x"}), "agents.defaults")]
    #[case(json!({"path": ["channels", "telegram", 0]}), "channels.telegram.0")]
    #[case(json!({"path": ""}), "")]
    #[case(json!({"path": "<root>"}), "")]
    #[case(json!({"message": "x"}), "")]
    #[case(json!({"path": "a\u{1b}[31m\nb"}), "a [31m b")]
    fn the_path_of_an_issue_is_read_and_cleaned(#[case] issue: Value, #[case] path: &str) {
        assert_eq!(only(issue, &json!({})).0, path);
    }

    #[rstest]
    #[case::of_the_schema(
        json!({"message": "Unrecognized key: \"routing\""}),
        "Unrecognized key: \"routing\""
    )]
    #[case::a_choice(
        json!({"message": "Invalid input (allowed: …)", "allowedValues": ["off", "all"]}),
        "expected one of \"off\", \"all\""
    )]
    #[case::with_a_text(
        json!({"message": "unknown model geheim-modell, try another"}),
        "unknown model …, try another"
    )]
    #[case::with_a_number(json!({"message": "no such chat 100000001"}), "no such chat …")]
    #[case::nothing(json!({}), "")]
    fn a_message_repeats_no_value(#[case] issue: Value, #[case] message: &str) {
        let config = json!({
            "routing": "Unrecognized", "model": {"primary": "geheim-modell"}, "allowFrom": [100_000_001],
        });
        assert_eq!(only(issue, &config).1, message);
    }

    #[test]
    fn only_so_many_issues_are_told() {
        let many = vec![json!({"path": "a", "message": "b"}); 500];
        assert_eq!(read(&many, b"{}").len(), MOST_ISSUES);
    }
}
