//! SSH keys, as Hetzner's API writes them.

use serde::{Deserialize, Serialize};

use super::Labels;
use crate::cloud::numeric_id;

numeric_id!(SshKeyId);
/// An SSH public key of the project.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct SshKey {
    pub id: SshKeyId,
    /// Unique in the project, as the key is.
    pub name: String,
    /// MD5 fingerprint.
    #[serde(default)]
    pub fingerprint: String,
    /// In OpenSSH's format.
    pub public_key: String,
    #[serde(default)]
    pub labels: Labels,
}

/// An SSH key to make.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CreateSshKey {
    /// Unique in the project.
    pub name: String,
    /// In OpenSSH's format.
    pub public_key: String,
    pub labels: Labels,
}
