//! What is a key, what refers to one, and what is neither: by the table in `tests/literal-keys.jsonl`,
//! which the admission policy is tried with as well.

use std::{fs, path::Path};

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::{
    names::{Field, field},
    patterns, values,
};
use crate::{
    api::conditions::Reason,
    openclaw::{Named, check, told},
};

const TABLE: &str = include_str!("../../../tests/literal-keys.jsonl");

/// Where OpenClaw takes a `SecretRef` and nothing else but a key: from the reference of 2026.9.6,
/// without the fields that take harmless values as well (headers, variables, public certificates).
pub(in crate::openclaw) const SURFACES: &str = include_str!("surfaces.txt");

fn rows(table: &str) -> Vec<Value> {
    let rows = table.lines().filter(|line| !line.trim().is_empty());
    rows.map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// What becomes of a configuration, in the words of the table; and what is told.
fn outcome(config: &Map<String, Value>) -> (&'static str, String) {
    let Err(refusals) = check(config, Named::NONE) else { return ("accepted", String::new()) };
    let outcome = match refusals[0].reason() {
        Reason::LiteralSecret => "refused",
        Reason::KeyReference => "reference",
        other => other.as_str(),
    };
    (outcome, told(&refusals))
}

fn texts(value: &Value) -> Vec<&str> {
    match value {
        Value::String(text) => vec![text],
        Value::Array(items) => items.iter().flat_map(texts).collect(),
        Value::Object(map) => map.values().flat_map(texts).collect(),
        _ => Vec::new(),
    }
}

/// What is wrong with the outcomes of a table.
fn wrong(rows: &[Value]) -> Vec<String> {
    let mut wrong = Vec::new();
    for row in rows {
        let (outcome, told) = outcome(row["config"].as_object().unwrap());
        if outcome != row["right"] {
            wrong.push(format!("{}: {outcome} instead of {}: {told}", row["name"], row["right"]));
        }
        // No part of a value that is longer than the words of a path.
        for text in texts(&row["config"]).into_iter().filter(|text| text.len() > 16) {
            if told.contains(text) {
                wrong.push(format!("{}: the value is told", row["name"]));
            }
        }
        let says_how = ["{credentialRef: NAME}", "no credential can be given"];
        if outcome == "reference" && !says_how.iter().any(|how| told.contains(how)) {
            wrong.push(format!("{}: does not say how to give the key: {told}", row["name"]));
        }
        if outcome == "reference" && told.contains("revoke") {
            wrong.push(format!("{}: asks to revoke what is no key: {told}", row["name"]));
        }
    }
    wrong
}

#[test]
fn every_row_of_the_table_comes_out_as_it_says() {
    let rows = rows(TABLE);
    for (right, least) in [("refused", 60), ("reference", 10), ("accepted", 35)] {
        assert!(rows.iter().filter(|row| row["right"] == right).count() >= least, "{right}");
    }
    let wrong = wrong(&rows);
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// The failing inputs that lie beside a checkout, where they do.
#[test]
fn the_cases_beside_the_checkout_come_out_as_they_say() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let beside =
        ["..", "../.."].map(|up| root.join(up).join("shared/cases/config/literal-keys.jsonl"));
    let tables = beside.iter().filter_map(|path| fs::read_to_string(path).ok());
    let wrong: Vec<_> = tables.flat_map(|table| wrong(&rows(&table))).collect();
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn a_literal_is_refused_where_a_reference_is_taken() {
    assert!(SURFACES.lines().count() > 80);
    for surface in SURFACES.lines() {
        let nested = surface.rsplit('.').fold(json!("x"), |inner, key| {
            let key = if key == "*" { "one" } else { key };
            json!({ (key): inner })
        });
        let (outcome, told) = outcome(nested.as_object().unwrap());
        assert_eq!(outcome, "refused", "{surface}");
        assert!(told.contains(&surface.replace('*', "one")), "{told}");
    }
}

#[test]
fn all_patterns_are_expressions() {
    for (name, pattern) in patterns::SHARED {
        assert!(!values::compiled(pattern).is_match(""), "{name}");
    }
    for pattern in [patterns::LONG_RUN, values::DUMMY, values::PLACEHOLDER, values::NO_VALUE] {
        assert!(!values::compiled(pattern).is_match(""), "{pattern}");
    }
}

#[test]
fn a_name_says_what_it_does_in_any_spelling() {
    for name in
        ["botToken", "bot_token", "BOT-TOKEN", "bottoken", "SLACK_TOKEN", "AWS_SESSION_TOKEN"]
    {
        assert_eq!(field(name), Field::Secret, "{name}");
    }
    for name in ["next_token", "nextPageToken", "NEXT-TOKEN", "nexttoken", "maxTokens", "tokenizer"]
    {
        assert_eq!(field(name), Field::Other, "{name}");
    }
}

#[test]
fn many_refusals_and_long_paths_make_no_endless_message() {
    let long = "k".repeat(60);
    let deep =
        (0..40).fold(json!({"password": "geheim"}), |inner, _| json!({ (long.as_str()): inner }));
    let many: Map<_, _> =
        (0..500).map(|number| (format!("password-{number}-token"), json!("geheim"))).collect();
    let config =
        Map::from_iter([("deep".to_owned(), deep), ("many".to_owned(), Value::Object(many))]);
    let (_, told) = outcome(&config);
    assert!(told.len() < 8192 && told.ends_with("and 491 more"), "{told}");
}

proptest! {
    #[test]
    fn words_of_people_are_no_keys(words in prop::collection::vec("[A-Za-z]{1,14}", 0..30)) {
        let (outcome, told) = outcome(&Map::from_iter([("prompt".to_owned(), json!(words.join(" ")))]));
        prop_assert_eq!(outcome, "accepted", "{}", told);
    }

    #[test]
    fn a_known_key_is_found_between_whatever_does_not_belong_to_it(
        before in "[^A-Za-z0-9]{0,8}", after in "[^A-Za-z0-9_-]{0,8}",
    ) {
        let text = format!("{before}sk-ant-api03-AbCdEfGhIjKlMnOpQrStUvWxYz{after}");
        let (outcome, _) = outcome(&Map::from_iter([("prompt".to_owned(), json!(text))]));
        prop_assert_eq!(outcome, "refused");
    }
}
