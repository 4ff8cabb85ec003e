//! Unpacking a `.tar.gz` into a folder that nobody else can write to, so that nothing leaves it.
//!
//! Why nothing does: an entry is made only below real folders that were made here (never through a
//! link), and only where nothing is yet. A symbolic link is relative and has `..` at its beginning
//! only, no more of them than folders above it. As the folders above it are real, these `..` stay
//! within, and whatever names follow lead to files, folders, or links of the same kind.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    fs::{self, DirBuilder, File, OpenOptions, Permissions},
    io::{self, BufReader, Read},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _, symlink},
    path::{Component, Path, PathBuf},
};

use flate2::bufread::GzDecoder;
use tar::{Archive, Entry, EntryType};
use thiserror::Error;

/// What an archive may contain at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limits {
    /// Files, folders and links.
    pub(super) entries: u64,
    /// Bytes after decompression.
    pub(super) bytes: u64,
}

/// OpenClaw has 30,000 to 60,000 files in 650 MB.
pub(super) const LIMITS: Limits = Limits { entries: 300_000, bytes: 4 << 30 };

const DEEPEST: usize = 64;
const BUFFER: usize = 256 * 1024;
/// A single folder of one of these names is the artifact's own, not a wrapping around it.
const OWN_FOLDERS: [&str; 3] = ["bin", "lib", "node_modules"];

/// An archive that is not unpacked.
#[derive(Debug, Error)]
pub enum UnpackError {
    /// Not a gzip-compressed tar archive, or cut off.
    #[error("it cannot be read: {0}")]
    Unreadable(io::Error),
    /// An entry of it is not allowed.
    #[error("{} {why}", path.display())]
    Entry {
        /// As the archive has it.
        path: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
    /// It contains more than an artifact may.
    #[error("it contains more than {0}")]
    TooMuch(&'static str),
    /// There is no file in it.
    #[error("it is empty")]
    Empty,
    /// A file of it cannot be written.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// Below the folder that it is unpacked into.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
}

/// Unpacks `archive` into `folder`, which must be empty. Gives the folder that holds the contents:
/// `folder` itself, or the one folder in it that wraps all.
pub(super) fn unpack(
    archive: &Path,
    folder: &Path,
    limits: Limits,
) -> Result<PathBuf, UnpackError> {
    let file = File::open(archive).map_err(UnpackError::Unreadable)?;
    let decoder = GzDecoder::new(BufReader::with_capacity(BUFFER, file));
    let bytes = Bounded { inner: decoder, left: limits.bytes, exceeded: false };
    let mut archive = Archive::new(bytes);
    let mut unpacking = Unpacking::into(folder, limits.entries);
    let outcome = each_entry(&mut archive, &mut unpacking);
    if archive.into_inner().exceeded {
        return Err(UnpackError::TooMuch("the bytes that an artifact may have"));
    }
    outcome?;
    unpacking.finish()
}

fn each_entry<R: Read>(
    archive: &mut Archive<R>,
    unpacking: &mut Unpacking<'_>,
) -> Result<(), UnpackError> {
    for entry in archive.entries().map_err(UnpackError::Unreadable)? {
        unpacking.entry(entry.map_err(UnpackError::Unreadable)?)?;
    }
    Ok(())
}

/// Reads up to a limit, and remembers whether there was more.
struct Bounded<R> {
    inner: R,
    left: u64,
    exceeded: bool,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        if most == 0 && !buffer.is_empty() {
            self.exceeded = true;
            return Err(io::Error::other("too many bytes"));
        }
        let count = self.inner.read(&mut buffer[..most])?;
        self.left -= count as u64;
        Ok(count)
    }
}

struct Unpacking<'a> {
    folder: &'a Path,
    entries_left: u64,
    /// The names directly in the folder; more than two are as good as two.
    top: BTreeSet<OsString>,
    /// The least depth that a link leads up to.
    highest_link: usize,
    /// The folder that was made or checked last: entries come folder by folder.
    known_folder: PathBuf,
}

