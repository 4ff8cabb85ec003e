//! A simulator in this process and a client for it.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use moorage_sim_clouds::{
    BackendError, ListenAddresses, NoBackend, PowerAction, ServerBoot, Simulator, Timings,
    VpsBackend, World,
};
use parking_lot::Mutex;
use reqwest::{Client, Method, header::HeaderMap};
use serde_json::{Value, json};

pub(crate) const TOKEN: &str = "hetzner-token-of-the-lab";
pub(crate) const CLOUDFLARE_TOKEN: &str = "cloudflare-token-of-the-lab";
pub(crate) const ACCOUNT: &str = "acc0acc0acc0acc0acc0acc0acc0acc0";
pub(crate) const ZONE: &str = "20e020e020e020e020e020e020e020e0";

/// So short that no test waits for long, and too short to see what is between two steps.
pub(crate) const TIMINGS: Timings = Timings {
    action: Duration::from_millis(80),
    firewall_release: Duration::from_millis(200),
    rate_limit_scale: 1.0,
};
/// More than anything takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// An answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) json: Value,
}

impl Reply {
    /// The answer, which must have this status.
    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{:#}", self.json);
        self
    }

    /// Hetzner's `error.code`, or Cloudflare's first `errors[].code`.
    pub(crate) fn code(&self) -> &Value {
        if self.json.get("error").is_some() {
            &self.json["error"]["code"]
        } else {
            &self.json["errors"][0]["code"]
        }
    }

    #[track_caller]
    pub(crate) fn refused(&self, status: u16, code: impl Into<Value>) {
        assert_eq!((self.status, self.code()), (status, &code.into()), "{:#}", self.json);
    }
}

pub(crate) struct Lab {
    pub(crate) sim: Simulator,
    http: Client,
}

impl Lab {
    /// A simulator with a project `lab` and an account with the zone `example.com`.
    pub(crate) async fn start() -> Self {
        Self::start_with(Arc::new(NoBackend)).await
    }

    /// The same with actions of two seconds: even a slow machine sees what is between two steps.
    pub(crate) async fn start_unhurried() -> Self {
        let timings = Timings { action: Duration::from_secs(2), ..TIMINGS };
        Self::start_timed(Arc::new(NoBackend), timings).await
    }

    pub(crate) async fn start_with(backend: Arc<dyn VpsBackend>) -> Self {
        Self::start_timed(backend, TIMINGS).await
    }

    pub(crate) async fn start_timed(backend: Arc<dyn VpsBackend>, timings: Timings) -> Self {
        let sim = Simulator::start(World::new(backend, timings), ListenAddresses::default(), None)
            .await
            .expect("starts");
        let lab = Self { sim, http: Client::new() };
        lab.put_project(json!({})).await;
        lab.put_account(json!({})).await;
        lab
    }

    pub(crate) async fn put_project(&self, extra: Value) {
        let body = merged(json!({"token": TOKEN, "serverQuota": 200}), extra);
        self.admin(Method::PUT, "/admin/hetzner/projects/lab", body).await.expect(204);
    }

    pub(crate) async fn put_account(&self, extra: Value) {
        let zone = json!({"id": ZONE, "name": "example.com", "plan": "free"});
        let body = merged(json!({"token": CLOUDFLARE_TOKEN, "zones": [zone]}), extra);
        self.admin(Method::PUT, &format!("/admin/cloudflare/accounts/{ACCOUNT}"), body)
            .await
            .expect(204);
    }

    pub(crate) async fn admin(&self, method: Method, path: &str, body: Value) -> Reply {
        self.send(method, &format!("{}{path}", self.sim.endpoints().admin), "", body)
            .await
            .expect("answers")
    }

    pub(crate) async fn fault(&self, fault: Value) -> u64 {
        let reply = self.admin(Method::POST, "/admin/faults", fault).await.expect(201);
        reply.json["id"].as_u64().expect("an id")
    }

    pub(crate) async fn hetzner(&self, method: Method, path: &str, body: Value) -> Reply {
        self.try_hetzner(method, path, body).await.expect("answers")
    }

    pub(crate) async fn try_hetzner(
        &self,
        method: Method,
        path: &str,
        body: Value,
    ) -> reqwest::Result<Reply> {
        self.send(method, &format!("{}{path}", self.sim.endpoints().hetzner), TOKEN, body).await
    }

