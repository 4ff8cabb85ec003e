//! What the tests of edge, connector and process backend share.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use moorage_sim_clouds::edge::{Edge, EdgeAddresses, MemoryRegistry};
use moorage_sim_tunnel::ingress::{IngressConfig, IngressRule};
use moorage_sim_tunnel::token::{RunToken, TunnelSecret};
use moorage_testbed::runs;
use serde_json::json;

use crate::connector::{Connector, Kind};

pub(crate) const SIM: &str = env!("CARGO_BIN_EXE_moorage-sim");
pub(crate) const ACCOUNT: &str = "acc";
pub(crate) const TUNNEL: &str = "6f1a0c52-8a43-4a8b-9a54-1f6d3c1f6f01";
/// How long something may take that has to come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until `probe` gives something.
pub(crate) async fn eventually<T>(what: &str, look: impl AsyncFnMut() -> Option<T>) -> T {
    moorage_testbed::eventually(what, PATIENCE, look).await
}

/// An edge with one tunnel.
pub(crate) struct Lab {
    pub(crate) registry: Arc<MemoryRegistry>,
    pub(crate) edge: Edge,
    pub(crate) folder: tempfile::TempDir,
}

impl Lab {
    pub(crate) async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let registry = Arc::new(MemoryRegistry::default());
        registry.add_tunnel(ACCOUNT, TUNNEL, b"first");
        let edge =
            Edge::start(registry.clone(), EdgeAddresses::default(), folder.path()).await.unwrap();
        Self { registry, edge, folder }
    }

    /// A client that dials the edge for every name and trusts its authority.
    pub(crate) fn client(&self, names: &[&str]) -> reqwest::Client {
        let pem = std::fs::read(self.edge.ca_file()).unwrap();
        let authority = reqwest::Certificate::from_pem(&pem).unwrap();
        let mut builder = reqwest::Client::builder()
            .tls_certs_only([authority])
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none());
        for name in names {
            builder = builder.resolve(name, self.edge.visitors());
        }
        builder.build().unwrap()
    }

    /// Writes a run token and gives its file.
    pub(crate) fn token(&self, name: &str, secret: &[u8]) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, run_token(secret)).unwrap();
        path
    }

    /// Starts a connector process.
    pub(crate) fn connector(&self, kind: Kind, token: &Path) -> Connector {
        Connector::start(kind, self.edge.connectors(), self.edge.ca_file(), token)
    }

    /// A lab whose tunnel is up and leads `ada.example.com` to `service`.
    pub(crate) async fn tunnelled(kind: Kind, service: &str) -> (Self, Connector) {
        let lab = Self::start().await;
        lab.registry.set_rules(TUNNEL, rules(&[("ada.example.com", service)]));
        lab.registry.add_route("ada.example.com", TUNNEL);
        let connector = lab.connector(kind, &lab.token("token", b"first"));
        lab.connections(1).await;
        connector.ready(200).await;
        (lab, connector)
    }

    /// Waits until so many connections were refused.
    pub(crate) async fn refusals(&self, wanted: usize) {
        eventually("refusals", async || (self.registry.refusals() >= wanted).then_some(())).await;
    }

    pub(crate) async fn connections(&self, wanted: usize) {
        eventually("connections of the tunnel", async || {
            (self.edge.connections_of(TUNNEL) == wanted).then_some(())
        })
        .await;
    }
}

pub(crate) fn run_token(secret: &[u8]) -> String {
    RunToken {
        account: ACCOUNT.into(),
        tunnel: TUNNEL.into(),
        secret: TunnelSecret(secret.to_vec()),
    }
    .encode()
}

pub(crate) fn rules(rules: &[(&str, &str)]) -> IngressConfig {
    let mut ingress: Vec<_> =
        rules.iter().map(|(host, service)| IngressRule::host(host, service)).collect();
    ingress.push(IngressRule::catch_all("http_status:404"));
    IngressConfig { ingress, ..IngressConfig::default() }
}

pub(crate) fn plain_client() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().build().unwrap()
}

/// The simulator's program under the name of the agent's stand-in.
pub(crate) fn agent_stand_in(folder: &tempfile::TempDir) -> PathBuf {
    let path = folder.path().join("agent-stand-in");
    std::os::unix::fs::symlink(SIM, &path).unwrap();
    path
}

pub(crate) fn user_data(secret: &[u8]) -> String {
    user_data_with(&run_token(secret))
}

pub(crate) fn user_data_with(token: &str) -> String {
    let files = json!({"write_files": [
        {"path": "/etc/moorage/bootstrap.json", "permissions": "0600", "owner": "root:root", "content": "{}"},
        {"path": "/etc/moorage/tunnel-token", "permissions": "0600", "content": token},
    ]});
    format!("#cloud-config\n{files}\n")
}

pub(crate) async fn gone(processes: &[u32]) {
    eventually("the end of the processes", async || {
        (!processes.iter().any(|process| runs(*process))).then_some(())
    })
    .await;
}
