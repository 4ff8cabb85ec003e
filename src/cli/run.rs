//! `moorage run`: the operator. What it is told is here; how it starts, leads and ends is in
//! `operator`.

#![allow(clippy::doc_markdown, reason = "the comments of options are their help")]

mod census;
mod operator;
mod standby;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::{ArgAction, Args};
use jiff::SignedDuration;
use thiserror::Error;
use tokio::net::{TcpListener, lookup_host};
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::{
    agent::client::{EdgeClientError, EdgeDialing},
    api_server::told,
    certificate_roots::system_roots,
    cloud::BudgetRegistry,
    controller::{ControllerSettings, context::Intervals},
    http::{PublishedCertificate, Readiness, Shown, serve},
    leader::LeaderError,
    master_key_store::MasterKeySource,
    metrics::Metrics,
    telemetry::LogFormat,
};

/// For requests to the HTTP server that are under way at the end.
const HTTP_GRACE: Duration = Duration::from_millis(500);
const LONGEST_INTERVAL: Duration = Duration::from_secs(7 * 24 * 3600);

/// Run the operator
///
/// Reconciles HostingPools, OpenClawReleases and OpenClawInstances until SIGTERM. Of several replicas
/// one leads and the others stand by.
#[derive(Args)]
pub struct RunArgs {
    /// The operator's own namespace: its keys, the pools' token Secrets and the Lease
    #[arg(long, env = "POD_NAMESPACE", value_name = "NS", default_value = "moorage-system")]
    namespace: String,
    /// Where to serve /metrics, /healthz, /readyz and /v1/cert.pem
    #[arg(
        long,
        env = "MOORAGE_HTTP_LISTEN",
        value_name = "ADDRESS:PORT",
        default_value = "0.0.0.0:8080"
    )]
    http_listen: SocketAddr,
    /// Root of Hetzner's API
    #[arg(
        long,
        env = "MOORAGE_HETZNER_ENDPOINT",
        value_name = "URL",
        default_value = "https://api.hetzner.cloud/v1"
    )]
    hetzner_endpoint: Url,
    /// Root of Cloudflare's API
    #[arg(
        long,
        env = "MOORAGE_CLOUDFLARE_ENDPOINT",
        value_name = "URL",
        default_value = "https://api.cloudflare.com/client/v4"
    )]
    cloudflare_endpoint: Url,
    /// Dial all servers' agents at this address instead of looking their names up
    #[arg(long, env = "MOORAGE_EDGE_ADDRESS", value_name = "HOST:PORT")]
    edge_address: Option<String>,
    /// PEM certificates to trust at the edge beside the system's
    #[arg(long, env = "MOORAGE_EDGE_CA", value_name = "FILE")]
    edge_ca: Option<PathBuf>,
    /// PEM certificates to trust at the clouds' APIs beside the system's
    #[arg(long, env = "MOORAGE_CLOUD_CA", value_name = "FILE")]
    cloud_ca: Option<PathBuf>,
    /// Read the master key (32 bytes, raw or base64, mode 0400) from this file instead of the Secret
    /// moorage-master-key
    #[arg(long, env = "MOORAGE_MASTER_KEY_FILE", value_name = "FILE")]
    master_key_file: Option<PathBuf>,
    /// Read a key that --master-key-file takes the place of from this file, while servers still need it
    #[arg(
        long,
        env = "MOORAGE_OLDER_MASTER_KEY_FILE",
        value_name = "FILE,…",
        value_delimiter = ',',
        requires = "master_key_file"
    )]
    older_master_key_file: Vec<PathBuf>,
    /// Time between two sweeps of a pool's clouds
    #[arg(long, env = "MOORAGE_SWEEP_INTERVAL", value_name = "DURATION", default_value = "60s", value_parser = interval)]
    sweep_interval: Duration,
    /// Time between two reports of an agent that is ready
    #[arg(long, env = "MOORAGE_REPORT_INTERVAL", value_name = "DURATION", default_value = "300s", value_parser = interval)]
    report_interval: Duration,
    /// Time between two comparisons of a tunnel's routes with the wanted ones
    #[arg(long, env = "MOORAGE_ROUTES_INTERVAL", value_name = "DURATION", default_value = "1h", value_parser = interval)]
    routes_interval: Duration,
    /// How long something in the clouds has to belong to nobody before a pool with orphanPolicy: Delete
    /// deletes it
    #[arg(long, env = "MOORAGE_ORPHAN_AGE", value_name = "DURATION", default_value = "24h", value_parser = interval)]
    orphan_age: Duration,
    /// Look after these HostingPools only
    #[arg(long, env = "MOORAGE_POOLS", value_name = "NAME,…", value_delimiter = ',')]
    pools: Vec<String>,
    /// Look for OpenClawInstances in these namespaces only
    #[arg(long, env = "MOORAGE_WATCH_NAMESPACES", value_name = "NS,…", value_delimiter = ',')]
    watch_namespaces: Vec<String>,
    /// How log lines look
    #[arg(long, env = "MOORAGE_LOG_FORMAT", value_enum, default_value = "json")]
    pub log_format: LogFormat,
    /// What is logged, such as debug or info,moorage=debug
    #[arg(long, env = "MOORAGE_LOG_FILTER", value_name = "FILTER", default_value = "info")]
    pub log_filter: String,
    /// Lead only while holding the Lease moorage-operator; false only where no second operator can run
    #[arg(long, env = "MOORAGE_LEADER_ELECT", value_name = "BOOL", default_value_t = true, action = ArgAction::Set)]
    leader_elect: bool,
}

