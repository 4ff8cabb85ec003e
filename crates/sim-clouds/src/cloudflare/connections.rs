//! Connections of tunnels: what the edge registers and drops, what the API lists and cuts.

use std::collections::BTreeMap;
use std::net::IpAddr;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use axum::extract::Path;
use jiff::Timestamp;
use serde::Serialize;
use tokio::sync::broadcast;

use super::CloudflareState;
use super::envelope::{Answer, ApiError, Caller, now};
use super::tunnels::live;
use crate::ids::uuid;
use crate::query::QueryPairs;
use moorage_sim_tunnel::ingress::IngressConfig;

/// Something that the edge must react to. The tunnel's id is inside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TunnelEvent {
    /// New ingress rules: push them to the tunnel's connections.
    ConfigChanged(String),
    /// The API deleted connections: cut each one for which [`CloudflareState::is_live`] is false.
    ConnectionsClosed(String),
    /// The tunnel is deleted: cut what is left of it.
    TunnelDeleted(String),
}

/// Why a connection was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RegisterError {
    /// No such tunnel in that account.
    #[error("Unauthorized: Failed to get tunnel")]
    NotFound,
    /// The secret is not the tunnel's, or not any more.
    #[error("Unauthorized: Invalid tunnel secret")]
    Unauthorized,
    /// The tunnel is deleted.
    #[error("Unauthorized: Failed to get tunnel")]
    Deleted,
}

/// A connection that was let in. It counts until [`CloudflareState::drop_connection`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectionLease {
    pub id: String,
    /// The tunnel it belongs to.
    pub tunnel: String,
}

/// What a connector says about itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConnectorInfo {
    /// The connector's id (a UUID), shared by its connections.
    pub client_id: String,
    pub version: String,
    /// Platform, such as `linux_amd64`.
    pub arch: String,
    /// What it can do beyond the basics.
    pub features: Vec<String>,
    /// Where it dialled from, once it has.
    pub origin_ip: Option<IpAddr>,
}

#[derive(Debug)]
pub(crate) struct Connection {
    id: String,
    opened_at: Timestamp,
    connector: ConnectorInfo,
}

#[derive(Debug, Serialize)]
pub(crate) struct ConnectionView {
    id: String,
    uuid: String,
    client_id: String,
    client_version: String,
    colo_name: &'static str,
    is_pending_reconnect: bool,
    opened_at: Timestamp,
    origin_ip: Option<IpAddr>,
}

#[derive(Debug, Serialize)]
pub(crate) struct ConnectorView {
    id: String,
    arch: String,
    version: String,
    config_version: u64,
    features: Vec<String>,
    run_at: Timestamp,
    conns: Vec<ConnectionView>,
}

impl Connection {
    pub(crate) fn view(&self) -> ConnectionView {
        ConnectionView {
            id: self.id.clone(),
            uuid: self.id.clone(),
            client_id: self.connector.client_id.clone(),
            client_version: self.connector.version.clone(),
            colo_name: "lab01",
            is_pending_reconnect: false,
            opened_at: self.opened_at,
            origin_ip: self.connector.origin_ip,
        }
    }
}

/// What the edge calls.
impl CloudflareState {
    /// Lets a connection in when the secret is the tunnel's.
    pub fn register_connection(
        &self,
        account_tag: &str,
        tunnel_id: &str,
        secret: &[u8],
    ) -> Result<ConnectionLease, RegisterError> {
        let mut inner = self.inner.lock();
        let account = inner.accounts.get_mut(account_tag).ok_or(RegisterError::NotFound)?;
        let tunnel = account.tunnels.get_mut(tunnel_id).ok_or(RegisterError::NotFound)?;
        if tunnel.deleted_at.is_some() {
            return Err(RegisterError::Deleted);
        }
        verify_slices_are_equal(&tunnel.secret, secret).map_err(|_| RegisterError::Unauthorized)?;
        let id = uuid();
        let connector = ConnectorInfo { client_id: uuid(), ..ConnectorInfo::default() };
        tunnel
            .connections
            .insert(id.clone(), Connection { id: id.clone(), opened_at: now(), connector });
        tunnel.active_since.get_or_insert_with(now);
        tunnel.inactive_since = None;
        Ok(ConnectionLease { id, tunnel: tunnel_id.to_owned() })
    }

