//! How a connection of a tunnel comes and goes: TLS, HTTP/2 with the edge as client, the control stream
//! on which the connector registers, and the end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use http::{Request, StatusCode};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, LocalPoolHandle, TaskTracker};

use super::connectors::{Connection, LiveConnections};
use super::registry::ConnectionClaim;
use crate::cloudflare::ConnectorInfo;
use crate::listener;
use moorage_sim_tunnel::body::{BodyError, ProxyBody, reading, written};
use moorage_sim_tunnel::registration::{self, Refusal, Registered, Registrar, Registration};
use moorage_sim_tunnel::streams;

/// How long a connector may take for TLS, and then for saying who it is.
const ARRIVAL_TIMEOUT: Duration = Duration::from_secs(15);
/// How long what runs in a connection may go on after the connector has unregistered it.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);
/// How often the edge asks a silent connector whether it lives. Connectors never ask themselves.
const PING_INTERVAL: Duration = Duration::from_secs(5);
/// How long it waits for the answer: a connector on a busy machine may be slow, but is not dead.
const PING_TIMEOUT: Duration = Duration::from_secs(15);
/// How long a refused connector is told to wait. cloudflared has a back-off of its own.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// The location that connectors show in their logs.
const LOCATION: &str = "lab01";

/// Lets connectors in: TLS, HTTP/2, registration.
pub(super) struct Arrivals {
    live: Arc<LiveConnections>,
    tls: TlsAcceptor,
    /// The thread of the control streams: the RPC library's types stay on one.
    control: LocalPoolHandle,
}

impl Arrivals {
    pub(super) fn new(live: Arc<LiveConnections>, tls: Arc<rustls::ServerConfig>) -> Self {
        Self { live, tls: TlsAcceptor::from(tls), control: LocalPoolHandle::new(1) }
    }

    /// Accepts connectors until `stop`.
    pub(super) async fn accept(self, listener: TcpListener, stop: CancellationToken) {
        let arrivals = Arc::new(self);
        let mut conversations = JoinSet::new();
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                Some(_) = conversations.join_next(), if !conversations.is_empty() => {}
                (stream, peer) = listener::next_connection(&listener) => {
                    conversations.spawn(arrivals.clone().converse(stream, peer, stop.child_token()));
                }
            }
        }
        // They end by themselves: each holds a child of `stop`.
        while conversations.join_next().await.is_some() {}
    }

    async fn converse(
        self: Arc<Self>,
        stream: TcpStream,
        peer: SocketAddr,
        cut: CancellationToken,
    ) {
        let seat = Arc::new(Seat { live: self.live.clone(), cut, place: Mutex::default() });
        let carried = self.carry(stream, peer, &seat);
        if let Some(Err(error)) = seat.cut.run_until_cancelled(carried).await {
            tracing::debug!(%peer, %error, "a connector's connection failed");
        }
        // Ends the tasks of the connection, too.
        seat.cut.cancel();
        seat.leave();
    }

    /// Carries one connection to its end.
    async fn carry(
        &self,
        stream: TcpStream,
        peer: SocketAddr,
        seat: &Arc<Seat>,
    ) -> Result<(), BodyError> {
        let stream = tokio::time::timeout(ARRIVAL_TIMEOUT, self.tls.accept(stream)).await??;
        let tasks = ConnectionTasks { cut: seat.cut.clone(), running: TaskTracker::new() };
        let (requests, driver) = http2::Builder::new(tasks.clone())
            .timer(TokioTimer::new())
            .keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(1 << 20)
            .initial_connection_window_size(8 << 20)
            .handshake(TokioIo::new(stream))
            .await?;
        let mut driver = Box::pin(driver);
        tokio::select! {
            ended = &mut driver => return Ok(ended?),
            attended = self.attend(requests, peer, seat) => attended?,
        }
        // The connector has ended its control stream and waits for the connection to end. With no
        // handle left to open streams, it does when the last stream has.
        let drained = async {
            driver.as_mut().await?;
            // It holds a handle, even when it has ended.
            drop(driver);
            tasks.running.close();
            tasks.running.wait().await;
            Ok::<_, BodyError>(())
        };
        tokio::time::timeout(DRAIN_TIMEOUT, drained).await?
    }

    /// Opens the control stream and answers on it until the connector ends it.
    async fn attend(
        &self,
        mut requests: SendRequest<ProxyBody>,
        peer: SocketAddr,
        seat: &Arc<Seat>,
    ) -> Result<(), BodyError> {
        let (output, body) = written();
        let request = Request::builder()
            .uri("https://localhost/")
            .header(streams::STREAM_TYPE, streams::CONTROL_STREAM)
            .body(body)?;
        let answered = tokio::time::timeout(ARRIVAL_TIMEOUT, requests.send_request(request));
        let response = answered.await??;
        if response.status() != StatusCode::OK {
            return Err(format!("no control stream: status {}", response.status()).into());
        }
        let input = reading(response.into_body());
        let desk: Arc<dyn Registrar> = Arc::new(Desk { requests, peer, seat: seat.clone() });
        let conversation =
            self.control.spawn_pinned(move || registration::serve(input, output, desk));
        let mut conversation = AbortOnDropHandle::new(conversation);
        tokio::select! {
            ended = &mut conversation => ended?,
            () = tokio::time::sleep(ARRIVAL_TIMEOUT) => {
                if !seat.is_taken() {
                    return Err("it does not register".into());
                }
                conversation.await?;
            }
        }
        seat.leave();
        Ok(())
    }
}

