//! No schema takes a hostile value, and neither does the operator where an older schema did.

use std::collections::BTreeMap;

use moorage::{
    api::{Guarded, HostingPool, OpenClawInstance, OpenClawRelease, guarded::Stored},
    credentials::secret_source::{CredentialEntry, parse_entries},
};
use serde_json::Value;

use crate::schema::{FREE, fields, full, hostile_values};

/// Strings that the operator reads with the rest of the object, and parses later, so that one entry
/// does not cost the others.
const PARSED_LATER: &[&str] = &["spec.credentials[].name", "spec.credentials[].type"];

/// What the operator makes of an object that a schema without rules let in: why it is not worked on,
/// or `None` if it is.
fn refusal(kind: &str, object: &Value, path: &str) -> Option<String> {
    fn unreadable<K: Stored>(object: &Value) -> Result<K, String> {
        Guarded::<K>::read(&object.to_string()).0.map_err(|unreadable| unreadable.error)
    }
    match kind {
        "HostingPool" => unreadable::<HostingPool>(object).err(),
        "OpenClawRelease" => unreadable::<OpenClawRelease>(object).err(),
        _ => match unreadable::<OpenClawInstance>(object) {
            Err(error) => Some(error),
            Ok(instance) if PARSED_LATER.contains(&path) => {
                let entries = instance.spec.credentials.iter().map(|one| CredentialEntry {
                    name: &one.name,
                    r#type: &one.r#type,
                    sealed: Some("AAAA"),
                    ..CredentialEntry::default()
                });
                let (_, refusals) = parse_entries(&entries.collect::<Vec<_>>());
                refusals.first().map(|refusal| format!("{path}: {}", refusal.reason()))
            }
            Ok(_) => None,
        },
    }
}

#[test]
fn no_name_from_an_older_schema_holds_more_than_a_name() {
    let (fields, values) = (fields(), hostile_values());
    let mut counts = BTreeMap::<_, usize>::new();
    for field in fields.iter().filter(|field| !field.is_free()) {
        let right = field.with("x");
        assert!(right["spec"].is_object());
        for value in &values {
            let object = field.with(value);
            let told = refusal(&field.kind, &object, &field.path);
            let told = told.unwrap_or_else(|| panic!("{} takes {value:?}", field.path));
            // The path without the numbers of list items; never the value.
            let head = field.path.split("[]").next().unwrap();
            assert!(told.starts_with(head), "{}: {told}", field.path);
            let quoted = value.trim().len() > 3 && told.contains(value.trim());
            assert!(!quoted && told.len() < 600, "{}: {told}", field.path);
            *counts.entry(&field.kind).or_default() += 1;
        }
    }
    for kind in counts.keys() {
        assert_eq!(refusal(kind, &full(kind), ""), None, "the full {kind} is read");
    }
    println!("{} fields, {} values; cases: {counts:?}; free: {FREE:?}", fields.len(), values.len());
    assert!(fields.len() > 40 && counts.len() == 3, "the walk finds too little");
}
