//! etcd, kube-apiserver and kube-controller-manager on free ports of 127.0.0.1, with RBAC and TLS.

use std::{
    fs, io,
    net::TcpListener,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use serde_json::{Value, json};
use tempfile::TempDir;
use thiserror::Error;

use crate::{Ending, MissingTool, NotInTime, Process, Tool, Tools, wait_until};

const START_TIMEOUT: Duration = Duration::from_secs(120);
/// Another process may take a port between our looking and the server's binding.
const ATTEMPTS: u32 = 3;

/// Which programs of the control plane are started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Components {
    /// etcd and the API server: enough for admission, storage and watches.
    ApiServer,
    /// The controller manager as well, for garbage collection, namespaces and service accounts.
    All,
}

/// Whether the API server notes who asks for what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audit {
    Off,
    /// Of each request user, verb, URI and status when it is answered.
    Metadata,
}

/// A control plane. Dropping it ends its processes and removes its files.
#[derive(Debug)]
pub struct ControlPlane {
    // Dropped in this order.
    processes: Vec<Process>,
    url: String,
    directory: TempDir,
}

/// Why a control plane did not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// A binary is missing.
    #[error(transparent)]
    Tool(#[from] MissingTool),
    /// A file or process could not be made.
    #[error("cannot start the control plane: {0}")]
    Io(#[from] io::Error),
    /// A certificate could not be made.
    #[error("cannot make the control plane's certificates: {0}")]
    Certificates(#[from] rcgen::Error),
    /// No client for it could be made.
    #[error("cannot make a client: {0}")]
    Client(String),
    /// A process ended at once.
    #[error("{name} ended early ({status})\n{log}")]
    Ended { name: String, status: String, log: String },
    /// It runs but does not become ready.
    #[error("{0}\n{1}")]
    NotReady(NotInTime, String),
}

impl ControlPlane {
    /// Starts one and waits until it is ready.
    pub async fn start(tools: Tools, components: Components) -> Result<Self, StartError> {
        Self::start_with(tools, components, Audit::Off).await
    }

    /// The same, with an audit log or without.
    pub async fn start_with(
        tools: Tools,
        components: Components,
        audit: Audit,
    ) -> Result<Self, StartError> {
        let mut attempt = 1;
        loop {
            match Self::attempt(tools, components, audit).await {
                Err(StartError::Ended { log, .. })
                    if attempt < ATTEMPTS && log.contains("address already in use") =>
                {
                    attempt += 1;
                }
                result => return result,
            }
        }
    }

    async fn attempt(
        tools: Tools,
        components: Components,
        audit: Audit,
    ) -> Result<Self, StartError> {
        let directory = tempfile::Builder::new().prefix("moorage-control-plane-").tempdir()?;
        let [client_port, peer_port, api_port] = free_ports()?;
        let mut plane =
            Self { processes: Vec::new(), url: format!("https://127.0.0.1:{api_port}"), directory };
        plane.write_files()?;
        let etcd_url = format!("http://127.0.0.1:{client_port}");
        plane.spawn(tools, Tool::Etcd, "etcd", &etcd_arguments(&etcd_url, peer_port))?;
        let mut arguments = api_server_arguments(&etcd_url, api_port);
        if audit == Audit::Metadata {
            arguments.extend(AUDIT.map(str::to_owned));
        }
        plane.spawn(tools, Tool::KubeApiserver, "kube-apiserver", &arguments)?;
        plane.wait_until_ready().await?;
        if components == Components::All {
            let name = "kube-controller-manager";
            plane.spawn(tools, Tool::KubeControllerManager, name, CONTROLLER_MANAGER)?;
        }
        Ok(plane)
    }

    /// A client that may do anything. It belongs to the runtime that it was made in.
    pub async fn client(&self) -> Result<Client, StartError> {
        let failed = |error: &dyn std::error::Error| StartError::Client(error.to_string());
        let kubeconfig = Kubeconfig::read_from(self.kubeconfig()).map_err(|e| failed(&e))?;
        let options = KubeConfigOptions::default();
        let config = Config::from_custom_kubeconfig(kubeconfig, &options).await;
        Client::try_from(config.map_err(|e| failed(&e))?).map_err(|e| failed(&e))
    }

    /// The administrator's kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        self.directory.path().join("admin.kubeconfig")
    }

    /// Where the API server listens.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// PEM of the authority that signed the API server's certificate.
    pub fn authority(&self) -> PathBuf {
        self.directory.path().join("ca.pem")
    }

    /// The audit log so far: who asked for what, one JSON object per line. Empty without one.
    pub fn audit_log(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.directory.path().join(AUDIT_LOG)).unwrap_or_default();
        // The last line may be half written.
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// The last lines of all its logs.
    pub fn log_tails(&self, lines: usize) -> String {
        self.processes.iter().map(|process| process.log_tail(lines)).collect()
    }

    fn spawn(
        &mut self,
        tools: Tools,
        tool: Tool,
        name: &str,
        arguments: &[impl AsRef<str>],
    ) -> Result<(), StartError> {
        let directory = self.directory.path();
        let arguments = arguments
            .iter()
            .map(|argument| argument.as_ref().replace("{dir}", &directory.display().to_string()));
        let log = directory.join(format!("{name}.log"));
        // Their state goes with the folder, so there is nothing to put in order.
        let process = Process::start(name, &tools.path(tool)?, arguments, &[], &log, Ending::Kill)?;
        // The last is ended first.
        self.processes.insert(0, process);
        Ok(())
    }

    async fn wait_until_ready(&mut self) -> Result<(), StartError> {
        let client = self.client().await?;
        let processes = &mut self.processes;
        let ready = wait_until("the API server", START_TIMEOUT, || {
            let ended = processes.iter_mut().find_map(|process| {
                process.exit_status().map(|status| StartError::Ended {
                    name: process.name().to_owned(),
                    status: status.to_string(),
                    log: process.log_tail(30),
                })
            });
            let client = client.clone();
            async move {
                if let Some(ended) = ended {
                    return Ok(Err(ended));
                }
                let request = http::Request::get("/readyz").body(Vec::new());
                match client.request_text(request.expect("the path is a constant")).await {
                    Ok(text) if text == "ok" => Ok(Ok(())),
                    Ok(text) => Err(text),
                    Err(error) => Err(error.to_string()),
                }
            }
        });
        match ready.await {
            Ok(result) => result,
            Err(late) => Err(StartError::NotReady(late, self.log_tails(20))),
        }
    }

    /// Certificates, keys, the administrator's token and the kubeconfig with it.
    fn write_files(&self) -> Result<(), StartError> {
        let directory = self.directory.path();
        let mut authority = CertificateParams::default();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        authority.distinguished_name.push(DnType::CommonName, "control plane");
        let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate()?)?;
        let key = KeyPair::generate()?;
        let names = ["127.0.0.1", "kubernetes.default.svc"].map(str::to_owned);
        let certificate = CertificateParams::new(names)?.signed_by(&key, &authority)?;
        let service_accounts = KeyPair::generate()?;
        let token = random_token()?;
        let kubeconfig = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "admin",
            "clusters": [{"name": "moorage", "cluster": {"server": self.url, "certificate-authority": self.authority()}}],
            "users": [{"name": "admin", "user": {"token": token}}],
            "contexts": [{"name": "admin", "context": {"cluster": "moorage", "user": "admin"}}],
        });
        for (name, text) in [
            ("ca.pem", authority.pem()),
            ("server.pem", certificate.pem()),
            ("server.key", key.serialize_pem()),
            ("service-account.key", service_accounts.serialize_pem()),
            ("service-account.pub", service_accounts.public_key_pem()),
            ("audit-policy.json", audit_policy().to_string()),
            ("tokens.csv", format!("{token},admin,admin,system:masters\n")),
            ("admin.kubeconfig", kubeconfig.to_string()),
        ] {
            write_private(&directory.join(name), &text)?;
        }
        Ok(())
    }
}

