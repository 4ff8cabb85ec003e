//! The connections of the tunnels that are up: finding them, pushing rules to them, and cutting them
//! when the API says so. How a connection comes to be is in `arrivals`.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::{Method, Request};
use http_body_util::BodyExt as _;
use hyper::client::conn::http2::SendRequest;
use parking_lot::Mutex;
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::registry::{ConnectionClaim, TunnelRegistry};
use crate::cloudflare::{RegisterError, TunnelEvent};
use moorage_sim_tunnel::body::{BodyError, ProxyBody, full};
use moorage_sim_tunnel::ingress::{ConfigurationApplied, ConfigurationPush};
use moorage_sim_tunnel::streams;

/// How long the answer to a registration waits for the connector to apply its first rules; connectors wait
/// 5 s for it.
const RULES_TIMEOUT: Duration = Duration::from_secs(3);
/// Longest answer to a push of rules, in bytes.
const ANSWER_LIMIT: usize = 64 * 1024;

/// One connection of a tunnel.
pub(super) struct Connection {
    pub(super) id: String,
    pub(super) tunnel: String,
    requests: Mutex<Requests>,
    cut: CancellationToken,
}

/// What visitors' requests are sent with.
#[derive(Default)]
enum Requests {
    /// Visitors may not come yet.
    #[default]
    NotYet,
    Open(SendRequest<ProxyBody>),
    /// Visitors may not come any more.
    Over,
}

impl Connection {
    /// A handle to open streams with, unless visitors may not come yet, or not any more.
    pub(super) async fn ready(&self) -> Option<SendRequest<ProxyBody>> {
        let mut requests = match &*self.requests.lock() {
            Requests::Open(requests) => requests.clone(),
            Requests::NotYet | Requests::Over => return None,
        };
        requests.ready().await.ok().map(|()| requests)
    }

    fn is_open(&self) -> bool {
        matches!(&*self.requests.lock(), Requests::Open(requests) if !requests.is_closed())
    }

