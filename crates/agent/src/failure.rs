//! Why a document does not work or cannot be carried out yet: as fields, for the operator, and in words,
//! for the journal and for operators that do not read the fields.

use std::io;

use jiff::Timestamp;
use moorage_wire::{
    Failure, Program, Sha256,
    failure::{FailureCode, Stage},
    report::{ConfigIssue, FailedDigest, FailureReason},
};
use serde::{Deserialize, Serialize};

use crate::disk::DiskError;

/// What is said of a document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DocumentFailure {
    pub(crate) reason: FailureReason,
    pub(crate) message: String,
    #[serde(default)]
    pub(crate) path: Option<String>,
    /// All that OpenClaw has against the configuration.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) issues: Vec<ConfigIssue>,
    /// Absent from the journal of an update that an older agent began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) failure: Option<Failure>,
}

impl DocumentFailure {
    pub(crate) fn new(reason: FailureReason, message: String, failure: Failure) -> Self {
        Self { reason, message, path: None, issues: Vec::new(), failure: Some(failure) }
    }

    /// OpenClaw rejects the configuration.
    pub(crate) fn rejected(issues: Vec<ConfigIssue>) -> Self {
        let mut paths = issues.iter().map(|issue| issue.path.as_str());
        let path = paths.find(|path| !path.is_empty()).map(str::to_owned);
        let at = path.as_deref().map_or(String::new(), |path| format!(" at {path}"));
        let message = format!("OpenClaw rejects the configuration{at}");
        let failure =
            Failure::new(Stage::Configuration, FailureCode::ConfigRejected).of(Program::Openclaw);
        Self { path, issues, ..Self::new(FailureReason::InvalidConfig, message, failure) }
    }

    pub(crate) fn of(self, digest: Sha256, at: Timestamp) -> FailedDigest {
        let Self { reason, message, path, issues, failure } = self;
        let (message, path) = (message.into(), path.map(Into::into));
        FailedDigest { digest, reason, message, failure, path, issues, at }
    }
}

/// What is wrong with something that runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Trouble {
    pub(crate) message: String,
    pub(crate) failure: Failure,
}

/// Whether there is no room, or what else the operating system refused.
pub(crate) fn code_of(error: &io::Error) -> FailureCode {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => FailureCode::NoSpace,
        _ => FailureCode::System,
    }
}

/// A file of the agent's own.
pub(crate) fn of_disk(error: &DiskError) -> Failure {
    let code = match error {
        DiskError::Io { source, .. } => code_of(source),
        DiskError::Damaged { .. } => FailureCode::System,
    };
    Failure::new(Stage::Storage, code).with_detail(&error.to_string())
}
