//! A scripted HTTP server on loopback for the clients' tests: it records what it is sent and
//! answers what a closure says.

use std::sync::{Arc, Mutex};

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::response::Response;
use http::{HeaderMap, Method, Uri};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use url::Url;

use super::{ApiToken, Budget, BudgetPlan, ClientConfig};

/// Shorter than what is redacted by its looks: only a client that knows its token hides it.
pub(crate) const TOKEN: &str = "s3cret-t0ken";

/// A request as it arrived.
#[derive(Debug, Clone)]
pub(crate) struct Recorded {
    pub(crate) method: Method,
    pub(crate) target: String,
    pub(crate) authorization: String,
    pub(crate) body: serde_json::Value,
}

pub(crate) enum Reply {
    Json(u16, serde_json::Value, Vec<(&'static str, String)>),
    Text(u16, String),
    /// Never answer.
    Hang,
}

impl Reply {
    pub(crate) fn json(status: u16, body: serde_json::Value) -> Self {
        Self::Json(status, body, Vec::new())
    }
}

type Script = dyn Fn(&Recorded) -> Reply + Send + Sync;

struct Shared {
    script: Box<Script>,
    requests: Mutex<Vec<Recorded>>,
}

pub(crate) struct TestServer {
    url: Url,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

impl TestServer {
    pub(crate) async fn start(script: impl Fn(&Recorded) -> Reply + Send + Sync + 'static) -> Self {
        let shared = Arc::new(Shared { script: Box::new(script), requests: Mutex::default() });
        let app = axum::Router::new().fallback(answer).with_state(Arc::clone(&shared));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/v1", listener.local_addr().unwrap()).parse().unwrap();
        let task = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { url, shared, task }
    }

    pub(crate) fn requests(&self) -> Vec<Recorded> {
        self.shared.requests.lock().unwrap().clone()
    }

    pub(crate) fn config(&self, plan: BudgetPlan) -> ClientConfig {
        config(self.url.clone(), plan)
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A configuration whose pauses are short.
pub(crate) fn config(url: Url, plan: BudgetPlan) -> ClientConfig {
    let token = ApiToken::parse(TOKEN.as_bytes().to_vec()).unwrap();
    let mut config = ClientConfig::new(url, token, Arc::new(Budget::new(plan)));
    config.limits.read_backoff = std::time::Duration::from_millis(2);
    config
}

async fn answer(
    State(shared): State<Arc<Shared>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let authorization =
        headers.get("authorization").map(|value| value.to_str().unwrap().to_owned());
    let recorded = Recorded {
        method,
        target: uri.to_string(),
        authorization: authorization.unwrap_or_default(),
        body: if body.is_empty() {
            serde_json::Value::Null
        } else {
            serde_json::from_slice(&body).unwrap()
        },
    };
    shared.requests.lock().unwrap().push(recorded.clone());
    let (status, text, headers) = match (shared.script)(&recorded) {
        Reply::Json(status, body, headers) => (status, body.to_string(), headers),
        Reply::Text(status, text) => (status, text, Vec::new()),
        Reply::Hang => std::future::pending().await,
    };
    let mut response = Response::builder().status(status);
    for (name, value) in headers {
        response = response.header(name, value);
    }
    response.body(Body::from(text)).unwrap()
}
