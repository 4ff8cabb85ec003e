//! SSH keys, as Hetzner's API writes them.

use base64::{Engine as _, engine::general_purpose::STANDARD};
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

/// An Ed25519 public key of 32 bytes in OpenSSH's format (RFC 8709): type and key, each after its length.
pub fn openssh_ed25519(key: &[u8]) -> String {
    const KIND: &str = "ssh-ed25519";
    let mut body = Vec::new();
    for part in [KIND.as_bytes(), key] {
        let length = u32::try_from(part.len()).unwrap_or_default();
        body.extend_from_slice(&length.to_be_bytes());
        body.extend_from_slice(part);
    }
    format!("{KIND} {}", STANDARD.encode(body))
}
