//! The edge: where visitors arrive by TLS and where the connectors of the tunnels dial in.
//!
//! `visitors` accepts and routes, `forward` carries one request through a tunnel, `arrivals` lets
//! connectors in, `connectors` holds the live connections. The protocol is cloudflared's over HTTP/2: TLS
//! with the edge as server, HTTP/2 with the edge as client, the control stream of
//! the rest is in `moorage_sim_tunnel`

mod arrivals;
mod connectors;
mod forward;
mod memory;
mod pages;
pub mod registry;
mod tls;
mod visitors;

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use self::arrivals::Arrivals;
use self::connectors::LiveConnections;
pub use self::memory::MemoryRegistry;
pub use self::registry::{ConnectionClaim, TunnelRegistry};
use self::tls::CertificateAuthority;

/// Where the edge listens. Port 0 takes any free port.
#[derive(Debug, Clone, Copy)]
pub struct EdgeAddresses {
    /// TLS, for visitors.
    pub visitors: SocketAddr,
    /// TLS, for connectors.
    pub connectors: SocketAddr,
}

impl Default for EdgeAddresses {
    fn default() -> Self {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        Self { visitors: any, connectors: any }
    }
}

/// The edge could not start.
#[derive(Debug, thiserror::Error)]
pub enum EdgeError {
    /// A listener could not be bound.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address that was asked for.
        address: SocketAddr,
        source: io::Error,
    },
    /// The certificate authority could not be made.
    #[error("cannot make the certificate authority of the edge")]
    Authority(#[from] rcgen::Error),
    /// The certificate or the key of the authority could not be written.
    #[error("cannot write {path}")]
    Write { path: PathBuf, source: io::Error },
}

/// A running edge; it ends with [`Edge::shutdown`].
pub struct Edge {
    visitors: SocketAddr,
    connectors: SocketAddr,
    ca_file: PathBuf,
    tls: Arc<rustls::ServerConfig>,
    live: Arc<LiveConnections>,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

impl Edge {
    /// Writes the certificate of the authority to `ca.pem` in `state_dir`, and listens. The authority's
    /// key stays there, too, so that an edge that starts again in that folder is trusted as before.
    pub async fn start(
        registry: Arc<dyn TunnelRegistry>,
        addresses: EdgeAddresses,
        state_dir: &Path,
    ) -> Result<Self, EdgeError> {
        let authority = authority(state_dir)?;
        let ca_file = state_dir.join("ca.pem");
        std::fs::write(&ca_file, authority.pem())
            .map_err(|source| EdgeError::Write { path: ca_file.clone(), source })?;
        let tls = authority.into_server_configs();

        let (visitor_listener, visitors) = bind(addresses.visitors).await?;
        let (connector_listener, connectors) = bind(addresses.connectors).await?;
        let stop = CancellationToken::new();
        let live = Arc::new(LiveConnections::new(registry.clone()));
        let mut tasks = JoinSet::new();
        // Subscribed before the first connector can register, so that no event is missed.
        tasks.spawn(connectors::follow_events(live.clone(), registry.subscribe(), stop.clone()));
        let arrivals = Arrivals::new(live.clone(), tls.connectors.clone());
        tasks.spawn(arrivals.accept(connector_listener, stop.clone()));
        let visits =
            visitors::accept(visitor_listener, tls.visitors, registry, live.clone(), stop.clone());
        tasks.spawn(visits);
        let tls = tls.connectors;
        Ok(Self { visitors, connectors, ca_file, tls, live, stop, tasks })
    }

    /// Where visitors connect by TLS.
    pub fn visitors(&self) -> SocketAddr {
        self.visitors
    }

    /// Where connectors dial in.
    pub fn connectors(&self) -> SocketAddr {
        self.connectors
    }

    /// The PEM file with the authority that visitors and connectors have to trust.
    pub fn ca_file(&self) -> &Path {
        &self.ca_file
    }

    /// How another service ends TLS under any name, with certificates of this authority.
    pub fn tls(&self) -> Arc<rustls::ServerConfig> {
        self.tls.clone()
    }

    /// How many connections of `tunnel` are up.
    pub fn connections_of(&self, tunnel: &str) -> usize {
        self.live.of(tunnel).len()
    }

    /// Cuts every connection and closes the listeners.
    pub async fn shutdown(mut self) {
        self.stop.cancel();
        while self.tasks.join_next().await.is_some() {}
    }
}

/// The authority whose key is in the folder, or a new one.
fn authority(state_dir: &Path) -> Result<CertificateAuthority, EdgeError> {
    let path = state_dir.join("ca-key.pem");
    match std::fs::read_to_string(&path).map(|key| CertificateAuthority::from_key_pem(&key)) {
        Ok(Ok(authority)) => return Ok(authority),
        Ok(Err(error)) => {
            tracing::warn!(path = %path.display(), %error, "no usable key: making a new authority");
        }
        Err(_) => {}
    }
    let authority = CertificateAuthority::new()?;
    let write = || {
        std::fs::create_dir_all(state_dir)?;
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&path)?;
        file.write_all(authority.key_pem().as_bytes())
    };
    write().map_err(|source| EdgeError::Write { path: path.clone(), source })?;
    Ok(authority)
}

async fn bind(address: SocketAddr) -> Result<(TcpListener, SocketAddr), EdgeError> {
    let failed = |source| EdgeError::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}
