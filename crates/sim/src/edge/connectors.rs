//! The connections of the tunnels: accepting and registering connectors, pushing rules to them, and
//! cutting them when the API says so.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use http::{Method, Request};
use http_body_util::BodyExt as _;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::handshake::{Hello, Welcome, read_line, write_line};
use super::ingress::{ConfigurationApplied, ConfigurationPush};
use super::registry::{ConnectionClaim, TunnelRegistry};
use super::{next_connection, streams};
use crate::body::{ProxyBody, full};
use crate::cloudflare::{RegisterError, TunnelEvent};
use crate::ids::lock;

/// How long a connector may take to say who it is.
const HELLO_TIMEOUT: Duration = Duration::from_secs(5);
/// How often the edge asks a silent connector whether it lives, and how long it waits for the answer.
/// Connectors never ask themselves.
const PING_INTERVAL: Duration = Duration::from_secs(10);
/// Longest answer to a push of rules, in bytes.
const ANSWER_LIMIT: usize = 64 * 1024;

/// One connection of a tunnel.
pub(super) struct Connection {
    id: String,
    tunnel: String,
    /// Set once HTTP/2 runs.
    requests: OnceLock<SendRequest<ProxyBody>>,
    cut: CancellationToken,
}

impl Connection {
    /// A handle to open streams with, unless the connection has not begun or has ended.
    pub(super) async fn ready(&self) -> Option<SendRequest<ProxyBody>> {
        let mut requests = self.requests.get()?.clone();
        requests.ready().await.ok().map(|()| requests)
    }
}

/// All connections that are up.
pub(super) struct LiveConnections {
    registry: Arc<dyn TunnelRegistry>,
    by_tunnel: Mutex<HashMap<String, Vec<Arc<Connection>>>>,
    turn: AtomicUsize,
}

impl LiveConnections {
    pub(super) fn new(registry: Arc<dyn TunnelRegistry>) -> Self {
        Self { registry, by_tunnel: Mutex::default(), turn: AtomicUsize::new(0) }
    }

    /// The connections of a tunnel that take streams.
    pub(super) fn of(&self, tunnel: &str) -> Vec<Arc<Connection>> {
        let mut connections: Vec<_> = lock(&self.by_tunnel)
            .get(tunnel)
            .into_iter()
            .flatten()
            .filter(|connection| {
                connection.requests.get().is_some_and(|requests| !requests.is_closed())
            })
            .cloned()
            .collect();
        if !connections.is_empty() {
            // Each visitor begins with another one.
            let turn = self.turn.fetch_add(1, Ordering::Relaxed) % connections.len();
            connections.rotate_left(turn);
        }
        connections
    }

    /// Registers and notes a connection in one step, so that an event that comes after the
    /// registration finds it.
    fn register(
        &self,
        claim: &ConnectionClaim,
        stop: &CancellationToken,
    ) -> Result<Arc<Connection>, RegisterError> {
        let mut by_tunnel = lock(&self.by_tunnel);
        let connection = Arc::new(Connection {
            id: self.registry.register_connection(claim)?,
            tunnel: claim.tunnel.clone(),
            requests: OnceLock::new(),
            cut: stop.child_token(),
        });
        by_tunnel.entry(claim.tunnel.clone()).or_default().push(connection.clone());
        Ok(connection)
    }

    fn forget(&self, connection: &Connection) {
        let mut by_tunnel = lock(&self.by_tunnel);
        if let Some(connections) = by_tunnel.get_mut(&connection.tunnel) {
            connections.retain(|held| held.id != connection.id);
            if connections.is_empty() {
                by_tunnel.remove(&connection.tunnel);
            }
        }
        drop(by_tunnel);
        self.registry.drop_connection(&connection.id);
    }

    /// Cuts the connections of a tunnel that the registry no longer lets in.
    fn cut_dead(&self, tunnel: &str) {
        for connection in lock(&self.by_tunnel).get(tunnel).into_iter().flatten() {
            if !self.registry.is_live(&connection.id) {
                connection.cut.cancel();
            }
        }
    }

    fn tunnels(&self) -> Vec<String> {
        lock(&self.by_tunnel).keys().cloned().collect()
    }

    fn current_rules(&self, tunnel: &str) -> Option<ConfigurationPush> {
        let (version, config) = self.registry.ingress(tunnel)?;
        Some(ConfigurationPush { version, config })
    }
}

/// Does to the connections what the events say, until `stop`.
pub(super) async fn follow_events(
    live: Arc<LiveConnections>,
    mut events: broadcast::Receiver<TunnelEvent>,
    stop: CancellationToken,
) {
    let mut pushes = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            Some(_) = pushes.join_next(), if !pushes.is_empty() => {}
            event = events.recv() => match event {
                Ok(TunnelEvent::ConfigChanged(tunnel)) => push_to(&live, &tunnel, &mut pushes),
                Ok(TunnelEvent::ConnectionsClosed(tunnel) | TunnelEvent::TunnelDeleted(tunnel)) => {
                    live.cut_dead(&tunnel);
                }
                // Anything may have been missed.
                Err(RecvError::Lagged(_)) => {
                    for tunnel in live.tunnels() {
                        live.cut_dead(&tunnel);
                        push_to(&live, &tunnel, &mut pushes);
                    }
                }
                Err(RecvError::Closed) => break,
            },
        }
    }
    pushes.shutdown().await;
}

