//! `gateway` in `spec.config`: what a customer may set there, and what Moorage sets the rest to and why.

use serde_json::{Map, Value};

use super::refusal::{ConfigRefusal, RefusalKind};

/// What a customer may set, with all that is below it: nothing here opens the server or lets anybody in.
const ALLOWED: [&[&str]; 15] = [
    &["auth", "rateLimit", "lockoutMs"],
    &["auth", "rateLimit", "maxAttempts"],
    &["auth", "rateLimit", "windowMs"],
    &["cliAgents"],
    &["controlUi", "automaticallyFetchFavicons"],
    &["controlUi", "communityInvite"],
    &["controlUi", "environment"],
    &["controlUi", "sessionObserver"],
    &["http", "endpoints"],
    &["http", "securityHeaders"],
    &["nodes", "allowSkills"],
    &["nodes", "browser"],
    &["nodes", "commands"],
    &["nodes", "pluginTools"],
    &["tools", "deny"],
];

/// What Moorage sets, and why. The first that fits counts.
const SET: [(&[&str], &str); 14] = [
    (&["mode"], "Moorage sets it to local; remove it"),
    (&["port"], "Moorage sets it to 18789, where the tunnel leads; remove it"),
    (&["bind"], "Moorage sets it to loopback, so that only the tunnel leads there; remove it"),
    (
        &["customBindHost"],
        "the gateway listens on loopback, so that only the tunnel leads there; remove it",
    ),
    (
        &["auth"],
        "Moorage sets it to token with a token of its own; of it only rateLimit.maxAttempts, windowMs and lockoutMs can be set",
    ),
    (
        &["trustedProxies"],
        "Moorage sets it to the connector of the tunnel, which is on the same server; remove it",
    ),
    (&["publicOrigin"], "Moorage sets it to the dashboard's address; remove it"),
    (
        &["controlUi"],
        "Moorage serves it at the root of the dashboard's address, for that address alone; of it only environment, communityInvite, sessionObserver and automaticallyFetchFavicons can be set",
    ),
    (&["terminal"], "Moorage switches it off: it would be a shell on the server; remove it"),
    (&["reload"], "Moorage sets it to hybrid, so that changes are taken up; remove it"),
    (&["tls"], "the tunnel has the TLS certificate; remove it"),
    (&["tailscale"], "the tunnel is the only way in; remove it"),
    (&["remote"], "OpenClaw runs on the instance's own server; remove it"),
    (
        &["nodes"],
        "a node that is let in unseen could run commands; of it only commands, browser, pluginTools and allowSkills can be set",
    ),
];

const OTHER: &str = "Moorage leaves it at OpenClaw's default; remove it. Of gateway http.endpoints, http.securityHeaders, nodes, tools.deny, cliAgents, auth.rateLimit and parts of controlUi can be set";

/// What is refused of `gateway`, each leaf with its path.
pub(super) fn check(config: &Map<String, Value>) -> Vec<ConfigRefusal> {
    let mut refusals = Vec::new();
    match config.get("gateway") {
        Some(Value::Object(gateway)) => walk(gateway, &mut Vec::new(), &mut refusals),
        Some(_) => refusals.push(refusal(&[], "it is no map; remove it")),
        None => {}
    }
    refusals
}

/// Goes down as long as something below may be allowed.
fn walk<'a>(
    map: &'a Map<String, Value>,
    path: &mut Vec<&'a str>,
    refusals: &mut Vec<ConfigRefusal>,
) {
    for (key, value) in map {
        path.push(key);
        if !ALLOWED.contains(&path.as_slice()) {
            let leads_on = ALLOWED.iter().any(|allowed| allowed.starts_with(path));
            match value {
                Value::Object(inner) if leads_on => walk(inner, path, refusals),
                _ => refusals.push(refusal(path, why(path))),
            }
        }
        path.pop();
    }
}

fn why(path: &[&str]) -> &'static str {
    SET.iter().find(|(set, _)| path.starts_with(set)).map_or(OTHER, |(_, why)| why)
}

fn refusal(path: &[&str], why: &'static str) -> ConfigRefusal {
    let path = super::keys::search::written(["gateway"].iter().chain(path).copied());
    ConfigRefusal { path, kind: RefusalKind::Reserved(why) }
}
