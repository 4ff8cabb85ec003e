//! A real kube-apiserver with its etcd, for the time of one test.

use std::{
    ffi::OsString,
    net::TcpListener,
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use jiff::Timestamp;
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use moorage_wire::sealing::{KeyStrength, SealingKey};
use tempfile::TempDir;
use tokio::process::{Child, Command};

const START_TIMEOUT: Duration = Duration::from_secs(120);
const TOKEN: &str = "test-token";

/// The two processes and their files; they end with it.
pub(crate) struct ApiServer {
    client: Client,
    kubeconfig: Kubeconfig,
    processes: [Child; 2],
    _directory: TempDir,
}

impl ApiServer {
    /// Starts both; `None`, said loudly, where the binaries are not given.
    pub(crate) async fn start() -> Option<Self> {
        let (etcd, api_server) = (binary("MOORAGE_ETCD")?, binary("MOORAGE_KUBE_APISERVER")?);
        let directory = tempfile::tempdir().unwrap();
        let [client_port, peer_port, api_port] = free_ports();
        let etcd_url = format!("http://127.0.0.1:{client_port}");
        let peer_url = format!("http://127.0.0.1:{peer_port}");
        let etcd = spawn(
            &etcd,
            directory.path(),
            &[
                "--unsafe-no-fsync".into(),
                "--data-dir=etcd".into(),
                format!("--listen-client-urls={etcd_url}"),
                format!("--advertise-client-urls={etcd_url}"),
                format!("--listen-peer-urls={peer_url}"),
                format!("--initial-advertise-peer-urls={peer_url}"),
                format!("--initial-cluster=default={peer_url}"),
            ],
        );
        write_files(directory.path());
        let api_server = spawn(
            &api_server,
            directory.path(),
            &[
                format!("--etcd-servers={etcd_url}"),
                format!("--secure-port={api_port}"),
                "--bind-address=127.0.0.1".into(),
                "--cert-dir=certificates".into(),
                "--service-cluster-ip-range=10.0.0.0/24".into(),
                "--service-account-issuer=https://127.0.0.1".into(),
                "--service-account-key-file=service-account.pem".into(),
                "--service-account-signing-key-file=service-account.pem".into(),
                "--authorization-mode=RBAC".into(),
                "--token-auth-file=tokens.csv".into(),
            ],
        );
        let kubeconfig = kubeconfig(api_port);
        let client = Client::try_from(config(&kubeconfig).await).unwrap();
        let processes = [etcd, api_server];
        let mut server = Self { client, kubeconfig, processes, _directory: directory };
        server.wait_until_ready().await;
        Some(server)
    }

    /// A client that may do anything.
    pub(crate) fn client(&self) -> Client {
        self.client.clone()
    }

    /// How other programs reach it.
    #[allow(dead_code, reason = "not every test starts programs")]
    pub(crate) fn kubeconfig(&self) -> &Kubeconfig {
        &self.kubeconfig
    }

    /// Ends both processes and waits for them.
    pub(crate) async fn stop(mut self) {
        for process in self.processes.iter_mut().rev() {
            process.kill().await.unwrap();
        }
    }

    async fn wait_until_ready(&mut self) {
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            for process in &mut self.processes {
                assert!(process.try_wait().unwrap().is_none(), "a process ended early");
            }
            let request = http::Request::get("/readyz").body(Vec::new()).unwrap();
            match self.client.request_text(request).await {
                Ok(text) if text == "ok" => return,
                answer => assert!(Instant::now() < deadline, "not ready in time: {answer:?}"),
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

fn binary(variable: &str) -> Option<OsString> {
    let path = std::env::var_os(variable);
    if path.is_none() {
        let required = std::env::var_os("MOORAGE_REQUIRE_ALL").is_some_and(|all| all == "1");
        assert!(!required, "MOORAGE_REQUIRE_ALL=1, but {variable} names no binary");
        eprintln!("SKIPPED: {variable} names no binary, see hack/README.md");
    }
    path
}

/// Ports that are free now; all are held until all are known, so that they differ.
fn free_ports() -> [u16; 3] {
    let listeners = [(); 3].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    listeners.map(|listener| listener.local_addr().unwrap().port())
}

fn spawn(binary: &OsString, directory: &Path, arguments: &[String]) -> Child {
    Command::new(binary)
        .args(arguments)
        .current_dir(directory)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}

fn write_files(directory: &Path) {
    let validity = Duration::from_secs(3600);
    let (_, key) =
        SealingKey::generate(KeyStrength::Agent, "test", Timestamp::now(), validity).unwrap();
    let body = BASE64.encode(key.expose());
    let lines: Vec<_> = body.as_bytes().chunks(64).map(String::from_utf8_lossy).collect();
    let pem = lines.join("\n");
    let pem = format!("-----BEGIN PRIVATE KEY-----\n{pem}\n-----END PRIVATE KEY-----\n");
    std::fs::write(directory.join("service-account.pem"), pem).unwrap();
    let tokens = format!("{TOKEN},test,test,system:masters\n");
    std::fs::write(directory.join("tokens.csv"), tokens).unwrap();
}

fn kubeconfig(port: u16) -> Kubeconfig {
    let text = format!(
        "{{apiVersion: v1, kind: Config, current-context: test,
        clusters: [{{name: test, cluster: {{server: \"https://127.0.0.1:{port}\", insecure-skip-tls-verify: true}}}}],
        users: [{{name: test, user: {{token: {TOKEN}}}}}],
        contexts: [{{name: test, context: {{cluster: test, user: test}}}}]}}"
    );
    Kubeconfig::from_yaml(&text).unwrap()
}

/// A client's configuration for a cluster.
pub(crate) async fn config(kubeconfig: &Kubeconfig) -> Config {
    let options = KubeConfigOptions::default();
    Config::from_custom_kubeconfig(kubeconfig.clone(), &options).await.unwrap()
}
