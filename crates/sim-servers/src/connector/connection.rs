//! One connection to the edge: dialled, registered, served to its end.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use http::{HeaderValue, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use parking_lot::Mutex;
use rustls::pki_types::ServerName;
use tokio::io::DuplexStream;
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::task::LocalPoolHandle;

use super::{Shared, Signals, origin};
use moorage_sim_tunnel::body::{ProxyBody, reading, written};
use moorage_sim_tunnel::registration::{self, RegisterError, Registration, SERVER_NAME, Session};
use moorage_sim_tunnel::streams::{CONTROL_STREAM, STREAM_TYPE};

/// How long dialling and the TLS handshake may take together, and then registering.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);

/// How connections are made.
pub(super) struct Dialler {
    pub(super) edge: SocketAddr,
    pub(super) tls: TlsConnector,
    /// The thread of the control stream.
    pub(super) control: LocalPoolHandle,
    /// How long streams may go on after a request to stop.
    pub(super) grace: Duration,
}

/// How a connection ended.
pub(super) enum Ended {
    Failed(String),
    /// The edge did not let it in.
    Refused(String),
    /// It lasted this long.
    Lost(Duration),
    /// By a signal.
    Stopped,
}

impl Dialler {
    /// Makes a connection and serves it to its end.
    pub(super) async fn connect(
        &self,
        registration: Registration,
        shared: &Arc<Shared>,
        signals: &mut Signals,
    ) -> Ended {
        let dialled = tokio::select! {
            () = signals.stop() => return Ended::Stopped,
            dialled = tokio::time::timeout(CONNECT_TIMEOUT, self.dial()) => dialled,
        };
        let stream = match dialled {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Ended::Failed(error.to_string()),
            Err(_) => return Ended::Failed("the edge does not answer".to_owned()),
        };
        self.serve(stream, registration, shared, signals).await
    }

    async fn serve(
        &self,
        stream: TlsStream<TcpStream>,
        registration: Registration,
        shared: &Arc<Shared>,
        signals: &mut Signals,
    ) -> Ended {
        let (control, opened) = oneshot::channel();
        let control = Arc::new(Mutex::new(Some(control)));
        let service = {
            let shared = shared.clone();
            service_fn(move |request| {
                let (shared, control) = (shared.clone(), control.clone());
                async move { Ok::<_, Infallible>(answer(&shared, &control, request).await) }
            })
        };
        let connection = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .initial_stream_window_size(1 << 20)
            .initial_connection_window_size(8 << 20)
            .serve_connection(TokioIo::new(stream), service);
        tokio::pin!(connection);
        let register = self.register(opened, registration);
        let registered = tokio::select! {
            () = signals.stop() => return Ended::Stopped,
            ended = connection.as_mut() => return Ended::Failed(reason(ended)),
            registered = tokio::time::timeout(CONNECT_TIMEOUT, register) => registered,
        };
        let session = match registered {
            Ok(Ok(session)) => session,
            Ok(Err(RegisterError::Refused(refusal))) => return Ended::Refused(refusal.cause),
            Ok(Err(error)) => return Ended::Failed(error.to_string()),
            Err(_) => return Ended::Failed("the edge does not let us register".to_owned()),
        };
        let since = Instant::now();
        shared.ready.fetch_add(1, Ordering::Relaxed);
        let lost = tokio::select! {
            ended = connection.as_mut() => Some(reason(ended)),
            () = signals.stop() => None,
        };
        shared.ready.fetch_sub(1, Ordering::Relaxed);
        if let Some(reason) = lost {
            tracing::debug!(reason, "connection ended");
            return Ended::Lost(since.elapsed());
        }
        // The edge closes the connection when the last stream has ended; what is left after the grace
        // period is cut by the end of the process.
        let leave = async { tokio::join!(session.unregister(), connection) };
        let _ = tokio::time::timeout(self.grace, leave).await;
        Ended::Stopped
    }

    async fn dial(&self) -> std::io::Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(self.edge).await?;
        stream.set_nodelay(true)?;
        let name = ServerName::try_from(SERVER_NAME).map_err(std::io::Error::other)?;
        self.tls.connect(name, stream).await
    }

    async fn register(
        &self,
        opened: oneshot::Receiver<Control>,
        registration: Registration,
    ) -> Result<Session, RegisterError> {
        let Control { input, output } = opened.await.map_err(|_| RegisterError::Ended)?;
        let (registered, session) =
            registration::register(&self.control, reading(input), output, registration).await?;
        tracing::info!(
            connection = %registered.connection,
            location = registered.location,
            "registered tunnel connection"
        );
        Ok(session)
    }
}

fn reason(ended: hyper::Result<()>) -> String {
    match ended {
        Ok(()) => "the edge closed the connection".to_owned(),
        Err(error) => error.to_string(),
    }
}

/// The control stream that the edge has opened.
struct Control {
    input: Incoming,
    output: DuplexStream,
}

async fn answer(
    shared: &Shared,
    control: &Mutex<Option<oneshot::Sender<Control>>>,
    request: Request<Incoming>,
) -> Response<ProxyBody> {
    let kind = request.headers().get(STREAM_TYPE);
    if kind.is_none_or(|kind| kind != CONTROL_STREAM) {
        return origin::answer(&shared.rules, &shared.map, request).await;
    }
    let (output, body) = written();
    let control = control.lock().take();
    let taken = control.map(|control| control.send(Control { input: request.into_body(), output }));
    let mut response = Response::new(body);
    if !matches!(taken, Some(Ok(()))) {
        // A second one, or one that comes too late.
        *response.status_mut() = StatusCode::CONFLICT;
    }
    let kind = HeaderValue::from_static("application/octet-stream");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}