    /// Notes what the connector of that connection says about itself.
    pub fn describe_connection(&self, lease: &ConnectionLease, connector: &ConnectorInfo) {
        let mut inner = self.inner.lock();
        let tunnels = inner
            .accounts
            .values_mut()
            .filter_map(|account| account.tunnels.get_mut(&lease.tunnel));
        for connection in tunnels.filter_map(|tunnel| tunnel.connections.get_mut(&lease.id)) {
            connection.connector = connector.clone();
        }
    }

    /// Forgets a connection that ended. Unknown ids are fine.
    pub fn drop_connection(&self, id: &str) {
        let mut inner = self.inner.lock();
        for tunnel in inner.accounts.values_mut().flat_map(|account| account.tunnels.values_mut()) {
            if tunnel.connections.contains_key(id) {
                tunnel.disconnect(|connection| connection.id == id);
                return;
            }
        }
    }

    /// Whether that connection is still let in.
    pub fn is_live(&self, id: &str) -> bool {
        let inner = self.inner.lock();
        inner
            .accounts
            .values()
            .flat_map(|account| account.tunnels.values())
            .any(|tunnel| tunnel.connections.contains_key(id))
    }

    /// Everything that happens to tunnels from now on.
    pub fn subscribe(&self) -> broadcast::Receiver<TunnelEvent> {
        self.events.subscribe()
    }

    /// The rules of a tunnel and their version, once there are any.
    pub fn ingress(&self, tunnel_id: &str) -> Option<(u64, IngressConfig)> {
        let inner = self.inner.lock();
        let tunnel = inner.accounts.values().find_map(|account| account.tunnels.get(tunnel_id))?;
        let config = tunnel.config.as_ref().filter(|_| tunnel.deleted_at.is_none())?;
        Some((config.version, config.document.clone()))
    }

    /// The tunnel that visitors of `hostname` are led to: by a proxied CNAME to
    /// `<uuid>.cfargotunnel.com` in the account that owns the tunnel. An exact name goes before a
    /// wildcard.
    pub fn route(&self, hostname: &str) -> Option<String> {
        let hostname = hostname.to_ascii_lowercase();
        let wildcard = hostname.split_once('.').map(|(_, parent)| format!("*.{parent}"));
        let inner = self.inner.lock();
        [Some(hostname), wildcard].into_iter().flatten().find_map(|name| {
            inner.zones.values().find_map(|zone| {
                let record = zone.records.values().find(|record| {
                    record.name == name && record.proxied && record.kind == "CNAME"
                })?;
                let tunnel = record.content.strip_suffix(".cfargotunnel.com")?;
                let owner = inner.accounts.get(&zone.account)?;
                owner
                    .tunnels
                    .get(tunnel)
                    .filter(|tunnel| tunnel.deleted_at.is_none())
                    .map(|tunnel| tunnel.id.clone())
            })
        })
    }
}

/// `GET …/cfd_tunnel/{id}/connections`
pub(crate) async fn list(
    caller: Caller,
    Path((account, id)): Path<(String, String)>,
) -> Result<Answer<Vec<ConnectorView>>, ApiError> {
    caller.account(&account, |account| {
        let tunnel = live(account, &id)?;
        let version = tunnel.config.as_ref().map_or(0, |config| config.version);
        let mut connectors = BTreeMap::new();
        for connection in tunnel.connections.values() {
            let connector = &connection.connector;
            let view =
                connectors.entry(connector.client_id.clone()).or_insert_with(|| ConnectorView {
                    id: connector.client_id.clone(),
                    arch: connector.arch.clone(),
                    version: connector.version.clone(),
                    config_version: version,
                    features: connector.features.clone(),
                    run_at: connection.opened_at,
                    conns: Vec::new(),
                });
            view.run_at = view.run_at.min(connection.opened_at);
            view.conns.push(connection.view());
        }
        Ok(Answer::ok(connectors.into_values().collect()))
    })
}

/// `DELETE …/cfd_tunnel/{id}/connections`, of one connector or of all.
pub(crate) async fn delete(
    caller: Caller,
    Path((account, id)): Path<(String, String)>,
    query: QueryPairs,
) -> Result<Answer<BTreeMap<String, String>>, ApiError> {
    let client = query.get("client_id");
    let any = caller.account(&account, |account| {
        let only = |connection: &Connection| {
            client.is_none_or(|client| client == connection.connector.client_id)
        };
        Ok(live(account, &id)?.disconnect(only))
    })?;
    if any {
        caller.state.emit(TunnelEvent::ConnectionsClosed(id));
    }
    Ok(Answer::ok(BTreeMap::new()))
}
