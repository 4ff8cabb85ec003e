//! What a customer may not set: what would undo the lock-down, and keys in the clear. A refusal
//! names the path; it never contains the value.

use std::fmt;

use moorage_wire::CredentialType;
use serde_json::{Map, Value};

use crate::api::conditions::reason;

/// Keys that are Moorage's, with what to do instead.
const RESERVED: [(&[&str], &str); 6] = [
    (&["gateway"], "the gateway is set up by Moorage; remove it"),
    (&["secrets"], "secrets come from spec.credentials; remove it"),
    (&["update"], "versions come from the OpenClawRelease; remove it"),
    (&["env"], "the environment is set up by Moorage; give keys under spec.credentials"),
    (&["plugins", "load"], "plugins come from spec.integrations; remove it"),
    (&["$include"], "the document must be whole; write out what it would include"),
];

/// Last words of the names of fields that hold keys.
const SECRET_FIELDS: [&str; 8] = [
    "token",
    "apikey",
    "secret",
    "password",
    "signingsecret",
    "privatekey",
    "serviceaccount",
    "credentials",
];

/// Prefixes by which well-known keys are recognised anywhere in a document.
const KEY_PREFIXES: [(&str, usize); 7] = [
    ("sk-ant-", 20),
    ("sk-or-", 20),
    ("sk-proj-", 20),
    ("xoxb-", 10),
    ("xapp-", 10),
    ("AIza", 30),
    ("ghp_", 30),
];

/// Something in `spec.config` that is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigRefusal {
    /// Where, such as `spec.config.channels.telegram.botToken`.
    pub path: String,
    /// Why.
    pub kind: RefusalKind,
}

/// Why something is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusalKind {
    /// It is Moorage's; what to do instead.
    Reserved(&'static str),
    /// It is, or looks like, a key in the clear.
    LiteralSecret,
}

impl ConfigRefusal {
    /// The reason of the condition.
    pub fn reason(&self) -> &'static str {
        match self.kind {
            RefusalKind::Reserved(_) => reason::RESERVED_CONFIG_KEY,
            RefusalKind::LiteralSecret => reason::LITERAL_SECRET,
        }
    }
}

impl fmt::Display for ConfigRefusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            RefusalKind::Reserved(remedy) => {
                write!(formatter, "{} cannot be set: {remedy}", self.path)
            }
            RefusalKind::LiteralSecret => write!(
                formatter,
                "{} holds a key in the clear: revoke it at its provider, then seal a new one and name it under spec.credentials",
                self.path
            ),
        }
    }
}

/// Checks a customer's configuration.
///
/// # Errors
/// Everything that is refused, keys in the clear first.
pub fn check(config: &Map<String, Value>) -> Result<(), Vec<ConfigRefusal>> {
    let mut refusals = Vec::new();
    for (path, remedy) in RESERVED {
        if find(config, path).is_some() {
            let path = format!("spec.config.{}", path.join("."));
            refusals.push(ConfigRefusal { path, kind: RefusalKind::Reserved(remedy) });
        }
    }
    for (key, value) in config {
        walk(&format!("spec.config.{key}"), key, value, &mut refusals);
    }
    refusals.sort_by_key(|refusal| refusal.kind != RefusalKind::LiteralSecret);
    if refusals.is_empty() { Ok(()) } else { Err(refusals) }
}

fn find<'a>(config: &'a Map<String, Value>, path: &[&str]) -> Option<&'a Value> {
    let (first, rest) = path.split_first()?;
    rest.iter().try_fold(config.get(*first)?, |value, key| value.get(key))
}

fn walk(path: &str, name: &str, value: &Value, refusals: &mut Vec<ConfigRefusal>) {
    match value {
        Value::String(text) => {
            if looks_like_key(text) || (names_secret(name) && !text.is_empty()) {
                let path = path.to_owned();
                refusals.push(ConfigRefusal { path, kind: RefusalKind::LiteralSecret });
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                walk(&format!("{path}[{index}]"), name, item, refusals);
            }
        }
        Value::Object(map) if is_reference(map) => {
            let kind = RefusalKind::Reserved(
                "name the key under spec.credentials; Moorage writes the reference",
            );
            refusals.push(ConfigRefusal { path: path.to_owned(), kind });
        }
        Value::Object(map) => {
            for (key, item) in map {
                // A key that is not a plain word could be a secret itself; it is told by its place.
                let shown = if looks_like_key(key) { "…" } else { key.as_str() };
                if looks_like_key(key) {
                    let path = format!("{path}.{shown}");
                    refusals.push(ConfigRefusal { path, kind: RefusalKind::LiteralSecret });
                }
                walk(&format!("{path}.{shown}"), key, item, refusals);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// A `SecretRef` as OpenClaw writes it: `{source, provider, id}`.
fn is_reference(map: &Map<String, Value>) -> bool {
    let source = map.get("source").and_then(Value::as_str);
    matches!(source, Some("env" | "file" | "exec" | "store")) && map.contains_key("id")
}

fn names_secret(name: &str) -> bool {
    let plain: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
    let plain = plain.to_ascii_lowercase();
    // A limit such as maxTokens is a number, not a text, so the plural needs no exception.
    SECRET_FIELDS.iter().any(|field| plain.ends_with(field))
}

fn looks_like_key(text: &str) -> bool {
    let words = text
        .split(|character: char| character.is_whitespace() || "\"'`,;=()<>".contains(character));
    words.into_iter().any(|word| {
        KEY_PREFIXES.iter().any(|(prefix, least)| {
            word.strip_prefix(prefix).is_some_and(|rest| rest.len() >= *least && rest.is_ascii())
        }) || CredentialType::TelegramBotToken.check(word.as_bytes()).is_ok()
    })
}
