//! Integrations out of an artifact that the installer has verified: nothing is asked of any registry.
//!
//! A plugin's packages come in the form of npm's own cache, which npm uses as if it had fetched them, and
//! npm is offline. So OpenClaw installs the plugin the way it always does and trusts it as much; what
//! versions there are was decided when the release was built.

use std::{fs, io, path::Path};

use moorage_wire::{
    desired::{Artifact, Integration, IntegrationKind},
    failure::{FailureCode, Stage},
};
use serde::Deserialize;

use super::{WorkError, Worker, backup::copy_folder, integrations::slug};
use crate::{artifacts::PACKED, disk::DiskError};

/// The skill in an artifact.
const SKILL: &str = "skill";
/// The packages in an artifact, in the form of a folder of npm's cache.
const PACKAGES: &str = "_cacache";
/// What pins each of them.
pub(super) const LOCKFILE: &str = "package-lock.json";

/// What an artifact says of itself.
#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Packed {
    kind: IntegrationKind,
    name: String,
    version: String,
}

impl Worker {
    /// npm reaches no registry, whoever runs it as this user, unless somebody says otherwise; and it has
    /// none of our packages, which an interrupted installation would leave behind.
    pub(super) fn close_npm(&self) -> Result<(), DiskError> {
        self.disk.write(&self.layout.npm_settings(), b"offline=true\n")?;
        let path = self.layout.npm_cache();
        remove(&path).map_err(|source| DiskError::Io { action: "remove", path, source })
    }

    /// Lets OpenClaw install it from its artifact.
    pub(super) async fn install_packed(
        &self,
        integration: &Integration,
        artifact: &Artifact,
    ) -> Result<(), WorkError> {
        let folder = self.layout.integration(artifact.sha256);
        self.check_packed(integration, &folder)?;
        match integration.kind {
            IntegrationKind::Plugin => {
                self.offer(&folder)?;
                let installed = self.install_plugin(integration).await;
                self.close_npm()?;
                installed
            }
            IntegrationKind::Skill => {
                let skill = folder.join(SKILL);
                let (skill, slug) = (skill.to_string_lossy(), slug(&integration.name));
                let arguments = ["skills", "install", &skill, "--as", slug, "--global", "--force"];
                self.install_with("skills install", &arguments, integration).await
            }
        }
    }

    fn check_packed(&self, integration: &Integration, folder: &Path) -> Result<(), WorkError> {
        let Integration { kind, name, version, .. } = integration;
        let bad = (Stage::Verification, FailureCode::BadArtifact);
        let wanted = Packed { kind: *kind, name: name.clone(), version: version.clone() };
        let why = match self.disk.read_json::<Packed>(&folder.join(PACKED))? {
            Some(packed) if packed == wanted => return Ok(()),
            Some(_) => "its artifact holds something else",
            None => "its artifact is not on this server",
        };
        Err(WorkError::of_integration(integration, bad, why))
    }

    /// Makes the packages those that npm has.
    fn offer(&self, folder: &Path) -> Result<(), WorkError> {
        let (packages, cache) = (folder.join(PACKAGES), self.layout.npm_cache());
        let copy = || {
            remove(&cache)?;
            fs::create_dir_all(&cache)?;
            copy_folder(&packages, &cache.join(PACKAGES))
        };
        copy().map_err(|source| WorkError::Files {
            action: "copy the packages to",
            path: cache.clone(),
            source,
        })?;
        let settings = format!("offline=true\ncache={}\n", cache.display());
        Ok(self.disk.write(&self.layout.npm_settings(), settings.as_bytes())?)
    }
}

fn remove(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
