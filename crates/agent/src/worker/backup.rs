//! What makes an update of OpenClaw safe for its data: OpenClaw's own verified backup, which is for
//! people and disasters, and a copy of the whole state of a stopped OpenClaw, which can be put back at
//! once with everything in it. A copy is taken, put back and removed by renames, so that a power cut
//! leaves a whole state folder or the way to one.

use std::{
    fs::{self, DirBuilder, File, FileTimes},
    io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    time::SystemTime,
};

use serde_json::Value;

use super::{WorkError, Worker, protocol::Answer};
use crate::{disk::DiskError, layout::Layout};

/// The newest backups that are kept.
const BACKUPS: usize = 2;
const BACKUP_SUFFIX: &str = ".tar.gz";

impl Worker {
    pub(super) async fn back_up(&self) -> Result<Answer, WorkError> {
        let _busy = self.busy.lock().await;
        let folder = self.layout.backups();
        let arguments = ["backup", "create", "--verify", "--json", "--output"];
        let answer = self.program.long_json("backup create", &arguments, &folder).await?;
        let verified = answer.get("verified").and_then(Value::as_bool) == Some(true);
        let path = answer.get("archivePath").and_then(Value::as_str).map(PathBuf::from);
        let path = path.filter(|path| verified && path.parent() == Some(folder.as_path()));
        let unverified = || WorkError::Other("OpenClaw made no verified backup".to_owned());
        let path = path.ok_or_else(unverified)?;
        let bytes = fs::metadata(&path).map_err(|source| files("read", &path, source))?.len();
        prune(&folder, &path).map_err(|source| files("prune", &folder, source))?;
        Ok(Answer::Backup { bytes })
    }

    pub(super) async fn room(&self) -> Result<Answer, WorkError> {
        let layout = self.layout.clone();
        blocking(move || {
            let home = layout.openclaw_home();
            let failed = |source| files("look at", &home, source);
            let disk = rustix::fs::statvfs(&home).map_err(|error| failed(error.into()))?;
            let used = size_of(&layout.openclaw_state()).map_err(failed)?;
            Ok(Answer::Room { free: disk.f_bavail.saturating_mul(disk.f_frsize), used })
        })
        .await
    }

    pub(super) async fn take_snapshot(&self) -> Result<Answer, WorkError> {
        let _busy = self.busy.lock().await;
        let layout = self.layout.clone();
        blocking(move || {
            let snapshot = layout.snapshot();
            take(&layout).map_err(|source| files("copy the state to", &snapshot, source))
        })
        .await?;
        Ok(Answer::Done)
    }

    pub(super) async fn restore_snapshot(&self) -> Result<Answer, WorkError> {
        let _busy = self.busy.lock().await;
        let layout = self.layout.clone();
        blocking(move || {
            let state = layout.openclaw_state();
            restore(&layout).map_err(|source| files("put back", &state, source))
        })
        .await?;
        Ok(Answer::Done)
    }

    pub(super) async fn drop_snapshot(&self) -> Result<Answer, WorkError> {
        let _busy = self.busy.lock().await;
        let snapshot = self.layout.snapshot();
        blocking(move || discard(&snapshot).map_err(|source| files("remove", &snapshot, source)))
            .await?;
        Ok(Answer::Done)
    }

