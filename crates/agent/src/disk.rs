//! Durable files. Every write is atomic (temporary file in the same folder, mode 0600, fsync, rename,
//! fsync of the folder), so that a reader finds the old bytes or the new ones and a power cut changes
//! nothing about that. What the files mean is not known here.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, Permissions},
    io::{self, Write as _},
    os::unix::fs::{
        DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown,
    },
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::{Serialize, de::DeserializeOwned};
use thiserror::Error;
use zeroize::Zeroizing;

const TEMPORARY_SUFFIX: &str = ".moorage-tmp";
const OWNER_ONLY_FILE: u32 = 0o600;
const GROUP_READS_FILE: u32 = 0o640;
const ALL_READ_FILE: u32 = 0o644;
const PERMISSIONS: u32 = 0o777;
const OWNER_ONLY_FOLDER: u32 = 0o700;

/// The steps of a change at which a crash leaves something different behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Before the temporary file exists.
    Create,
    /// In the middle of its bytes.
    Write,
    /// Before its fsync.
    Sync,
    /// Before it takes the place of the old file.
    Rename,
    /// Before the folder's fsync: the change is visible but perhaps not durable.
    SyncFolder,
    /// Before a file is removed.
    Remove,
}

/// Called before every step; an error stops the change there, as a crash would.
pub(crate) type Failpoint = dyn Fn(Step, &Path) -> io::Result<()> + Send + Sync;

/// A file that cannot be read or written.
#[derive(Debug, Error)]
pub enum DiskError {
    /// The operating system refused.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// A verb for the message, such as `write`.
        action: &'static str,
        /// The file or folder that it was done to.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The file is not the document that it should be. Its contents are not repeated: they may be
    /// secret.
    #[error("{} is damaged at line {line}, column {column}", path.display())]
    Damaged {
        /// The file, with its folder.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
    },
}

/// Who may read a file beside its owner.
enum Readers {
    Owner,
    Group { group: u32, mode: u32 },
    All,
}

impl DiskError {
    /// Whether there was no room.
    pub fn is_disk_full(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull)
    }
}

/// The way to all files that have to survive.
#[derive(Clone, Default)]
pub struct Disk {
    failpoint: Option<Arc<Failpoint>>,
}

impl Disk {
    /// A disk that asks `failpoint` before every step; for tests of crashes.
    pub fn with_failpoint(failpoint: Arc<Failpoint>) -> Self {
        Self { failpoint: Some(failpoint) }
    }

    /// Announces a step of a change that is not made by this type.
    pub(crate) fn step(&self, step: Step, path: &Path) -> io::Result<()> {
        self.failpoint.as_ref().map_or(Ok(()), |failpoint| failpoint(step, path))
    }

    /// Makes a folder and those above it, for the owner only. One that is there is closed to others.
    pub fn create_folder(&self, path: &Path) -> Result<(), DiskError> {
        let create = || -> io::Result<()> {
            DirBuilder::new().recursive(true).mode(OWNER_ONLY_FOLDER).create(path)?;
            if fs::metadata(path)?.permissions().mode() & 0o077 != 0 {
                fs::set_permissions(path, Permissions::from_mode(OWNER_ONLY_FOLDER))?;
            }
            Ok(())
        };
        create().map_err(|source| failed("create the folder", path, source))
    }

    /// Replaces the file at `path` by `bytes`, atomically and durably.
    pub fn write(&self, path: &Path, bytes: &[u8]) -> Result<(), DiskError> {
        self.replace(path, bytes, &Readers::Owner).map_err(|source| failed("write", path, source))
    }

    /// As [`Self::write`], but a group may read the file as well: mode 0640.
    pub fn write_for_group(&self, path: &Path, bytes: &[u8], group: u32) -> Result<(), DiskError> {
        let readers = Readers::Group { group, mode: GROUP_READS_FILE };
        self.replace(path, bytes, &readers).map_err(|source| failed("write", path, source))
    }

    /// As [`Self::write`], but everybody may read the file: mode 0644.
    pub fn write_for_all(&self, path: &Path, bytes: &[u8]) -> Result<(), DiskError> {
        self.replace(path, bytes, &Readers::All).map_err(|source| failed("write", path, source))
    }

    /// As [`Self::write`], for a file that is there: its group and its mode stay as they are.
    pub fn rewrite(&self, path: &Path, bytes: &[u8]) -> Result<(), DiskError> {
        let rewrite = || {
            let metadata = fs::metadata(path)?;
            let readers =
                Readers::Group { group: metadata.gid(), mode: metadata.mode() & PERMISSIONS };
            self.replace(path, bytes, &readers)
        };
        rewrite().map_err(|source| failed("write", path, source))
    }

