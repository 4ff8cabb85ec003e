//! Tunnels: create, list, get, rename and rotate, delete (softly), token.

use std::collections::BTreeMap;

use axum::extract::Path;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::StatusCode;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::configurations::StoredConfig;
use super::connections::{Connection, ConnectionView, TunnelEvent};
use super::envelope::{Answer, ApiError, Caller, JsonBody, now};
use super::state::Account;
use crate::ids::{random_bytes, uuid};
use crate::query::QueryPairs;

const DEFAULT_PER_PAGE: usize = 20;
const MAX_PER_PAGE: usize = 1000;
/// Fewest bytes that a tunnel secret may have.
const SECRET_BYTES: usize = 32;

#[derive(Debug)]
pub(crate) struct Tunnel {
    pub(crate) id: String,
    pub(crate) account: String,
    pub(crate) name: String,
    pub(crate) secret: Vec<u8>,
    pub(crate) config_src: ConfigSource,
    pub(crate) created_at: Timestamp,
    pub(crate) deleted_at: Option<Timestamp>,
    pub(crate) connections: BTreeMap<String, Connection>,
    pub(crate) active_since: Option<Timestamp>,
    pub(crate) inactive_since: Option<Timestamp>,
    pub(crate) config: Option<StoredConfig>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ConfigSource {
    #[default]
    Local,
    Cloudflare,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum TunnelStatus {
    Inactive,
    Healthy,
    Down,
}

#[derive(Debug, Serialize)]
pub(crate) struct TunnelView {
    id: String,
    account_tag: String,
    name: String,
    created_at: Timestamp,
    deleted_at: Option<Timestamp>,
    connections: Vec<ConnectionView>,
    conns_active_at: Option<Timestamp>,
    conns_inactive_at: Option<Timestamp>,
    tun_type: &'static str,
    metadata: Value,
    status: TunnelStatus,
    remote_config: bool,
    config_src: ConfigSource,
}

#[derive(Serialize)]
struct TokenBody<'a> {
    a: &'a str,
    t: &'a str,
    s: String,
}

#[derive(Deserialize)]
pub(crate) struct CreateTunnel {
    name: String,
    tunnel_secret: Option<String>,
    #[serde(default)]
    config_src: ConfigSource,
}

#[derive(Deserialize)]
pub(crate) struct UpdateTunnel {
    name: Option<String>,
    tunnel_secret: Option<String>,
}

#[derive(Serialize)]
pub(crate) struct CreatedTunnel {
    #[serde(flatten)]
    tunnel: TunnelView,
    token: String,
}

impl Tunnel {
    fn status(&self) -> TunnelStatus {
        if !self.connections.is_empty() {
            TunnelStatus::Healthy
        } else if self.inactive_since.is_some() {
            TunnelStatus::Down
        } else {
            TunnelStatus::Inactive
        }
    }

    pub(crate) fn view(&self) -> TunnelView {
        TunnelView {
            id: self.id.clone(),
            account_tag: self.account.clone(),
            name: self.name.clone(),
            created_at: self.created_at,
            deleted_at: self.deleted_at,
            connections: self.connections.values().map(Connection::view).collect(),
            conns_active_at: self.active_since,
            // A tunnel that was never connected has been inactive since it was made.
            conns_inactive_at: self
                .inactive_since
                .or_else(|| self.active_since.is_none().then_some(self.created_at)),
            tun_type: "cfd_tunnel",
            metadata: Value::Object(serde_json::Map::new()),
            status: self.status(),
            remote_config: self.config_src == ConfigSource::Cloudflare,
            config_src: self.config_src,
        }
    }

    /// Takes every connection away; true when there were any.
    pub(crate) fn disconnect(&mut self, only: impl Fn(&Connection) -> bool) -> bool {
        let before = self.connections.len();
        self.connections.retain(|_, connection| !only(connection));
        if before > 0 && self.connections.is_empty() {
            self.active_since = None;
            self.inactive_since = Some(now());
        }
        self.connections.len() < before
    }

    /// What `cloudflared tunnel run --token` takes.
    fn token(&self) -> String {
        let body = TokenBody { a: &self.account, t: &self.id, s: STANDARD.encode(&self.secret) };
        STANDARD.encode(serde_json::to_vec(&body).expect("three strings are always serializable"))
    }
}

/// A tunnel that is not deleted.
pub(crate) fn live<'a>(account: &'a mut Account, id: &str) -> Result<&'a mut Tunnel, ApiError> {
    let tunnel = account.tunnels.get_mut(id).filter(|tunnel| tunnel.deleted_at.is_none());
    tunnel.ok_or_else(not_found)
}

/// `POST …/cfd_tunnel`
pub(crate) async fn create(
    caller: Caller,
    Path(account): Path<String>,
    JsonBody(request): JsonBody<CreateTunnel>,
) -> Result<Answer<CreatedTunnel>, ApiError> {
    let secret = match &request.tunnel_secret {
        Some(text) => decode_secret(text)?,
        None => random_bytes::<SECRET_BYTES>().to_vec(),
    };
    caller.account(&account, |account| {
        check_name(account, &request.name, None)?;
        let used = account.tunnels.values().filter(|tunnel| tunnel.deleted_at.is_none()).count();
        if used >= account.limits.tunnels {
            return Err(ApiError::limit("tunnels", account.limits.tunnels));
        }
        let tunnel = Tunnel {
            id: uuid(),
            account: account.id.clone(),
            name: request.name,
            secret,
            config_src: request.config_src,
            created_at: now(),
            deleted_at: None,
            connections: BTreeMap::new(),
            active_since: None,
            inactive_since: None,
            config: None,
        };
        let answer = CreatedTunnel { tunnel: tunnel.view(), token: tunnel.token() };
        account.tunnels.insert(tunnel.id.clone(), tunnel);
        Ok(Answer::ok(answer))
    })
}

