//! What is installed: one folder per version below `/opt/moorage/<kind>/`, and the links `current`
//! and `previous` beside them. A version's folder appears complete or not at all, and disappears the
//! same way, whatever interrupts it.

use std::{
    collections::BTreeSet,
    fs::{self, DirBuilder, File, Permissions},
    io,
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _, symlink},
    path::{Path, PathBuf},
};

use moorage_wire::{Program, Sha256, desired::Artifact};

use super::{
    ArtifactError, Executable, failed, intake,
    shelf::{Form, Shelf},
    unpack,
};
use crate::{
    disk::{Disk, Step},
    installer::protocol::InstalledArtifact,
    layout::Layout,
};

/// Half-made and half-removed things, all on the same file system as the finished ones.
const STAGING: &str = ".staging";
const CURRENT: &str = "current";
const PREVIOUS: &str = "previous";

/// Everything below `/opt/moorage`. One change per kind at a time: the caller sees to that.
#[derive(Clone)]
pub struct Store {
    disk: Disk,
    root: PathBuf,
    downloads: PathBuf,
}

impl Store {
    /// The store of a server, as it is.
    pub fn at(disk: &Disk, layout: &Layout) -> Self {
        Self { disk: disk.clone(), root: layout.programs(), downloads: layout.downloads() }
    }

    /// The store of a server. Removes what interrupted work left.
    pub fn open(disk: &Disk, layout: &Layout) -> Result<Self, ArtifactError> {
        let store = Self::at(disk, layout);
        make_folder(&store.root, 0o755)?;
        let staging = store.root.join(STAGING);
        remove_all(&staging)?;
        make_folder(&staging, 0o700)?;
        make_folder(&store.folder(Shelf::Integrations), 0o755)?;
        for &kind in Program::ALL {
            let folder = store.folder(kind);
            make_folder(&folder, 0o755)?;
            for link in [CURRENT, PREVIOUS] {
                remove_file(&staged_link(&folder, link))?;
            }
        }
        Ok(store)
    }

    fn folder(&self, place: impl Into<Shelf>) -> PathBuf {
        self.root.join(place.into().folder())
    }

    /// The folder of one version, installed or not.
    pub fn version(&self, place: impl Into<Shelf>, sha256: Sha256) -> PathBuf {
        self.folder(place).join(sha256.to_string())
    }

    /// Whether a version is installed.
    pub fn has(&self, place: impl Into<Shelf>, sha256: Sha256) -> bool {
        self.version(place, sha256).is_dir()
    }

    /// The version that `current` names.
    pub fn current(&self, kind: Program) -> Option<Sha256> {
        linked(&self.folder(kind).join(CURRENT))
    }

    /// The version that was current before.
    pub fn previous(&self, kind: Program) -> Option<Sha256> {
        linked(&self.folder(kind).join(PREVIOUS))
    }

    pub fn list(&self) -> Result<Vec<InstalledArtifact>, ArtifactError> {
        let mut all = Vec::new();
        for &kind in Program::ALL {
            let current = self.current(kind);
            let mut versions = self.versions(kind)?;
            versions.sort_unstable();
            all.extend(versions.into_iter().map(|sha256| InstalledArtifact {
                kind,
                sha256,
                active: current == Some(sha256),
            }));
        }
        Ok(all)
    }

    pub fn integrations(&self) -> Result<BTreeSet<Sha256>, ArtifactError> {
        Ok(self.versions(Shelf::Integrations)?.into_iter().collect())
    }

    /// Removes all integrations but these.
    pub fn retain_integrations(&self, keep: &BTreeSet<Sha256>) -> Result<(), ArtifactError> {
        for sha256 in self.versions(Shelf::Integrations)? {
            if !keep.contains(&sha256) {
                self.discard(Shelf::Integrations, sha256)?;
            }
        }
        Ok(())
    }