impl<'a> Unpacking<'a> {
    fn into(folder: &'a Path, entries: u64) -> Self {
        let (top, known_folder) = (BTreeSet::new(), PathBuf::new());
        Self { folder, entries_left: entries, top, highest_link: usize::MAX, known_folder }
    }

    fn entry<R: Read>(&mut self, mut entry: Entry<'_, R>) -> Result<(), UnpackError> {
        let kind = entry.header().entry_type();
        if kind == EntryType::XGlobalHeader {
            // A comment, as `git archive` writes it.
            return Ok(());
        }
        self.entries_left =
            self.entries_left.checked_sub(1).ok_or(UnpackError::TooMuch("the entries allowed"))?;
        let raw = entry.path().map_err(UnpackError::Unreadable)?.into_owned();
        let refuse = |why| UnpackError::Entry { path: raw.clone(), why };
        let path = inner_path(&raw).map_err(refuse)?;
        if path.as_os_str().is_empty() {
            // `./`, the folder itself.
            return if kind == EntryType::Directory { Ok(()) } else { Err(refuse("has no name")) };
        }
        if let Some(Component::Normal(name)) = path.components().next()
            && self.top.len() < 2
        {
            self.top.insert(name.to_owned());
        }
        let target = self.folder.join(&path);
        match kind {
            EntryType::Directory => return self.folder(&path).map_err(|trouble| trouble.at(&raw)),
            EntryType::Regular | EntryType::Continuous | EntryType::Symlink | EntryType::Link => {}
            _ => return Err(refuse("is neither a file nor a folder nor a link")),
        }
        let above = path.parent().unwrap_or(Path::new(""));
        self.folder(above).map_err(|trouble| trouble.at(&raw))?;
        match kind {
            EntryType::Symlink => {
                let to = link_target(&entry)?;
                let top = link_top(above, &to).map_err(refuse)?;
                self.highest_link = self.highest_link.min(top);
                symlink(&to, &target).map_err(|error| Trouble::from(error).at(&raw))
            }
            EntryType::Link => {
                let to = inner_path(&link_target(&entry)?).map_err(refuse)?;
                let to =
                    self.file_in_folder(&to).ok_or_else(|| refuse("links to no file of it"))?;
                fs::hard_link(to, &target).map_err(|error| Trouble::from(error).at(&raw))
            }
            _ => write_file(&mut entry, &target).map_err(|trouble| trouble.at(&raw)),
        }
    }

    /// Makes sure that `path` is a real folder, and those above it are.
    fn folder(&mut self, path: &Path) -> Result<(), Trouble> {
        if path == self.known_folder {
            return Ok(());
        }
        let mut so_far = self.folder.to_owned();
        for part in path.components() {
            so_far.push(part);
            match fs::symlink_metadata(&so_far) {
                Ok(metadata) if metadata.is_dir() => {}
                Ok(_) => return Err(Trouble::Refused("lies below something that is no folder")),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    DirBuilder::new().mode(0o755).create(&so_far)?;
                    fs::set_permissions(&so_far, Permissions::from_mode(0o755))?;
                }
                Err(error) => return Err(error.into()),
            }
        }
        path.clone_into(&mut self.known_folder);
        Ok(())
    }

    /// A regular file that was unpacked, reached through real folders only.
    fn file_in_folder(&self, path: &Path) -> Option<PathBuf> {
        let mut so_far = self.folder.to_owned();
        let mut parts = path.components().peekable();
        while let Some(part) = parts.next() {
            so_far.push(part);
            let metadata = fs::symlink_metadata(&so_far).ok()?;
            let as_expected =
                if parts.peek().is_some() { metadata.is_dir() } else { metadata.is_file() };
            if !as_expected {
                return None;
            }
        }
        (so_far != self.folder).then_some(so_far)
    }

    fn finish(self) -> Result<PathBuf, UnpackError> {
        let Some(only) = self.top.first() else { return Err(UnpackError::Empty) };
        let wrapping = self.folder.join(only);
        let is_wrapped = self.top.len() == 1
            && !OWN_FOLDERS.iter().any(|own| only == own)
            && fs::symlink_metadata(&wrapping).is_ok_and(|metadata| metadata.is_dir());
        if !is_wrapped {
            return Ok(self.folder.to_owned());
        }
        if self.highest_link == 0 {
            let path = PathBuf::from(only);
            return Err(UnpackError::Entry { path, why: "has a link that leaves it" });
        }
        Ok(wrapping)
    }
}

