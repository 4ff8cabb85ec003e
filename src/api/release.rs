//! `OpenClawRelease`: an approved set of pinned programs.

use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    guarded::{Fields, Stored},
    names::{ArtifactUrl, IntegrationName, Integrity, Sha256Hex, Version},
};

/// What an approved release is made of. It never changes.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[x_kube(validation = Rule::new("self.version == self.artifacts.openclaw.version")
    .message("version must be that of artifacts.openclaw"))]
#[kube(
    group = "moorage.dev",
    version = "v1alpha1",
    kind = "OpenClawRelease",
    plural = "openclawreleases",
    doc = "An approved set of pinned programs for servers",
    shortname = "ocr",
    category = "moorage",
    status = "OpenClawReleaseStatus",
    printcolumn(name = "Version", type_ = "string", json_path = ".spec.version"),
    printcolumn(name = "Instances", type_ = "integer", json_path = ".status.instances"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("self.spec == oldSelf.spec")
        .message("the spec of a release cannot be changed: make a new release")
)]
#[serde(rename_all = "camelCase")]
pub struct OpenClawReleaseSpec {
    /// The version of OpenClaw, that of its artifact.
    pub version: Version,
    /// The programs that a server installs, each pinned by its digest.
    pub artifacts: ReleaseArtifacts,
    /// Plugins and skills that instances may ask for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 200), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub integrations: Vec<ApprovedIntegration>,
}

impl Stored for OpenClawRelease {
    type Spec = OpenClawReleaseSpec;
    type Status = OpenClawReleaseStatus;

    fn of_parts(
        metadata: ObjectMeta,
        spec: OpenClawReleaseSpec,
        status: Option<OpenClawReleaseStatus>,
    ) -> Self {
        Self { metadata, spec, status }
    }

    fn names_cloud_objects(_: &Fields<'_>) -> bool {
        false
    }
}

/// The four programs on a server.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, PartialEq, Eq)]
#[x_kube(validation = Rule::new("[self.node.architecture, self.cloudflared.architecture, self.agent.architecture].all(a, a == self.openclaw.architecture)")
    .message("all artifacts must have the same architecture: a server has one"))]
#[serde(rename_all = "camelCase")]
pub struct ReleaseArtifacts {
    /// OpenClaw with its dependency tree.
    pub openclaw: PinnedArtifact,
    /// The Node.js runtime.
    pub node: PinnedArtifact,
    /// cloudflared, which connects the server to its tunnel.
    pub cloudflared: PinnedArtifact,
    /// moorage-agent, which manages the server.
    pub agent: PinnedArtifact,
}

/// A file that servers fetch and install only if its digest is this one.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct PinnedArtifact {
    /// The version that it says of itself.
    pub version: Version,
    /// Where to fetch it.
    pub url: ArtifactUrl,
    /// SHA-256 of the file, 64 lower-case hexadecimal characters.
    pub sha256: Sha256Hex,
    /// Exact size in bytes.
    #[schemars(range(min = 1))]
    pub size: u64,
    /// The architecture that it runs on.
    #[serde(default)]
    pub architecture: Architecture,
}

/// Architectures as Hetzner names them.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Architecture {
    /// 64-bit x86 (amd64).
    #[default]
    X86,
    /// 64-bit Arm (arm64).
    Arm,
}

impl Architecture {
    /// As manifests, options and file names write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::X86 => "x86",
            Self::Arm => "arm",
        }
    }
}

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A plugin or skill that instances may ask for.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, PartialEq, Eq)]
#[x_kube(validation = Rule::new("self.kind != 'Plugin' || has(self.integrity)")
    .message("a Plugin needs integrity, as `npm view NAME@VERSION dist.integrity` prints it"))]
// Kubernetes looks at what changes only, and a release does not: those that are older than this rule stay.
#[x_kube(validation = Rule::new("has(self.artifact) || (has(self.allowUnpinned) && self.allowUnpinned)")
    .message("an integration needs its artifact, as `moorage release build` makes it; allowUnpinned: true lets servers resolve it instead"))]
#[serde(rename_all = "camelCase")]
pub struct ApprovedIntegration {
    /// How instances name it.
    pub name: IntegrationName,
    /// Whether it is a plugin or a skill.
    pub kind: IntegrationKind,
    /// The one version of it that is installed.
    pub version: Version,
    /// Of a plugin, the SHA-512 of its package as npm writes it: `sha512-<base64>`. A package with other
    /// bytes is not used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub integrity: Option<Integrity>,
    /// All of it in one file, with everything that it depends on, as `moorage release build` packs it.
    /// Servers install it from there and ask no registry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact: Option<IntegrationArtifact>,
    /// Without an artifact: lets servers fetch it from its registry, which decides at that moment what
    /// it depends on. Such code is not pinned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow_unpinned: Option<bool>,
}

/// The file of an integration, pinned. It runs where the programs of its release do.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct IntegrationArtifact {
    /// Where to fetch it.
    pub url: ArtifactUrl,
    /// SHA-256 of the file, 64 lower-case hexadecimal characters.
    pub sha256: Sha256Hex,
    /// Exact size in bytes.
    #[schemars(range(min = 1))]
    pub size: u64,
}

/// The two kinds of integrations.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
pub enum IntegrationKind {
    /// A package of the npm registry.
    Plugin,
    /// A skill of the hub.
    Skill,
}

/// What is known of a release.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct OpenClawReleaseStatus {
    /// The generation of the spec that the conditions speak of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Ready`: whether it can be used.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// How many instances use it.
    #[serde(default)]
    pub instances: u32,
}