    fn versions(&self, place: impl Into<Shelf>) -> Result<Vec<Sha256>, ArtifactError> {
        let folder = self.folder(place);
        let read = || -> io::Result<Vec<Sha256>> {
            let mut versions = Vec::new();
            if !folder.try_exists()? {
                return Ok(versions);
            }
            for entry in fs::read_dir(&folder)? {
                let entry = entry?;
                let sha256 = entry.file_name().to_str().and_then(|name| name.parse().ok());
                if let Some(sha256) = sha256.filter(|_| entry.path().is_dir()) {
                    versions.push(sha256);
                }
            }
            Ok(versions)
        };
        read().map_err(failed("list", &folder))
    }

    /// Installs a version from a fetched file. One that is there is left as it is.
    pub fn install(
        &self,
        place: impl Into<Shelf>,
        artifact: &Artifact,
        file: &Path,
    ) -> Result<(), ArtifactError> {
        let place = place.into();
        if self.has(place, artifact.sha256) {
            return Ok(());
        }
        let (size, limit) = (artifact.size, place.largest());
        if size > limit {
            return Err(ArtifactError::TooLarge { size, limit });
        }
        if file.parent() != Some(&self.downloads) {
            let (file, why) = (file.to_owned(), "it is not in the folder for downloads");
            return Err(ArtifactError::NotAFile { file, why });
        }
        let staging = self.root.join(STAGING).join(place.folder());
        remove_all(&staging)?;
        make_folder(&staging, 0o700)?;
        let installed = self.install_by(place, artifact, file, &staging);
        let cleaned = remove_all(&staging);
        installed.and(cleaned)
    }

    fn install_by(
        &self,
        place: Shelf,
        artifact: &Artifact,
        file: &Path,
        staging: &Path,
    ) -> Result<(), ArtifactError> {
        let (copy, contents) = (staging.join("file"), staging.join("contents"));
        self.step(Step::Create, &copy)?;
        intake::take(file, artifact, &copy)?;
        self.step(Step::Write, &contents)?;
        make_folder(&contents, 0o755)?;
        let ready = match place.form() {
            Form::Executable(program) => {
                let program = contents.join(program);
                fs::rename(&copy, &program).map_err(failed("move", &copy))?;
                fs::set_permissions(&program, Permissions::from_mode(0o755))
                    .map_err(failed("open to all", &program))?;
                contents
            }
            Form::Archive { .. } => {
                unpack::unpack(&copy, &contents, unpack::LIMITS).map_err(ArtifactError::Archive)?
            }
        };
        check_program(place, &ready)?;
        self.step(Step::Sync, &ready)?;
        match place.form() {
            Form::Executable(program) => {
                sync(&ready.join(program))?;
                sync(&ready)?;
            }
            Form::Archive { .. } => sync_all(&ready)?,
        }
        let version = self.version(place, artifact.sha256);
        self.step(Step::Rename, &version)?;
        fs::rename(&ready, &version).map_err(failed("move", &ready))?;
        self.sync_folder(&self.folder(place))
    }

    /// Makes an installed version the current one, and what was current the previous one.
    pub fn activate(&self, kind: Program, sha256: Sha256) -> Result<(), ArtifactError> {
        if !self.has(kind, sha256) {
            return Err(ArtifactError::NotInstalled);
        }
        let current = self.current(kind);
        if current == Some(sha256) {
            return Ok(());
        }
        if let Some(current) = current.filter(|current| self.has(kind, *current)) {
            self.link(kind, PREVIOUS, current)?;
        }
        self.link(kind, CURRENT, sha256)
    }

    /// Makes one version both the current and the previous one: there is nothing else to go back to.
    pub fn restore(&self, kind: Program, sha256: Sha256) -> Result<(), ArtifactError> {
        if !self.has(kind, sha256) {
            return Err(ArtifactError::NotInstalled);
        }
        self.link(kind, CURRENT, sha256)?;
        self.link(kind, PREVIOUS, sha256)
    }

