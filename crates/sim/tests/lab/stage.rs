//! The simulator of the scenarios, and how they make servers through the API of the cloud.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use moorage_testbed::{CloudInit, Cloudflared, LabParts, LabServer, Simulator, SimulatorOptions};
use serde_json::{Value, json};

/// More than any boot takes on a busy machine, also that of an emulated one.
pub(crate) const PATIENCE: Duration = Duration::from_secs(600);
const TOKEN: &str = "lab-token";
pub(crate) const ACCOUNT: &str = "acc";
pub(crate) const ZONE: &str = "0123456789abcdef0123456789abcdef";
/// What the tests fetch from the artifact server, in bytes.
pub(crate) const ARTIFACT_BYTES: usize = 1 << 20;

pub(crate) struct Stage {
    // Dropped in this order.
    pub(crate) simulator: Simulator,
    pub(crate) parts: LabParts,
    http: reqwest::Client,
    _artifacts: tempfile::TempDir,
}

impl Stage {
    /// Nothing where the lab cannot run.
    pub(crate) async fn start() -> Option<Self> {
        Some(Self::with(LabParts::for_test()?).await)
    }

    pub(crate) async fn with(parts: LabParts) -> Self {
        let artifacts = tempfile::tempdir().unwrap();
        std::fs::create_dir(artifacts.path().join("agent")).unwrap();
        std::fs::write(artifacts.path().join("agent/file"), artifact()).unwrap();
        if let Ok(cloudflared) = Cloudflared::from_env() {
            let shown = artifacts.path().join("cloudflared");
            std::os::unix::fs::symlink(cloudflared.program, shown).unwrap();
        }
        let mut arguments = parts.simulator_arguments(Some(artifacts.path()));
        arguments.push("--action-ms=1".to_owned());
        arguments.push("--disk-mb=2048".to_owned());
        let program = Path::new(env!("CARGO_BIN_EXE_moorage-sim")).to_owned();
        let options = SimulatorOptions { program, agent: None, arguments };
        let simulator = Simulator::start(&options).await.unwrap();
        let project = json!({"token": TOKEN, "serverQuota": 100});
        simulator.put_project("lab", &project).await.unwrap();
        let zone = json!({"id": ZONE, "name": "example.com"});
        let account = json!({"token": TOKEN, "zones": [zone]});
        simulator.put_account(ACCOUNT, &account).await.unwrap();
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        Self { simulator, parts, http, _artifacts: artifacts }
    }

    /// Calls the Hetzner API, which must do it.
    pub(crate) async fn hetzner(&self, method: http::Method, path: &str, body: Value) -> Value {
        let url = format!("{}{path}", self.simulator.endpoints().hetzner);
        self.call(method, url, body).await
    }

    /// Calls the Cloudflare API, which must do it.
    pub(crate) async fn cloudflare(&self, method: http::Method, path: &str, body: Value) -> Value {
        let url = format!("{}{path}", self.simulator.endpoints().cloudflare);
        self.call(method, url, body).await
    }

    async fn call(&self, method: http::Method, url: String, body: Value) -> Value {
        let request = self.http.request(method, &url).bearer_auth(TOKEN).json(&body);
        let response = request.send().await.unwrap();
        let status = response.status();
        let text = response.text().await.unwrap();
        assert!(status.is_success(), "{url}: {status} {text}");
        serde_json::from_str(&text).unwrap()
    }

    /// A server that has begun to boot.
    pub(crate) async fn create(&self, name: &str, user_data: &str) -> LabServer {
        let server = json!({"name": name, "server_type": "cx33", "image": "debian-13", "user_data": user_data});
        let created = self.hetzner(http::Method::POST, "/servers", server).await;
        self.simulator.lab_server(created["server"]["id"].as_u64().unwrap())
    }

    /// A server whose cloud-init has ended well.
    pub(crate) async fn booted(&self, name: &str, user_data: &str) -> LabServer {
        let server = self.create(name, user_data).await;
        up(&server, 1).await;
        server
    }

    /// Presses a button of the Hetzner API.
    pub(crate) async fn press(&self, server: &LabServer, command: &str, body: Value) {
        let path = format!("/servers/{}/actions/{command}", server.id());
        self.hetzner(http::Method::POST, &path, body).await;
    }

    /// The status that the Hetzner API tells.
    pub(crate) async fn status(&self, server: &LabServer) -> String {
        let path = format!("/servers/{}", server.id());
        let answer = self.hetzner(http::Method::GET, &path, json!({})).await;
        answer["server"]["status"].as_str().unwrap().to_owned()
    }

    pub(crate) async fn delete(&self, server: &LabServer) {
        let path = format!("/servers/{}", server.id());
        self.hetzner(http::Method::DELETE, &path, json!({})).await;
    }
}

impl moorage_testbed::Stage for Stage {
    type Part = Arc<Self>;

    async fn part(self: Arc<Self>, _: &str) -> Arc<Self> {
        self
    }

    fn logs(&self) -> String {
        self.simulator.process().log_tail(50)
    }
}

/// Waits until start number `start` is done.
pub(crate) async fn up(server: &LabServer, start: u32) {
    let (took, end) = server.wait_boot(start, PATIENCE).await.unwrap();
    if end != CloudInit::Done {
        let status = server.exec(&["cat", "/run/cloud-init/result.json"]).await.unwrap();
        panic!("cloud-init failed: {status}");
    }
    eprintln!("start {start} of server {} took {:.1} s", server.id(), took.as_secs_f64());
}

/// Bytes that differ everywhere.
pub(crate) fn artifact() -> Vec<u8> {
    let words = (0u32..).flat_map(|number| number.wrapping_mul(0x9e37_79b9).to_le_bytes());
    words.take(ARTIFACT_BYTES).collect()
}