/// A file that only its owner reads.
pub(crate) fn write_private(path: &Path, text: &str) -> io::Result<()> {
    let mut options = fs::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(path)?;
    io::Write::write_all(&mut file, text.as_bytes())
}

fn random_token() -> Result<String, StartError> {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| io::Error::other("no random bytes"))?;
    Ok(format!("{:032x}", u128::from_be_bytes(bytes)))
}

/// Ports that are free now; all are held until all are known, so that they differ.
fn free_ports<const COUNT: usize>() -> io::Result<[u16; COUNT]> {
    let mut listeners = Vec::with_capacity(COUNT);
    let mut ports = [0; COUNT];
    for port in &mut ports {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        *port = listener.local_addr()?.port();
        listeners.push(listener);
    }
    Ok(ports)
}

fn etcd_arguments(url: &str, peer_port: u16) -> Vec<String> {
    let peer_url = format!("http://127.0.0.1:{peer_port}");
    vec![
        "--unsafe-no-fsync".to_owned(),
        "--data-dir={dir}/etcd".to_owned(),
        format!("--listen-client-urls={url}"),
        format!("--advertise-client-urls={url}"),
        format!("--listen-peer-urls={peer_url}"),
        format!("--initial-advertise-peer-urls={peer_url}"),
        format!("--initial-cluster=default={peer_url}"),
    ]
}

fn api_server_arguments(etcd_url: &str, port: u16) -> Vec<String> {
    let mut arguments = vec![format!("--etcd-servers={etcd_url}"), format!("--secure-port={port}")];
    let constant = [
        "--bind-address=127.0.0.1",
        "--tls-cert-file={dir}/server.pem",
        "--tls-private-key-file={dir}/server.key",
        "--cert-dir={dir}/certificates",
        "--service-cluster-ip-range=10.0.0.0/24",
        "--service-account-issuer=https://127.0.0.1",
        "--service-account-key-file={dir}/service-account.pub",
        "--service-account-signing-key-file={dir}/service-account.key",
        "--authorization-mode=RBAC",
        "--token-auth-file={dir}/tokens.csv",
    ];
    arguments.extend(constant.map(str::to_owned));
    arguments
}

const AUDIT_LOG: &str = "audit.log";
const AUDIT: [&str; 3] = [
    "--audit-policy-file={dir}/audit-policy.json",
    "--audit-log-path={dir}/audit.log",
    // Each line is written before the answer is given, so that nothing is missing at the end.
    "--audit-log-mode=blocking",
];

fn audit_policy() -> Value {
    json!({
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        // A watch is noted when it begins: it may not end before the log is read.
        "omitStages": ["RequestReceived"],
        "rules": [{"level": "Metadata", "omitManagedFields": true}],
    })
}

const CONTROLLER_MANAGER: &[&str] = &[
    "--kubeconfig={dir}/admin.kubeconfig",
    "--service-account-private-key-file={dir}/service-account.key",
    "--root-ca-file={dir}/ca.pem",
    // Nothing runs in this cluster, so the controllers of workloads would have nothing to do.
    "--controllers=namespace-controller,garbage-collector-controller,serviceaccount-controller,clusterrole-aggregation-controller",
    "--leader-elect=false",
    "--secure-port=0",
];
