//! What the edge has to know about tunnels, hostnames and Access, as a trait: the Cloudflare half of
//! the simulator knows it, and [`MemoryRegistry`] does for tests of the edge alone.

use std::collections::HashMap;
use std::sync::Mutex;

use tokio::sync::broadcast;

use super::ingress::IngressConfig;
use crate::ids::{lock, uuid};

/// What a connector says it is.
#[derive(Clone, PartialEq, Eq)]
pub struct ConnectionClaim {
    /// The account that the tunnel belongs to.
    pub account: String,
    /// The tunnel's id, a UUID.
    pub tunnel: String,
    /// The tunnel's secret, decoded.
    pub secret: Vec<u8>,
    /// The id that the connector process chose for itself, a UUID.
    pub connector: String,
    /// Where it dialled from.
    pub origin: std::net::IpAddr,
}

/// What happened to a tunnel, as far as its connections are concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TunnelEvent {
    /// Its ingress rules changed.
    ConfigChanged(String),
    /// The API closed connections of it: those that [`TunnelRegistry::is_live`] denies have to be cut.
    ConnectionsClosed(String),
    /// It was deleted.
    TunnelDeleted(String),
}

/// Why a connector was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RegisterError {
    /// No such tunnel in the account.
    #[error("Tunnel not found")]
    NotFound,
    /// The secret is not (or no longer) the tunnel's.
    #[error("Unauthorized: Invalid tunnel secret")]
    Unauthorized,
    /// The tunnel was deleted.
    #[error("Unauthorized: Tunnel was deleted")]
    Deleted,
}

/// What Access says to a visitor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccessDecision {
    /// No application covers the hostname.
    NotProtected,
    /// The service token is accepted.
    Allowed,
    /// No service token, or not one that a policy accepts.
    Denied,
}

/// What the edge asks.
pub trait TunnelRegistry: Send + Sync + 'static {
    /// Registers a connection and gives its id, to be handed to [`TunnelRegistry::drop_connection`].
    fn register_connection(&self, claim: &ConnectionClaim) -> Result<String, RegisterError>;
    /// Forgets a connection that has ended. Unknown ids are fine.
    fn drop_connection(&self, connection: &str);
    /// Whether that connection is still let in.
    fn is_live(&self, connection: &str) -> bool;
    /// Everything that happens from now on.
    fn subscribe(&self) -> broadcast::Receiver<TunnelEvent>;
    /// The rules of a tunnel and their version; `None` before the first are put.
    fn ingress(&self, tunnel: &str) -> Option<(u64, IngressConfig)>;
    /// The tunnel that a hostname (lower case, without port) leads to.
    fn route(&self, hostname: &str) -> Option<String>;
    /// Whether a visitor with this service token may pass.
    fn access_check(
        &self,
        hostname: &str,
        client_id: Option<&str>,
        client_secret: Option<&str>,
    ) -> AccessDecision;
}

/// A registry in memory.
pub struct MemoryRegistry {
    state: Mutex<Memory>,
    events: broadcast::Sender<TunnelEvent>,
}

#[derive(Default)]
struct Memory {
    tunnels: HashMap<String, MemoryTunnel>,
    routes: HashMap<String, String>,
    service_tokens: HashMap<String, (String, String)>,
}

struct MemoryTunnel {
    account: String,
    secret: Vec<u8>,
    rules: Option<(u64, IngressConfig)>,
    connections: Vec<String>,
}

impl Default for MemoryRegistry {
    fn default() -> Self {
        Self { state: Mutex::default(), events: broadcast::channel(64).0 }
    }
}

impl MemoryRegistry {
    /// Adds a tunnel.
    pub fn add_tunnel(&self, account: &str, tunnel: &str, secret: &[u8]) {
        let added = MemoryTunnel {
            account: account.to_owned(),
            secret: secret.to_vec(),
            rules: None,
            connections: Vec::new(),
        };
        lock(&self.state).tunnels.insert(tunnel.to_owned(), added);
    }

