//! Pinned artifacts on a server: fetching them (the agent's part), and verifying, unpacking, keeping
//! and switching them below `/opt/moorage` (the installer's part). Who may ask for what is not known
//! here.

mod elf;
pub mod fetch;
mod intake;
mod shelf;
mod store;
mod unpack;

use std::{
    io,
    path::{Path, PathBuf},
};

use moorage_wire::{
    Failure,
    failure::{FailureCode, Stage},
};
use thiserror::Error;

pub(crate) use self::shelf::PACKED;
pub use self::{
    elf::Executable,
    shelf::{Shelf, executable},
    store::Store,
    unpack::UnpackError,
};

/// Why an artifact is not installed, or not made the current one.
#[derive(Debug, Error)]
pub enum ArtifactError {
    /// The file is not in the folder that artifacts are fetched into, or no regular file.
    #[error("{} is no file that was fetched: {why}", file.display())]
    NotAFile {
        /// The file, with its folder.
        file: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The file is not the pinned one.
    #[error("{} is not what the release pins: {what} differs", file.display())]
    WrongBytes {
        /// The file, with its folder.
        file: PathBuf,
        /// What differs: the size, SHA-256 or the range.
        what: &'static str,
    },
    /// The pinned size is larger than an artifact of this kind may be.
    #[error("an artifact of {size} bytes is too large: at most {limit} are taken")]
    TooLarge {
        /// Bytes, as the release pins it.
        size: u64,
        /// Bytes; differs by program.
        limit: u64,
    },
    /// The archive is not one that can be unpacked safely.
    #[error("the archive is not taken: {0}")]
    Archive(UnpackError),
    /// What was unpacked lacks its program, or it is not for this machine.
    #[error("the artifact has no program for this machine at {path}: {why}")]
    NoProgram {
        /// Relative to the artifact's folder.
        path: &'static str,
        /// What is wrong with it.
        why: &'static str,
    },
    #[error("this version is not installed")]
    NotInstalled,
    /// The operating system refused.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// A verb for the message, such as `write`.
        action: &'static str,
        /// The file or folder that it was done to.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
}

impl ArtifactError {
    /// As fields, without what it is of.
    pub(crate) fn failure(&self) -> Failure {
        let (stage, code) = match self {
            Self::NotAFile { .. } | Self::Io { .. } | Self::NotInstalled if self.is_disk_full() => {
                (Stage::Installation, FailureCode::NoSpace)
            }
            Self::NotAFile { .. } | Self::Io { .. } | Self::NotInstalled => {
                (Stage::Installation, FailureCode::System)
            }
            Self::WrongBytes { .. } => (Stage::Verification, FailureCode::WrongBytes),
            Self::TooLarge { .. } => (Stage::Verification, FailureCode::BadArtifact),
            Self::Archive(_) | Self::NoProgram { .. } => {
                (Stage::Unpacking, FailureCode::BadArtifact)
            }
        };
        Failure::new(stage, code).with_detail(&self.to_string())
    }

    /// Whether there is no room on the disk.
    pub fn is_disk_full(&self) -> bool {
        match self {
            Self::Io { source, .. } | Self::Archive(UnpackError::Write { source, .. }) => {
                matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
            }
            _ => false,
        }
    }
}

/// For `map_err`.
fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ArtifactError {
    move |source| ArtifactError::Io { action, path: path.to_owned(), source }
}
