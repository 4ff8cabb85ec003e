//! Why an artifact was not fetched.

use std::{io, path::PathBuf};

use moorage_wire::{
    Failure,
    failure::{FailureCode, Stage},
};
use thiserror::Error;

use crate::failure::code_of;

/// Why an artifact was not fetched. No text of a server is repeated.
#[derive(Debug, Error)]
pub enum FetchError {
    /// The server cannot be reached, or the connection broke. What came is kept.
    #[error("{url} cannot be fetched after {have} bytes: {cause}")]
    Interrupted {
        /// From where, without query and credentials.
        url: String,
        /// Bytes that are on disk now.
        have: u64,
        /// The deepest cause, without URLs.
        cause: String,
    },
    /// The server answers with something other than the file.
    #[error("{url} answers {status}")]
    Status {
        /// From where, without query and credentials.
        url: String,
        /// HTTP status code, three digits.
        status: u16,
    },
    /// The server has another file. What came was deleted.
    #[error("{url} is not what the release pins: {what} differs")]
    WrongBytes {
        /// From where, without query and credentials.
        url: String,
        /// What differs: the size, SHA-256 or the range.
        what: &'static str,
    },
    /// The URL of the release cannot be used.
    #[error("the release's URL cannot be used: {0}")]
    Url(&'static str),
    /// The disk is full, or a file cannot be written. When it is full, what came was deleted.
    #[error("cannot {action} {}: {source}", path.display())]
    Disk {
        /// A verb for the message, such as `write`.
        action: &'static str,
        /// The file or folder that it was done to.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
}

impl FetchError {
    /// Whether the same download may succeed soon, without anybody changing anything.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Interrupted { .. } | Self::Disk { .. } => true,
            Self::Status { status, .. } => matches!(status, 408 | 425 | 429 | 500..),
            Self::WrongBytes { .. } | Self::Url(_) => false,
        }
    }
}

impl FetchError {
    /// As fields, without what it is of. How much came changes from one attempt to the next, so it is
    /// not in them.
    pub(crate) fn failure(&self) -> Failure {
        let (stage, code, detail) = match self {
            Self::Interrupted { cause, .. } => {
                (Stage::Download, FailureCode::Unreachable, cause.clone())
            }
            Self::Status { status, .. } => {
                (Stage::Download, FailureCode::HttpStatus, format!("status {status}"))
            }
            Self::WrongBytes { what, .. } => {
                (Stage::Verification, FailureCode::WrongBytes, format!("{what} differs"))
            }
            Self::Url(why) => (Stage::Download, FailureCode::InvalidUrl, (*why).to_owned()),
            Self::Disk { source, .. } => (Stage::Download, code_of(source), self.to_string()),
        };
        Failure::new(stage, code).with_detail(&detail)
    }
}
