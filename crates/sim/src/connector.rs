//! `moorage-sim connector`: stands in for cloudflared on a server of the process backend. It dials the
//! edge, registers by [`crate::edge::handshake`], then serves HTTP/2 on that connection and carries
//! each stream to the origin that the ingress rules name.

mod metrics;
mod origin;
mod rules;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::BufReader;
use tokio::net::TcpStream;
use tokio::signal::unix::{Signal, SignalKind, signal};

pub use self::origin::{AddressMap, Mapping};
use self::rules::Rules;
use crate::edge::handshake::{Hello, RunToken, RunTokenError, Welcome, read_line, write_line};
use crate::ids::{random_bytes, uuid};

/// How long dialling and registering may take together.
const REGISTER_TIMEOUT: Duration = Duration::from_secs(15);
/// How long streams may go on after a request to stop.
const GRACE: Duration = Duration::from_secs(5);
/// The back-off grows no further than the base times two to this power.
const MAX_EXPONENT: u32 = 5;
/// A connection that lasted this long starts the back-off anew.
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
    /// Where to serve /ready, /healthcheck and /config
    #[arg(long)]
    pub metrics: SocketAddr,
    /// Dial another address than the rules say: `HOST=ADDRESS` or `unix:/PATH=ADDRESS:PORT`; can be repeated
    #[arg(long = "map", value_name = "FROM=TO")]
    pub map: Vec<Mapping>,
    /// Wait a random time up to this many milliseconds, doubled with each failure, before dialling again
    #[arg(long, default_value_t = 300)]
    pub retry_base_ms: u64,
}

/// Why a connector ended.
#[derive(Debug, thiserror::Error)]
pub enum ConnectorError {
    /// The token file could not be read.
    #[error("cannot read the tunnel token from {path}")]
    TokenFile {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The token could not be understood.
    #[error("{path} holds no tunnel token")]
    Token {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: RunTokenError,
    },
    /// The metrics listener could not be bound.
    #[error("cannot serve metrics on {address}")]
    Metrics {
        /// The address.
        address: SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
    /// The signal handler could not be installed.
    #[error("cannot watch for signals: {0}")]
    Signals(std::io::Error),
    /// Refused for good, before any connection was up.
    #[error("the edge refused the connector: {0}")]
    Refused(String),
}

/// What all connections of a connector share.
struct Shared {
    id: String,
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
    let mut signals = Signals::new().map_err(ConnectorError::Signals)?;
    let shared = Arc::new(Shared {
        id: uuid(),
        rules: Rules::default(),
        map: AddressMap::new(options.map),
        ready: 0.into(),
    });
    let metrics = metrics::serve(options.metrics, shared.clone())
        .await
        .map_err(|source| ConnectorError::Metrics { address: options.metrics, source })?;
    let retry_base = Duration::from_millis(options.retry_base_ms);
    let result = keep_connected(options.edge, token, &shared, retry_base, &mut signals).await;
    metrics.abort();
    result
}

async fn keep_connected(
    edge: SocketAddr,
    token: RunToken,
    shared: &Arc<Shared>,
    retry_base: Duration,
    signals: &mut Signals,
) -> Result<(), ConnectorError> {
    let hello = Hello { token, connector: shared.id.clone() };
    let mut backoff = Backoff { base: retry_base, exponent: 0 };
    let mut was_connected = false;
    loop {
        let registered = tokio::select! {
            () = signals.stop() => return Ok(()),
            registered = tokio::time::timeout(REGISTER_TIMEOUT, register(edge, &hello)) => registered,
        };
        match registered {
            Ok(Ok((stream, Welcome::Accepted { connection, push }))) => {
                tracing::info!(connection, "registered tunnel connection");
                was_connected = true;
                if let Some(push) = push {
                    shared.rules.apply(push);
                }
                let since = Instant::now();
                if serve(stream, shared, signals).await == Ended::Stopped {
                    return Ok(());
                }
                tracing::warn!("lost connection with the edge");
                if since.elapsed() >= LASTING {
                    backoff.exponent = 0;
                }
            }
            Ok(Ok((_, Welcome::Refused { cause }))) => {
                tracing::error!(cause, "register tunnel error from server side");
                // As cloudflared: a wrong secret may become right, anything else will not.
                if !was_connected && !cause.contains("Unauthorized") {
                    return Err(ConnectorError::Refused(cause));
                }
            }
            Ok(Err(error)) => tracing::error!(%edge, %error, "unable to reach the edge"),
            Err(_) => tracing::error!(%edge, "the edge does not answer"),
        }
        let wait = backoff.next();
        tracing::info!(milliseconds = wait.as_millis(), "retrying");
        tokio::select! {
            () = signals.stop() => return Ok(()),
            () = tokio::time::sleep(wait) => {}
        }
    }
}

async fn register(
    edge: SocketAddr,
    hello: &Hello,
) -> std::io::Result<(BufReader<TcpStream>, Welcome)> {
    let stream = TcpStream::connect(edge).await?;
    stream.set_nodelay(true)?;
    let mut stream = BufReader::new(stream);
    write_line(&mut stream, hello).await?;
    let welcome = read_line(&mut stream).await?;
    Ok((stream, welcome))
}

#[derive(PartialEq, Eq)]
enum Ended {
    Lost,
    Stopped,
}

/// Serves one connection as the HTTP/2 server of it.
async fn serve(stream: BufReader<TcpStream>, shared: &Arc<Shared>, signals: &mut Signals) -> Ended {
    use std::sync::atomic::Ordering;

    let service = {
        let shared = shared.clone();
        service_fn(move |request| {
            let shared = shared.clone();
            async move {
                Ok::<_, std::convert::Infallible>(
                    origin::answer(&shared.rules, &shared.map, request).await,
                )
            }
        })
    };
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(8 << 20)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    shared.ready.fetch_add(1, Ordering::Relaxed);
    let ended = tokio::select! {
        result = connection.as_mut() => {
            if let Err(error) = result {
                tracing::debug!(%error, "connection failed");
            }
            Ended::Lost
        }
        () = signals.stop() => Ended::Stopped,
    };
    shared.ready.fetch_sub(1, Ordering::Relaxed);
    if ended == Ended::Stopped {
        connection.as_mut().graceful_shutdown();
        // Whatever is left after the grace period is cut by the end of the process.
        let _ = tokio::time::timeout(GRACE, connection).await;
    }
    ended
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
