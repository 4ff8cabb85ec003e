//! Taking a fetched file over: it is copied to where only root can change it, and hashed on the way.
//! Nothing looks into it before size and digest are the pinned ones.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use aws_lc_rs::digest::{Context, SHA256};
use moorage_wire::{Sha256, desired::Artifact};
use rustix::fs::OFlags;

use super::{ArtifactError, failed};

const CHUNK: usize = 256 * 1024;

/// Copies `file` to `copy`, which must not exist, if it is what `artifact` pins.
pub(super) fn take(file: &Path, artifact: &Artifact, copy: &Path) -> Result<(), ArtifactError> {
    let wrong = |what| ArtifactError::WrongBytes { file: file.to_owned(), what };
    let mut source = open(file)?;
    let size = source.metadata().map_err(failed("look at", file))?.len();
    if size != artifact.size {
        return Err(wrong("the size"));
    }
    let mut target = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(copy)
        .map_err(failed("create", copy))?;
    let mut hash = Context::new(&SHA256);
    let mut chunk = vec![0; CHUNK];
    // It may grow while it is read.
    let mut left = artifact.size;
    loop {
        let count = source.read(&mut chunk).map_err(failed("read", file))?;
        if count == 0 {
            break;
        }
        left = left.checked_sub(count as u64).ok_or_else(|| wrong("the size"))?;
        hash.update(&chunk[..count]);
        target.write_all(&chunk[..count]).map_err(failed("write", copy))?;
    }
    if left != 0 {
        return Err(wrong("the size"));
    }
    if finish(hash) != artifact.sha256 {
        return Err(wrong("SHA-256"));
    }
    Ok(())
}

/// The digest and the size of what is left of a file.
pub(super) fn digest(file: &mut File) -> io::Result<(Sha256, u64)> {
    let (mut hash, mut size) = (Context::new(&SHA256), 0);
    let mut chunk = vec![0; CHUNK];
    loop {
        let count = file.read(&mut chunk)?;
        if count == 0 {
            return Ok((finish(hash), size));
        }
        hash.update(&chunk[..count]);
        size += count as u64;
    }
}

fn finish(hash: Context) -> Sha256 {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(hash.finish().as_ref());
    Sha256::from_bytes(bytes)
}

/// Opens a regular file. No link is followed, and a pipe does not keep us waiting.
fn open(file: &Path) -> Result<File, ArtifactError> {
    let no_file = |why| ArtifactError::NotAFile { file: file.to_owned(), why };
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let flags = i32::try_from(flags.bits()).unwrap_or_default();
    let opened = OpenOptions::new().read(true).custom_flags(flags).open(file);
    let opened = match opened {
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) => {
            return Err(no_file("it is a link"));
        }
        opened => opened.map_err(failed("open", file))?,
    };
    let metadata = opened.metadata().map_err(failed("look at", file))?;
    if metadata.is_file() { Ok(opened) } else { Err(no_file("it is not a regular file")) }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    fn pinned(bytes: &[u8]) -> Artifact {
        let size = bytes.len() as u64;
        let (version, url) = ("1".to_owned(), "https://x.example".to_owned());
        Artifact { version, url, sha256: Sha256::of(bytes), size }
    }

    #[test]
    fn the_pinned_bytes_are_taken_and_others_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let (file, copy) = (folder.path().join("file"), folder.path().join("copy"));
        fs::write(&file, b"pinned").unwrap();
        take(&file, &pinned(b"pinned"), &copy).unwrap();
        assert_eq!(fs::read(&copy).unwrap(), b"pinned");
        for other in [&b"pinneD"[..], b"pinned and more", b"pin", b""] {
            let refused = take(&file, &pinned(other), &folder.path().join("other")).unwrap_err();
            assert!(matches!(refused, ArtifactError::WrongBytes { .. }), "{refused}");
            let _ = fs::remove_file(folder.path().join("other"));
        }
    }

    #[test]
    fn links_pipes_and_folders_are_no_files() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("file"), b"pinned").unwrap();
        symlink(at("file"), at("link")).unwrap();
        let mode = rustix::fs::Mode::RWXU;
        rustix::fs::mkfifoat(rustix::fs::CWD, at("pipe"), mode).unwrap();
        fs::create_dir(at("folder")).unwrap();
        for name in ["link", "pipe", "folder"] {
            let refused = take(&at(name), &pinned(b"pinned"), &at("copy")).unwrap_err();
            assert!(matches!(refused, ArtifactError::NotAFile { .. }), "{name}: {refused}");
            assert!(!at("copy").exists());
        }
    }
}