    pub(crate) async fn cloudflare(&self, method: Method, path: &str, body: Value) -> Reply {
        let url = format!("{}{path}", self.sim.endpoints().cloudflare);
        self.send(method, &url, CLOUDFLARE_TOKEN, body).await.expect("answers")
    }

    /// A call below the lab's account.
    pub(crate) async fn account(&self, method: Method, path: &str, body: Value) -> Reply {
        self.cloudflare(method, &format!("/accounts/{ACCOUNT}{path}"), body).await
    }

    /// A call below the lab's zone.
    pub(crate) async fn dns(&self, method: Method, path: &str, body: Value) -> Reply {
        self.cloudflare(method, &format!("/zones/{ZONE}/dns_records{path}"), body).await
    }

    pub(crate) async fn send(
        &self,
        method: Method,
        url: &str,
        token: &str,
        body: Value,
    ) -> reqwest::Result<Reply> {
        let mut request = self.http.request(method, url).timeout(PATIENCE);
        if !token.is_empty() {
            request = request.bearer_auth(token);
        }
        if !body.is_null() {
            request = request.json(&body);
        }
        let response = request.send().await?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let text = response.text().await?;
        let json = serde_json::from_str(&text).unwrap_or(Value::String(text));
        Ok(Reply { status, headers, json })
    }

    /// Creates a server and returns its id.
    pub(crate) async fn server(&self, name: &str, extra: Value) -> u64 {
        let reply = self.hetzner(Method::POST, "/servers", server(name, extra)).await.expect(201);
        reply.json["server"]["id"].as_u64().expect("an id")
    }

    /// Waits until the server has that status.
    pub(crate) async fn server_is(&self, id: u64, status: &str) {
        eventually(async || {
            self.hetzner(Method::GET, &format!("/servers/{id}"), Value::Null)
                .await
                .json["server"]["status"]
                == status
        })
        .await;
    }

    /// Waits until the server is gone.
    pub(crate) async fn server_is_gone(&self, id: u64) {
        eventually(async || {
            self.hetzner(Method::GET, &format!("/servers/{id}"), Value::Null).await.status == 404
        })
        .await;
    }

    /// Creates a tunnel with the given secret and returns its id.
    pub(crate) async fn tunnel(&self, name: &str) -> String {
        let body =
            json!({"name": name, "config_src": "cloudflare", "tunnel_secret": base64(&[7; 32])});
        let reply = self.account(Method::POST, "/cfd_tunnel", body).await.expect(200);
        reply.json["result"]["id"].as_str().expect("an id").to_owned()
    }
}

/// The body of a `POST /servers`.
pub(crate) fn server(name: &str, extra: Value) -> Value {
    merged(
        json!({"name": name, "server_type": "cx23", "image": "debian-13", "location": "fsn1"}),
        extra,
    )
}

pub(crate) fn merged(mut base: Value, extra: Value) -> Value {
    if let (Some(base), Value::Object(extra)) = (base.as_object_mut(), extra) {
        base.extend(extra);
    }
    base
}

pub(crate) fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

/// Asks again and again until the answer is yes.
pub(crate) async fn eventually(mut condition: impl AsyncFnMut() -> bool) {
    let look = async || condition().await.then_some(());
    moorage_testbed::eventually("a yes", PATIENCE, look).await;
}

/// A backend that writes down what it is asked for.
#[derive(Debug, Default)]
pub(crate) struct Recorder {
    pub(crate) calls: Mutex<Vec<String>>,
    pub(crate) refuses: bool,
}

impl Recorder {
    fn note(&self, call: String) -> Result<(), BackendError> {
        self.calls.lock().push(call);
        if self.refuses { Err(BackendError("no room".to_owned())) } else { Ok(()) }
    }

    pub(crate) fn calls(&self) -> Vec<String> {
        self.calls.lock().clone()
    }
}

#[async_trait]
impl VpsBackend for Recorder {
    async fn create(&self, server: ServerBoot) -> Result<(), BackendError> {
        self.note(format!("create {} {}", server.name, server.user_data))
    }
    async fn delete(&self, _id: u64) -> Result<(), BackendError> {
        self.note("delete".to_owned())
    }
    async fn power(&self, _id: u64, action: PowerAction) -> Result<(), BackendError> {
        self.note(format!("power {action:?}"))
    }
    async fn rebuild(&self, server: ServerBoot) -> Result<(), BackendError> {
        self.note(format!("rebuild {} {}", server.name, server.user_data))
    }
    async fn shutdown(&self) {
        let _ = self.note("shutdown".to_owned());
    }
}
