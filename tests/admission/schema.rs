//! Each string of each resource, found in the schemas themselves, with values that would do more than
//! name something: no schema takes one, and neither does the operator where an older schema did.

use std::collections::BTreeMap;

use moorage::{
    api::{
        Guarded, HostingPool, OpenClawInstance, OpenClawRelease, custom_resource_definitions,
        guarded::Stored,
    },
    credentials::secret_source::{CredentialEntry, parse_entries},
};
use serde_json::{Value, json};

/// Strings that may hold any of the values, and why.
const FREE: &[(&str, &str, &str)] = &[(
    "OpenClawInstance",
    "spec.credentials[].sealed",
    "a sealed value: decoded, opened with a key and never part of anything else",
)];

/// Strings that the operator reads with the rest of the object, and parses later, so that one entry
/// does not cost the others.
const PARSED_LATER: &[&str] = &["spec.credentials[].name", "spec.credentials[].type"];

pub(crate) fn hostile_values() -> Vec<String> {
    let mut values: Vec<String> = [
        "",
        " ",
        "?limit=500",
        "?watch=true&timeoutSeconds=3600",
        "x?watch=true",
        "../../../moorage-system/secrets/moorage-master-key",
        "..",
        ".",
        "a/../b",
        "a//b",
        "/etc/passwd",
        "%2e%2e",
        "%2e%2e%2fx",
        "a%00",
        "#",
        "a#b",
        "a\nb",
        "a\r\nX-Header: b",
        "a\0b",
        "a\u{1b}[2Jb",
        "a\u{7f}",
        "a b",
        "a\tb",
        "-rf",
        "--all",
        "$(reboot)",
        "`reboot`",
        "${HOME}",
        "a;b",
        "a|b",
        "a&&b",
        "a'b",
        "a\"b",
        "a\\b",
        "{\"a\":1}",
        "<script>",
        "a\u{202e}b",
        "\u{430}da",
        "a\u{2028}b",
    ]
    .map(str::to_owned)
    .into();
    values.push("a".repeat(1 << 20));
    values
}

/// A field that holds a string.
pub(crate) struct Field {
    pub(crate) kind: String,
    /// Such as `spec.credentials[].secretRef.name`.
    pub(crate) path: String,
}

impl Field {
    pub(crate) fn is_free(&self) -> bool {
        FREE.iter().any(|(kind, path, _)| (*kind, *path) == (&self.kind, &self.path))
    }

    /// The full object of its kind with another value here.
    pub(crate) fn with(&self, value: &str) -> Value {
        let mut object = full(&self.kind);
        let place = self.path.split('.').fold(&mut object, |place, name| {
            let (name, is_list) =
                name.strip_suffix("[]").map_or((name, false), |name| (name, true));
            let place = &mut place[name];
            if is_list { &mut place[0] } else { place }
        });
        assert!(place.is_string(), "the full {} has no {}", self.kind, self.path);
        *place = json!(value);
        object
    }
}

/// The strings of all specs. What stands in a status is the operator's own: nobody else may write it.
pub(crate) fn fields() -> Vec<Field> {
    let mut fields = Vec::new();
    for definition in custom_resource_definitions() {
        let schema = serde_json::to_value(&definition.spec.versions[0]).unwrap();
        let spec = &schema["schema"]["openAPIV3Schema"]["properties"]["spec"];
        let mut paths = Vec::new();
        strings("spec", spec, &mut paths);
        let kind = &definition.spec.names.kind;
        fields.extend(paths.into_iter().map(|path| Field { kind: kind.clone(), path }));
    }
    fields
}

fn strings(path: &str, schema: &Value, found: &mut Vec<String>) {
    if schema["type"] == "string" {
        found.push(path.to_owned());
    }
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        strings(&format!("{path}.{name}"), property, found);
    }
    if schema["items"].is_object() {
        strings(&format!("{path}[]"), &schema["items"], found);
    }
    let any = &schema["additionalProperties"];
    assert!(!any.is_object(), "{path}: keys of maps are strings too, and nobody tries them yet");
}

/// An object with every field that there is.
pub(crate) fn full(kind: &str) -> Value {
    let artifact = json!({
        "version": "1.2.3", "url": "https://example.com/a", "sha256": "1".repeat(64), "size": 1,
        "architecture": "x86",
    });
    let token = json!({"name": "clouds", "key": "token"});
    let spec = match kind {
        "OpenClawInstance" => json!({
            "pool": "eu-1", "hostname": "ada", "release": "2026.9.6-1",
            "server": {"serverTypes": ["cx33"], "locations": ["fsn1"]},
            "integrations": [{"name": "weather"}],
            "credentials": [
                {"name": "a", "type": "AnthropicApiKey", "sealedTo": "Operator", "sealed": "AAAA",
                 "secretRef": {"name": "ada-keys", "key": "a"}},
            ],
            "access": {"dashboardSecretName": "ada-dashboard", "approvedPairings": ["x"]},
            "deletionPolicy": "Delete",
        }),
        "HostingPool" => json!({
            "hetzner": {
                "tokenSecretRef": token, "serverTypes": ["cx33"], "locations": ["fsn1"],
                "image": "debian-13", "budgetGroup": "g",
                "ssh": {"user": "ops", "keys": ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5"], "allowFrom": ["::/0"]},
            },
            "cloudflare": {
                "tokenSecretRef": token, "accountId": "1".repeat(32), "zoneId": "2".repeat(32),
                "domain": "example.com", "budgetGroup": "g",
            },
            "capacity": 1, "allowedNamespaces": ["tenants"], "reservedHostnames": ["www"],
            "defaultRelease": "2026.9.6-1",
            "allowedReleases": ["2026.9.6-1"],
        }),
        "OpenClawRelease" => json!({
            "version": "1.2.3",
            "artifacts": {"openclaw": artifact, "node": artifact, "cloudflared": artifact, "agent": artifact},
            "integrations": [{
                "name": "weather", "kind": "Plugin", "version": "1.0.0",
                "integrity": format!("sha512-{}==", "A".repeat(86)),
                "artifact": {"url": "https://example.com/b", "sha256": "2".repeat(64), "size": 1},
            }],
        }),
        other => panic!("there is no full {other}"),
    };
    let mut metadata = json!({"name": "full"});
    if kind == "OpenClawInstance" {
        metadata["namespace"] = json!("tenants");
    }
    json!({"apiVersion": "moorage.dev/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec})
}

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
fn no_name_of_an_object_that_an_older_schema_let_in_holds_more_than_a_name() {
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
