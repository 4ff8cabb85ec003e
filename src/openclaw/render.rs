//! The document for the server: the customer's configuration with what Moorage enforces laid over it,
//! and a reference for every credential that is stored on the server.

use std::collections::BTreeMap;

use moorage_wire::{
    CredentialName, CredentialType,
    bootstrap::{GATEWAY_PORT, SECRETS_PATH},
    credential::GATEWAY_TOKEN,
};
use serde_json::{Map, Value, json};

use super::{PROVIDER, references};

/// Channels with the fields that OpenClaw needs a secret in before it can start them.
const CHANNELS: [(&str, &[(&str, CredentialType)]); 3] = [
    ("telegram", &[("botToken", CredentialType::TelegramBotToken)]),
    ("discord", &[("token", CredentialType::DiscordBotToken)]),
    ("slack", &[("botToken", CredentialType::SlackBotToken)]),
];

/// What the document is made from.
#[derive(Debug, Clone, Copy)]
pub struct RenderInput<'a> {
    /// The customer's configuration, checked.
    pub config: &'a Map<String, Value>,
    /// Where the dashboard is, such as `https://ada.example.com`.
    pub dashboard_url: &'a str,
    /// The credentials that are stored on the server now.
    pub credentials: &'a BTreeMap<CredentialName, CredentialType>,
}

/// Renders the document. The same input gives the same bytes.
pub fn render(input: &RenderInput<'_>) -> Value {
    let mut document = Value::Object(input.config.clone());
    lay_over(&mut document, &enforced(input.dashboard_url));
    lay_under(&mut document, &defaults());
    let references = references::all(input.config);
    references::remove(&mut document, &references, input.credentials);
    for (path, name) in references::placed(&references, input.credentials) {
        place(&mut document, &path, name);
    }
    switch_off_channels_without_secret(&mut document, input.credentials);
    document
}

fn reference(name: &str) -> Value {
    json!({ "source": "file", "provider": PROVIDER, "id": format!("/{name}") })
}

/// What holds whatever the customer says: reachable over the tunnel only, with a token.
fn enforced(dashboard_url: &str) -> Value {
    json!({
        "gateway": {
            "mode": "local",
            "port": GATEWAY_PORT,
            "bind": "loopback",
            "auth": { "mode": "token", "token": reference(GATEWAY_TOKEN) },
            "trustedProxies": ["127.0.0.1", "::1"],
            "publicOrigin": dashboard_url,
            "controlUi": { "allowedOrigins": [dashboard_url] },
            "terminal": { "enabled": false },
            "reload": { "mode": "hybrid" },
        },
        "secrets": {
            "providers": { (PROVIDER): { "source": "file", "path": SECRETS_PATH, "mode": "json" } },
        },
    })
}

/// What holds unless the customer says otherwise.
fn defaults() -> Value {
    json!({
        "session": { "dmScope": "per-channel-peer" },
        "tools": { "exec": { "security": "deny" } },
    })
}

/// Sets every leaf of `top` in `document`.
fn lay_over(document: &mut Value, top: &Value) {
    match (document, top) {
        (Value::Object(document), Value::Object(top)) => {
            for (key, value) in top {
                lay_over(document.entry(key).or_insert(Value::Null), value);
            }
        }
        (document, top) => *document = top.clone(),
    }
}

/// Sets every leaf of `bottom` that `document` does not have.
fn lay_under(document: &mut Value, bottom: &Value) {
    if let (Value::Object(document), Value::Object(bottom)) = (document, bottom) {
        for (key, value) in bottom {
            match document.get_mut(key) {
                Some(known) => lay_under(known, value),
                None => drop(document.insert(key.clone(), value.clone())),
            }
        }
    }
}

/// Puts the reference to a credential at a place.
fn place(document: &mut Value, path: &[String], name: &CredentialName) {
    let nested =
        path.iter().rev().fold(reference(name.as_str()), |inner, key| json!({ (key): inner }));
    lay_over(document, &nested);
}

/// OpenClaw would not start a channel whose secret is missing: until it is delivered the channel is
/// off, and the condition `CredentialsDelivered` says what is missing.
fn switch_off_channels_without_secret(
    document: &mut Value,
    credentials: &BTreeMap<CredentialName, CredentialType>,
) {
    for (channel, needs) in CHANNELS {
        let missing =
            needs.iter().any(|(_, kind)| !credentials.values().any(|stored| stored == kind));
        let Some(channel) = document.pointer_mut(&format!("/channels/{channel}")) else { continue };
        if let Value::Object(channel) = channel
            && missing
        {
            channel.insert("enabled".to_owned(), Value::Bool(false));
        }
    }
}
