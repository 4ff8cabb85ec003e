//! What stands between the operator and a worker, played by a test: the real program `moorage-agent worker`
//! on its socket, and whoever may open that. What the operator signs is made here as well.

use std::{path::PathBuf, process::Stdio, time::Duration};

use moorage_agent::{
    Disk, Layout,
    installer::{operator::publish, protocol::SignedCall},
};
use moorage_testbed::eventually;
use moorage_wire::{
    AgentPublicKey, CredentialType, DesiredState, Secret, Sha256,
    bootstrap::Bootstrap,
    credential::{Binding, SealedCredential},
    path,
    sealing::SealingCertificate,
    signature::{OperatorKey, Peers, RequestParts, sign_request},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::UnixStream,
    process::{Child, Command},
};

use crate::operator::{bootstrap, epoch, instance, operator_key};

const PATIENCE: Duration = Duration::from_secs(60);

/// The key of the agent whose place this takes.
const AGENT: AgentPublicKey = AgentPublicKey::from_bytes([8; 32]);

/// A worker of its own.
pub(crate) struct Messenger {
    pub(crate) layout: Layout,
    /// What runs the program, if it is not run as it is.
    wrapper: Vec<String>,
    arguments: Vec<String>,
    worker: Option<Child>,
    folder: tempfile::TempDir,
}

/// What the operator signs with, for whom.
pub(crate) struct Signer {
    pub(crate) key: OperatorKey,
    pub(crate) peers: Peers,
}

impl Signer {
    /// The operator of this server.
    pub(crate) fn genuine() -> Self {
        let peers = Peers { instance: instance(), epoch: epoch(), agent: Some(AGENT) };
        Self { key: operator_key(), peers }
    }

    /// A signed `PUT`, as it is passed on.
    pub(crate) fn sign(&self, path: &str, nonce: &str, body: &[u8]) -> Value {
        let parts = RequestParts { method: "PUT", path, query: "", if_match: None, body };
        let headers = sign_request(&self.key, &self.peers, nonce, &parts).unwrap();
        let agent = self.peers.agent.unwrap();
        serde_json::to_value(SignedCall::new(&headers, agent, body).unwrap()).unwrap()
    }
}

impl Messenger {
    /// A worker with these further arguments, which knows who its operator is.
    pub(crate) async fn start(arguments: &[String]) -> Self {
        Self::start_by(&[], arguments).await
    }

    /// The same, run by another program.
    pub(crate) async fn start_by(wrapper: &[&str], arguments: &[String]) -> Self {
        let mut messenger = Self::unprepared(arguments);
        messenger.wrapper = wrapper.iter().map(ToString::to_string).collect();
        messenger.prepare();
        messenger.restart().await;
        messenger
    }

    /// A server on which nobody has said who the operator is, and no worker runs yet.
    pub(crate) fn unprepared(arguments: &[String]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::new(folder.path().to_owned());
        Self { layout, wrapper: Vec::new(), arguments: arguments.to_vec(), worker: None, folder }
    }

    /// Does what the installer does at its start.
    pub(crate) fn prepare(&self) {
        let disk = Disk::default();
        let document: Bootstrap = bootstrap();
        disk.create_folder(self.layout.bootstrap().parent().unwrap()).unwrap();
        disk.write_json(&self.layout.bootstrap(), &document).unwrap();
        publish(&disk, &self.layout).unwrap();
    }

    /// Kills the worker, if one runs, and starts one.
    pub(crate) async fn restart(&mut self) {
        if let Some(mut worker) = self.worker.take() {
            worker.kill().await.unwrap();
        }
        let socket = self.layout.worker_socket();
        let mut line = self.wrapper.clone();
        line.push(env!("CARGO_BIN_EXE_moorage-agent").to_owned());
        let worker = Command::new(&line[0])
            .args(&line[1..])
            .args(["worker", "--client", &rustix::process::getuid().as_raw().to_string()])
            .args(["--listen", &format!("unix:{}", socket.display()), "--root"])
            .arg(self.folder.path())
            .args(&self.arguments)
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        self.worker = Some(worker);
        eventually("the worker", PATIENCE, async || UnixStream::connect(&socket).await.ok()).await;
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    /// The answer to one request.
    async fn ask(&self, request: Value) -> Value {
        let mut stream = UnixStream::connect(self.layout.worker_socket()).await.unwrap();
        stream.write_all(format!("{request}\n").as_bytes()).await.unwrap();
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).await.unwrap();
        serde_json::from_str(&line).unwrap()
    }

    pub(crate) async fn file(&self, request: Value) -> Value {
        self.ask(json!({"file": request})).await
    }

    pub(crate) async fn program(&self, request: Value) -> Value {
        self.ask(json!({"program": request})).await
    }

    /// A nonce that the operator is to sign with.
    pub(crate) async fn nonce(&self) -> String {
        let answer = self.file(json!({"verb": "nonces", "count": 1})).await;
        answer["nonces"][0].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned()
    }

    /// Passes a document on.
    pub(crate) async fn put_document(&self, call: &Value, keep: &[Sha256]) -> Value {
        self.file(json!({"verb": "put-document", "call": call, "keep": keep})).await
    }

    /// Passes a credential on.
    pub(crate) async fn store(&self, name: &str, call: &Value) -> Value {
        self.file(json!({"verb": "store-credential", "name": name, "call": call})).await
    }

    /// What the operator wants now, signed and passed on.
    pub(crate) async fn want(&self, document: &DesiredState) -> Sha256 {
        let nonce = self.nonce().await;
        let call = Signer::genuine().sign(path::DESIRED, &nonce, &document.to_bytes());
        let answer = self.put_document(&call, &[]).await;
        assert_eq!(answer, json!({"result": "done"}));
        document.digest()
    }

    /// What credentials are sealed to.
    pub(crate) async fn certificate(&self) -> SealingCertificate {
        let answer = self.file(json!({"verb": "certificate"})).await;
        SealingCertificate::parse(answer["certificate"].as_str().unwrap()).unwrap()
    }

    /// A credential as the operator sends it.
    pub(crate) async fn seal(
        &self,
        name: &str,
        kind: CredentialType,
        value: &str,
    ) -> SealedCredential {
        let source_sha256 = Sha256::of(format!("ciphertext of {value}").as_bytes());
        let binding = Binding::Courier { source_sha256 };
        let label = binding.label(instance(), epoch(), &name.parse().unwrap(), kind);
        let plaintext = Secret::from(value.to_owned());
        let envelope = self.certificate().await.seal(&plaintext, &label).unwrap();
        SealedCredential { r#type: kind, envelope, binding }
    }

    /// A credential, sealed, signed and passed on.
    pub(crate) async fn deliver(&self, name: &str, kind: CredentialType, value: &str) {
        let body = serde_json::to_vec(&self.seal(name, kind, value).await).unwrap();
        let target = format!("{}/{name}", path::CREDENTIALS);
        let call = Signer::genuine().sign(&target, &self.nonce().await, &body);
        let answer = self.store(name, &call).await;
        assert_eq!(answer["result"], "secrets", "{answer}");
    }
}
