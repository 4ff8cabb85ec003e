//! The desired state: the one document that tells an agent all that its server should be.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{credential::CredentialName, digest::Sha256};

/// Everything that an agent converges to. Its digest is over the exact bytes that were sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DesiredState {
    /// `openclaw.json` as the operator rendered it: configuration as data, secrets as references.
    pub config: Value,
    /// The credentials that should exist, Moorage's own included; the agent erases all others.
    pub credentials: BTreeSet<CredentialName>,
    /// What should be installed.
    pub artifacts: Artifacts,
    /// Approved plugins and skills to have, at exactly these versions.
    #[serde(default)]
    pub integrations: Vec<Integration>,
    /// Device-pairing requests of OpenClaw that the owner approved.
    #[serde(default)]
    pub approved_pairings: BTreeSet<String>,
    /// Changes when a person asks for a retry of failed digests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<String>,
}

/// The pinned programs of a release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Artifacts {
    /// The release that these make up.
    pub release: String,
    /// OpenClaw with its dependency tree.
    pub openclaw: Artifact,
    /// The Node.js that runs OpenClaw.
    pub node: Artifact,
    /// The tunnel connector, a bare executable.
    pub cloudflared: Artifact,
    /// The agent itself, a bare executable.
    pub agent: Artifact,
}

/// One file that a release pins by digest and size.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Artifact {
    /// The version that it says of itself.
    pub version: String,
    /// Where to fetch it.
    pub url: String,
    /// What it must be.
    pub sha256: Sha256,
    /// Its exact size in bytes.
    pub size: u64,
}

/// One plugin or skill that the release approves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Integration {
    pub kind: IntegrationKind,
    /// Its package name or slug.
    pub name: String,
    /// Exact, without ranges or tags.
    pub version: String,
    /// Of a plugin, what its package must be: `sha512-<base64>`, as npm writes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub integrity: Option<String>,
    /// All of it in one file, packed when the release was built.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact: Option<Artifact>,
    /// Without an artifact: whether the server may fetch it from its registry. One that is there already
    /// stays in any case.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unpinned: bool,
}

impl Integration {
    /// Whether a server that lacks it must not install it: nothing pins all of it, and the release does
    /// not say that this may be so.
    pub fn is_barred(&self) -> bool {
        self.artifact.is_none() && !self.unpinned
    }
}

/// The two kinds of things that can be added to OpenClaw.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum IntegrationKind {
    /// An npm package that OpenClaw loads.
    Plugin,
    /// A skill of the hub.
    Skill,
}

impl DesiredState {
    /// The bytes to send.
    pub fn to_bytes(&self) -> Vec<u8> {
        // Maps are ordered and every value is representable in JSON.
        serde_json::to_vec(self).expect("a desired state is always representable in JSON")
    }

    /// The digest of the bytes that [`Self::to_bytes`] gives: the document's name in `If-Match`,
    /// reports and rollback records.
    pub fn digest(&self) -> Sha256 {
        Sha256::of(&self.to_bytes())
    }
}
