//! The remotely managed configuration of a tunnel: ingress rules, as one document with a version.

use axum::extract::Path;
use jiff::Timestamp;
use moorage_sim_tunnel::ingress::{IngressConfig, IngressRule};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::connections::TunnelEvent;
use super::envelope::{Answer, ApiError, Caller, JsonBody, now};
use super::tunnels::{ConfigSource, Tunnel, live};

/// A configuration with its version.
#[derive(Debug)]
pub(crate) struct StoredConfig {
    pub(crate) version: u64,
    pub(crate) document: IngressConfig,
    created_at: Timestamp,
}

#[derive(Deserialize)]
pub(crate) struct PutConfiguration {
    config: IngressConfig,
}

#[derive(Serialize)]
pub(crate) struct ConfigurationView {
    account_id: String,
    tunnel_id: String,
    version: u64,
    config: Option<IngressConfig>,
    source: ConfigSource,
    created_at: Timestamp,
}

fn view(tunnel: &Tunnel) -> ConfigurationView {
    let config = tunnel.config.as_ref();
    ConfigurationView {
        account_id: tunnel.account.clone(),
        tunnel_id: tunnel.id.clone(),
        version: config.map_or(0, |config| config.version),
        config: config.map(|config| normalised(&config.document)),
        source: tunnel.config_src,
        created_at: config.map_or(tunnel.created_at, |config| config.created_at),
    }
}

/// The document as Cloudflare gives it back: with an empty `originRequest` where none was put, and with the
/// routing of private networks.
fn normalised(document: &IngressConfig) -> IngressConfig {
    let nothing = || Some(json!({}));
    let rules = document
        .ingress
        .iter()
        .cloned()
        .map(|rule| IngressRule { origin_request: rule.origin_request.or_else(nothing), ..rule });
    IngressConfig {
        ingress: rules.collect(),
        origin_request: document.origin_request.clone().or_else(nothing),
        warp_routing: document.warp_routing.clone().or_else(|| Some(json!({"enabled": false}))),
    }
}

/// `GET …/configurations`
pub(crate) async fn get(
    caller: Caller,
    Path((account, id)): Path<(String, String)>,
) -> Result<Answer<ConfigurationView>, ApiError> {
    caller.account(&account, |account| Ok(Answer::ok(view(live(account, &id)?))))
}

/// `PUT …/configurations`: the whole document.
pub(crate) async fn put(
    caller: Caller,
    Path((account, id)): Path<(String, String)>,
    JsonBody(request): JsonBody<PutConfiguration>,
) -> Result<Answer<ConfigurationView>, ApiError> {
    check(&request.config)?;
    let view = caller.account(&account, |account| {
        let tunnel = live(account, &id)?;
        let version = tunnel.config.as_ref().map_or(0, |config| config.version) + 1;
        tunnel.config = Some(StoredConfig { version, document: request.config, created_at: now() });
        // From the first document on, the tunnel is managed remotely.
        tunnel.config_src = ConfigSource::Cloudflare;
        Ok(view(tunnel))
    })?;
    caller.state.emit(TunnelEvent::ConfigChanged(id));
    Ok(Answer::ok(view))
}

fn check(config: &IngressConfig) -> Result<(), ApiError> {
    let bad = |message: String| Err(ApiError::bad(1056, format!("Bad Configuration: {message}")));
    let Some((last, others)) = config.ingress.split_last() else {
        return bad("there are no ingress rules".to_owned());
    };
    if !last.matches_all() {
        return bad("The last ingress rule must match all URLs (i.e. it should not have a hostname or path filter)".to_owned());
    }
    if let Some(index) = others.iter().position(IngressRule::matches_all) {
        return bad(format!(
            "Rule #{} is matching the hostname '', but this will match every hostname",
            index + 1
        ));
    }
    for rule in &config.ingress {
        if !is_service(&rule.service) {
            return bad(format!("{} is an invalid address, it has no known scheme", rule.service));
        }
        if rule
            .hostname
            .as_deref()
            .is_some_and(|name| name.trim_start_matches("*.").contains(['*', ':', '/']))
        {
            return bad("Hostname patterns can have at most one wildcard character (\"*\") and it can only be used for subdomains".to_owned());
        }
    }
    Ok(())
}

/// What cloudflared accepts as `service`.
fn is_service(service: &str) -> bool {
    if let Some(code) = service.strip_prefix("http_status:") {
        return code.parse().is_ok_and(|code: u16| (100..=999).contains(&code));
    }
    if ["hello_world", "bastion", "socks-proxy"].contains(&service) {
        return true;
    }
    if let Some(path) = service.strip_prefix("unix:").or_else(|| service.strip_prefix("unix+tls:"))
    {
        return !path.is_empty();
    }
    let Some((scheme, rest)) = service.split_once("://") else {
        return false;
    };
    // A service is an origin; a path in it is refused by cloudflared.
    let no_path = !rest.trim_end_matches('/').contains('/');
    !rest.is_empty()
        && no_path
        && ["http", "https", "tcp", "ssh", "rdp", "smb", "ws", "wss"].contains(&scheme)
}