    fn link(&self, kind: Program, name: &str, sha256: Sha256) -> Result<(), ArtifactError> {
        let folder = self.folder(kind);
        let (link, staged) = (folder.join(name), staged_link(&folder, name));
        if linked(&link) == Some(sha256) {
            return Ok(());
        }
        self.step(Step::Create, &link)?;
        remove_file(&staged)?;
        symlink(sha256.to_string(), &staged).map_err(failed("create", &staged))?;
        self.step(Step::Rename, &link)?;
        fs::rename(&staged, &link).map_err(failed("switch", &link))?;
        self.sync_folder(&folder)
    }

    /// Removes all versions but the current and the previous one.
    pub fn prune(&self, kind: Program) -> Result<(), ArtifactError> {
        let keep = [self.current(kind), self.previous(kind)];
        for sha256 in self.versions(kind)? {
            if !keep.contains(&Some(sha256)) {
                self.remove(kind, sha256)?;
            }
        }
        Ok(())
    }

    /// Removes a version that is neither current nor previous.
    pub fn remove(&self, kind: Program, sha256: Sha256) -> Result<(), ArtifactError> {
        let used = [self.current(kind), self.previous(kind)].contains(&Some(sha256));
        if used || !self.has(kind, sha256) {
            return Ok(());
        }
        self.discard(kind.into(), sha256)
    }

    fn discard(&self, place: Shelf, sha256: Sha256) -> Result<(), ArtifactError> {
        let version = self.version(place, sha256);
        // A folder that is half gone must not look like an installed one.
        let removed = self.root.join(STAGING).join(format!("old-{}-{sha256}", place.folder()));
        self.step(Step::Remove, &version)?;
        fs::rename(&version, &removed).map_err(failed("remove", &version))?;
        tracing::info!(kind = place.folder(), %sha256, "an old version is removed");
        remove_all(&removed)
    }

    fn step(&self, step: Step, path: &Path) -> Result<(), ArtifactError> {
        self.disk.step(step, path).map_err(failed("change", path))
    }

    fn sync_folder(&self, folder: &Path) -> Result<(), ArtifactError> {
        self.step(Step::SyncFolder, folder)?;
        sync(folder)
    }
}

/// The version that a link names. Links of other forms name nothing.
fn linked(link: &Path) -> Option<Sha256> {
    fs::read_link(link).ok()?.to_str()?.parse().ok()
}

fn staged_link(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!(".{name}.staged"))
}

fn check_program(place: Shelf, folder: &Path) -> Result<(), ArtifactError> {
    let (path, native) = match place.form() {
        Form::Executable(program) => (program, true),
        Form::Archive { program, native } => (program, native),
    };
    let none = |why| ArtifactError::NoProgram { path, why };
    let file = folder.join(path);
    // What links lead to stays in the folder: see `unpack`.
    if !file.is_file() {
        return Err(none("there is no such file"));
    }
    if !native {
        return Ok(());
    }
    match Executable::of(&file).map_err(failed("read", &file))? {
        Executable::Native => Ok(()),
        Executable::Foreign => Err(none("it is for another processor")),
        Executable::NoProgram => Err(none("it is no program")),
    }
}

/// Makes one file or folder durable.
fn sync(path: &Path) -> Result<(), ArtifactError> {
    File::open(path).and_then(|opened| opened.sync_all()).map_err(failed("sync", path))
}

/// Tens of thousands of files become durable at once, not one by one.
fn sync_all(folder: &Path) -> Result<(), ArtifactError> {
    let opened = File::open(folder).map_err(failed("open", folder))?;
    rustix::fs::syncfs(&opened).map_err(|error| failed("sync", folder)(error.into()))
}

fn make_folder(path: &Path, mode: u32) -> Result<(), ArtifactError> {
    let make = || {
        DirBuilder::new().recursive(true).mode(0o755).create(path)?;
        fs::set_permissions(path, Permissions::from_mode(mode))
    };
    make().map_err(failed("create the folder", path))
}

fn remove_all(path: &Path) -> Result<(), ArtifactError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", path)(error)),
        _ => Ok(()),
    }
}

fn remove_file(path: &Path) -> Result<(), ArtifactError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", path)(error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
