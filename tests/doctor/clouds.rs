//! Simulated clouds with one healthy tenant, and the program that looks at them.

use std::{
    path::{Path, PathBuf},
    process::{Output, Stdio},
};

use moorage_testbed::{Simulator, SimulatorOptions};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Command;

pub(crate) const ACCOUNT: &str = "0123456789abcdef0123456789abcdef";
pub(crate) const ZONE: &str = "fedcba9876543210fedcba9876543210";
pub(crate) const DOMAIN: &str = "example.com";
/// Shorter than what is redacted by its looks: only who knows it hides it.
pub(crate) const HETZNER_TOKEN: &str = "hetzner-s3cret";
pub(crate) const CLOUDFLARE_TOKEN: &str = "cloudflare-s3cret";

pub(crate) struct Clouds {
    pub(crate) simulator: Simulator,
    folder: TempDir,
    /// Where the files of the release are.
    files: String,
    serving: tokio::task::JoinHandle<()>,
}

impl Drop for Clouds {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Clouds {
    pub(crate) async fn start() -> Self {
        let program = moorage().with_file_name("moorage-sim");
        let arguments = vec!["--action-ms=50".to_owned()];
        let options = SimulatorOptions { program, agent: None, arguments };
        let simulator = Simulator::start(&options).await.unwrap();
        let (files, serving) = serve_files().await;
        let folder = tempfile::tempdir().unwrap();
        let clouds = Self { simulator, folder, files, serving };
        clouds.write("hetzner.token", HETZNER_TOKEN);
        clouds.write("cloudflare.token", CLOUDFLARE_TOKEN);
        clouds.write("pool.yaml", &pool(&json!({}), &json!({})).to_string());
        clouds.write("release.yaml", &clouds.release("x86", 7).to_string());
        clouds.heal().await;
        clouds
    }

    /// Everything as it should be.
    pub(crate) async fn heal(&self) {
        self.simulator.clear_faults().await.unwrap();
        self.project(&json!({})).await;
        self.account(&json!({})).await;
    }

    pub(crate) async fn project(&self, changes: &Value) {
        let project = merged(json!({"token": HETZNER_TOKEN}), changes);
        self.simulator.put_project("lab", &project).await.unwrap();
    }

    pub(crate) async fn account(&self, changes: &Value) {
        let zone = json!({"id": ZONE, "name": DOMAIN});
        let account = json!({"token": CLOUDFLARE_TOKEN, "zones": [zone]});
        self.simulator.put_account(ACCOUNT, &merged(account, changes)).await.unwrap();
    }

    pub(crate) async fn zone(&self, setup: &Value) {
        let zone = json!({"id": ZONE, "name": DOMAIN, "setup": setup});
        self.account(&json!({"zones": [zone]})).await;
    }

    /// Cloudflare refuses calls to a path, as of a token without the scope for it.
    pub(crate) async fn refuse(&self, path: &str) {
        let fault = json!({
            "cloud": "cloudflare", "path": path, "times": null, "kind": "status", "status": 403,
        });
        self.simulator.add_fault(&fault).await.unwrap();
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// A release of which every file has so many bytes.
    pub(crate) fn release(&self, architecture: &str, size: u64) -> Value {
        let artifact = |name: &str| {
            json!({
                "version": "1.0.0", "url": format!("{}/{name}", self.files), "sha256": "0".repeat(64),
                "size": size, "architecture": architecture,
            })
        };
        let artifacts = json!({
            "openclaw": artifact("openclaw"), "node": artifact("node"),
            "cloudflared": artifact("cloudflared"), "agent": artifact("agent"),
        });
        json!({
            "apiVersion": "moorage.dev/v1alpha1", "kind": "OpenClawRelease",
            "metadata": {"name": architecture}, "spec": {"version": "1.0.0", "artifacts": artifacts},
        })
    }

    /// The program with the endpoints, and whatever else.
    pub(crate) fn bare_command(&self, arguments: &[&str]) -> Command {
        let endpoints = self.simulator.endpoints();
        let mut command = Command::new(moorage());
        command
            .arg("doctor")
            .args(["--hetzner-endpoint", &endpoints.hetzner])
            .args(["--cloudflare-endpoint", &endpoints.cloudflare])
            .args(arguments)
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    /// The same with the files of the tokens.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let file = |name: &str| self.folder.path().join(name);
        let mut command = self.bare_command(arguments);
        command
            .arg("--hetzner-token-file")
            .arg(file("hetzner.token"))
            .arg("--cloudflare-token-file")
            .arg(file("cloudflare.token"));
        command
    }

    pub(crate) async fn output(&self, arguments: &[&str]) -> Output {
        let output = self.command(arguments).output().await.unwrap();
        for token in [HETZNER_TOKEN, CLOUDFLARE_TOKEN] {
            for text in [&output.stdout, &output.stderr] {
                assert!(!String::from_utf8_lossy(text).contains(token), "a token is shown");
            }
        }
        output
    }

    /// Looks with the manifests of the pool and the release. The report, and the exit code.
    pub(crate) async fn look(&self, arguments: &[&str]) -> (Value, i32) {
        let file = |name: &str| self.folder.path().join(name).display().to_string();
        let (pool, release) = (file("pool.yaml"), file("release.yaml"));
        let mut all = vec!["-o", "json", "-f", &pool, "-f", &release];
        all.extend(arguments);
        let output = self.output(&all).await;
        let code = output.status.code().unwrap();
        let report = serde_json::from_slice(&output.stdout);
        let report = report.unwrap_or_else(|_| {
            panic!("exit code {code}: {}", String::from_utf8_lossy(&output.stderr))
        });
        (report, code)
    }
}

fn moorage() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_moorage"))
}

/// A pool of one server type for each architecture, with an SSH key.
pub(crate) fn pool(hetzner: &Value, cloudflare: &Value) -> Value {
    let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGFkYWRhYWRhYWRhYWRhYWRhYWRhYWRhYWRhYWRhYWQ";
    let hetzner_spec = json!({
        "tokenSecretRef": {"name": "hetzner"}, "serverTypes": ["cx33"], "locations": ["fsn1", "nbg1"],
        "ssh": {"user": "ops", "keys": [key]},
    });
    let cloudflare_spec = json!({
        "tokenSecretRef": {"name": "cloudflare"}, "accountId": ACCOUNT, "zoneId": ZONE, "domain": DOMAIN,
    });
    json!({
        "apiVersion": "moorage.dev/v1alpha1", "kind": "HostingPool", "metadata": {"name": "eu-1"},
        "spec": {
            "capacity": 5, "hetzner": merged(hetzner_spec, hetzner),
            "cloudflare": merged(cloudflare_spec, cloudflare),
        },
    })
}

pub(crate) fn merged(mut base: Value, changes: &Value) -> Value {
    base.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    base
}

/// Files of seven bytes, whatever they are called; none below `/gone`.
async fn serve_files() -> (String, tokio::task::JoinHandle<()>) {
    use axum::{Router, http::StatusCode, routing::get};
    let app = Router::new()
        .route("/gone/{name}", get(async || StatusCode::NOT_FOUND))
        .route("/{name}", get(async || "7 bytes"));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let files = format!("http://{}", listener.local_addr().unwrap());
    (files, tokio::spawn(async move { axum::serve(listener, app).await.unwrap() }))
}
