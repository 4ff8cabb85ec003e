//! The part of a release that depends on the pins alone: OpenClaw with its dependency tree and the
//! Node.js that runs it, as archives, with a bill of materials. Made once and kept in a cache.

use std::{
    fs::{self, File},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use moorage_wire::Sha256;
use serde::{Deserialize, Serialize};

use super::{
    Progress, ReleaseError,
    archive::{Entry, Kind, Tree},
    digest::Digest,
    folder::{LOCKFILE, PACKAGE, ReleaseFolder},
    host_architecture, node, node_architecture,
    npm::Npm,
    program, sbom,
};
use crate::api::release::Architecture;

/// The files of a bundle.
pub const OPENCLAW: &str = "openclaw.tar.gz";
/// See [`OPENCLAW`].
pub const NODE: &str = "node.tar.gz";
/// See [`OPENCLAW`].
pub const SBOM: &str = "sbom.cdx.json";
/// What is in a bundle; written last, so that a bundle with it is whole.
pub const INDEX: &str = "bundle.json";

/// Changes whenever the same pins would give other bytes.
const FORMAT: u32 = 2;

/// npm's own record of what it installed. It differs between versions of npm, and nothing reads it.
const RECORD: &str = "node_modules/.package-lock.json";

/// What a bundle is made of.
pub struct Recipe<'a> {
    pub folder: &'a ReleaseFolder,
    /// For which servers.
    pub architecture: Architecture,
    /// The archive of Node.js, checked against its pin.
    pub node: (PathBuf, Digest),
    /// What Node.js says of itself.
    pub node_version: &'a str,
    /// A Node.js that runs here, where the servers' one does not.
    pub build_node: Option<&'a Path>,
    /// How npm is run.
    pub npm: &'a Npm,
    /// Whether source maps and type declarations are left out.
    pub prune: bool,
}

/// `bundle.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Bundle {
    pub openclaw: Packed,
    pub node: Packed,
}

/// One archive of a bundle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Packed {
    /// The name in the bundle's folder.
    pub file: String,
    /// The version that the program says of itself.
    pub version: String,
    /// What the file is.
    #[serde(flatten)]
    pub digest: Digest,
}