    fn replace(&self, path: &Path, bytes: &[u8], readers: &Readers) -> io::Result<()> {
        let temporary = temporary_of(path)?;
        self.step(Step::Create, path)?;
        remove_if_there(&temporary)?;
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(OWNER_ONLY_FILE)
            .open(&temporary)?;
        let (first, second) = bytes.split_at(bytes.len() / 2);
        file.write_all(first)?;
        self.step(Step::Write, path)?;
        file.write_all(second)?;
        match *readers {
            Readers::Owner => {}
            Readers::Group { group, mode } => {
                fchown(&file, None, Some(group))?;
                file.set_permissions(Permissions::from_mode(mode))?;
            }
            Readers::All => file.set_permissions(Permissions::from_mode(ALL_READ_FILE))?,
        }
        self.step(Step::Sync, path)?;
        file.sync_all()?;
        self.step(Step::Rename, path)?;
        fs::rename(&temporary, path)?;
        self.sync_folder(path)
    }

    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        self.step(Step::SyncFolder, path)?;
        let folder = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
        File::open(folder)?.sync_all()
    }

    /// Removes the file at `path`, durably; one that is not there is fine.
    pub fn remove(&self, path: &Path) -> Result<(), DiskError> {
        let removed = || -> io::Result<()> {
            if !fs::exists(path)? {
                return Ok(());
            }
            self.step(Step::Remove, path)?;
            remove_if_there(path)?;
            self.sync_folder(path)
        };
        removed().map_err(|source| failed("remove", path, source))
    }

    /// The bytes of a file, or `None` if there is no such file. They are zeroized when dropped.
    pub fn read(&self, path: &Path) -> Result<Option<Zeroizing<Vec<u8>>>, DiskError> {
        match fs::read(path) {
            Ok(bytes) => Ok(Some(Zeroizing::new(bytes))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(failed("read", path, source)),
        }
    }

    /// A file that holds one JSON document.
    pub fn read_json<T: DeserializeOwned>(&self, path: &Path) -> Result<Option<T>, DiskError> {
        let Some(bytes) = self.read(path)? else { return Ok(None) };
        serde_json::from_slice(&bytes).map(Some).map_err(|error| DiskError::Damaged {
            path: path.to_owned(),
            line: error.line(),
            column: error.column(),
        })
    }

    /// Replaces a file by one JSON document.
    pub fn write_json<T: Serialize>(&self, path: &Path, document: &T) -> Result<(), DiskError> {
        self.write(path, &to_json(document, b""))
    }

    /// Removes what interrupted writes left in `folder`: a half-written file may hold a secret.
    pub fn sweep(&self, folder: &Path) -> Result<(), DiskError> {
        let sweep = || -> io::Result<()> {
            for entry in fs::read_dir(folder)? {
                let entry = entry?;
                if entry.file_name().to_string_lossy().ends_with(TEMPORARY_SUFFIX) {
                    fs::remove_file(entry.path())?;
                }
            }
            Ok(())
        };
        sweep().map_err(|source| failed("clean up", folder, source))
    }
}

/// Serializes into a buffer of the exact size, so that no reallocation leaves a copy of a secret
/// behind, and zeroizes it in the end. `end` is put behind the document.
pub(crate) fn to_json<T: Serialize>(document: &T, end: &[u8]) -> Zeroizing<Vec<u8>> {
    struct Count(usize);
    impl io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let representable = "the agent's documents have text keys only";
    let mut count = Count(0);
    serde_json::to_writer(&mut count, document).expect(representable);
    let mut bytes = Zeroizing::new(Vec::with_capacity(count.0 + end.len()));
    serde_json::to_writer(&mut *bytes, document).expect(representable);
    bytes.extend_from_slice(end);
    bytes
}

fn temporary_of(path: &Path) -> io::Result<PathBuf> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    Ok(path.with_file_name(format!(".{}{TEMPORARY_SUFFIX}", name.to_string_lossy())))
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn failed(action: &'static str, path: &Path, source: io::Error) -> DiskError {
    DiskError::Io { action, path: path.to_owned(), source }
}

/// Crashes for tests: counts the steps and fails from the chosen one on, as a dead process would.
#[cfg(test)]
pub(crate) mod crash {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use super::Disk;

    /// A disk that dies at step `at` (from 0), and whether it did.
    pub(crate) fn disk_that_dies_at(at: usize) -> (Disk, impl Fn() -> bool) {
        let steps = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&steps);
        let disk = Disk::with_failpoint(Arc::new(move |_, _| {
            let step = counted.fetch_add(1, Ordering::SeqCst);
            if step < at { Ok(()) } else { Err(std::io::Error::other("crashed")) }
        }));
        (disk, move || steps.load(Ordering::SeqCst) > at)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::{crash::disk_that_dies_at, *};

    #[test]
    fn a_crash_in_a_write_leaves_the_old_or_the_new_bytes() {
        let mut crashes = 0;
        for at in 0.. {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("file");
            Disk::default().write(&path, b"old").unwrap();
            let (disk, has_died) = disk_that_dies_at(at);
            let written = disk.write(&path, b"new bytes");
            let bytes = Disk::default().read(&path).unwrap().unwrap();
            assert!(*bytes == b"old" || *bytes == b"new bytes", "torn at step {at}");
            Disk::default().sweep(folder.path()).unwrap();
            assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
            if !has_died() {
                written.unwrap();
                assert_eq!(*bytes, b"new bytes");
                break;
            }
            crashes += 1;
        }
        assert_eq!(crashes, 5);
    }

    #[test]
    fn a_written_file_is_for_its_owner_only_and_has_one_link() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        Disk::default().write(&path, b"bytes").unwrap();
        let metadata = fs::symlink_metadata(&path).unwrap();
        assert_eq!(metadata.mode() & 0o7777, 0o600);
        assert_eq!(metadata.nlink(), 1);
        assert!(metadata.is_file());
    }

    #[test]
    fn a_damaged_document_is_reported_without_its_contents() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file.json");
        Disk::default().write(&path, b"\"sk-ant-hidden\"").unwrap();
        let error = Disk::default().read_json::<Vec<u32>>(&path).unwrap_err().to_string();
        assert!(error.contains("is damaged at line 1") && !error.contains("hidden"), "{error}");
    }
}
