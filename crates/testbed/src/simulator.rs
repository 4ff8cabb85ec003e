//! `moorage-sim` as a process, and its admin API.

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Deserialize;
use serde_json::Value;
use tempfile::TempDir;
use thiserror::Error;

use crate::{Ending, NotInTime, Process, wait_until};

/// It removes first what a killed one has left.
const START_TIMEOUT: Duration = Duration::from_secs(120);
/// It ends the processes of its servers first.
const PATIENCE: Duration = Duration::from_secs(60);
/// A server that boots on a busy machine takes long to be looked into.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(120);

/// How the simulator is started.
#[derive(Debug, Clone)]
pub struct SimulatorOptions {
    /// The `moorage-sim` program.
    pub program: PathBuf,
    /// The `moorage-agent` that servers run; without it servers exist in the API only.
    pub agent: Option<PathBuf>,
    /// Further arguments of `serve`.
    pub arguments: Vec<String>,
}

/// Where a simulator listens, from its ready file.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SimulatorEndpoints {
    /// Base of the Hetzner API.
    pub hetzner: String,
    /// Base of the Cloudflare API.
    pub cloudflare: String,
    /// Base of the admin API.
    pub admin: String,
    /// Address of the edge that visitors come to.
    pub edge: SocketAddr,
    /// Address of the edge that connectors come to.
    pub connector_edge: SocketAddr,
    /// PEM of the authority that signs the edge's certificates.
    pub edge_ca: PathBuf,
}

/// How often one kind of request came.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct RequestCount {
    /// `hetzner` or `cloudflare`.
    pub cloud: String,
    /// The project at Hetzner, the account at Cloudflare.
    pub tenant: Option<String>,
    /// HTTP method.
    pub method: String,
    /// The path with its ids replaced.
    pub path: String,
    pub count: u64,
}

#[derive(Deserialize)]
struct Fault {
    id: u64,
}

/// A running simulator. Dropping it ends it, its servers and their files.
#[derive(Debug)]
pub struct Simulator {
    // Dropped in this order.
    process: Process,
    endpoints: SimulatorEndpoints,
    http: reqwest::Client,
    state: TempDir,
}

/// What went wrong between us and the simulator.
#[derive(Debug, Error)]
pub enum SimulatorError {
    /// A file or process could not be made.
    #[error("cannot start moorage-sim ({}): {source}", program.display())]
    Start { program: PathBuf, source: io::Error },
    /// It does not become ready.
    #[error("{0}\n{1}")]
    NotReady(NotInTime, String),
    /// The admin API cannot be reached.
    #[error("the simulator's admin API does not answer: {0}")]
    Http(#[from] reqwest::Error),
    /// The admin API refuses.
    #[error("the simulator refuses {call}: {answer}")]
    Refused { call: String, answer: String },
}

impl Simulator {
    /// Starts one and waits until it is ready.
    pub async fn start(options: &SimulatorOptions) -> Result<Self, SimulatorError> {
        let failed = |source| SimulatorError::Start { program: options.program.clone(), source };
        // Short, since the paths of Unix sockets below it may have 107 bytes only.
        let state = tempfile::Builder::new().prefix("msim-").tempdir().map_err(failed)?;
        let ready_file = state.path().join("ready.json");
        let mut arguments: Vec<String> = vec![
            "serve".to_owned(),
            format!("--state-dir={}", state.path().display()),
            format!("--ready-file={}", ready_file.display()),
        ];
        if let Some(agent) = &options.agent {
            arguments.push("--backend=process".to_owned());
            arguments.push(format!("--agent-bin={}", agent.display()));
        }
        arguments.extend(options.arguments.iter().cloned());
        let log = state.path().join("moorage-sim.log");
        let ending = Ending::Terminate(PATIENCE);
        let mut process =
            Process::start("moorage-sim", &options.program, &arguments, &[], &log, ending)
                .map_err(failed)?;
        let ready = wait_until("moorage-sim to be ready", START_TIMEOUT, || {
            let ended = process.exit_status();
            let text = std::fs::read(&ready_file);
            async move {
                if let Some(status) = ended {
                    return Ok(Err(format!("it ended ({status})")));
                }
                let text = text.map_err(|error| format!("its ready file: {error}"))?;
                serde_json::from_slice::<SimulatorEndpoints>(&text)
                    .map(Ok)
                    .map_err(|error| format!("its ready file: {error}"))
            }
        });
        let endpoints = match ready.await {
            Ok(Ok(endpoints)) => endpoints,
            Ok(Err(ended)) => {
                return Err(failed(io::Error::other(format!("{ended}\n{}", process.log_tail(30)))));
            }
            Err(late) => return Err(SimulatorError::NotReady(late, process.log_tail(30))),
        };
        let http = reqwest::Client::builder().no_proxy().timeout(ANSWER_TIMEOUT).build()?;
        Ok(Self { process, endpoints, http, state })
    }