impl Recipe<'_> {
    /// What tells this bundle from all others.
    pub fn key(&self) -> String {
        let prune = if self.prune { "pruned" } else { "whole" };
        let parts = format!(
            "{FORMAT} {} {} {prune} {} {} {} {}",
            env!("CARGO_PKG_VERSION"),
            self.architecture.as_str(),
            self.node.1.sha256,
            self.folder.time(),
            Sha256::of(self.folder.package.as_bytes()),
            Sha256::of(self.folder.lock.as_bytes()),
        );
        let key = Sha256::of(parts.as_bytes()).to_string();
        let version = self.folder.lockfile.version();
        format!("{version}-{}-{}", self.architecture.as_str(), &key[..16])
    }

    /// The folder of the bundle under `bundles`, and what is in it. Makes it unless it is there; of
    /// several that want the same one, one makes it and the others wait.
    pub fn get(
        &self,
        bundles: &Path,
        progress: Progress<'_>,
    ) -> Result<(PathBuf, Bundle), ReleaseError> {
        let key = self.key();
        let folder = bundles.join(&key);
        if let Some(bundle) = read(&folder)? {
            return Ok((folder, bundle));
        }
        fs::create_dir_all(bundles).map_err(ReleaseError::writing(bundles))?;
        let lock = bundles.join(format!("{key}.lock"));
        let lock = File::create(&lock).map_err(ReleaseError::writing(lock))?;
        lock.lock().map_err(ReleaseError::writing(bundles))?;
        if let Some(bundle) = read(&folder)? {
            return Ok((folder, bundle));
        }
        let scratch = tempfile::Builder::new().prefix(".making-").tempdir_in(bundles);
        let scratch = scratch.map_err(ReleaseError::writing(bundles))?;
        let made = scratch.path().join("made");
        fs::create_dir(&made).map_err(ReleaseError::writing(&made))?;
        let bundle = self.make(scratch.path(), &made, progress)?;
        fs::rename(&made, &folder).map_err(ReleaseError::writing(&folder))?;
        Ok((folder, bundle))
    }

    fn make(
        &self,
        scratch: &Path,
        made: &Path,
        progress: Progress<'_>,
    ) -> Result<Bundle, ReleaseError> {
        let runtime = scratch.join("node");
        fs::create_dir(&runtime).map_err(ReleaseError::writing(&runtime))?;
        node::unpack(&self.node.0, &runtime)?;
        let program = runtime.join("bin/node");
        program::check(&program, self.architecture)?;
        let runner = self.runner(&program)?;
        progress(&format!("packing Node.js {}", self.node_version));
        let time = self.folder.time();
        let node = Tree::read(&runtime)?.pack(&made.join(NODE), time)?;

        let tree = scratch.join("openclaw");
        self.install(&tree, &runner, progress)?;
        prepare(&tree, &runner, self.folder.lockfile.version(), progress)?;
        let all = Tree::read(&tree)?.filtered(|entry| !is_npms(entry));
        let (count, size) = (all.entries().len(), all.size());
        let kept = if self.prune { all.filtered(|entry| !is_prunable(entry)) } else { all };
        progress(&format!(
            "packing OpenClaw: {} of {count} files, {} of {} MB",
            kept.entries().len(),
            kept.size() / 1_000_000,
            size / 1_000_000,
        ));
        let openclaw = kept.pack(&made.join(OPENCLAW), time)?;
        let bundle = Bundle {
            openclaw: Packed {
                file: OPENCLAW.to_owned(),
                version: self.folder.lockfile.version().to_owned(),
                digest: openclaw,
            },
            node: Packed {
                file: NODE.to_owned(),
                version: self.node_version.to_owned(),
                digest: node,
            },
        };
        write_json(&made.join(SBOM), &sbom::document(self.folder, self.architecture, &bundle))?;
        write_json(&made.join(INDEX), &bundle)?;
        Ok(bundle)
    }

    /// The Node.js that runs here.
    fn runner(&self, pinned: &Path) -> Result<PathBuf, ReleaseError> {
        let runner = match self.build_node {
            Some(other) => other,
            None if host_architecture() == Some(self.architecture) => pinned,
            None => return Err(ReleaseError::NoBuildNode(self.architecture.as_str())),
        };
        let found = program::version(runner).map_err(|why| ReleaseError::Run {
            what: format!("{} --version", runner.display()),
            why,
        })?;
        if found != self.node_version {
            return Err(ReleaseError::OtherNode { wanted: self.node_version.to_owned(), found });
        }
        Ok(runner.to_owned())
    }

    fn install(
        &self,
        tree: &Path,
        runner: &Path,
        progress: Progress<'_>,
    ) -> Result<(), ReleaseError> {
        fs::create_dir(tree).map_err(ReleaseError::writing(tree))?;
        let write = |name: &str, text: &str| {
            let path = tree.join(name);
            fs::write(&path, text).map_err(ReleaseError::writing(path))
        };
        write(PACKAGE, &self.folder.package)?;
        write(LOCKFILE, &self.folder.lock)?;
        let lockfile = &self.folder.lockfile;
        let count = lockfile.on_servers(self.architecture).count();
        progress(&format!("npm installs {count} packages, checked against the lockfile"));
        let cpu = format!("--cpu={}", node_architecture(self.architecture));
        self.npm.run(runner, tree, &["ci", "--omit=dev", "--os=linux", &cpu, "--libc=glibc"])?;
        let record = tree.join(RECORD);
        let text = fs::read_to_string(&record).map_err(ReleaseError::reading(&record))?;
        lockfile.check_installed(&record, &text, self.architecture)
    }
}

