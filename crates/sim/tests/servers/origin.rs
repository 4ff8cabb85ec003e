//! An origin behind a tunnel, which the tests watch and hold.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::{Path, State};
use axum::response::{AppendHeaders, IntoResponse};
use axum::routing::{any, get, post};
use futures::StreamExt as _;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use tokio::sync::Notify;

/// What a test holds of an origin.
#[derive(Default)]
pub(crate) struct Gate {
    /// A request has arrived at `/held` or `/events`.
    pub(crate) arrived: Notify,
    /// Lets such a request go on.
    pub(crate) release: Notify,
    /// Such a request was given up before its answer was complete.
    pub(crate) abandoned: Notify,
}

/// An origin on a port of loopback. It shows the headers it got, echoes bodies and `WebSocket` messages,
/// sets two cookies, and holds requests.
pub(crate) struct Origin {
    pub(crate) address: SocketAddr,
    pub(crate) gate: Arc<Gate>,
}

impl Origin {
    pub(crate) async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let gate = Arc::new(Gate::default());
        let router = router(gate.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { address, gate }
    }

    /// As the rules name it.
    pub(crate) fn service(&self) -> String {
        format!("http://{}", self.address)
    }
}

/// Serves the same on a Unix socket, and gives its service.
pub(crate) fn on_socket(path: &std::path::Path) -> String {
    let listener = tokio::net::UnixListener::bind(path).unwrap();
    let router = router(Arc::default()).layer(axum::middleware::map_response(
        async |mut response: axum::response::Response| {
            response.headers_mut().insert("x-socket", HeaderValue::from_static("yes"));
            response
        },
    ));
    tokio::spawn(async move { axum::serve(listener, router).await });
    format!("unix:{}", path.display())
}

fn router(gate: Arc<Gate>) -> Router {
    Router::new()
        .route("/headers", get(headers))
        .route("/body", post(async |body: Bytes| body))
        .route("/ws", any(echo))
        .route("/status/{status}", any(with_status))
        .route("/held", get(held))
        .route("/events", get(events))
        .layer(axum::extract::DefaultBodyLimit::max(16 << 20))
        .with_state(gate)
}

async fn headers(headers: HeaderMap) -> impl IntoResponse {
    let text = |(name, value): (&HeaderName, &HeaderValue)| {
        format!("{name}: {}\n", value.to_str().unwrap())
    };
    let body: String = headers.iter().map(text).collect();
    ([("set-cookie", "a=1"), ("x-origin", "yes")], AppendHeaders([("set-cookie", "b=2")]), body)
}

/// Answers with the status that the path names, the method, and how long the body was.
async fn with_status(
    method: Method,
    Path(status): Path<u16>,
    body: Bytes,
) -> (StatusCode, HeaderMap, String) {
    let mut headers = HeaderMap::new();
    headers.insert("x-method", method.as_str().parse().unwrap());
    headers.insert("location", HeaderValue::from_static("/elsewhere"));
    (StatusCode::from_u16(status).unwrap(), headers, format!("{} bytes", body.len()))
}

async fn echo(upgrade: WebSocketUpgrade) -> impl IntoResponse {
    upgrade.on_upgrade(async |mut socket| {
        while let Some(Ok(message)) = socket.recv().await {
            if socket.send(message).await.is_err() {
                break;
            }
        }
    })
}

/// Tells of an answer that nobody waited for.
struct Unfinished(Arc<Gate>, bool);

impl Drop for Unfinished {
    fn drop(&mut self) {
        if !self.1 {
            self.0.abandoned.notify_one();
        }
    }
}

async fn held(State(gate): State<Arc<Gate>>) -> &'static str {
    let mut unfinished = Unfinished(gate.clone(), false);
    gate.arrived.notify_one();
    gate.release.notified().await;
    unfinished.1 = true;
    "released"
}

/// One event at once, another for each release, without end.
async fn events(State(gate): State<Arc<Gate>>) -> impl IntoResponse {
    let unfinished = Unfinished(gate.clone(), false);
    gate.arrived.notify_one();
    let first = futures::stream::once(async { "data: 0\n\n".to_owned() });
    let later = futures::stream::unfold((1, unfinished), |(number, unfinished)| async move {
        unfinished.0.release.notified().await;
        Some((format!("data: {number}\n\n"), (number + 1, unfinished)))
    });
    let stream = first.chain(later).map(Ok::<_, std::convert::Infallible>);
    ([("content-type", "text/event-stream")], Body::from_stream(stream))
}
