//! Archives whose bytes depend on names, contents and one time alone: not on who packed them, when,
//! where, or in which order a file system lists a folder.

use std::{
    collections::HashSet,
    fs::{self, File, Metadata},
    io::{self, BufWriter, Write as _},
    os::unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    path::{Component, Path, PathBuf},
};

use flate2::{Compression, GzBuilder};
use tar::{Builder, EntryType, Header};

use super::{
    ReleaseError,
    digest::{Digest, Digesting},
};

/// The contents of a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tree {
    root: PathBuf,
    /// Sorted by the bytes of their paths, so that a folder comes before what is in it.
    entries: Vec<Entry>,
}

/// One entry of a [`Tree`].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Entry {
    /// Relative to the root.
    pub path: PathBuf,
    pub kind: Kind,
}

/// What an entry is. Anything else cannot be packed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Kind {
    Folder,
    File {
        /// Whether anyone may run it.
        executable: bool,
        /// In bytes.
        size: u64,
        /// When anything of it changed last: seconds and nanoseconds since 1970.
        changed: (i64, i64),
    },
    /// A relative symlink to something in the tree.
    Symlink(PathBuf),
}

impl Tree {
    /// Lists all that is under `root`, without following symlinks. Refuses symlinks out of it and what
    /// is neither file, folder nor symlink.
    pub fn read(root: &Path) -> Result<Self, ReleaseError> {
        let mut entries = Vec::new();
        let mut folders = vec![PathBuf::new()];
        while let Some(folder) = folders.pop() {
            let path = root.join(&folder);
            for found in fs::read_dir(&path).map_err(ReleaseError::reading(&path))? {
                let found = found.map_err(ReleaseError::reading(&path))?;
                let metadata = found.metadata().map_err(ReleaseError::reading(found.path()))?;
                let path = folder.join(found.file_name());
                let kind = kind(root, &path, &metadata)?;
                if kind == Kind::Folder {
                    folders.push(path.clone());
                }
                entries.push(Entry { path, kind });
            }
        }
        entries.sort_by(|a, b| a.path.as_os_str().as_bytes().cmp(b.path.as_os_str().as_bytes()));
        Ok(Self { root: root.to_owned(), entries })
    }

    /// What is in it.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Something that is in one of two trees alone, or not the same in both.
    pub fn difference<'a>(&'a self, other: &'a Self) -> Option<&'a Path> {
        let only = |one: &'a Self, other: &'a Self| {
            let known: HashSet<&Entry> = other.entries.iter().collect();
            one.entries.iter().find(|entry| !known.contains(entry))
        };
        only(other, self).or_else(|| only(self, other)).map(|entry| entry.path.as_path())
    }

    /// Leaves out what `keep` refuses. Nothing on disk changes.
    #[must_use]
    pub fn filtered(mut self, keep: impl Fn(&Entry) -> bool) -> Self {
        self.entries.retain(keep);
        self
    }

    /// The bytes of all files.
    pub fn size(&self) -> u64 {
        let size = |entry: &Entry| match entry.kind {
            Kind::File { size, .. } => size,
            _ => 0,
        };
        self.entries.iter().map(size).sum()
    }

    /// Writes it as `.tar.gz` to `file`. Owner and group are 0, modes 0755 or 0644, and every time is
    /// `time`, in seconds since 1970.
    pub fn pack(&self, file: &Path, time: u64) -> Result<Digest, ReleaseError> {
        let failed =
            |source| ReleaseError::File { path: file.to_owned(), action: "written", source };
        let digesting = Digesting::new(File::create(file).map_err(failed)?);
        // Neither name nor time: the header's defaults.
        let gzip = GzBuilder::new().write(BufWriter::new(digesting), Compression::new(6));
        let mut tar = Builder::new(gzip);
        for entry in &self.entries {
            self.append(&mut tar, entry, time).map_err(ReleaseError::writing(file))?;
        }
        let finish = || {
            let digesting = tar.into_inner()?.finish()?.into_inner();
            let (mut file, digest) = digesting.map_err(io::IntoInnerError::into_error)?.finish();
            file.flush()?;
            file.sync_all()?;
            Ok(digest)
        };
        finish().map_err(failed)
    }

