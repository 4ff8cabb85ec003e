//! What a simulator that was killed has left: namespaces, control groups, disks. Everything of one
//! simulator bears a tag made from its state directory, and a lock that it held for its life.

use std::ffi::OsString;
use std::fs::{self, File, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use aws_lc_rs::digest;

use super::{cgroup, namespace};

/// One lock file for each simulator, which holds the path of its state directory.
const REGISTRY: &str = "/run/moorage-sim";
const NAME: &str = "mlab-";
/// How long killed processes may need to be gone.
const KILL_TIMEOUT: Duration = Duration::from_secs(20);

/// Held by whoever looks through the registry or adds to it.
#[derive(Debug)]
pub(super) struct Registry {
    _lock: File,
}

impl Registry {
    /// Waits until nobody else has it. Blocks.
    pub(super) fn open() -> io::Result<Self> {
        fs::create_dir_all(REGISTRY)?;
        let lock = File::create(Path::new(REGISTRY).join(".lock"))?;
        lock.lock()?;
        Ok(Self { _lock: lock })
    }
}

/// The right to use everything that bears a tag.
#[derive(Debug)]
pub(super) struct Tag {
    prefix: String,
    file: PathBuf,
    _lock: File,
}

impl Tag {
    /// Takes the tag of a state directory (canonical path).
    pub(super) fn take(_registry: &Registry, state_dir: &Path) -> io::Result<Self> {
        let hash = digest::digest(&digest::SHA256, state_dir.as_os_str().as_encoded_bytes());
        let tag = hex::encode(&hash.as_ref()[..4]);
        let file = Path::new(REGISTRY).join(&tag);
        let mut lock = File::options().create(true).append(true).open(&file)?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => {
                io::Error::other("another simulator uses this state directory")
            }
            TryLockError::Error(error) => error,
        })?;
        lock.set_len(0)?;
        lock.write_all(state_dir.as_os_str().as_encoded_bytes())?;
        Ok(Self { prefix: prefix(&tag), file, _lock: lock })
    }

    /// What the names of namespaces, control groups and machines begin with.
    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Gives the tag back. Nothing may bear it any more.
    pub(super) fn release(&self) {
        if let Err(error) = fs::remove_file(&self.file) {
            tracing::warn!(%error, "cannot remove the simulator's lock file");
        }
    }
}

fn prefix(tag: &str) -> String {
    format!("{NAME}{tag}-")
}

/// Removes what dead simulators have left. What cannot be removed is told in the log. Blocks.
pub(super) fn sweep(_registry: &Registry) -> io::Result<()> {
    for entry in fs::read_dir(REGISTRY)? {
        let file = entry?.path();
        let tag = file.file_name().and_then(|name| name.to_str());
        let Some(tag) = tag.filter(|tag| !tag.starts_with('.')) else { continue };
        let lock = match File::open(&file) {
            // Its simulator has just ended in order.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            lock => lock?,
        };
        // Held by a simulator that lives.
        if lock.try_lock().is_err() {
            continue;
        }
        let mut state_dir = Vec::new();
        (&lock).read_to_end(&mut state_dir)?;
        let state_dir = PathBuf::from(OsString::from_vec(state_dir));
        tracing::info!(state_dir = %state_dir.display(), "removing what a killed simulator has left");
        clean(&prefix(tag))?;
        // One that was killed before it wrote its path has made no server either.
        if state_dir.is_absolute() {
            remove_servers(&state_dir)?;
        }
        match fs::remove_file(&file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Kills and removes everything whose name begins with `prefix`. Blocks.
pub(super) fn clean(prefix: &str) -> io::Result<()> {
    for group in cgroup::names(prefix)? {
        remove_group(&group)?;
    }
    for name in namespace::names()?.into_iter().filter(|name| name.starts_with(prefix)) {
        namespace::NetworkNamespace::named(name).remove()?;
    }
    Ok(())
}

/// Kills what runs in a group and removes it. Blocks.
pub(super) fn remove_group(group: &str) -> io::Result<()> {
    let deadline = Instant::now() + KILL_TIMEOUT;
    cgroup::kill(group)?;
    loop {
        match cgroup::remove(group) {
            Ok(()) => return Ok(()),
            Err(error) if Instant::now() > deadline => return Err(error),
            Err(_) => std::thread::sleep(Duration::from_millis(10)),
        }
    }
}

/// Removes the servers' folders of a state directory.
pub(super) fn remove_servers(state_dir: &Path) -> io::Result<()> {
    match fs::remove_dir_all(state_dir.join("servers")) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
