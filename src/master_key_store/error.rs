//! Why there is no master key, and what a person can do about it.

use std::path::PathBuf;

use thiserror::Error;

use super::INSTALLATION_ID;
use crate::master_key::InvalidMasterKey;

pub(super) const SECRET_OBJECT: &str = "Secret moorage-master-key";
pub(super) const CONFIG_MAP_OBJECT: &str = "ConfigMap moorage-installation";

/// Why there is no master key.
#[derive(Debug, Error)]
pub enum MasterKeyStoreError {
    /// It was there once: there are instances whose servers answer only to it.
    #[error(
        "{object} is missing in namespace {namespace}, but instances exist whose servers depend on it. Restore it from a backup, {}. If it is lost for good, deleting instances hangs, because nothing runs without a key: see docs/operations.md, \"A lost cluster, or a lost master key\"", remedy(.object)
    )]
    MasterKeyMissing {
        /// Kind and name of what is missing.
        object: &'static str,
        namespace: String,
    },
    /// The file cannot be read.
    #[error("the master key file {} cannot be read: {source}", .path.display())]
    File {
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is open to others.
    #[error(
        "the master key file {} has mode {mode:04o}, so others can read or change it; make it 0400 (for a Secret volume: defaultMode: 0400)", .path.display()
    )]
    FileMode { path: PathBuf, mode: u32 },
    /// What is stored is not a key.
    #[error("{place} holds no master key: {source}")]
    InvalidKey {
        /// The file, or the Secret and its key.
        place: String,
        source: InvalidMasterKey,
    },
    /// What is stored is not an installation id.
    #[error(
        "{place} holds no installation id: expected {INSTALLATION_ID} with 16 lower-case hexadecimal characters, as in the labels of every server that this installation made"
    )]
    InvalidInstallationId {
        /// The object and its key.
        place: String,
    },
    /// The operating system gave no randomness.
    #[error("no master key can be made: the operating system gives no randomness")]
    NoRandomness,
    /// A call to the API server failed.
    #[error("{action} failed: {}", crate::api_server::told(.source))]
    Kube { action: String, source: Box<kube::Error> },
}

impl MasterKeyStoreError {
    /// The reason for a condition.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::MasterKeyMissing { .. } => "MasterKeyMissing",
            Self::Kube { .. } | Self::NoRandomness => "MasterKeyUnavailable",
            _ => "MasterKeyInvalid",
        }
    }

    /// Whether trying again can help without anyone changing anything.
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Kube { .. } | Self::NoRandomness)
    }
}

fn remedy(object: &str) -> &'static str {
    if object == CONFIG_MAP_OBJECT {
        "or create it with the installation-id from the label moorage.dev/installation of any server"
    } else {
        "or start the operator with --master-key-file if the key has moved to a file"
    }
}
