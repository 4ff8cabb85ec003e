//! Each string of each resource, found in the schemas themselves, and values that would do more than
//! name something.

use moorage::api::custom_resource_definitions;
use serde_json::{Value, json};

/// Strings that may hold any of the values, and why.
pub(crate) const FREE: &[(&str, &str, &str)] = &[(
    "OpenClawInstance",
    "spec.credentials[].sealed",
    "a sealed value: decoded, opened with a key and never part of anything else",
)];

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
#[derive(Clone)]
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
        *self.place(&mut object) = json!(value);
        object
    }

    /// Where it is in an object; what leads there is made.
    pub(crate) fn place<'a>(&self, object: &'a mut Value) -> &'a mut Value {
        self.path.split('.').fold(object, |place, name| {
            let (name, is_list) =
                name.strip_suffix("[]").map_or((name, false), |name| (name, true));
            let place = &mut place[name];
            if !is_list {
                return place;
            }
            if place.get(0).is_none() {
                *place = json!([null]);
            }
            &mut place[0]
        })
    }
}

/// The strings of all specs.
pub(crate) fn fields() -> Vec<Field> {
    fields_of("spec")
}

/// The strings of one part of all resources, `spec` or `status`.
pub(crate) fn fields_of(part: &str) -> Vec<Field> {
    let mut fields = Vec::new();
    for definition in custom_resource_definitions() {
        let schema = serde_json::to_value(&definition.spec.versions[0]).unwrap();
        let schema = &schema["schema"]["openAPIV3Schema"]["properties"][part];
        let mut paths = Vec::new();
        strings(part, schema, &mut paths);
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