/// Does what OpenClaw's install script would have done, and adds `bin/openclaw` and `bin/npm`.
///
/// OpenClaw notices at its first start that no script ran, catches up, and removes its mark
/// (`.openclaw-lifecycle-pending`). On a server it could not: the folder is root's. That it has caught
/// up is checked by a second start, which must change nothing.
fn prepare(
    tree: &Path,
    runner: &Path,
    version: &str,
    progress: Progress<'_>,
) -> Result<(), ReleaseError> {
    progress("starting OpenClaw once, so that it finishes its installation");
    let bin = tree.join("bin");
    fs::create_dir(&bin).map_err(ReleaseError::writing(&bin))?;
    for (name, program) in [("openclaw", "openclaw/openclaw.mjs"), ("npm", "npm/bin/npm-cli.js")] {
        let link = bin.join(name);
        symlink(format!("../node_modules/{program}"), &link)
            .map_err(ReleaseError::writing(&link))?;
    }
    start(tree, runner, version)?;
    let before = Tree::read(tree)?;
    start(tree, runner, version)?;
    let after = Tree::read(tree)?;
    match before.difference(&after) {
        Some(path) => Err(ReleaseError::Unsettled(path.display().to_string())),
        None => Ok(()),
    }
}

/// `openclaw --version`, with an empty home and nothing of this environment.
fn start(tree: &Path, runner: &Path, version: &str) -> Result<(), ReleaseError> {
    let failed = |why| ReleaseError::Run { what: "openclaw --version".to_owned(), why };
    let home = tree.with_extension("home");
    let output = Command::new(runner)
        .arg(tree.join("bin/openclaw"))
        .arg("--version")
        .current_dir(&home)
        .env_clear()
        .env("HOME", &home)
        // Its programs would be found there.
        .env("PATH", "/nonexistent")
        .env("TMPDIR", &home)
        .env("OPENCLAW_NO_AUTO_UPDATE", "1")
        .stdin(Stdio::null())
        .output()
        .map_err(|error| failed(error.to_string()))?;
    let said = String::from_utf8_lossy(&output.stdout);
    if output.status.success() && said.split_whitespace().any(|word| word == version) {
        return Ok(());
    }
    let complaint = String::from_utf8_lossy(&output.stderr);
    Err(failed(format!("{}, it said {:?} {:?}", output.status, said.trim(), complaint.trim())))
}

/// What only npm needs.
fn is_npms(entry: &Entry) -> bool {
    [PACKAGE, LOCKFILE, RECORD].iter().any(|name| entry.path == Path::new(name))
}

/// Source maps and type declarations, which Node.js never loads. Those of OpenClaw itself stay, for it
/// compares its files with a list of its own; those of the TypeScript compiler are its data.
fn is_prunable(entry: &Entry) -> bool {
    let Kind::File { .. } = entry.kind else { return false };
    let kept = ["node_modules/openclaw", "node_modules/typescript"];
    if kept.iter().any(|kept| entry.path.starts_with(kept)) {
        return false;
    }
    let name = entry.path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let ends = [".js.map", ".mjs.map", ".cjs.map", ".d.ts", ".d.mts", ".d.cts"];
    let maps = [".d.ts.map", ".d.mts.map", ".d.cts.map", ".css.map", ".ts.map", ".mts.map"];
    ends.iter().chain(&maps).any(|end| name.ends_with(end))
}

/// A bundle that is whole.
fn read(folder: &Path) -> Result<Option<Bundle>, ReleaseError> {
    let index = folder.join(INDEX);
    if !index.exists() {
        return Ok(None);
    }
    let text = fs::read(&index).map_err(ReleaseError::reading(&index))?;
    let bundle: Bundle = serde_json::from_slice(&text)
        .map_err(|error| ReleaseError::Malformed { path: index, why: error.to_string() })?;
    Ok(Some(bundle))
}

/// Indented, with a line break at the end.
pub fn write_json(path: &Path, document: &impl Serialize) -> Result<(), ReleaseError> {
    let text = serde_json::to_string_pretty(document).map_err(std::io::Error::other);
    let written = text.and_then(|text| fs::write(path, text + "\n"));
    written.map_err(ReleaseError::writing(path))
}

pub fn read_json(path: &Path) -> Result<serde_json::Value, ReleaseError> {
    let text = fs::read(path).map_err(ReleaseError::reading(path))?;
    serde_json::from_slice(&text)
        .map_err(|error| ReleaseError::Malformed { path: path.to_owned(), why: error.to_string() })
}
