//! A subset of OpenClaw's configuration schema: its top-level keys, and the types of the fields that
//! an operator sets. Known sections are strict where the real ones are.

use serde::Serialize;
use serde_json::Value;

/// What is wrong with a configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Issue {
    /// Dotted path of the value, empty for the whole.
    pub(super) path: String,
    /// For people.
    pub(super) message: String,
}

/// The shape of a value.
enum Shape {
    Any,
    Boolean,
    Text,
    Number,
    Texts,
    OneOf(&'static [&'static str]),
    /// A text, or a reference to a secret.
    Secret,
    /// These keys and no others.
    Closed(&'static [(&'static str, Shape)]),
    /// These keys have these shapes; others are not looked at.
    Open(&'static [(&'static str, Shape)]),
    /// Any keys, all values of one shape.
    Map(&'static Shape),
}

use Shape::{Any, Boolean, Closed, Map, Number, OneOf, Open, Secret, Text, Texts};

const MODEL: Shape = Open(&[("primary", Text), ("fallbacks", Texts)]);

const AGENT: Shape =
    Open(&[("model", MODEL), ("workspace", Text), ("name", Text), ("default", Boolean)]);

const AGENTS: Shape = Closed(&[("defaults", AGENT), ("entries", Map(&AGENT)), ("list", Any)]);

const CHANNEL: Shape = Open(&[("enabled", Boolean), ("dmPolicy", Text), ("allowFrom", Texts)]);

const CHANNELS: Shape = Open(&[
    ("defaults", Any),
    ("telegram", Open(&[("enabled", Boolean), ("botToken", Secret), ("allowFrom", Texts)])),
    ("discord", Open(&[("enabled", Boolean), ("token", Secret)])),
    (
        "slack",
        Open(&[
            ("enabled", Boolean),
            ("mode", OneOf(&["socket", "http"])),
            ("botToken", Secret),
            ("appToken", Secret),
            ("signingSecret", Secret),
        ]),
    ),
    ("googlechat", Open(&[("enabled", Boolean)])),
    ("whatsapp", CHANNEL),
    ("signal", CHANNEL),
    ("imessage", CHANNEL),
    ("matrix", CHANNEL),
    ("msteams", CHANNEL),
]);

const GATEWAY: Shape = Closed(&[
    ("mode", OneOf(&["local", "remote"])),
    ("port", Number),
    ("bind", OneOf(&["auto", "lan", "loopback", "custom", "tailnet"])),
    ("customBindHost", Text),
    (
        "auth",
        Open(&[
            ("mode", OneOf(&["none", "token", "password", "trusted-proxy"])),
            ("token", Secret),
            ("password", Secret),
            ("rateLimit", Any),
            ("trustedProxy", Any),
        ]),
    ),
    ("trustedProxies", Texts),
    ("allowRealIpFallback", Boolean),
    ("publicOrigin", Text),
    ("controlUi", Open(&[("enabled", Boolean), ("basePath", Text), ("allowedOrigins", Texts)])),
    ("terminal", Open(&[("enabled", Boolean)])),
    (
        "reload",
        Open(&[("mode", OneOf(&["off", "restart", "hot", "hybrid"])), ("debounceMs", Number)]),
    ),
    ("tailscale", Any),
    ("remote", Any),
    ("tls", Any),
    ("http", Any),
    ("nodes", Any),
    ("push", Any),
    ("tools", Any),
    ("channelHealthCheckMinutes", Number),
]);

const PROVIDER: Shape =
    Open(&[("baseUrl", Text), ("apiKey", Secret), ("api", Text), ("models", Any)]);

const MODELS: Shape = Closed(&[
    ("mode", OneOf(&["merge", "replace"])),
    ("providers", Map(&PROVIDER)),
    ("bedrockDiscovery", Any),
    ("pricing", Any),
]);

const SECRETS: Shape = Closed(&[
    (
        "providers",
        Map(&Open(&[
            ("source", OneOf(&["env", "file", "exec", "store"])),
            ("path", Text),
            ("mode", OneOf(&["json", "singleValue"])),
        ])),
    ),
    ("defaults", Open(&[("env", Text), ("file", Text), ("exec", Text)])),
    ("resolution", Any),
]);

const TOOLS: Shape = Open(&[
    ("profile", Text),
    ("allow", Texts),
    ("deny", Texts),
    ("exec", Open(&[("security", OneOf(&["deny", "allowlist", "full"]))])),
]);

const CONFIG: Shape = Closed(&[
    ("$schema", Text),
    ("acp", Any),
    ("agents", AGENTS),
    ("approvals", Any),
    ("audio", Any),
    ("auth", Any),
    ("bindings", Any),
    ("broadcast", Any),
    ("browser", Any),
    ("canvasHost", Any),
    ("channels", CHANNELS),
    ("cli", Any),
    ("commands", Any),
    ("cron", Any),
    ("diagnostics", Any),
    ("discovery", Any),
    ("env", Any),
    ("gateway", GATEWAY),
    ("hooks", Any),
    ("logging", Open(&[("level", Text), ("file", Text)])),
    ("mcp", Any),
    ("media", Any),
    ("memory", Any),
    ("messages", Any),
    ("meta", Any),
    ("models", MODELS),
    ("nodeHost", Any),
    ("plugins", Open(&[("enabled", Boolean), ("allow", Texts), ("deny", Texts)])),
    ("secrets", SECRETS),
    (
        "session",
        Open(&[(
            "dmScope",
            OneOf(&["main", "per-peer", "per-channel-peer", "per-account-channel-peer"]),
        )]),
    ),
    ("skills", Open(&[("entries", Any), ("allowBundled", Texts)])),
    ("talk", Any),
    ("tools", TOOLS),
    ("ui", Any),
    ("update", Any),
    ("web", Any),
    ("wizard", Any),
]);

