//! Connectors as processes: the real cloudflared, where there is one, and the simulator's own.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use moorage_testbed::{free_address, skip_without_cloudflared};
use rustix::process::Signal;
use serde_json::Value;
use tokio::process::{Child, Command};

use crate::common::{PATIENCE, SIM, eventually, plain_client};

/// Which program connects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Cloudflared,
    StandIn,
}

impl Kind {
    /// False, said loudly, where the program is missing.
    pub(crate) fn is_here(self) -> bool {
        if self == Self::StandIn || cloudflared().is_some() {
            return true;
        }
        skip_without_cloudflared("there is no cloudflared: set CLOUDFLARED_BIN, or put it on PATH");
        false
    }
}

/// `CLOUDFLARED_BIN` (`none` is none), the first on `PATH`, or one that lies beside the checkout.
fn cloudflared() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os("CLOUDFLARED_BIN") {
        if named == "none" {
            return None;
        }
        let named = PathBuf::from(named);
        assert!(named.is_file(), "CLOUDFLARED_BIN names no file: {}", named.display());
        return Some(named);
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/bin");
    std::env::split_paths(&path)
        .chain([beside])
        .map(|folder| folder.join("cloudflared"))
        .find(|file| file.is_file())
}

/// A connector process; killed when dropped.
pub(crate) struct Connector {
    pub(crate) child: Child,
    pub(crate) metrics: SocketAddr,
}

impl Connector {
    /// Starts a connector with one connection.
    pub(crate) fn start(kind: Kind, edge: SocketAddr, ca_file: &Path, token: &Path) -> Self {
        Self::with_connections(kind, edge, ca_file, token, 1)
    }

    /// Starts a connector with so many connections; the simulator's own has always one.
    pub(crate) fn with_connections(
        kind: Kind,
        edge: SocketAddr,
        ca_file: &Path,
        token: &Path,
        connections: usize,
    ) -> Self {
        let metrics = free_address().unwrap();
        let mut command = match kind {
            Kind::StandIn => {
                let mut command = Command::new(SIM);
                command.args(["connector", "--retry-base-ms", "20", "--token-file"]).arg(token);
                command.args(["--edge", &edge.to_string(), "--metrics", &metrics.to_string()]);
                command.arg("--cacert").arg(ca_file);
                command
            }
            Kind::Cloudflared => {
                let edge = edge.to_string();
                let mut command = Command::new(cloudflared().unwrap());
                command.env_clear().env("TUNNEL_TOKEN_FILE", token);
                command.args([
                    "tunnel",
                    "--no-autoupdate",
                    "--no-prechecks",
                    "--protocol",
                    "http2",
                ]);
                // Twice, or it retries without any pause.
                command.args(["--edge", &edge, "--edge", &edge, "--retries", "0"]);
                command.args(["--ha-connections", &connections.to_string()]);
                command.arg("--cacert").arg(ca_file);
                command.args(["--metrics", &metrics.to_string(), "run"]);
                command
            }
        };
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        Self { child, metrics }
    }

    /// Waits until `/ready` has this status, and gives its body.
    pub(crate) async fn ready(&self, status: u16) -> Value {
        let url = format!("http://{}/ready", self.metrics);
        let client = plain_client();
        eventually("/ready", async || {
            let response = client.get(&url).send().await.ok()?;
            (response.status() == status).then_some(())?;
            response.json().await.ok()
        })
        .await
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        moorage_testbed::signal(self.child.id().unwrap(), signal);
    }

    /// Asks it to stop, and says how long it took to end well.
    pub(crate) async fn stop(mut self) -> Duration {
        let since = Instant::now();
        self.signal(Signal::TERM);
        let status = tokio::time::timeout(PATIENCE, self.child.wait()).await.expect("it goes on");
        assert!(status.unwrap().success());
        since.elapsed()
    }

    /// Whether it still runs.
    pub(crate) fn lives(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }
}