/// `GET …/cfd_tunnel`
pub(crate) async fn list(
    caller: Caller,
    Path(account): Path<String>,
    query: QueryPairs,
) -> Result<Answer<Vec<TunnelView>>, ApiError> {
    let flag = |name: &str| query.get(name).map(|text| text == "true");
    caller.account(&account, |account| {
        let mut tunnels: Vec<&Tunnel> = account
            .tunnels
            .values()
            .filter(|tunnel| {
                flag("is_deleted").is_none_or(|wanted| wanted == tunnel.deleted_at.is_some())
            })
            .filter(|tunnel| query.get("name").is_none_or(|name| tunnel.name == name))
            .filter(|tunnel| query.get("uuid").is_none_or(|id| tunnel.id == id))
            .filter(|tunnel| {
                query.get("include_prefix").is_none_or(|prefix| tunnel.name.starts_with(prefix))
            })
            .filter(|tunnel| {
                query.get("exclude_prefix").is_none_or(|prefix| !tunnel.name.starts_with(prefix))
            })
            .filter(|tunnel| query.get("status").is_none_or(|status| has_status(tunnel, status)))
            .collect();
        tunnels.sort_by(|a, b| a.created_at.cmp(&b.created_at).then_with(|| a.id.cmp(&b.id)));
        let views = tunnels.into_iter().map(Tunnel::view).collect();
        Answer::page(views, &query, DEFAULT_PER_PAGE, MAX_PER_PAGE)
    })
}

/// `GET …/cfd_tunnel/{id}`: a deleted tunnel is still there, with `deleted_at`.
pub(crate) async fn get(
    caller: Caller,
    Path((account, id)): Path<(String, String)>,
) -> Result<Answer<TunnelView>, ApiError> {
    caller.account(&account, |account| {
        account.tunnels.get(&id).map(|tunnel| Answer::ok(tunnel.view())).ok_or_else(not_found)
    })
}

/// `PATCH …/cfd_tunnel/{id}`: a new secret keeps out new connections of the old one, and leaves
/// those that are there alone.
pub(crate) async fn update(
    caller: Caller,
    Path((account, id)): Path<(String, String)>,
    JsonBody(request): JsonBody<UpdateTunnel>,
) -> Result<Answer<TunnelView>, ApiError> {
    let secret = request.tunnel_secret.as_deref().map(decode_secret).transpose()?;
    caller.account(&account, |account| {
        live(account, &id)?;
        if let Some(name) = &request.name {
            check_name(account, name, Some(&id))?;
        }
        let tunnel = live(account, &id)?;
        tunnel.name = request.name.unwrap_or_else(|| tunnel.name.clone());
        tunnel.secret = secret.unwrap_or_else(|| tunnel.secret.clone());
        Ok(Answer::ok(tunnel.view()))
    })
}

/// `DELETE …/cfd_tunnel/{id}`
pub(crate) async fn delete(
    caller: Caller,
    Path((account, id)): Path<(String, String)>,
    query: QueryPairs,
) -> Result<Answer<TunnelView>, ApiError> {
    let cascade = query.get("cascade") == Some("true");
    let view = caller.account(&account, |account| {
        let tunnel = live(account, &id)?;
        if cascade {
            tunnel.disconnect(|_| true);
        }
        if !tunnel.connections.is_empty() {
            return Err(ApiError::bad(
                1022,
                "Cannot delete tunnel because it has active connections",
            ));
        }
        tunnel.deleted_at = Some(now());
        Ok(tunnel.view())
    })?;
    caller.state.emit(TunnelEvent::TunnelDeleted(id));
    Ok(Answer::ok(view))
}

/// `GET …/cfd_tunnel/{id}/token`
pub(crate) async fn token(
    caller: Caller,
    Path((account, id)): Path<(String, String)>,
) -> Result<Answer<String>, ApiError> {
    caller.account(&account, |account| Ok(Answer::ok(live(account, &id)?.token())))
}

fn check_name(account: &Account, name: &str, own: Option<&str>) -> Result<(), ApiError> {
    if name.is_empty() || name.len() > 100 {
        return Err(ApiError::bad(1002, "the tunnel name must have 1 to 100 characters"));
    }
    let taken = account.tunnels.values().any(|other| {
        other.deleted_at.is_none() && other.name == name && own.is_none_or(|own| own != other.id)
    });
    if taken {
        let message = "You already have a tunnel with this name. Please choose a different name.";
        return Err(ApiError::new(StatusCode::CONFLICT, 1013, message));
    }
    Ok(())
}

fn has_status(tunnel: &Tunnel, wanted: &str) -> bool {
    serde_json::to_value(tunnel.status()).is_ok_and(|status| status == wanted)
}

fn decode_secret(text: &str) -> Result<Vec<u8>, ApiError> {
    let secret = STANDARD.decode(text).ok().filter(|secret| secret.len() >= SECRET_BYTES);
    secret.ok_or_else(|| ApiError::bad(1002, "tunnel_secret must be at least 32 bytes, in base64"))
}

pub(crate) fn not_found() -> ApiError {
    ApiError::not_found(1003, "tunnel")
}
