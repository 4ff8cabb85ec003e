//! The `OpenClawRelease` that approves what was made.

use std::str::FromStr;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::TypeMeta;
use serde::Serialize;
use url::Url;

use super::{ReleaseError, digest::Digest, plugin::slug};
use crate::api::{
    OpenClawRelease, OpenClawReleaseSpec,
    names::NotAName,
    release::{ApprovedIntegration, Architecture, PinnedArtifact, ReleaseArtifacts},
};

/// One file that servers will fetch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Artifact {
    /// `openclaw`, `node`, `cloudflared` or `agent`.
    pub program: &'static str,
    /// The version that it says of itself.
    pub version: String,
    pub digest: Digest,
}

/// The four of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Artifacts {
    /// A `.tar.gz`.
    pub openclaw: Artifact,
    /// A `.tar.gz`.
    pub node: Artifact,
    /// An executable file.
    pub cloudflared: Artifact,
    /// An executable file.
    pub agent: Artifact,
}

/// What the manifest says beside its artifacts.
#[derive(Debug, Clone)]
pub struct Release {
    pub name: String,
    /// For which servers.
    pub architecture: Architecture,
    /// Where the files will be served; ends in a slash.
    pub base_url: Url,
    /// Plugins and skills that instances may ask for.
    pub integrations: Vec<ApprovedIntegration>,
}

/// As it is written: without the status that the Rust type of the object would add.
#[derive(Serialize)]
struct Manifest {
    #[serde(flatten)]
    types: TypeMeta,
    metadata: ObjectMeta,
    spec: OpenClawReleaseSpec,
}

impl Artifact {
    /// A name that no other file ever gets: releases that are in use keep theirs when a version is
    /// built again.
    pub fn file_name(&self, architecture: Architecture) -> String {
        let end = if matches!(self.program, "openclaw" | "node") { ".tar.gz" } else { "" };
        let Self { program, version, digest } = self;
        let sha256 = digest.sha256.to_string();
        format!("{program}-{version}-{}-{}{end}", architecture.as_str(), &sha256[..12])
    }
}

/// The same for the file of an integration.
pub fn integration_file_name(
    entry: &ApprovedIntegration,
    digest: Digest,
    architecture: Architecture,
) -> String {
    let (name, version) = (slug(&entry.name), &entry.version);
    let sha256 = digest.sha256.to_string();
    format!("integration-{name}-{version}-{architecture}-{}.tar.gz", &sha256[..12])
}

/// As a part of the object has to be.
pub(crate) fn parsed<T: FromStr<Err = NotAName>>(
    program: &str,
    field: &str,
    text: &str,
) -> Result<T, ReleaseError> {
    let invalid = |error| ReleaseError::Invalid(format!("{field} of {program}, {text:?}: {error}"));
    text.parse().map_err(invalid)
}

impl Release {
    /// The spec of the object.
    pub fn spec(&self, artifacts: &Artifacts) -> Result<OpenClawReleaseSpec, ReleaseError> {
        let pin = |artifact: &Artifact| {
            let name = artifact.file_name(self.architecture);
            let url = self.base_url.join(&name).map_err(|error| {
                ReleaseError::Invalid(format!("{}{name} is no address: {error}", self.base_url))
            })?;
            let what = artifact.program;
            Ok(PinnedArtifact {
                version: parsed(what, "version", &artifact.version)?,
                url: parsed(what, "url", url.as_str())?,
                sha256: parsed(what, "sha256", &artifact.digest.sha256.to_string())?,
                size: artifact.digest.size,
                architecture: self.architecture,
            })
        };
        Ok(OpenClawReleaseSpec {
            version: parsed("openclaw", "version", &artifacts.openclaw.version)?,
            artifacts: ReleaseArtifacts {
                openclaw: pin(&artifacts.openclaw)?,
                node: pin(&artifacts.node)?,
                cloudflared: pin(&artifacts.cloudflared)?,
                agent: pin(&artifacts.agent)?,
            },
            integrations: self.integrations.clone(),
        })
    }

    /// The object, ready for `kubectl apply`.
    pub fn manifest(&self, artifacts: &Artifacts) -> Result<String, ReleaseError> {
        let manifest = Manifest {
            types: TypeMeta::resource::<OpenClawRelease>(),
            metadata: ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() },
            spec: self.spec(artifacts)?,
        };
        serde_saphyr::to_string(&manifest).map_err(|error| {
            ReleaseError::Invalid(format!("the manifest has no YAML form: {error}"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::release::{IntegrationArtifact, IntegrationKind};
    use moorage_wire::Sha256;

    fn artifacts() -> Artifacts {
        let artifact = |program: &'static str, version: &str, size| Artifact {
            program,
            version: version.to_owned(),
            digest: Digest { sha256: Sha256::of(program.as_bytes()), size },
        };
        Artifacts {
            openclaw: artifact("openclaw", "2026.9.6", 134_000_001),
            node: artifact("node", "24.21.0", 52_000_002),
            cloudflared: artifact("cloudflared", "2026.8.2", 27_000_003),
            agent: artifact("agent", "0.1.0", 7_000_004),
        }
    }

    fn release() -> Release {
        let plugin = ApprovedIntegration {
            name: "@openclaw/matrix".parse().unwrap(),
            kind: IntegrationKind::Plugin,
            version: "1.2.3".parse().unwrap(),
            integrity: Some(format!("sha512-{}==", "A".repeat(86)).parse().unwrap()),
            artifact: Some(IntegrationArtifact {
                url: "https://releases.example.com/moorage/integration".parse().unwrap(),
                sha256: Sha256::of(b"matrix").to_string().parse().unwrap(),
                size: 5,
            }),
            allow_unpinned: None,
        };
        Release {
            name: "2026.9.6-1".to_owned(),
            architecture: Architecture::Arm,
            base_url: "https://releases.example.com/moorage/".parse().unwrap(),
            integrations: vec![plugin],
        }
    }

    #[test]
    fn the_manifest_of_a_release() {
        insta::assert_snapshot!(release().manifest(&artifacts()).unwrap());
    }

    #[test]
    fn the_manifest_reads_back_as_what_the_cluster_stores() {
        let text = release().manifest(&artifacts()).unwrap();
        let read: OpenClawRelease = serde_saphyr::from_str(&text).unwrap();
        assert_eq!(read.metadata.name.as_deref(), Some("2026.9.6-1"));
        assert_eq!(read.spec, release().spec(&artifacts()).unwrap());
        let openclaw = &read.spec.artifacts.openclaw;
        let sha256 = Sha256::of(b"openclaw").to_string();
        assert_eq!(openclaw.sha256, sha256);
        assert_eq!(openclaw.size, 134_000_001);
        assert_eq!(openclaw.architecture, Architecture::Arm);
        let name = format!("openclaw-2026.9.6-arm-{}.tar.gz", &sha256[..12]);
        assert_eq!(openclaw.url, format!("https://releases.example.com/moorage/{name}"));
        let agent = Sha256::of(b"agent").to_string();
        let name = format!("agent-0.1.0-arm-{}", &agent[..12]);
        assert_eq!(
            read.spec.artifacts.agent.url,
            format!("https://releases.example.com/moorage/{name}")
        );
    }
}