    /// Lets visitors come, unless the connection has left since.
    fn let_in(&self, handle: SendRequest<ProxyBody>) {
        let mut requests = self.requests.lock();
        if let Requests::NotYet = *requests {
            *requests = Requests::Open(handle);
        }
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
        let mut connections: Vec<_> = self
            .by_tunnel
            .lock()
            .get(tunnel)
            .into_iter()
            .flatten()
            .filter(|connection| connection.is_open())
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
    /// registration finds it. `cut` is cancelled when the API wants the connection to end.
    pub(super) fn register(
        &self,
        claim: &ConnectionClaim,
        cut: CancellationToken,
    ) -> Result<Arc<Connection>, RegisterError> {
        let mut by_tunnel = self.by_tunnel.lock();
        let connection = Arc::new(Connection {
            id: self.registry.register_connection(claim)?,
            tunnel: claim.tunnel.clone(),
            requests: Mutex::default(),
            cut,
        });
        by_tunnel.entry(claim.tunnel.clone()).or_default().push(connection.clone());
        Ok(connection)
    }

    /// Gives a registered connection its rules, then lets visitors come. When that takes long it goes on
    /// by itself: the connector waits for the answer to its registration.
    pub(super) async fn open(
        self: &Arc<Self>,
        connection: &Arc<Connection>,
        requests: SendRequest<ProxyBody>,
    ) {
        let opening = tokio::spawn(open(self.clone(), connection.clone(), requests));
        if tokio::time::timeout(RULES_TIMEOUT, opening).await.is_err() {
            tracing::warn!(tunnel = connection.tunnel, "the first rules take long");
        }
    }

    /// Takes a connection out: no visitor comes any more, what runs in it may end.
    pub(super) fn forget(&self, connection: &Connection) {
        *connection.requests.lock() = Requests::Over;
        let mut by_tunnel = self.by_tunnel.lock();
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
        for connection in self.by_tunnel.lock().get(tunnel).into_iter().flatten() {
            if !self.registry.is_live(&connection.id) {
                connection.cut.cancel();
            }
        }
    }

    fn tunnels(&self) -> Vec<String> {
        self.by_tunnel.lock().keys().cloned().collect()
    }

    fn current_rules(&self, tunnel: &str) -> Option<ConfigurationPush> {
        let (version, config) = self.registry.ingress(tunnel)?;
        Some(ConfigurationPush { version, config })
    }
}

/// See [`LiveConnections::open`].
async fn open(
    live: Arc<LiveConnections>,
    connection: Arc<Connection>,
    requests: SendRequest<ProxyBody>,
) {
    let rules = live.current_rules(&connection.tunnel);
    let sent = rules.as_ref().map(|push| push.version);
    if let Some(rules) = rules {
        // A connector without rules only answers 503.
        push(connection.tunnel.clone(), rules, requests.clone()).await;
    }
    connection.let_in(requests);
    // Rules that changed before the line above found nobody to push to.
    if live.current_rules(&connection.tunnel).map(|push| push.version) != sent {
        push_rules(&live, &connection).await;
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
    let Some(rules) = live.current_rules(&connection.tunnel) else { return };
    let Some(requests) = connection.ready().await else { return };
    push(connection.tunnel.clone(), rules, requests).await;
}

/// Sends rules. A connector that refuses them goes on with those it has.
async fn push(tunnel: String, rules: ConfigurationPush, mut requests: SendRequest<ProxyBody>) {
    let request = Request::builder()
        .method(Method::PUT)
        .uri("http://localhost/")
        .header(streams::STREAM_TYPE, streams::UPDATE_CONFIGURATION)
        .body(full(serde_json::to_vec(&rules).expect("rules always serialize")))
        .expect("the parts are constants");
    let answer = async {
        let response = requests.send_request(request).await?;
        let limited = http_body_util::Limited::new(response.into_body(), ANSWER_LIMIT);
        let body = limited.collect().await?.to_bytes();
        Ok::<ConfigurationApplied, BodyError>(serde_json::from_slice(&body)?)
    };
    match answer.await {
        Ok(ConfigurationApplied { err: None, .. }) => {}
        Ok(ConfigurationApplied { err: Some(_), .. }) => {
            tracing::warn!(tunnel, version = rules.version, "the connector refused the rules");
        }
        Err(error) => tracing::warn!(tunnel, %error, "rules did not arrive"),
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use hyper::client::conn::http2 as client;
    use hyper::server::conn::http2 as server;
    use hyper_util::rt::{TokioExecutor, TokioIo};
    use tokio::sync::Notify;

    use super::*;
    use crate::cloudflare::ConnectorInfo;
    use crate::edge::MemoryRegistry;
    use moorage_sim_tunnel::ingress::{IngressConfig, IngressRule};
    use moorage_sim_tunnel::token::TunnelSecret;

    const PATIENCE: Duration = Duration::from_secs(60);

    /// A handle to a connector that applies rules when it is told to.
    async fn connector(apply: Arc<Notify>) -> SendRequest<ProxyBody> {
        let (near, far) = tokio::io::duplex(1 << 16);
        let service = hyper::service::service_fn(move |_| {
            let apply = apply.clone();
            async move {
                apply.notified().await;
                let applied = r#"{"lastAppliedVersion":1,"err":null}"#;
                Ok::<_, Infallible>(http::Response::new(full(applied)))
            }
        });
        let served = server::Builder::new(TokioExecutor::new());
        tokio::spawn(served.serve_connection(TokioIo::new(far), service));
        let handshake = client::handshake(TokioExecutor::new(), TokioIo::new(near));
        let (requests, driver) = handshake.await.unwrap();
        tokio::spawn(driver);
        requests
    }

    #[tokio::test]
    async fn visitors_wait_for_the_first_rules() {
        let registry = Arc::new(MemoryRegistry::default());
        registry.add_tunnel("acc", "tunnel", b"secret");
        let ingress = vec![IngressRule::catch_all("http_status:404")];
        registry.set_rules("tunnel", IngressConfig { ingress, ..IngressConfig::default() });
        let live = Arc::new(LiveConnections::new(registry));
        let claim = ConnectionClaim {
            account: "acc".into(),
            tunnel: "tunnel".into(),
            secret: TunnelSecret(b"secret".to_vec()),
            connector: ConnectorInfo::default(),
        };
        let connection = live.register(&claim, CancellationToken::new()).unwrap();
        let apply = Arc::new(Notify::new());
        let opened = live.open(&connection, connector(apply.clone()).await);
        tokio::time::timeout(PATIENCE, opened).await.expect("it waits for the connector");
        assert!(live.of("tunnel").is_empty());

        apply.notify_one();
        moorage_testbed::eventually("visitors", PATIENCE, async || live.of("tunnel").pop()).await;
        live.forget(&connection);
        connection.let_in(connector(apply).await);
        assert!(connection.ready().await.is_none(), "a connection that has left took visitors");
    }
}
