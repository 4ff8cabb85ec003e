//! The worker: all that touches OpenClaw's files and runs its command line, as the user who owns them.
//! On a server it is a process of its own behind a private socket ([`server`]); where one user owns
//! everything it runs within the agent. Either way the agent speaks to it through [`OpenClaw`], and
//! decides when something is done. What is written, the worker takes from the operator's own signature
//! alone (`orders`), and it opens credentials itself (`key`): the agent is no more than a messenger.

mod backup;
pub(crate) mod client;
mod credentials;
mod gateway;
mod integrations;
mod integrity;
mod issues;
mod key;
mod orders;
mod packed;
mod pairing;
mod program;
pub mod protocol;
mod secrets;
mod server;

use std::{fs, net::SocketAddr};

use moorage_wire::{
    Failure, Sha256,
    bootstrap::{Bootstrap, Operator},
    desired::Integration,
    failure::{FailureCode, Stage},
};
use thiserror::Error;

pub(crate) use self::client::{OpenClaw, WorkerError};
#[cfg(test)]
pub(crate) use self::server::listen_on;
pub use self::server::{ServeError, serve};
use self::{
    key::WorkerKey,
    orders::{Kept, Orders},
    program::{Program, ProgramError},
    protocol::{Answer, FileRequest, ProgramRequest, Refusal},
    secrets::Secrets,
};
use crate::{
    disk::{Disk, DiskError},
    failure::{code_of, of_disk},
    layout::Layout,
    openclaw::config,
    settings::OpenClawProgram,
};

/// How a worker knows its operator. It looks each time, for an operator may hand over to the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trust {
    /// By what the installer published.
    Published,
    /// By the bootstrap document, where one user owns everything.
    Bootstrap,
    #[cfg(test)]
    Given(Operator),
}

/// Does what the agent asks for.
pub(crate) struct Worker {
    disk: Disk,
    layout: Layout,
    gateway: SocketAddr,
    trust: Trust,
    key: WorkerKey,
    orders: Orders,
    secrets: Secrets,
    program: Program,
    /// Held by commands that write files: they would disturb each other.
    busy: tokio::sync::Mutex<()>,
}

