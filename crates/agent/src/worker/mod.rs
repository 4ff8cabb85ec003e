//! The worker: all that touches OpenClaw's files and runs its command line, as the user who owns them.
//! On a server it is a process of its own behind a private socket ([`server`]); where one user owns
//! everything it runs within the agent. Either way the agent speaks to it through [`OpenClaw`]. What
//! should be done, and when, is decided by the agent alone.

mod backup;
pub(crate) mod client;
mod gateway;
mod integrations;
mod integrity;
mod packed;
mod pairing;
mod program;
pub mod protocol;
mod secrets;
mod server;

use std::{fs, net::SocketAddr};

use moorage_wire::Sha256;
use thiserror::Error;

pub(crate) use self::client::{OpenClaw, WorkerError};
#[cfg(test)]
pub(crate) use self::server::listen_on;
pub use self::server::{ServeError, serve};
use self::{
    program::{Program, ProgramError},
    protocol::{Answer, FileRequest, ProgramRequest},
    secrets::Secrets,
};
use crate::{
    disk::{Disk, DiskError},
    layout::Layout,
    settings::OpenClawProgram,
};

/// Does what the agent asks for.
pub(crate) struct Worker {
    disk: Disk,
    layout: Layout,
    gateway: SocketAddr,
    secrets: Secrets,
    program: Program,
    /// Held by commands that write files: they would get into each other's way.
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
    #[error("{0}")]
    Other(String),
}

impl Worker {
    /// A worker for the server of `layout`, whose gateway answers on `gateway`.
    pub(crate) fn new(
        disk: Disk,
        layout: Layout,
        program: OpenClawProgram,
        gateway: SocketAddr,
    ) -> Self {
        Self {
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
        for folder in [layout.openclaw_state(), layout.credentials(), layout.backups()] {
            self.disk.create_folder(&folder)?;
            self.disk.sweep(&folder)?;
        }
        self.disk.sweep(&layout.openclaw_home())?;
        self.close_npm()?;
        self.disk.remove(&layout.staged_config())?;
        self.disk.remove(&layout.client_config())
    }

    /// Does something about single files. Blocks.
    pub(crate) fn file(&self, request: FileRequest) -> Answer {
        let answer = match request {
            FileRequest::SecretNames => self.secrets.held().map(Answer::Secrets),
            FileRequest::SetSecret { name, value } => {
                self.secrets.set(&name, value.into_inner()).map(Answer::Secrets)
            }
            FileRequest::RetainSecrets { names } => {
                self.secrets.retain(&names).map(Answer::Secrets)
            }
            FileRequest::SetGoogleClient { value } => {
                self.secrets.set_google_client(&value.into_inner()).map(Answer::Secrets)
            }
            FileRequest::RemoveGoogleClient => {
                self.secrets.remove_google_client().map(Answer::Secrets)
            }
            FileRequest::ConfigDigest => self.config_digest(),
            FileRequest::WriteConfig { config } => {
                let path = self.layout.openclaw_config();
                self.disk.write(&path, config.as_bytes()).map(|()| Answer::Done)
            }
        };
        answer.unwrap_or_else(|error| failed(&error))
    }

    /// Runs `OpenClaw`'s program, or moves data.
    pub(crate) async fn program(&self, request: ProgramRequest) -> Answer {
        let answer = match request {
            ProgramRequest::Version => {
                let version = self.program.version().await;
                version.map(|version| Answer::Version { version }).map_err(Into::into)
            }
            ProgramRequest::Validate { config } => self.validate(&config).await,
            ProgramRequest::ConfigApplied => self.is_config_applied().await,
            ProgramRequest::ReloadSecrets => self.reload_secrets().await.map(Answer::Reloaded),
            ProgramRequest::Backup => self.back_up().await,
            ProgramRequest::Room => self.room().await,
            ProgramRequest::TakeSnapshot => self.take_snapshot().await,
            ProgramRequest::RestoreSnapshot => self.restore_snapshot().await,
            ProgramRequest::DropSnapshot => self.drop_snapshot().await,
            ProgramRequest::AddIntegrations { wanted } => {
                let plugins = self.add_integrations(&wanted).await;
                plugins.map(|plugins| Answer::Integrations { plugins })
            }
            ProgramRequest::RemoveIntegrations { wanted } => {
                self.remove_integrations(&wanted).await.map(|()| Answer::Done)
            }
            ProgramRequest::ApprovePairings { requests } => self.approve_pairings(&requests).await,
            ProgramRequest::Audit => self.audit().await,
        };
        answer.unwrap_or_else(|error| failed(&error))
    }

    fn config_digest(&self) -> Result<Answer, DiskError> {
        let path = self.layout.openclaw_config();
        // A symlink is no configuration: OpenClaw refuses it.
        let is_file = fs::symlink_metadata(&path).is_ok_and(|metadata| metadata.is_file());
        let bytes = if is_file { self.disk.read(&path)? } else { None };
        Ok(Answer::Config { sha256: bytes.map(|bytes| Sha256::of(&bytes)) })
    }

    async fn validate(&self, config: &str) -> Result<Answer, WorkError> {
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

fn failed(error: &dyn std::fmt::Display) -> Answer {
    Answer::Failed { message: error.to_string() }
}