/// Everything that is wrong with a configuration.
pub(super) fn check(config: &Value) -> Vec<Issue> {
    let mut issues = Vec::new();
    examine(&CONFIG, config, "", &mut issues);
    if config.is_object() && config.pointer("/gateway/mode").is_none() {
        let message = "required: set it to `local` to let the gateway start here".to_owned();
        issues.push(Issue { path: "gateway.mode".to_owned(), message });
    }
    issues
}

fn examine(shape: &Shape, value: &Value, path: &str, issues: &mut Vec<Issue>) {
    let expected = match shape {
        Any => return,
        Boolean if value.is_boolean() => return,
        Text if value.is_string() => return,
        Number if value.is_number() => return,
        Texts if value.as_array().is_some_and(|items| items.iter().all(Value::is_string)) => return,
        OneOf(names) if value.as_str().is_some_and(|text| names.contains(&text)) => return,
        Secret if value.is_string() || is_secret_ref(value) => return,
        Closed(fields) if value.is_object() => return fields_of(fields, true, value, path, issues),
        Open(fields) if value.is_object() => return fields_of(fields, false, value, path, issues),
        Map(inner) if value.is_object() => {
            for (key, value) in value.as_object().into_iter().flatten() {
                examine(inner, value, &below(path, key), issues);
            }
            return;
        }
        Boolean => other_type("boolean", value),
        Text => other_type("string", value),
        Number => other_type("number", value),
        Texts => other_type("array", value),
        OneOf(names) => {
            let names: Vec<_> = names.iter().map(|name| format!("\"{name}\"")).collect();
            format!("Invalid option: expected one of {}", names.join("|"))
        }
        Secret => "expected a string or a secret reference {source, provider, id}".to_owned(),
        Closed(_) | Open(_) | Map(_) => other_type("object", value),
    };
    issues.push(Issue { path: path.to_owned(), message: expected });
}

/// In the words of the real one.
fn other_type(expected: &str, value: &Value) -> String {
    let received = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    format!("Invalid input: expected {expected}, received {received}")
}

fn fields_of(
    fields: &[(&str, Shape)],
    closed: bool,
    value: &Value,
    path: &str,
    issues: &mut Vec<Issue>,
) {
    for (key, value) in value.as_object().into_iter().flatten() {
        let path = below(path, key);
        match fields.iter().find(|(name, _)| name == key) {
            Some((_, shape)) => examine(shape, value, &path, issues),
            None if closed => issues.push(Issue { path, message: "unrecognized key".to_owned() }),
            None => {}
        }
    }
}

fn below(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

fn is_secret_ref(value: &Value) -> bool {
    let text = |key: &str| value.get(key).is_some_and(Value::is_string);
    text("source") && text("id") && value.get("provider").is_none_or(Value::is_string)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;

    #[rstest]
    #[case(json!({"gateway": {}}), "gateway.mode")]
    #[case(json!({"gateway": {"mode": "local"}, "chanels": {}}), "chanels")]
    #[case(json!({"gateway": {"mode": "local", "prot": 1}}), "gateway.prot")]
    #[case(json!({"gateway": {"mode": "local"}, "agents": {"defaults": {"model": {"primary": 4}}}}), "agents.defaults.model.primary")]
    #[case(json!({"gateway": {"mode": "local"}, "channels": {"telegram": {"enabled": "yes"}}}), "channels.telegram.enabled")]
    #[case(json!({"gateway": {"mode": "local"}, "channels": {"telegram": {"botToken": {"source": "file"}}}}), "channels.telegram.botToken")]
    #[case(json!({"gateway": {"mode": "local"}, "models": {"providers": {"anthropic": {"apiKey": 1}}}}), "models.providers.anthropic.apiKey")]
    #[case(json!([]), "")]
    fn an_issue_names_its_path(#[case] config: Value, #[case] path: &str) {
        let paths: Vec<_> = check(&config).into_iter().map(|issue| issue.path).collect();
        assert_eq!(paths, [path]);
    }

    #[test]
    fn a_usual_configuration_has_no_issue() {
        let config = json!({
            "gateway": {
                "mode": "local", "port": 18789, "bind": "loopback",
                "auth": {"mode": "token", "token": {"source": "file", "provider": "file", "id": "/gateway"}},
                "trustedProxies": ["127.0.0.1", "::1"], "terminal": {"enabled": false},
                "controlUi": {"allowedOrigins": ["https://ada.example.com"]},
                "publicOrigin": "https://ada.example.com",
            },
            "agents": {"defaults": {"model": {"primary": "anthropic/claude-sonnet-4-5"}}},
            "channels": {"telegram": {"enabled": true, "botToken": {"source": "file", "provider": "file", "id": "/telegram"}}},
            "secrets": {"providers": {"file": {"source": "file", "path": "/x", "mode": "json"}}},
            "session": {"dmScope": "per-channel-peer"},
            "tools": {"exec": {"security": "deny"}},
        });
        assert_eq!(check(&config), []);
    }
}