/// Why something was not done.
#[derive(Debug, Error)]
enum WorkError {
    #[error(transparent)]
    Disk(#[from] DiskError),
    #[error(transparent)]
    Program(#[from] ProgramError),
    #[error("cannot {action} {}: {source}", path.display())]
    Files { action: &'static str, path: std::path::PathBuf, source: std::io::Error },
    #[error("{message}")]
    Refused { reason: Refusal, message: String },
    #[error("{0}")]
    Other(String),
    #[error("{name} {version}: {why}")]
    Integration { name: String, version: String, stage: Stage, code: FailureCode, why: String },
}

impl WorkError {
    fn refused(reason: Refusal, message: impl Into<String>) -> Self {
        Self::Refused { reason, message: message.into() }
    }

    /// An integration cannot be installed.
    fn of_integration(
        Integration { name, version, .. }: &Integration,
        (stage, code): (Stage, FailureCode),
        why: impl Into<String>,
    ) -> Self {
        let (name, version, why) = (name.clone(), version.clone(), why.into());
        Self::Integration { name, version, stage, code, why }
    }

    fn failure(&self) -> Failure {
        let (stage, code) = match self {
            Self::Integration { name, stage, code, why, .. } => {
                // The code says all of it.
                let detail = if *code == FailureCode::NotPinned { "" } else { why };
                return Failure::new(*stage, *code).of_integration(name).with_detail(detail);
            }
            Self::Disk(error) => return of_disk(error),
            Self::Program(ProgramError::Start { source, .. }) | Self::Files { source, .. } => {
                (Stage::Operation, code_of(source))
            }
            Self::Program(_) => (Stage::Operation, FailureCode::CommandFailed),
            Self::Refused { .. } | Self::Other(_) => (Stage::Operation, FailureCode::ServiceFailed),
        };
        Failure::new(stage, code).of(moorage_wire::Program::Openclaw).with_detail(&self.to_string())
    }
}

impl Worker {
    /// A worker for the server of `layout`, whose gateway answers on `gateway`.
    pub(crate) fn new(
        disk: Disk,
        layout: Layout,
        program: OpenClawProgram,
        gateway: SocketAddr,
        trust: Trust,
    ) -> Self {
        Self {
            trust,
            key: WorkerKey::new(disk.clone(), layout.clone()),
            orders: Orders::new(disk.clone(), layout.clone()),
            secrets: Secrets::new(disk.clone(), layout.clone()),
            program: Program::new(program, layout.clone()),
            busy: tokio::sync::Mutex::default(),
            disk,
            layout,
            gateway,
        }
    }

    /// Makes the folders, and removes what interrupted work left in them.
    pub(crate) fn prepare(&self) -> Result<(), DiskError> {
        let layout = &self.layout;
        self.finish_restore()?;
        for folder in
            [layout.openclaw_state(), layout.credentials(), layout.backups(), layout.worker_state()]
        {
            self.disk.create_folder(&folder)?;
            self.disk.sweep(&folder)?;
        }
        self.disk.sweep(&layout.openclaw_home())?;
        self.close_npm()?;
        self.disk.remove(&layout.staged_config())?;
        self.disk.remove(&layout.client_config())
    }

    /// The operator. Read each time: it is small.
    fn operator(&self) -> Result<Operator, WorkError> {
        let operator = match self.trust {
            Trust::Published => self.disk.read_json(&self.layout.operator())?,
            Trust::Bootstrap => {
                let bootstrap = self.disk.read_json::<Bootstrap>(&self.layout.bootstrap())?;
                bootstrap.map(|bootstrap| bootstrap.operator())
            }
            #[cfg(test)]
            Trust::Given(operator) => Some(operator),
        };
        operator.ok_or_else(|| {
            let message = "the installer has not said yet who the operator is";
            WorkError::refused(Refusal::Unprepared, message)
        })
    }

    /// Does something about single files. Blocks.
    pub(crate) fn file(&self, request: FileRequest) -> Answer {
        self.try_file(request).unwrap_or_else(answer_of)
    }

    fn try_file(&self, request: FileRequest) -> Result<Answer, WorkError> {
        Ok(match request {
            FileRequest::Certificate => {
                Answer::Certificate { certificate: self.key.certificate()? }
            }
            FileRequest::AdoptKey { key, certificate } => {
                self.key.adopt(key.into_inner(), certificate)?;
                Answer::Done
            }
            FileRequest::Nonces { count } => Answer::Nonces { nonces: self.orders.nonces(count)? },
            FileRequest::PutDocument { call, keep } => {
                self.orders.put_document(&self.operator()?, &call, &keep)?;
                Answer::Done
            }
            FileRequest::SecretNames => Answer::Secrets(self.secrets.held()?),
            FileRequest::StoreCredential { name, call } => self.store_credential(&name, &call)?,
            FileRequest::RetainSecrets { names } => Answer::Secrets(self.secrets.retain(&names)?),
            FileRequest::RemoveGoogleClient => {
                Answer::Secrets(self.secrets.remove_google_client()?)
            }
            FileRequest::ConfigDigest => self.config_digest()?,
            FileRequest::WriteConfig { document } => {
                let text = self.config_of(document)?;
                self.disk.write(&self.layout.openclaw_config(), text.as_bytes())?;
                Answer::Done
            }
        })
    }

    /// Runs `OpenClaw`'s program, or moves data.
    pub(crate) async fn program(&self, request: ProgramRequest) -> Answer {
        let answer = match request {
            ProgramRequest::Version => {
                let version = self.program.version().await;
                version.map(|version| Answer::Version { version }).map_err(Into::into)
            }
            ProgramRequest::Validate { document } => self.validate(document).await,
            ProgramRequest::ConfigApplied => self.is_config_applied().await,
            ProgramRequest::ReloadSecrets => self.reload_secrets().await.map(Answer::Reloaded),
            ProgramRequest::Backup => self.back_up().await,
            ProgramRequest::Room => self.room().await,
            ProgramRequest::TakeSnapshot => self.take_snapshot().await,
            ProgramRequest::RestoreSnapshot => self.restore_snapshot().await,
            ProgramRequest::DropSnapshot => self.drop_snapshot().await,
            ProgramRequest::AddIntegrations { document } => {
                self.add_integrations_of(document).await
            }
            ProgramRequest::RemoveIntegrations { document } => {
                self.remove_integrations_but_of(document).await
            }
            ProgramRequest::ApprovePairings { requests } => self.approve_pairings(&requests).await,
            ProgramRequest::Audit => self.audit().await,
        };
        answer.unwrap_or_else(answer_of)
    }

    /// The configuration of a kept document, as it is written.
    fn config_of(&self, document: Sha256) -> Result<String, WorkError> {
        let Kept { state, plugins } = self.orders.document(document)?;
        Ok(config::to_text(&state.config, &self.layout, &plugins))
    }

    async fn add_integrations_of(&self, document: Sha256) -> Result<Answer, WorkError> {
        let kept = self.orders.document(document)?;
        let plugins = self.add_integrations(&kept.state.integrations).await?;
        self.orders.note_plugins(document, &plugins)?;
        Ok(Answer::Integrations { plugins })
    }

    async fn remove_integrations_but_of(&self, document: Sha256) -> Result<Answer, WorkError> {
        let kept = self.orders.document(document)?;
        self.remove_integrations(&kept.state.integrations).await?;
        Ok(Answer::Done)
    }

    fn config_digest(&self) -> Result<Answer, DiskError> {
        let path = self.layout.openclaw_config();
        // A symlink is no configuration: OpenClaw refuses it.
        let is_file = fs::symlink_metadata(&path).is_ok_and(|metadata| metadata.is_file());
        let bytes = if is_file { self.disk.read(&path)? } else { None };
        Ok(Answer::Config { sha256: bytes.map(|bytes| Sha256::of(&bytes)) })
    }

    async fn validate(&self, document: Sha256) -> Result<Answer, WorkError> {
        let config = self.config_of(document)?;
        let _busy = self.busy.lock().await;
        let staged = self.layout.staged_config();
        self.disk.write(&staged, config.as_bytes())?;
        let validation = self.program.validate(&staged).await;
        self.disk.remove(&staged)?;
        Ok(Answer::Validation(validation?))
    }

    async fn is_config_applied(&self) -> Result<Answer, WorkError> {
        let arguments = ["gateway", "call", "config.get", "--params", "{}", "--json"];
        let answer = self.program.json("gateway call config.get", &arguments).await?;
        let hash = |name: &str| answer.get(name).and_then(serde_json::Value::as_str);
        let (saved, applied) = (hash("configRevisionHash"), hash("appliedConfigHash"));
        Ok(Answer::Applied { applied: saved.is_some() && saved == applied })
    }

    async fn audit(&self) -> Result<Answer, WorkError> {
        let answer = self.program.json("security audit", &["security", "audit", "--json"]).await?;
        let count = |name: &str| {
            let count = answer.pointer(&format!("/summary/{name}"));
            count.and_then(serde_json::Value::as_u64)
        };
        match (count("critical"), count("warn")) {
            (Some(critical), Some(warn)) => Ok(Answer::Audit { critical, warn }),
            _ => Err(WorkError::Other("`openclaw security audit` gave no summary".to_owned())),
        }
    }

    /// The live configuration, if it can be read.
    fn live_config(&self) -> Result<Option<serde_json::Value>, DiskError> {
        match self.disk.read_json(&self.layout.openclaw_config()) {
            Err(DiskError::Damaged { .. }) => Ok(None),
            config => config,
        }
    }
}

fn answer_of(error: WorkError) -> Answer {
    match error {
        WorkError::Refused { reason, message } => Answer::Refused { reason, message },
        error => Answer::Failed { message: error.to_string(), failure: Some(error.failure()) },
    }
}

fn failed(error: &dyn std::fmt::Display) -> Answer {
    Answer::Failed { message: error.to_string(), failure: None }
}
