//! What the edge has to know about tunnels, hostnames and Access, as a trait: the Cloudflare half of
//! the simulator knows it, and [`super::MemoryRegistry`] does for tests of the edge alone.

use tokio::sync::broadcast;

use crate::cloudflare::{
    AccessDecision, CloudflareState, ConnectorInfo, RegisterError, TunnelEvent,
};
use moorage_sim_tunnel::ingress::IngressConfig;
use moorage_sim_tunnel::token::TunnelSecret;

/// A connection that asks to be let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectionClaim {
    /// The account that the tunnel belongs to.
    pub account: String,
    /// The tunnel's id, a UUID.
    pub tunnel: String,
    pub secret: TunnelSecret,
    /// What the connector says about itself.
    pub connector: ConnectorInfo,
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

impl TunnelRegistry for CloudflareState {
    fn register_connection(&self, claim: &ConnectionClaim) -> Result<String, RegisterError> {
        let lease = self.register_connection(&claim.account, &claim.tunnel, &claim.secret.0)?;
        self.describe_connection(&lease, &claim.connector);
        Ok(lease.id)
    }

    fn drop_connection(&self, connection: &str) {
        self.drop_connection(connection);
    }

    fn is_live(&self, connection: &str) -> bool {
        self.is_live(connection)
    }

    fn subscribe(&self) -> broadcast::Receiver<TunnelEvent> {
        self.subscribe()
    }

    fn ingress(&self, tunnel: &str) -> Option<(u64, IngressConfig)> {
        self.ingress(tunnel)
    }

    fn route(&self, hostname: &str) -> Option<String> {
        self.route(hostname)
    }

    fn access_check(
        &self,
        hostname: &str,
        client_id: Option<&str>,
        client_secret: Option<&str>,
    ) -> AccessDecision {
        self.access_check(hostname, client_id, client_secret)
    }
}
