//! `moorage-sim connector`: stands in for cloudflared on a server of the process backend, and under the
//! name `cloudflared` on a server of the lab where the real one is missing. It speaks cloudflared's
//! protocol: dials the edge by TLS, serves HTTP/2 on that connection, registers by `registration` and
//! carries each stream to the origin that the ingress rules name. It has one connection, and knows fewer
//! kinds of rules and services.

mod cloudflared;
mod connection;
mod metrics;
mod origin;
mod rules;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_rustls::TlsConnector;
use tokio_util::task::LocalPoolHandle;
use uuid::Uuid;

pub use self::cloudflared::Cloudflared;
use self::connection::{Dialler, Ended};
pub use self::origin::{AddressMap, Mapping};
use self::rules::Rules;
use moorage_sim_clouds::ids::{random_bytes, random_uuid};
use moorage_sim_tunnel::registration::{Client, Registration};
use moorage_sim_tunnel::token::{RunToken, RunTokenError};

/// The version that the connector reports: nobody shall take it for cloudflared.
pub const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "+moorage-sim-stand-in");

/// The back-off grows no further than the base times two to this power.
const MAX_EXPONENT: u32 = 5;
/// As cloudflared's grace period.
const GRACE_MS: u64 = 30_000;
/// A connection that lasted this long resets the back-off.
const LASTING: Duration = Duration::from_secs(10);

/// What a connector needs.
#[derive(Debug, Clone, clap::Args)]
pub struct ConnectorOptions {
    /// File with the tunnel's run token; read once, at start
    #[arg(long)]
    pub token_file: PathBuf,
    /// Where the edge listens for connectors
    #[arg(long)]
    pub edge: SocketAddr,
    /// PEM file with the authority of the edge; no other is trusted
    #[arg(long)]
    pub cacert: PathBuf,
    /// Where to serve /ready, /healthcheck and /config
    #[arg(long)]
    pub metrics: SocketAddr,
    /// Dial another address than the rules say: `HOST=ADDRESS` or `unix:/PATH=ADDRESS:PORT`; can be repeated
    #[arg(long = "map", value_name = "FROM=TO")]
    pub map: Vec<Mapping>,
    /// Wait a random time up to this many milliseconds, doubled with each failure, before dialling again
    #[arg(long, default_value_t = 300)]
    pub retry_base_ms: u64,
    /// How many milliseconds what runs in the connection may go on after SIGTERM
    #[arg(long, default_value_t = GRACE_MS)]
    pub grace_ms: u64,
}

/// Why a connector ended.
#[derive(Debug, thiserror::Error)]
pub enum ConnectorError {
    /// The token file could not be read.
    #[error("cannot read the tunnel token from {path}")]
    TokenFile { path: PathBuf, source: std::io::Error },
    /// The token could not be understood.
    #[error("{path} holds no tunnel token")]
    Token { path: PathBuf, source: RunTokenError },
    /// The token names no tunnel.
    #[error("{path} holds a tunnel token whose tunnel is no UUID")]
    TunnelId { path: PathBuf },
    /// The authority of the edge could not be read.
    #[error("cannot use the certificate authority {path}: {reason}")]
    Authority { path: PathBuf, reason: String },
    /// The metrics listener could not be bound.
    #[error("cannot serve metrics on {address}")]
    Metrics { address: SocketAddr, source: std::io::Error },
    /// The signal handler could not be installed.
    #[error("cannot watch for signals: {0}")]
    Signals(std::io::Error),
    /// Refused for good, before any connection was up.
    #[error("the edge refused the connector: {0}")]
    Refused(String),
}

/// What all connections of a connector share.
struct Shared {
    client: Client,
    rules: Rules,
    map: AddressMap,
    ready: std::sync::atomic::AtomicUsize,
}