    /// Replaces the rules of a tunnel.
    pub fn set_rules(&self, tunnel: &str, rules: IngressConfig) {
        if let Some(held) = lock(&self.state).tunnels.get_mut(tunnel) {
            let version = held.rules.as_ref().map_or(0, |(version, _)| version + 1);
            held.rules = Some((version, rules));
        }
        self.announce(TunnelEvent::ConfigChanged(tunnel.to_owned()));
    }

    /// Replaces the secret of a tunnel; its connections stay.
    pub fn rotate(&self, tunnel: &str, secret: &[u8]) {
        if let Some(held) = lock(&self.state).tunnels.get_mut(tunnel) {
            held.secret = secret.to_vec();
        }
    }

    /// Closes the connections of a tunnel.
    pub fn close_connections(&self, tunnel: &str) {
        if let Some(held) = lock(&self.state).tunnels.get_mut(tunnel) {
            held.connections.clear();
        }
        self.announce(TunnelEvent::ConnectionsClosed(tunnel.to_owned()));
    }

    /// Deletes a tunnel.
    pub fn delete_tunnel(&self, tunnel: &str) {
        lock(&self.state).tunnels.remove(tunnel);
        self.announce(TunnelEvent::TunnelDeleted(tunnel.to_owned()));
    }

    /// Leads a hostname to a tunnel.
    pub fn add_route(&self, hostname: &str, tunnel: &str) {
        lock(&self.state).routes.insert(hostname.to_owned(), tunnel.to_owned());
    }

    /// Lets only this service token reach a hostname.
    pub fn protect(&self, hostname: &str, client_id: &str, client_secret: &str) {
        let token = (client_id.to_owned(), client_secret.to_owned());
        lock(&self.state).service_tokens.insert(hostname.to_owned(), token);
    }

    fn announce(&self, event: TunnelEvent) {
        // Nobody listening is fine.
        let _ = self.events.send(event);
    }
}

impl TunnelRegistry for MemoryRegistry {
    fn register_connection(&self, claim: &ConnectionClaim) -> Result<String, RegisterError> {
        let mut state = lock(&self.state);
        let tunnel = state.tunnels.get_mut(&claim.tunnel).ok_or(RegisterError::NotFound)?;
        if tunnel.account != claim.account {
            return Err(RegisterError::NotFound);
        }
        if tunnel.secret != claim.secret {
            return Err(RegisterError::Unauthorized);
        }
        let id = uuid();
        tunnel.connections.push(id.clone());
        Ok(id)
    }

    fn drop_connection(&self, connection: &str) {
        for tunnel in lock(&self.state).tunnels.values_mut() {
            tunnel.connections.retain(|id| id != connection);
        }
    }

    fn is_live(&self, connection: &str) -> bool {
        let state = lock(&self.state);
        state.tunnels.values().any(|tunnel| tunnel.connections.iter().any(|id| id == connection))
    }

    fn subscribe(&self) -> broadcast::Receiver<TunnelEvent> {
        self.events.subscribe()
    }

    fn ingress(&self, tunnel: &str) -> Option<(u64, IngressConfig)> {
        lock(&self.state).tunnels.get(tunnel)?.rules.clone()
    }

    fn route(&self, hostname: &str) -> Option<String> {
        lock(&self.state).routes.get(hostname).cloned()
    }

    fn access_check(
        &self,
        hostname: &str,
        client_id: Option<&str>,
        client_secret: Option<&str>,
    ) -> AccessDecision {
        match lock(&self.state).service_tokens.get(hostname) {
            None => AccessDecision::NotProtected,
            Some((id, secret))
                if client_id == Some(id.as_str()) && client_secret == Some(secret.as_str()) =>
            {
                AccessDecision::Allowed
            }
            Some(_) => AccessDecision::Denied,
        }
    }
}
