//! What keeps a pass from its end.

use moorage_wire::{
    Failure, Program,
    failure::{FailureCode, Stage},
    report::FailureReason,
};
use thiserror::Error;

use crate::{
    artifacts::{ArtifactError, fetch::FetchError},
    disk::DiskError,
    failure::{DocumentFailure, of_disk},
    installer::client::InstallerError,
    vault::StoreError,
    worker::WorkerError,
};

/// What keeps a pass from its end; the pass is retried.
#[derive(Debug, Error)]
pub(crate) enum Trouble {
    #[error(transparent)]
    Disk(#[from] DiskError),
    #[error(transparent)]
    Installer(#[from] InstallerError),
    #[error(transparent)]
    Worker(#[from] WorkerError),
    #[error("an integration cannot be installed: {0}")]
    Integration(WorkerError),
    #[error("{error}")]
    Fetch { subject: Subject, error: FetchError },
    #[error(transparent)]
    Artifact(#[from] ArtifactError),
    /// Something came up while a download was under way, which is resumed later.
    #[error("another document or credential comes first")]
    Interrupted,
    #[error("{message}")]
    Other { message: String, failure: Box<Failure> },
}

/// What an artifact is of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Subject {
    Program(Program),
    Integration(String),
}

impl Subject {
    /// The failure, as one of this.
    pub(super) fn blame(&self, failure: Failure) -> Failure {
        match self {
            Self::Program(program) => failure.of(*program),
            Self::Integration(name) => failure.of_integration(name),
        }
    }
}

impl From<StoreError> for Trouble {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Disk(error) => Self::Disk(error),
            StoreError::Worker(error) => Self::Worker(error),
        }
    }
}

impl Trouble {
    pub(super) fn other(message: impl Into<String>, failure: Failure) -> Self {
        Self::Other { message: message.into(), failure: Box::new(failure) }
    }

    fn reason(&self) -> FailureReason {
        match self {
            Self::Integration(_) => FailureReason::Integration,
            Self::Fetch { .. } => FailureReason::Artifact,
            _ => FailureReason::System,
        }
    }

    /// Whether a server outside is asked again: then with a longer back-off.
    pub(super) fn is_remote(&self) -> bool {
        matches!(self, Self::Integration(_) | Self::Fetch { .. })
    }

    pub(super) fn failure(&self) -> Failure {
        match self {
            Self::Disk(error) => of_disk(error),
            Self::Installer(error) => error.failure(),
            Self::Worker(error) | Self::Integration(error) => error.failure(),
            Self::Fetch { subject, error } => subject.blame(error.failure()),
            Self::Artifact(error) => error.failure(),
            Self::Interrupted => Failure::new(Stage::Download, FailureCode::Deferred),
            Self::Other { failure, .. } => (**failure).clone(),
        }
    }

    pub(super) fn of_document(&self) -> DocumentFailure {
        DocumentFailure::new(self.reason(), self.to_string(), self.failure())
    }
}