/// What can go wrong with one entry.
enum Trouble {
    Refused(&'static str),
    Unreadable(io::Error),
    Write(io::Error),
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::AlreadyExists {
            Self::Refused("is there twice")
        } else {
            Self::Write(error)
        }
    }
}

impl Trouble {
    fn at(self, path: &Path) -> UnpackError {
        let path = path.to_owned();
        match self {
            Self::Refused(why) => UnpackError::Entry { path, why },
            Self::Unreadable(error) => UnpackError::Unreadable(error),
            Self::Write(source) => UnpackError::Write { path, source },
        }
    }
}

/// The path of an entry, relative to the folder: names only.
fn inner_path(raw: &Path) -> Result<PathBuf, &'static str> {
    let mut path = PathBuf::new();
    for (depth, part) in raw.components().enumerate() {
        match part {
            Component::Normal(name) => path.push(name),
            Component::CurDir => {}
            Component::ParentDir => return Err("has `..` in its path"),
            Component::RootDir | Component::Prefix(_) => return Err("has an absolute path"),
        }
        if depth >= DEEPEST {
            return Err("lies too deep");
        }
    }
    Ok(path)
}

fn link_target<R: Read>(entry: &Entry<'_, R>) -> Result<PathBuf, UnpackError> {
    let target = entry.link_name().map_err(UnpackError::Unreadable)?;
    Ok(target.map(std::borrow::Cow::into_owned).unwrap_or_default())
}

/// The depth that a symbolic link in the folder `above` leads up to, if it is one that is allowed.
fn link_top(above: &Path, target: &Path) -> Result<usize, &'static str> {
    let (mut top, mut went_down) = (above.components().count(), false);
    if target.as_os_str().is_empty() {
        return Err("links to nothing");
    }
    for part in target.components() {
        match part {
            Component::Normal(_) => went_down = true,
            Component::CurDir => {}
            Component::ParentDir if went_down => return Err("links up after it went down"),
            Component::ParentDir => {
                top = top.checked_sub(1).ok_or("links to something outside")?;
            }
            Component::RootDir | Component::Prefix(_) => return Err("links to an absolute path"),
        }
    }
    Ok(top)
}

/// Writes a regular file. Of its mode only "executable" survives.
fn write_file<R: Read>(entry: &mut Entry<'_, R>, target: &Path) -> Result<(), Trouble> {
    let executable = entry.header().mode().map_err(Trouble::Unreadable)? & 0o111 != 0;
    let mode = if executable { 0o755 } else { 0o644 };
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(target)?;
    let expected = entry.size();
    let written = copy(entry, &mut file)?;
    if written != expected {
        return Err(Trouble::Unreadable(io::ErrorKind::UnexpectedEof.into()));
    }
    // Whatever the umask is.
    Ok(file.set_permissions(Permissions::from_mode(mode))?)
}

/// As [`io::copy`], but tells which of the two sides failed.
fn copy(from: &mut impl Read, to: &mut impl io::Write) -> Result<u64, Trouble> {
    let (mut chunk, mut written) = ([0; 16 * 1024], 0);
    loop {
        let count = from.read(&mut chunk).map_err(Trouble::Unreadable)?;
        if count == 0 {
            return Ok(written);
        }
        to.write_all(&chunk[..count]).map_err(Trouble::Write)?;
        written += count as u64;
    }
}

#[cfg(test)]
mod tests;