    /// Ends it with no chance to put anything in order, as a crash would.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    pub fn endpoints(&self) -> &SimulatorEndpoints {
        &self.endpoints
    }

    /// The process, for its log.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// The folder that plays the disk of server `id`.
    pub fn server_root(&self, id: u64) -> PathBuf {
        self.state.path().join("servers").join(id.to_string()).join("root")
    }

    pub fn state_dir(&self) -> &Path {
        self.state.path()
    }

    /// Makes or changes a Hetzner project.
    pub async fn put_project(&self, name: &str, project: &Value) -> Result<(), SimulatorError> {
        self.put(&format!("/admin/hetzner/projects/{name}"), project).await
    }

    /// Makes or changes a Cloudflare account.
    pub async fn put_account(&self, id: &str, account: &Value) -> Result<(), SimulatorError> {
        self.put(&format!("/admin/cloudflare/accounts/{id}"), account).await
    }

    /// Adds a fault, and gives its id.
    pub async fn add_fault(&self, fault: &Value) -> Result<u64, SimulatorError> {
        let request = self.http.post(self.admin("/admin/faults")).json(fault);
        let fault: Fault = answer("POST /admin/faults", request).await?.json().await?;
        Ok(fault.id)
    }

    /// Takes one fault away; one that has struck as often as it should is gone already.
    pub async fn remove_fault(&self, id: u64) -> Result<(), SimulatorError> {
        let request = self.http.delete(self.admin(&format!("/admin/faults/{id}")));
        match request.send().await?.error_for_status_ref() {
            Err(error) if error.status() != Some(reqwest::StatusCode::NOT_FOUND) => {
                Err(error.into())
            }
            _ => Ok(()),
        }
    }

    /// Takes all faults away.
    pub async fn clear_faults(&self) -> Result<(), SimulatorError> {
        let request = self.http.delete(self.admin("/admin/faults"));
        answer("DELETE /admin/faults", request).await.map(drop)
    }

    /// A server is gone behind everybody's back.
    pub async fn vanish_server(&self, project: &str, id: u64) -> Result<(), SimulatorError> {
        let path = format!("/admin/hetzner/projects/{project}/servers/{id}/vanish");
        answer(&path, self.http.post(self.admin(&path))).await.map(drop)
    }

    /// The requests of a tenant to a cloud (`hetzner` or `cloudflare`), in the order of their arrival.
    pub async fn journal(&self, cloud: &str, tenant: &str) -> Result<Vec<Value>, SimulatorError> {
        self.get(&format!("/admin/journal?cloud={cloud}&tenant={tenant}")).await
    }

    /// All requests of everybody to both clouds, in the order of their arrival.
    pub async fn whole_journal(&self) -> Result<Vec<Value>, SimulatorError> {
        self.get("/admin/journal").await
    }

    /// How often each kind of request came after number `since`.
    pub async fn request_counts(&self, since: u64) -> Result<Vec<RequestCount>, SimulatorError> {
        self.get(&format!("/admin/journal/counts?since={since}")).await
    }

    /// Everything that both clouds hold, by tenant.
    pub async fn state(&self) -> Result<Value, SimulatorError> {
        self.get("/admin/state").await
    }

    pub(crate) async fn put(&self, path: &str, body: &Value) -> Result<(), SimulatorError> {
        answer(path, self.http.put(self.admin(path)).json(body)).await.map(drop)
    }

    pub(crate) fn http(&self) -> &reqwest::Client {
        &self.http
    }

    pub(crate) async fn get<T: serde::de::DeserializeOwned>(
        &self,
        path: &str,
    ) -> Result<T, SimulatorError> {
        Ok(answer(path, self.http.get(self.admin(path))).await?.json().await?)
    }

    fn admin(&self, path: &str) -> String {
        format!("{}{path}", self.endpoints.admin)
    }
}

pub(crate) async fn answer(
    call: &str,
    request: reqwest::RequestBuilder,
) -> Result<reqwest::Response, SimulatorError> {
    let response = request.send().await?;
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let answer = format!("{status} {}", response.text().await?);
    Err(SimulatorError::Refused { call: call.to_owned(), answer })
}
