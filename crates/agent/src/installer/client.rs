//! The agent's side of the installer's socket.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use moorage_wire::{
    Failure, Program, Sha256,
    failure::{FailureCode, Stage},
};
use thiserror::Error;
use tokio::time::timeout;

use super::protocol::{
    Answer, Inventory, LONGEST_ANSWER, Reason, Request, SignedCall, Unit, UnitFailure,
};
use crate::conversation;

/// A stop waits for the unit's own `TimeoutStopSec`, which is 330 s for OpenClaw.
const PATIENCE: Duration = Duration::from_secs(400);
const STATUS_PATIENCE: Duration = Duration::from_secs(5);
/// To hash, unpack and make durable hundreds of megabytes in tens of thousands of files.
const INSTALL_PATIENCE: Duration = Duration::from_secs(1200);

/// Why the installer did not do what it was asked for.
#[derive(Debug, Error)]
pub enum InstallerError {
    /// Nobody answers on its socket.
    #[error("the installer does not answer on {}: {source}", socket.display())]
    Absent {
        /// The socket that was asked.
        socket: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// It took too long.
    #[error("the installer did not answer in time")]
    Timeout,
    /// It refused or failed.
    #[error("the installer failed: {message}")]
    Failed {
        /// What to make of it.
        reason: Reason,
        /// As the installer words it.
        message: String,
    },
}

impl InstallerError {
    /// Why it refused or failed, if it answered at all.
    pub fn reason(&self) -> Option<Reason> {
        match self {
            Self::Failed { reason, .. } => Some(*reason),
            Self::Absent { .. } | Self::Timeout => None,
        }
    }

    /// As fields, without what it is of.
    pub(crate) fn failure(&self) -> Failure {
        let (code, detail) = match self {
            Self::Failed { reason, message } => (code_of(*reason), message.clone()),
            Self::Absent { .. } | Self::Timeout => (FailureCode::ServiceFailed, self.to_string()),
        };
        Failure::new(Stage::Installation, code).with_detail(&detail)
    }

    /// Whether the same request may succeed later.
    pub fn is_transient(&self) -> bool {
        matches!(self.reason(), None | Some(Reason::Busy | Reason::DiskFull | Reason::System))
    }

    fn unexpected() -> Self {
        let message = "its answer is to another question".to_owned();
        Self::Failed { reason: Reason::System, message }
    }
}

fn code_of(reason: Reason) -> FailureCode {
    match reason {
        Reason::WrongBytes => FailureCode::WrongBytes,
        Reason::BadArtifact => FailureCode::BadArtifact,
        Reason::FailedBefore => FailureCode::FailedBefore,
        Reason::Busy => FailureCode::Deferred,
        Reason::DiskFull => FailureCode::NoSpace,
        Reason::Refused | Reason::BadOrder | Reason::NotInstalled | Reason::System => {
            FailureCode::ServiceFailed
        }
    }
}

/// Whether a unit runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnitStatus {
    /// Whether its process runs.
    pub running: bool,
    /// Grows with every start since boot.
    pub starts: u32,
    /// How it failed, while it is down for that.
    pub failure: Option<UnitFailure>,
}

/// Talks to the installer; one connection per request.
#[derive(Debug, Clone)]
pub struct InstallerClient {
    socket: PathBuf,
}

impl InstallerClient {
    /// A client for the installer that listens on `socket`.
    pub fn new(socket: PathBuf) -> Self {
        Self { socket }
    }

    /// Asks whether a unit runs.
    pub async fn status(&self, unit: Unit) -> Result<UnitStatus, InstallerError> {
        match self.call(&Request::Status { unit }, STATUS_PATIENCE).await? {
            Answer::Status { running, starts, failure } => {
                Ok(UnitStatus { running, starts, failure })
            }
            _ => Err(InstallerError::unexpected()),
        }
    }

    /// Asks what is installed, and what became of agent updates.
    pub async fn inventory(&self) -> Result<Inventory, InstallerError> {
        match self.call(&Request::Installed, STATUS_PATIENCE).await? {
            Answer::Installed(inventory) => Ok(inventory),
            _ => Err(InstallerError::unexpected()),
        }
    }

    /// Has the artifact that `order` pins for `kind` installed from `file`. Cheap if it is there.
    pub async fn install(
        &self,
        order: &SignedCall,
        kind: Program,
        file: &Path,
    ) -> Result<(), InstallerError> {
        let (order, file) = (order.clone(), file.to_owned());
        self.done(&Request::Install { order, kind, file }, INSTALL_PATIENCE).await
    }

    /// Has the integration that `order` pins with this digest installed from `file`. Cheap if it is
    /// there.
    pub async fn install_integration(
        &self,
        order: &SignedCall,
        sha256: Sha256,
        file: &Path,
    ) -> Result<(), InstallerError> {
        let (order, file) = (order.clone(), file.to_owned());
        self.done(&Request::InstallIntegration { order, sha256, file }, INSTALL_PATIENCE).await
    }

    /// Makes an installed version the current one.
    pub async fn activate(&self, kind: Program, sha256: Sha256) -> Result<(), InstallerError> {
        self.done(&Request::Activate { kind, sha256 }, INSTALL_PATIENCE).await
    }

    /// Has this agent replaced by the one that `order` pins. After `Ok` this process is about to be
    /// stopped.
    pub async fn update_agent(
        &self,
        order: &SignedCall,
        file: &Path,
    ) -> Result<(), InstallerError> {
        let (order, file) = (order.clone(), file.to_owned());
        self.done(&Request::UpdateAgent { order, file }, PATIENCE).await
    }

    /// Says that the operator reached this agent; see [`super::confirmation`].
    pub async fn confirm_agent(&self) -> Result<(), InstallerError> {
        self.done(&Request::ConfirmAgent, PATIENCE).await
    }

    /// Has something done that has no more to answer than that.
    pub async fn perform(&self, request: &Request) -> Result<(), InstallerError> {
        self.done(request, PATIENCE).await
    }

    async fn done(&self, request: &Request, patience: Duration) -> Result<(), InstallerError> {
        match self.call(request, patience).await? {
            Answer::Done => Ok(()),
            _ => Err(InstallerError::unexpected()),
        }
    }

    async fn call(&self, request: &Request, patience: Duration) -> Result<Answer, InstallerError> {
        let absent = |source| InstallerError::Absent { socket: self.socket.clone(), source };
        match timeout(patience, conversation::ask(&self.socket, request, LONGEST_ANSWER)).await {
            Ok(Ok(Answer::Failed { reason, message })) => {
                Err(InstallerError::Failed { reason, message })
            }
            Ok(answer) => answer.map_err(absent),
            Err(_) => Err(InstallerError::Timeout),
        }
    }
}
