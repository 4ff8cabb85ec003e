//! The listeners: plain HTTP for both clouds, or TLS under names as the real ones have, plain HTTP for the
//! admin API, and their clean end.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use serde::Serialize;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::edge::Edge;
use crate::gateway::{CLOUDFLARE_BASE, HETZNER_BASE};
use crate::listener::{accept, accept_tls};
use crate::world::World;
use crate::{admin, cloudflare, hetzner};

/// Where the simulator listens. Port 0 takes any free port.
#[derive(Debug, Clone, Copy)]
pub struct ListenAddresses {
    pub hetzner: SocketAddr,
    pub cloudflare: SocketAddr,
    pub admin: SocketAddr,
}

impl Default for ListenAddresses {
    fn default() -> Self {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        Self { hetzner: any, cloudflare: any, admin: any }
    }
}

/// The addresses that a running simulator answers on.
#[derive(Debug, Clone, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Endpoints {
    /// Base URL of the Hetzner API.
    pub hetzner: String,
    /// Base URL of the Cloudflare API.
    pub cloudflare: String,
    /// `host:port` of the edge, when there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub edge: Option<String>,
    /// File with the certificate authority of the edge, when there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub edge_ca: Option<PathBuf>,
    /// `host:port` where connectors dial the edge, when there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connector_edge: Option<String>,
    /// Base URL of the admin API.
    pub admin: String,
}

/// The APIs of one [`World`] on their listeners.
pub struct Simulator {
    world: Arc<World>,
    endpoints: Endpoints,
    stop: CancellationToken,
    listeners: JoinSet<()>,
}

/// The name of the Hetzner API where it is served by TLS; whoever calls it has to know the address.
const HETZNER_NAME: &str = "api.hetzner.test";
/// The same of the Cloudflare API.
const CLOUDFLARE_NAME: &str = "api.cloudflare.test";

impl Simulator {
    /// Binds the listeners and serves `world` until [`Simulator::shutdown`]: both clouds by TLS if `tls`
    /// says how, else by plain HTTP.
    pub async fn start(
        world: Arc<World>,
        addresses: ListenAddresses,
        tls: Option<Arc<rustls::ServerConfig>>,
    ) -> io::Result<Self> {
        let stop = CancellationToken::new();
        let mut listeners = JoinSet::new();
        let mut serve = async |address, router, tls| -> io::Result<SocketAddr> {
            let listener = TcpListener::bind(address).await.map_err(|error| {
                io::Error::new(error.kind(), format!("cannot listen on {address}: {error}"))
            })?;
            let bound = listener.local_addr()?;
            match tls {
                None => listeners.spawn(accept(listener, router, stop.clone())),
                Some(tls) => listeners.spawn(accept_tls(listener, router, tls, stop.clone())),
            };
            Ok(bound)
        };
        let hetzner = serve(addresses.hetzner, hetzner::router(&world), tls.clone()).await?;
        let cloudflare =
            serve(addresses.cloudflare, cloudflare::router(&world), tls.clone()).await?;
        let admin = serve(addresses.admin, admin::router(&world), None).await?;
        let base = |name: &str, address: SocketAddr, path: &str| match &tls {
            None => format!("http://{address}{path}"),
            Some(_) => format!("https://{name}:{}{path}", address.port()),
        };
        let endpoints = Endpoints {
            hetzner: base(HETZNER_NAME, hetzner, HETZNER_BASE),
            cloudflare: base(CLOUDFLARE_NAME, cloudflare, CLOUDFLARE_BASE),
            edge: None,
            edge_ca: None,
            connector_edge: None,
            admin: format!("http://{admin}"),
        };
        Ok(Self { world, endpoints, stop, listeners })
    }

    /// Notes the edge that stands before its tunnels.
    #[must_use]
    pub fn with_edge(mut self, edge: &Edge) -> Self {
        self.endpoints.edge = Some(edge.visitors().to_string());
        self.endpoints.edge_ca = Some(edge.ca_file().to_owned());
        self.endpoints.connector_edge = Some(edge.connectors().to_string());
        self
    }

    pub fn endpoints(&self) -> &Endpoints {
        &self.endpoints
    }

    pub fn world(&self) -> &Arc<World> {
        &self.world
    }

    /// Cuts every connection, closes the listeners and stops the backend.
    pub async fn shutdown(mut self) {
        self.stop.cancel();
        while self.listeners.join_next().await.is_some() {}
        self.world.backend.shutdown().await;
    }
}