/// The place of a connection among the live ones.
struct Seat {
    live: Arc<LiveConnections>,
    /// Cancelled when the connection has to end.
    cut: CancellationToken,
    place: Mutex<Place>,
}

#[derive(Default)]
enum Place {
    /// Not registered yet.
    #[default]
    Free,
    Taken(Arc<Connection>),
    /// Registered no longer, and never again.
    Left,
}

impl Seat {
    fn take(&self, claim: &ConnectionClaim) -> Result<Arc<Connection>, Refusal> {
        let mut place = self.place.lock();
        if !matches!(*place, Place::Free) {
            return Err(refusal("the connection has registered before".to_owned()));
        }
        let connection = self
            .live
            .register(claim, self.cut.clone())
            .map_err(|error| refusal(error.to_string()))?;
        *place = Place::Taken(connection.clone());
        Ok(connection)
    }

    fn leave(&self) {
        let place = std::mem::replace(&mut *self.place.lock(), Place::Left);
        if let Place::Taken(connection) = place {
            self.live.forget(&connection);
            tracing::info!(
                tunnel = connection.tunnel,
                connection = connection.id,
                "connection closed"
            );
        }
    }

    fn is_taken(&self) -> bool {
        matches!(*self.place.lock(), Place::Taken(_))
    }
}

fn refusal(cause: String) -> Refusal {
    Refusal { cause, retry_after: RETRY_AFTER, should_retry: true }
}

/// Answers the calls on the control stream of one connection.
struct Desk {
    requests: SendRequest<ProxyBody>,
    peer: SocketAddr,
    seat: Arc<Seat>,
}

#[async_trait]
impl Registrar for Desk {
    async fn register(&self, asked: Registration) -> Result<Registered, Refusal> {
        let client = asked.client;
        let claim = ConnectionClaim {
            account: asked.account,
            tunnel: asked.tunnel.to_string(),
            secret: asked.secret,
            connector: ConnectorInfo {
                client_id: client.id.to_string(),
                version: client.version,
                arch: client.arch,
                features: client.features,
                origin_ip: Some(self.peer.ip()),
            },
        };
        let (tunnel, version) = (&claim.tunnel, &claim.connector.version);
        let connection = match self.seat.take(&claim) {
            Ok(connection) => connection,
            Err(refusal) => {
                tracing::info!(tunnel, version, peer = %self.peer, %refusal, "connector refused");
                return Err(refusal);
            }
        };
        self.seat.live.open(&connection, self.requests.clone()).await;
        let connection_id = &connection.id;
        let index = asked.index;
        let attempts = asked.previous_attempts;
        tracing::info!(
            tunnel,
            version,
            index,
            attempts,
            connection = connection_id,
            "connector registered"
        );
        let connection = connection_id.parse().map_err(|_| {
            tracing::error!(connection = connection_id, "the id of a connection is no UUID");
            refusal("internal error".to_owned())
        })?;
        Ok(Registered { connection, location: LOCATION.to_owned(), remotely_managed: true })
    }

    fn unregister(&self) {
        self.seat.leave();
    }
}

/// Runs the tasks of one HTTP/2 connection and drops them, and with them the socket, when it is cut.
#[derive(Clone)]
struct ConnectionTasks {
    cut: CancellationToken,
    running: TaskTracker,
}

impl<F> hyper::rt::Executor<F> for ConnectionTasks
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, future: F) {
        let cut = self.cut.clone();
        self.running.spawn(async move { cut.run_until_cancelled(future).await });
    }
}