    fn append<W: io::Write>(
        &self,
        tar: &mut Builder<W>,
        entry: &Entry,
        time: u64,
    ) -> io::Result<()> {
        let mut header = Header::new_gnu();
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(time);
        header.set_size(0);
        match &entry.kind {
            Kind::Folder => {
                header.set_entry_type(EntryType::Directory);
                header.set_mode(0o755);
                tar.append_data(&mut header, &entry.path, io::empty())
            }
            Kind::Symlink(target) => {
                header.set_entry_type(EntryType::Symlink);
                header.set_mode(0o777);
                tar.append_link(&mut header, &entry.path, target)
            }
            Kind::File { executable, size, .. } => {
                header.set_entry_type(EntryType::Regular);
                header.set_mode(if *executable { 0o755 } else { 0o644 });
                header.set_size(*size);
                let opened = File::open(self.root.join(&entry.path))?;
                // A file that grew or shrank would break every entry after it.
                if opened.metadata()?.len() != *size {
                    let changed = format!("{} changed while it was packed", entry.path.display());
                    return Err(io::Error::other(changed));
                }
                tar.append_data(&mut header, &entry.path, opened)
            }
        }
    }
}

fn kind(root: &Path, path: &Path, metadata: &Metadata) -> Result<Kind, ReleaseError> {
    let refuse = |why| ReleaseError::Unpackable { path: path.to_owned(), why };
    if metadata.is_dir() {
        return Ok(Kind::Folder);
    }
    if metadata.is_file() {
        return Ok(Kind::File {
            executable: metadata.mode() & 0o111 != 0,
            size: metadata.len(),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        });
    }
    if !metadata.is_symlink() {
        return Err(refuse("it is neither a file, a folder nor a symlink"));
    }
    let target = fs::read_link(root.join(path)).map_err(ReleaseError::reading(root.join(path)))?;
    if !stays_inside(path, &target) {
        return Err(refuse("it is a symlink to something outside of the archive"));
    }
    Ok(Kind::Symlink(target))
}

/// Whether a symlink at `path` leads to something under the root.
fn stays_inside(path: &Path, target: &Path) -> bool {
    let mut depth = path.components().count() - 1;
    for component in target.components() {
        match component {
            Component::Normal(_) => depth += 1,
            Component::CurDir => {}
            Component::ParentDir if depth > 0 => depth -= 1,
            _ => return false,
        }
    }
    depth > 0
}

#[cfg(test)]
mod tests {
    use std::{
        io::Read as _,
        os::unix::fs::{PermissionsExt as _, symlink},
        time::{Duration, SystemTime},
    };

    use flate2::read::GzDecoder;

    use super::*;

    const TIME: u64 = 1_780_000_000;