    /// Ends a restoration that was cut off between its two renames.
    pub(super) fn finish_restore(&self) -> Result<(), DiskError> {
        let state = self.layout.openclaw_state();
        let finish = || -> io::Result<()> {
            if there(&discarded(&self.layout))? {
                restore(&self.layout)?;
            }
            discard(&partial(&self.layout))
        };
        finish().map_err(|source| DiskError::Io { action: "put back", path: state, source })
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, WorkError> + Send + 'static,
) -> Result<T, WorkError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

fn files(action: &'static str, path: &Path, source: io::Error) -> WorkError {
    WorkError::Files { action, path: path.to_owned(), source }
}

/// A copy that is not whole yet.
fn partial(layout: &Layout) -> PathBuf {
    layout.snapshot().with_extension("partial")
}

/// A state folder that a copy takes the place of.
fn discarded(layout: &Layout) -> PathBuf {
    layout.openclaw_home().join("discarded")
}

fn there(path: &Path) -> io::Result<bool> {
    match fs::symlink_metadata(path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn discard(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn remove_file(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn take(layout: &Layout) -> io::Result<()> {
    let (partial, snapshot) = (partial(layout), layout.snapshot());
    discard(&partial)?;
    discard(&snapshot)?;
    copy_folder(&layout.openclaw_state(), &partial)?;
    // Whoever puts the copy back later must not bring a configuration along that was replaced since:
    // that is written again, from a document that is kept.
    let config = layout.openclaw_config();
    remove_file(&partial.join(config.file_name().ok_or(io::ErrorKind::InvalidInput)?))?;
    // One call for all files is much cheaper than an fsync of each.
    rustix::fs::syncfs(File::open(&partial)?)?;
    rename(&partial, &snapshot)
}

fn restore(layout: &Layout) -> io::Result<()> {
    let (state, snapshot, discarded) =
        (layout.openclaw_state(), layout.snapshot(), discarded(layout));
    if there(&snapshot)? {
        if there(&state)? {
            discard(&discarded)?;
            rename(&state, &discarded)?;
        }
        rename(&snapshot, &state)?;
    }
    discard(&discarded)
}

/// Renames within a folder, durably.
fn rename(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)?;
    File::open(to.parent().ok_or(io::ErrorKind::InvalidInput)?)?.sync_all()
}

/// Copies files, folders and symlinks with their modes and times; sockets and the like are left out.
pub(super) fn copy_folder(from: &Path, to: &Path) -> io::Result<()> {
    let metadata = fs::metadata(from)?;
    DirBuilder::new().mode(metadata.permissions().mode() & 0o7777).create(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type()?;
        if kind.is_dir() {
            copy_folder(&source, &target)?;
        } else if kind.is_symlink() {
            symlink(fs::read_link(&source)?, &target)?;
        } else if kind.is_file() {
            fs::copy(&source, &target)?;
            let times = times_of(&fs::metadata(&source)?);
            File::options()
                .write(true)
                .open(&target)
                .or_else(|_| File::open(&target))?
                .set_times(times)?;
        }
    }
    File::open(to)?.set_times(times_of(&metadata))
}

fn times_of(metadata: &fs::Metadata) -> FileTimes {
    let modified = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
    FileTimes::new().set_modified(modified).set_accessed(metadata.accessed().unwrap_or(modified))
}

/// Bytes that the files of a folder take on the disk.
fn size_of(folder: &Path) -> io::Result<u64> {
    let mut size = 0_u64;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let metadata = match entry.metadata() {
            // OpenClaw runs: its files come and go.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            metadata => metadata?,
        };
        size = size.saturating_add(metadata.blocks().saturating_mul(512));
        if metadata.is_dir() {
            size = size.saturating_add(match size_of(&entry.path()) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
                size => size?,
            });
        }
    }
    Ok(size)
}

/// Removes all backups but the newest ones; `made` is among these whatever the clock said.
fn prune(folder: &Path, made: &Path) -> io::Result<()> {
    let mut others = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path != made && path.to_string_lossy().ends_with(BACKUP_SUFFIX) {
            others.push((fs::metadata(&path)?.modified()?, path));
        }
    }
    others.sort();
    let surplus = others.len().saturating_sub(BACKUPS - 1);
    others.iter().take(surplus).try_for_each(|(_, path)| fs::remove_file(path))
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, time::Duration};

    use super::*;