/// Connects and serves until SIGTERM or SIGINT.
pub async fn run(options: ConnectorOptions) -> Result<(), ConnectorError> {
    let path = options.token_file;
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(source) => return Err(ConnectorError::TokenFile { path, source }),
    };
    let token = match RunToken::parse(&text) {
        Ok(token) => token,
        Err(source) => return Err(ConnectorError::Token { path, source }),
    };
    let Ok(tunnel) = token.tunnel.parse::<Uuid>() else {
        return Err(ConnectorError::TunnelId { path });
    };
    let tls = tls(&options.cacert)
        .map_err(|reason| ConnectorError::Authority { path: options.cacert.clone(), reason })?;
    tracing::info!(version = VERSION, "this is the simulator's stand-in for cloudflared");
    let mut signals = Signals::new().map_err(ConnectorError::Signals)?;
    let shared = Arc::new(Shared {
        client: Client {
            id: random_uuid(),
            features: Vec::new(),
            version: VERSION.to_owned(),
            arch: platform(),
        },
        rules: Rules::default(),
        map: AddressMap::new(options.map),
        ready: 0.into(),
    });
    let metrics = metrics::serve(options.metrics, shared.clone())
        .await
        .map_err(|source| ConnectorError::Metrics { address: options.metrics, source })?;
    let dialler = Dialler {
        edge: options.edge,
        tls,
        control: LocalPoolHandle::new(1),
        grace: Duration::from_millis(options.grace_ms),
    };
    let backoff = Backoff { base: Duration::from_millis(options.retry_base_ms), exponent: 0 };
    let result = keep_connected(&dialler, &token, tunnel, &shared, backoff, &mut signals).await;
    metrics.abort();
    result
}

async fn keep_connected(
    dialler: &Dialler,
    token: &RunToken,
    tunnel: Uuid,
    shared: &Arc<Shared>,
    mut backoff: Backoff,
    signals: &mut Signals,
) -> Result<(), ConnectorError> {
    let mut was_connected = false;
    let mut attempts = 0_u8;
    loop {
        let registration = Registration {
            account: token.account.clone(),
            tunnel,
            secret: token.secret.clone(),
            index: 0,
            previous_attempts: attempts,
            client: shared.client.clone(),
        };
        match dialler.connect(registration, shared, signals).await {
            Ended::Stopped => return Ok(()),
            Ended::Lost(lasted) => {
                tracing::warn!("lost connection with the edge");
                was_connected = true;
                attempts = 0;
                if lasted >= LASTING {
                    backoff.exponent = 0;
                }
            }
            Ended::Refused(cause) => {
                tracing::error!(cause, "register tunnel error from server side");
                if !was_connected && is_final(&cause) {
                    return Err(ConnectorError::Refused(cause));
                }
            }
            Ended::Failed(error) => {
                tracing::error!(edge = %dialler.edge, error, "unable to connect to the edge");
            }
        }
        attempts = attempts.saturating_add(1);
        let wait = backoff.next();
        tracing::info!(milliseconds = wait.as_millis(), "retrying");
        tokio::select! {
            () = signals.stop() => return Ok(()),
            () = tokio::time::sleep(wait) => {}
        }
    }
}

/// Whether a first refusal ends the connector. As cloudflared: a wrong secret may become right,
/// anything else will not.
fn is_final(cause: &str) -> bool {
    !cause.contains("Unauthorized")
}

/// The platform as cloudflared names it, after Go.
fn platform() -> String {
    let arch = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    format!("{}_{arch}", std::env::consts::OS)
}

/// A TLS client that trusts one authority and nobody else.
fn tls(cacert: &Path) -> Result<TlsConnector, String> {
    let mut roots = rustls::RootCertStore::empty();
    let certificates = CertificateDer::pem_file_iter(cacert).map_err(|error| error.to_string())?;
    for certificate in certificates {
        let certificate = certificate.map_err(|error| error.to_string())?;
        roots.add(certificate).map_err(|error| error.to_string())?;
    }
    if roots.is_empty() {
        return Err("there is no certificate in it".to_owned());
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

/// Random waits below a bound that doubles, as cloudflared's.
struct Backoff {
    base: Duration,
    exponent: u32,
}

impl Backoff {
    fn next(&mut self) -> Duration {
        let bound = self.base * 2_u32.pow(self.exponent);
        self.exponent = (self.exponent + 1).min(MAX_EXPONENT);
        let fraction = u32::from_le_bytes(random_bytes());
        bound.mul_f64(f64::from(fraction) / f64::from(u32::MAX))
    }
}

/// The signals that ask a process to stop.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn stop(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_refusal_that_may_pass_is_tried_again() {
        assert!(!is_final("Unauthorized: Invalid tunnel secret"));
        assert!(is_final("the account is suspended"));
    }
}