fn push_to(live: &Arc<LiveConnections>, tunnel: &str, pushes: &mut JoinSet<()>) {
    for connection in live.of(tunnel) {
        let live = live.clone();
        pushes.spawn(async move { push_rules(&live, &connection).await });
    }
}

/// Sends the newest rules to a connector, which ignores those it has.
async fn push_rules(live: &LiveConnections, connection: &Connection) {
    let Some(push) = live.current_rules(&connection.tunnel) else { return };
    let Some(mut requests) = connection.ready().await else { return };
    let request = Request::builder()
        .method(Method::PUT)
        .uri("http://localhost/")
        .header(streams::STREAM_TYPE, streams::UPDATE_CONFIGURATION)
        .body(full(serde_json::to_vec(&push).expect("rules always serialize")))
        .expect("the parts are constants");
    let answer = async {
        let response = requests.send_request(request).await?;
        let limited = http_body_util::Limited::new(response.into_body(), ANSWER_LIMIT);
        let body = limited.collect().await?.to_bytes();
        Ok::<ConfigurationApplied, crate::body::BodyError>(serde_json::from_slice(&body)?)
    };
    match answer.await {
        Ok(ConfigurationApplied { err: None, .. }) => {}
        Ok(ConfigurationApplied { err: Some(_), .. }) => {
            tracing::warn!(
                tunnel = connection.tunnel,
                version = push.version,
                "the connector refused the rules"
            );
        }
        Err(error) => tracing::debug!(tunnel = connection.tunnel, %error, "rules did not arrive"),
    }
}

/// Accepts connectors until `stop`.
pub(super) async fn accept(
    listener: TcpListener,
    live: Arc<LiveConnections>,
    stop: CancellationToken,
) {
    let mut conversations = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            Some(_) = conversations.join_next(), if !conversations.is_empty() => {}
            (stream, peer) = next_connection(&listener) => {
                conversations.spawn(converse(stream, peer, live.clone(), stop.clone()));
            }
        }
    }
    // They end by themselves: each holds a child of `stop`.
    while conversations.join_next().await.is_some() {}
}

async fn converse(
    stream: TcpStream,
    peer: SocketAddr,
    live: Arc<LiveConnections>,
    stop: CancellationToken,
) {
    let mut stream = BufReader::new(stream);
    let hello: Hello = tokio::select! {
        () = stop.cancelled() => return,
        () = tokio::time::sleep(HELLO_TIMEOUT) => return,
        read = read_line(&mut stream) => match read {
            Ok(hello) => hello,
            Err(error) => {
                tracing::debug!(%peer, %error, "not a connector");
                return;
            }
        },
    };
    let claim = ConnectionClaim {
        account: hello.token.account,
        tunnel: hello.token.tunnel,
        secret: hello.token.secret.0,
        connector: hello.connector,
        origin: peer.ip(),
    };
    match live.register(&claim, &stop) {
        Err(refusal) => {
            tracing::info!(tunnel = claim.tunnel, %refusal, "connector refused");
            let refused = Welcome::Refused { cause: refusal.to_string() };
            // The connector may be gone already; it learns the same from the closed connection.
            let _ = write_line(&mut stream, &refused).await;
            let _ = stream.shutdown().await;
        }
        Ok(connection) => {
            tracing::info!(
                tunnel = connection.tunnel,
                connection = connection.id,
                "connector registered"
            );
            tokio::select! {
                () = connection.cut.cancelled() => {}
                ended = carry(stream, &live, &connection) => if let Err(error) = ended {
                    tracing::debug!(tunnel = connection.tunnel, %error, "connection lost");
                }
            }
            // Ends the tasks of the connection, too.
            connection.cut.cancel();
            live.forget(&connection);
            tracing::info!(
                tunnel = connection.tunnel,
                connection = connection.id,
                "connection closed"
            );
        }
    }
}

/// Accepts the connector and drives its connection to the end.
async fn carry(
    mut stream: BufReader<TcpStream>,
    live: &LiveConnections,
    connection: &Connection,
) -> Result<(), crate::body::BodyError> {
    let push = live.current_rules(&connection.tunnel);
    let sent = push.as_ref().map(|push| push.version);
    write_line(&mut stream, &Welcome::Accepted { connection: connection.id.clone(), push }).await?;
    let (requests, driver) = http2::Builder::new(ConnectionTasks(connection.cut.clone()))
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_INTERVAL)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(8 << 20)
        .handshake(TokioIo::new(stream))
        .await?;
    let catch_up = async {
        // Only one task sets it.
        let _ = connection.requests.set(requests);
        // Rules that changed before the line above found nobody to push to.
        if live.current_rules(&connection.tunnel).map(|push| push.version) != sent {
            push_rules(live, connection).await;
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        ended = driver => ended?,
        () = catch_up => {}
    }
    Ok(())
}

/// Runs the tasks of one HTTP/2 connection and drops them, and with them the socket, when it is cut.
#[derive(Clone)]
struct ConnectionTasks(CancellationToken);

impl<F> hyper::rt::Executor<F> for ConnectionTasks
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, future: F) {
        let cut = self.0.clone();
        tokio::spawn(async move { cut.run_until_cancelled(future).await });
    }
}