    fn server() -> (tempfile::TempDir, Layout) {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::new(folder.path().to_owned());
        let state = layout.openclaw_state();
        fs::create_dir_all(state.join("a/b")).unwrap();
        fs::write(state.join("a/b/file"), "old").unwrap();
        fs::set_permissions(state.join("a/b/file"), fs::Permissions::from_mode(0o600)).unwrap();
        symlink("a/b/file", state.join("link")).unwrap();
        symlink("/nowhere", state.join("dangling")).unwrap();
        let socket = state.join("socket");
        drop(std::os::unix::net::UnixListener::bind(socket).unwrap());
        (folder, layout)
    }

    /// Paths with contents, modes and link targets; sockets are left out.
    fn describe(folder: &Path) -> BTreeMap<PathBuf, String> {
        let mut found = BTreeMap::new();
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let metadata = fs::symlink_metadata(&path).unwrap();
            let name = PathBuf::from(path.file_name().unwrap());
            if metadata.is_dir() {
                let below = describe(&path);
                found.extend(below.into_iter().map(|(below, what)| (name.join(below), what)));
            } else if metadata.is_symlink() {
                found.insert(name, format!("{:?}", fs::read_link(&path).unwrap()));
            } else if metadata.is_file() {
                let text = fs::read_to_string(&path).unwrap();
                let (mode, time) = (metadata.mode(), metadata.modified().unwrap());
                found.insert(name, format!("{text} {mode:o} {time:?}"));
            }
        }
        found
    }

    #[test]
    fn a_copy_that_is_put_back_is_what_it_was_copied_from() {
        let (_folder, layout) = server();
        let before = describe(&layout.openclaw_state());
        assert_eq!(before.len(), 3);
        take(&layout).unwrap();
        fs::write(layout.openclaw_state().join("a/b/file"), "migrated").unwrap();
        fs::write(layout.openclaw_state().join("new"), "new").unwrap();
        restore(&layout).unwrap();
        assert_eq!(describe(&layout.openclaw_state()), before);
        restore(&layout).unwrap();
        assert_eq!(describe(&layout.openclaw_state()), before, "there is no copy any more");
        assert!(!layout.snapshot().exists() && !discarded(&layout).exists());
    }

    #[test]
    fn a_restoration_that_was_cut_off_is_ended_at_the_next_start() {
        let (_folder, layout) = server();
        let before = describe(&layout.openclaw_state());
        take(&layout).unwrap();
        fs::write(layout.openclaw_state().join("new"), "new").unwrap();
        rename(&layout.openclaw_state(), &discarded(&layout)).unwrap();
        let program = crate::settings::OpenClawProgram { openclaw: "/none".into(), node: None };
        let address = ([127, 0, 0, 1], 1).into();
        let worker = Worker::new(
            crate::Disk::default(),
            layout.clone(),
            program,
            address,
            crate::worker::Trust::Published,
        );
        worker.prepare().unwrap();
        assert_eq!(describe(&layout.openclaw_state()), before);
    }

    #[test]
    fn a_copy_that_was_cut_off_is_no_copy() {
        let (_folder, layout) = server();
        copy_folder(&layout.openclaw_state(), &partial(&layout)).unwrap();
        let before = describe(&layout.openclaw_state());
        restore(&layout).unwrap();
        assert_eq!(describe(&layout.openclaw_state()), before);
    }

    #[test]
    fn the_newest_backups_are_kept_even_if_the_clock_went_back() {
        let folder = tempfile::tempdir().unwrap();
        for (name, age) in [("a", 30), ("b", 20), ("c", 10), ("made", 10_000)] {
            let path = folder.path().join(format!("{name}.tar.gz"));
            let time = SystemTime::now() - Duration::from_secs(age);
            File::create(path).unwrap().set_modified(time).unwrap();
        }
        fs::write(folder.path().join("other"), "").unwrap();
        prune(folder.path(), &folder.path().join("made.tar.gz")).unwrap();
        let left: Vec<_> = describe(folder.path()).into_keys().collect();
        assert_eq!(left, ["c.tar.gz", "made.tar.gz", "other"].map(PathBuf::from));
    }
}
