//! Making the pins of a release: npm resolves OpenClaw's tree once, and what it chose is kept.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use jiff::{Timestamp, Unit};
use url::Url;

use super::{
    Progress, ReleaseError,
    folder::{LOCKFILE, PACKAGE, PROGRAMS, Pin, Program, Programs, ReleaseFolder},
    host_architecture, node, node_architecture,
    npm::Npm,
    source::fetch,
};
use crate::api::release::Architecture;

/// Where npm's packages of Node.js are.
const REGISTRY: &str = "https://registry.npmjs.org/";

/// The npm that comes along: OpenClaw installs plugins with it.
const NPM: &str = "11.21.2";

/// What `moorage release lock` is asked for.
pub struct Request<'a> {
    /// An exact version of OpenClaw.
    pub openclaw: &'a str,
    /// An exact version of Node.js that it runs on.
    pub node: &'a str,
    /// The folder to make; it must not have pins already.
    pub folder: &'a Path,
    /// How npm is run.
    pub npm: &'a Npm,
}

impl Request<'_> {
    /// Resolves, checks and writes. What is in the registry is taken at its word here, and at no other
    /// time.
    pub async fn run(&self, progress: Progress<'_>) -> Result<ReleaseFolder, ReleaseError> {
        for version in [self.openclaw, self.node] {
            check_version(version)?;
        }
        if self.folder.join(LOCKFILE).exists() {
            let folder = self.folder.display();
            return Err(ReleaseError::Invalid(format!(
                "{folder} is pinned already; pins do not change, so give another --output"
            )));
        }
        let scratch = tempfile::tempdir().map_err(ReleaseError::writing("a temporary folder"))?;
        let (node, runner) = self.node(scratch.path(), progress).await?;
        let tree = scratch.path().join("tree");
        fs::create_dir(&tree).map_err(ReleaseError::writing(&tree))?;
        let package = package(self.openclaw);
        let path = tree.join(PACKAGE);
        fs::write(&path, &package).map_err(ReleaseError::writing(path))?;
        progress("npm resolves OpenClaw's dependencies");
        self.npm.run(&runner, &tree, &["install", "--package-lock-only"])?;
        let path = tree.join(LOCKFILE);
        let lock = fs::read_to_string(&path).map_err(ReleaseError::reading(path))?;
        let locked = Timestamp::now().round(Unit::Second).unwrap_or_default();
        let programs = Programs { locked, node, cloudflared: None };
        self.write(&package, &lock, &programs)?;
        ReleaseFolder::read(self.folder)
    }

    /// The pins of Node.js, and a program that runs here.
    async fn node(
        &self,
        scratch: &Path,
        progress: Progress<'_>,
    ) -> Result<(Program, PathBuf), ReleaseError> {
        let mut files = BTreeMap::new();
        let here = scratch.join("node");
        for architecture in [Architecture::X86, Architecture::Arm] {
            let url = node_url(architecture, self.node)?;
            let (file, digest) = fetch(&url, scratch, progress).await?;
            if host_architecture() == Some(architecture) {
                fs::create_dir(&here).map_err(ReleaseError::writing(&here))?;
                node::unpack(file.path(), &here)?;
            }
            let pin = Pin { url, sha256: digest.sha256 };
            files.insert(architecture.as_str().to_owned(), pin);
        }
        Ok((Program { version: self.node.to_owned(), files }, here.join("bin/node")))
    }

    fn write(&self, package: &str, lock: &str, programs: &Programs) -> Result<(), ReleaseError> {
        let programs = serde_saphyr::to_string(programs)
            .map_err(|error| ReleaseError::Invalid(error.to_string()))?;
        fs::create_dir_all(self.folder).map_err(ReleaseError::writing(self.folder))?;
        // The lockfile last: with it the folder counts as pinned.
        for (name, text) in [(PACKAGE, package), (PROGRAMS, &programs), (LOCKFILE, lock)] {
            let path = self.folder.join(name);
            fs::write(&path, text).map_err(ReleaseError::writing(path))?;
        }
        Ok(())
    }
}

fn package(openclaw: &str) -> String {
    let document = serde_json::json!({
        "name": "openclaw-release",
        "private": true,
        "dependencies": {"npm": NPM, "openclaw": openclaw},
    });
    format!("{document:#}\n")
}

fn node_url(architecture: Architecture, version: &str) -> Result<Url, ReleaseError> {
    let name = format!("node-linux-{}", node_architecture(architecture));
    let url = format!("{REGISTRY}{name}/-/{name}-{version}.tgz");
    url.parse().map_err(|error| ReleaseError::Invalid(format!("{url} is no address: {error}")))
}

/// Exact: no range, no tag.
fn check_version(version: &str) -> Result<(), ReleaseError> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-".contains(&byte);
    let exact = version.split('.').count() >= 3 && version.bytes().all(plain);
    if exact && version.starts_with(|first: char| first.is_ascii_digit()) {
        return Ok(());
    }
    Err(ReleaseError::Invalid(format!("{version} is not an exact version, such as 2026.9.6")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_exact_version_can_be_pinned() {
        for version in ["2026.9.6", "24.21.0", "2026.7.1-beta.1"] {
            check_version(version).unwrap();
        }
        for version in ["latest", "^2026.9.6", "2026.9", "2026.9.6 || 1", "../x.y.z", ""] {
            assert!(check_version(version).is_err(), "{version}");
        }
    }

    #[tokio::test]
    async fn pins_that_are_there_are_not_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(LOCKFILE), "{}").unwrap();
        let npm = Npm { cli: "/npm-cli.js".into(), cache: "/cache".into(), registry: None };
        let request =
            Request { openclaw: "2026.9.6", node: "24.21.0", folder: folder.path(), npm: &npm };
        let refused = request.run(&|_| ()).await.unwrap_err().to_string();
        assert!(refused.contains("pinned already"), "{refused}");
    }
}
