//! A release as it is kept in the repository: `package.json`, `package-lock.json` and `programs.yaml`.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use moorage_wire::Sha256;
use serde::{Deserialize, Serialize};
use url::Url;

use super::{ReleaseError, lockfile::Lockfile, plugin::PinnedPlugin, source::Source};
use crate::api::release::Architecture;

/// npm's names for the two files that pin OpenClaw's tree.
pub const PACKAGE: &str = "package.json";
/// See [`PACKAGE`].
pub const LOCKFILE: &str = "package-lock.json";
/// The file that pins the other programs.
pub const PROGRAMS: &str = "programs.yaml";

/// The folder of one release, read and checked.
#[derive(Debug, Clone)]
pub struct ReleaseFolder {
    pub path: PathBuf,
    /// What npm is given.
    pub package: String,
    /// What npm is given.
    pub lock: String,
    pub lockfile: Lockfile,
    pub programs: Programs,
    /// Plugins with their trees.
    pub plugins: Vec<PinnedPlugin>,
}

/// `programs.yaml`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Programs {
    /// When the pins were made. Every file in the archives gets this time, so that the same pins give
    /// the same bytes, and browsers see that a new release's pages are new.
    pub locked: Timestamp,
    /// The Node.js runtime.
    pub node: Program,
    /// The tunnel connector, if it is pinned here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cloudflared: Option<Program>,
}

/// One program in one version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Program {
    /// As it says itself, without a `v`.
    pub version: String,
    /// By `x86` and `arm`.
    pub files: BTreeMap<String, Pin>,
}

/// One file to fetch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Pin {
    pub url: Url,
    /// What it must be.
    pub sha256: Sha256,
}

impl Program {
    /// The file for `architecture`.
    pub fn source(&self, architecture: Architecture) -> Option<Source> {
        let pin = self.files.get(architecture.as_str())?;
        Some(Source::Url { url: pin.url.clone(), sha256: pin.sha256 })
    }
}

impl ReleaseFolder {
    /// Reads the three files and checks that all is pinned.
    pub fn read(path: &Path) -> Result<Self, ReleaseError> {
        let file = |name: &str| {
            let file = path.join(name);
            fs::read_to_string(&file).map_err(ReleaseError::reading(file))
        };
        let lock = file(LOCKFILE)?;
        let lockfile = Lockfile::parse(&path.join(LOCKFILE), &lock)?;
        let programs = serde_saphyr::from_str(&file(PROGRAMS)?).map_err(|error| {
            ReleaseError::Malformed { path: path.join(PROGRAMS), why: error.to_string() }
        })?;
        let package = file(PACKAGE)?;
        let plugins = PinnedPlugin::all(path)?;
        Ok(Self { path: path.to_owned(), package, lock, lockfile, programs, plugins })
    }

    /// The time of every file in the archives, in seconds since 1970.
    pub fn time(&self) -> u64 {
        u64::try_from(self.programs.locked.as_second()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The folders of this repository.
    fn kept() -> Vec<PathBuf> {
        let releases = Path::new(env!("CARGO_MANIFEST_DIR")).join("releases");
        let entries = fs::read_dir(releases).unwrap();
        entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()).collect()
    }

    #[test]
    fn every_release_here_is_pinned_and_named_after_openclaw() {
        let kept = kept();
        assert!(kept.len() >= 2, "an update needs two releases");
        for path in kept {
            let folder = ReleaseFolder::read(&path).unwrap();
            assert_eq!(path.file_name().unwrap(), folder.lockfile.version());
            for architecture in [Architecture::X86, Architecture::Arm] {
                assert!(folder.programs.node.source(architecture).is_some(), "{}", path.display());
                assert!(folder.lockfile.on_servers(architecture).count() > 300);
            }
        }
    }
}
