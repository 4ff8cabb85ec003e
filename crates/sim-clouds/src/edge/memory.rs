//! A registry in memory, for tests of the edge alone.

use std::collections::HashMap;

use parking_lot::Mutex;
use tokio::sync::broadcast;

use super::registry::{ConnectionClaim, TunnelRegistry};
use crate::cloudflare::{AccessDecision, ConnectorInfo, RegisterError, TunnelEvent};
use crate::ids::uuid;
use moorage_sim_tunnel::ingress::IngressConfig;

/// Tunnels and routes that tests set, in place of the Cloudflare half.
pub struct MemoryRegistry {
    state: Mutex<Memory>,
    events: broadcast::Sender<TunnelEvent>,
}

#[derive(Default)]
struct Memory {
    tunnels: HashMap<String, MemoryTunnel>,
    routes: HashMap<String, String>,
    service_tokens: HashMap<String, (String, String)>,
    refusals: usize,
}

struct MemoryTunnel {
    account: String,
    secret: Vec<u8>,
    rules: Option<(u64, IngressConfig)>,
    connections: Vec<(String, ConnectorInfo)>,
}

impl Memory {
    fn register(&mut self, claim: &ConnectionClaim) -> Result<String, RegisterError> {
        let tunnel = self.tunnels.get_mut(&claim.tunnel).ok_or(RegisterError::NotFound)?;
        if tunnel.account != claim.account {
            return Err(RegisterError::NotFound);
        }
        if tunnel.secret != claim.secret.0 {
            return Err(RegisterError::Unauthorized);
        }
        let id = uuid();
        tunnel.connections.push((id.clone(), claim.connector.clone()));
        Ok(id)
    }
}

impl Default for MemoryRegistry {
    fn default() -> Self {
        Self { state: Mutex::default(), events: broadcast::channel(64).0 }
    }
}

impl MemoryRegistry {
    pub fn add_tunnel(&self, account: &str, tunnel: &str, secret: &[u8]) {
        let added = MemoryTunnel {
            account: account.to_owned(),
            secret: secret.to_vec(),
            rules: None,
            connections: Vec::new(),
        };
        self.state.lock().tunnels.insert(tunnel.to_owned(), added);
    }

    /// Replaces the rules of a tunnel.
    pub fn set_rules(&self, tunnel: &str, rules: IngressConfig) {
        if let Some(held) = self.state.lock().tunnels.get_mut(tunnel) {
            let version = held.rules.as_ref().map_or(0, |(version, _)| version + 1);
            held.rules = Some((version, rules));
        }
        self.announce(TunnelEvent::ConfigChanged(tunnel.to_owned()));
    }

    /// Replaces the secret of a tunnel; its connections stay.
    pub fn rotate(&self, tunnel: &str, secret: &[u8]) {
        if let Some(held) = self.state.lock().tunnels.get_mut(tunnel) {
            held.secret = secret.to_vec();
        }
    }

    /// Closes the connections of a tunnel.
    pub fn close_connections(&self, tunnel: &str) {
        if let Some(held) = self.state.lock().tunnels.get_mut(tunnel) {
            held.connections.clear();
        }
        self.announce(TunnelEvent::ConnectionsClosed(tunnel.to_owned()));
    }

    pub fn delete_tunnel(&self, tunnel: &str) {
        self.state.lock().tunnels.remove(tunnel);
        self.announce(TunnelEvent::TunnelDeleted(tunnel.to_owned()));
    }

    /// Leads a hostname to a tunnel.
    pub fn add_route(&self, hostname: &str, tunnel: &str) {
        self.state.lock().routes.insert(hostname.to_owned(), tunnel.to_owned());
    }

    /// Lets only this service token reach a hostname.
    pub fn protect(&self, hostname: &str, client_id: &str, client_secret: &str) {
        let token = (client_id.to_owned(), client_secret.to_owned());
        self.state.lock().service_tokens.insert(hostname.to_owned(), token);
    }

    /// What the connectors of a tunnel say about themselves, one entry for each connection.
    pub fn connectors(&self, tunnel: &str) -> Vec<ConnectorInfo> {
        let state = self.state.lock();
        let connections = state.tunnels.get(tunnel).map(|held| held.connections.as_slice());
        connections.unwrap_or_default().iter().map(|(_, connector)| connector.clone()).collect()
    }

    /// How many connections were refused.
    pub fn refusals(&self) -> usize {
        self.state.lock().refusals
    }

    fn announce(&self, event: TunnelEvent) {
        // Nobody listening is fine.
        let _ = self.events.send(event);
    }
}

impl TunnelRegistry for MemoryRegistry {
    fn register_connection(&self, claim: &ConnectionClaim) -> Result<String, RegisterError> {
        let mut state = self.state.lock();
        let registered = state.register(claim);
        state.refusals += usize::from(registered.is_err());
        registered
    }

    fn drop_connection(&self, connection: &str) {
        for tunnel in self.state.lock().tunnels.values_mut() {
            tunnel.connections.retain(|(id, _)| id != connection);
        }
    }

    fn is_live(&self, connection: &str) -> bool {
        let state = self.state.lock();
        state
            .tunnels
            .values()
            .any(|tunnel| tunnel.connections.iter().any(|(id, _)| id == connection))
    }

    fn subscribe(&self) -> broadcast::Receiver<TunnelEvent> {
        self.events.subscribe()
    }

    fn ingress(&self, tunnel: &str) -> Option<(u64, IngressConfig)> {
        self.state.lock().tunnels.get(tunnel)?.rules.clone()
    }

    fn route(&self, hostname: &str) -> Option<String> {
        self.state.lock().routes.get(hostname).cloned()
    }

    fn access_check(
        &self,
        hostname: &str,
        client_id: Option<&str>,
        client_secret: Option<&str>,
    ) -> AccessDecision {
        match self.state.lock().service_tokens.get(hostname) {
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
