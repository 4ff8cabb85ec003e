//! The folder of one running simulator.

use std::fs::{DirBuilder, File, TryLockError};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

/// The folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateDirError {
    /// Another simulator has it.
    #[error("another simulator uses {0}: give each its own --state-dir")]
    Taken(PathBuf),
    #[error("cannot use {path} as state directory")]
    Unusable { path: PathBuf, source: io::Error },
}

/// A folder that no other simulator uses.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
    _lock: File,
    remove: bool,
}

impl StateDir {
    /// Takes this folder, or one in the temporary directory that is removed when this is dropped.
    /// New folders are for their owner alone.
    pub fn open(chosen: Option<&Path>) -> Result<Self, StateDirError> {
        let path = match chosen {
            Some(path) => path.to_owned(),
            None => std::env::temp_dir().join(format!("moorage-sim-{}", std::process::id())),
        };
        let unusable = |source| StateDirError::Unusable { path: path.clone(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(&path).map_err(unusable)?;
        let lock = File::create(path.join("lock")).map_err(unusable)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path, _lock: lock, remove: chosen.is_none() }),
            Err(TryLockError::WouldBlock) => Err(StateDirError::Taken(path)),
            Err(TryLockError::Error(error)) => Err(unusable(error)),
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for StateDir {
    fn drop(&mut self) {
        if self.remove
            && let Err(error) = std::fs::remove_dir_all(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove the state directory");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_simulators_do_not_share_a_folder() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        let first = StateDir::open(Some(&path)).unwrap();
        assert!(matches!(StateDir::open(Some(&path)), Err(StateDirError::Taken(_))));
        drop(first);
        assert!(StateDir::open(Some(&path)).is_ok());
    }
}