/// Why the operator ended.
#[derive(Debug, Error)]
pub enum RunError {
    /// A file of the command line.
    #[error("--{option} {}: {source}", .path.display())]
    File {
        option: &'static str,
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    #[error("--cloud-ca {} holds no PEM certificates: {source}", .path.display())]
    CloudCertificates { path: PathBuf, source: reqwest::Error },
    #[error(
        "--edge-address {address} leads nowhere: {problem}; give a host and a port, such as 127.0.0.1:8443"
    )]
    EdgeAddress { address: String, problem: String },
    /// Neither the clouds nor Cloudflare's edge could be trusted.
    #[error(
        "there are no certificate roots, so that no cloud can be trusted: use the operator's image, install ca-certificates, or name a file in SSL_CERT_FILE ({problems})"
    )]
    NoRoots {
        /// What the system said.
        problems: String,
    },
    /// The client for agents.
    #[error(transparent)]
    Edge(#[from] EdgeClientError),
    #[error("--http-listen {address}: {source}")]
    Listen {
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// There is no cluster.
    #[error(
        "no cluster is configured: {0}; run in a Pod with a service account, or set KUBECONFIG"
    )]
    Config(#[from] kube::config::InferConfigError),
    /// The client for the cluster.
    #[error("the client for the cluster cannot be made: {}", told(.0))]
    Client(#[source] Box<kube::Error>),
    /// Another process leads, or may.
    #[error(transparent)]
    Leader(#[from] LeaderError),
    /// Signals cannot be handled.
    #[error("signals cannot be handled: {0}")]
    Signals(#[source] std::io::Error),
}

/// The command line, parsed and read.
struct Settings {
    namespace: String,
    edge: EdgeDialing,
    master_key: MasterKeySource,
    intervals: Intervals,
    controllers: ControllerSettings,
    leader_elect: bool,
}

/// Runs the operator until SIGTERM or SIGINT, or until it loses its leadership, which is an error.
pub async fn run(args: RunArgs) -> Result<(), RunError> {
    let shutdown = shutdown_on_signals()?;
    let address = args.http_listen;
    let settings = args.read().await?;
    let listener = TcpListener::bind(address).await;
    let listener = listener.map_err(|source| RunError::Listen { address, source })?;
    tracing::info!(%address, namespace = settings.namespace, "starting");
    let shown = Shown {
        metrics: Metrics::new(),
        readiness: Readiness::default(),
        certificate: PublishedCertificate::default(),
    };
    let http_stop = CancellationToken::new();
    let http = tokio::spawn(serve(listener, shown.clone(), http_stop.clone()));
    let ended = Box::pin(operator::operate(settings, &shown, &shutdown)).await;
    shown.readiness.not_ready("stopping");
    http_stop.cancel();
    let _ = tokio::time::timeout(HTTP_GRACE, http).await;
    ended
}

impl RunArgs {
    async fn read(self) -> Result<Settings, RunError> {
        let cloud_ca = read_file("cloud-ca", self.cloud_ca.as_deref()).await?;
        if let (Some(path), Some(pem)) = (self.cloud_ca, &cloud_ca) {
            reqwest::Certificate::from_pem_bundle(pem)
                .map_err(|source| RunError::CloudCertificates { path, source })?;
        }
        let edge = EdgeDialing {
            address: match &self.edge_address {
                Some(address) => Some(look_up(address).await?),
                None => None,
            },
            extra_roots: read_file("edge-ca", self.edge_ca.as_deref()).await?,
        };
        if cloud_ca.is_none() || edge.extra_roots.is_none() {
            check_roots()?;
        }
        let intervals = Intervals {
            sweep: self.sweep_interval,
            report: self.report_interval,
            routes: self.routes_interval,
            orphan_age: self.orphan_age,
        };
        let controllers = ControllerSettings {
            hetzner_endpoint: self.hetzner_endpoint,
            cloudflare_endpoint: self.cloudflare_endpoint,
            extra_roots: cloud_ca,
            budgets: BudgetRegistry::default().into(),
            pools: Some(names(self.pools).collect())
                .filter(|pools: &std::collections::BTreeSet<_>| !pools.is_empty()),
            watch_namespaces: names(self.watch_namespaces).collect(),
        };
        Ok(Settings {
            namespace: self.namespace,
            edge,
            master_key: self.master_key_file.map_or(MasterKeySource::Secret, |newest| {
                MasterKeySource::File { newest, older: self.older_master_key_file }
            }),
            intervals,
            controllers,
            leader_elect: self.leader_elect,
        })
    }
}

/// Whether the system has certificate roots: an image without any starts, and then fails at every call.
fn check_roots() -> Result<(), RunError> {
    let found = system_roots();
    if found.count > 0 {
        return Ok(());
    }
    Err(RunError::NoRoots { problems: found.problems.join(", ") })
}

/// An empty variable is a list of one empty name to clap.
fn names(list: Vec<String>) -> impl Iterator<Item = String> {
    list.into_iter().map(|name| name.trim().to_owned()).filter(|name| !name.is_empty())
}

/// A span of time such as `90s`, `5m` or `1h 30m`, from one second to a week.
fn interval(text: &str) -> Result<Duration, String> {
    let form = || "expected a time such as 90s, 5m or 1h".to_owned();
    let parsed: SignedDuration = text.parse().map_err(|_| form())?;
    let duration = Duration::try_from(parsed).map_err(|_| form())?;
    if (Duration::from_secs(1)..=LONGEST_INTERVAL).contains(&duration) {
        Ok(duration)
    } else {
        Err("expected between 1s and 168h".to_owned())
    }
}

async fn read_file(option: &'static str, path: Option<&Path>) -> Result<Option<Vec<u8>>, RunError> {
    let Some(path) = path else { return Ok(None) };
    let read = tokio::fs::read(path).await;
    let failed = |source| RunError::File { option, path: path.to_owned(), source };
    read.map(Some).map_err(failed)
}

async fn look_up(address: &str) -> Result<SocketAddr, RunError> {
    let failed = |problem: String| RunError::EdgeAddress { address: address.to_owned(), problem };
    let mut found = lookup_host(address).await.map_err(|error| failed(error.to_string()))?;
    found.next().ok_or_else(|| failed("it has no address".to_owned()))
}

fn shutdown_on_signals() -> Result<CancellationToken, RunError> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).map_err(RunError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(RunError::Signals)?;
    let shutdown = CancellationToken::new();
    let token = shutdown.clone();
    tokio::spawn(async move {
        let name = tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        };
        tracing::info!("{name}: stopping");
        token.cancel();
    });
    Ok(shutdown)
}

#[cfg(test)]
mod tests;