    fn write(path: &Path, text: &str, mode: u32) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    /// The same tree, made in an order and with modes and times of its own.
    fn tree(order: &[&str], mode: u32, age: u64) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for name in order {
            let path = root.path().join(name);
            write(&path, name, if name.starts_with("bin/") { mode | 0o100 } else { mode });
            let time = SystemTime::now() - Duration::from_secs(age);
            File::options().append(true).open(&path).unwrap().set_modified(time).unwrap();
        }
        symlink("../lib/a.js", root.path().join("bin/a")).unwrap();
        root
    }

    fn packed(root: &Path) -> (Vec<u8>, Digest) {
        let file = tempfile::NamedTempFile::new().unwrap();
        let digest = Tree::read(root).unwrap().pack(file.path(), TIME).unwrap();
        (fs::read(file.path()).unwrap(), digest)
    }

    #[test]
    fn the_same_tree_gives_the_same_bytes_whoever_packs_it_and_when() {
        let long = format!("lib/{}/b.js", "deep/".repeat(40));
        let one = tree(&["lib/a.js", "bin/run", &long], 0o600, 0);
        let other = tree(&[&long, "bin/run", "lib/a.js"], 0o664, 90_000);
        let (bytes, digest) = packed(one.path());
        assert_eq!(packed(other.path()), (bytes.clone(), digest));
        assert_eq!(digest.size, bytes.len() as u64);
        assert_eq!(digest.sha256, moorage_wire::Sha256::of(&bytes));
        assert_eq!(bytes[3..8], [0; 5], "the gzip header has a name or a time");
    }

    #[test]
    fn a_changed_byte_gives_other_bytes() {
        let one = tree(&["lib/a.js", "bin/run"], 0o644, 0);
        let before = packed(one.path());
        write(&one.path().join("lib/a.js"), "lib/b.js", 0o644);
        assert_ne!(packed(one.path()), before);
    }

    #[test]
    fn entries_are_sorted_and_belong_to_root_with_plain_modes() {
        let root = tree(&["lib/a.js", "bin/run"], 0o660, 0);
        let (bytes, _) = packed(root.path());
        let mut archive = tar::Archive::new(GzDecoder::new(&bytes[..]));
        let mut seen = Vec::new();
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let header = entry.header();
            assert_eq!((header.uid().unwrap(), header.gid().unwrap()), (0, 0));
            assert_eq!(header.mtime().unwrap(), TIME);
            let target = entry.link_name().unwrap().map(std::borrow::Cow::into_owned);
            let line = (entry.path().unwrap().into_owned(), entry.header().mode().unwrap(), target);
            let mut text = String::new();
            entry.read_to_string(&mut text).unwrap();
            seen.push((line, text));
        }
        let line = |path: &str, mode, link: Option<&str>, text: &str| {
            ((PathBuf::from(path), mode, link.map(PathBuf::from)), text.to_owned())
        };
        assert_eq!(
            seen,
            [
                line("bin", 0o755, None, ""),
                line("bin/a", 0o777, Some("../lib/a.js"), ""),
                line("bin/run", 0o755, None, "bin/run"),
                line("lib", 0o755, None, ""),
                line("lib/a.js", 0o644, None, "lib/a.js"),
            ]
        );
    }

    #[test]
    fn trees_differ_in_what_was_added_removed_or_touched() {
        let root = tree(&["lib/a.js", "bin/run"], 0o644, 0);
        let before = Tree::read(root.path()).unwrap();
        assert_eq!(before.difference(&Tree::read(root.path()).unwrap()), None);
        write(&root.path().join("lib.js"), "", 0o644);
        let more = Tree::read(root.path()).unwrap();
        assert_eq!(before.difference(&more), Some(Path::new("lib.js")));
        fs::remove_file(root.path().join("lib.js")).unwrap();
        fs::remove_file(root.path().join("bin/run")).unwrap();
        let less = Tree::read(root.path()).unwrap();
        assert_eq!(before.difference(&less), Some(Path::new("bin/run")));
    }

    #[test]
    fn a_symlink_that_leaves_the_tree_is_refused() {
        for target in ["/etc/passwd", "../../outside", "..", "../lib/../../outside"] {
            let root = tempfile::tempdir().unwrap();
            fs::create_dir(root.path().join("bin")).unwrap();
            symlink(target, root.path().join("bin/a")).unwrap();
            let refused = Tree::read(root.path()).unwrap_err().to_string();
            assert!(
                refused.contains("bin/a") && refused.contains("outside"),
                "{target}: {refused}"
            );
        }
    }

    #[test]
    fn a_socket_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(root.path().join("s")).unwrap();
        assert!(Tree::read(root.path()).unwrap_err().to_string().contains("neither"));
    }
}
