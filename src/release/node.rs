//! The Node.js runtime: of an archive from nodejs.org or npm, the program and its licence.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::PermissionsExt as _,
    path::{Component, Path},
};

use flate2::read::GzDecoder;
use tar::Archive;

use super::ReleaseError;

const PROGRAM: &str = "bin/node";
const WANTED: [&str; 2] = [PROGRAM, "LICENSE"];

/// Unpacks the wanted files into `folder`, without the archive's one top folder.
pub(super) fn unpack(archive: &Path, folder: &Path) -> Result<(), ReleaseError> {
    let unreadable = |why: io::Error| ReleaseError::Malformed {
        path: archive.to_owned(),
        why: format!("it cannot be unpacked as .tar.gz: {why}"),
    };
    let mut opened =
        Archive::new(GzDecoder::new(File::open(archive).map_err(ReleaseError::reading(archive))?));
    for entry in opened.entries().map_err(unreadable)? {
        let mut entry = entry.map_err(unreadable)?;
        let path = entry.path().map_err(unreadable)?.into_owned();
        let inner = inner(&path);
        let Some(wanted) = WANTED.iter().find(|wanted| inner == Path::new(wanted)) else {
            continue;
        };
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let to = folder.join(wanted);
        fs::create_dir_all(folder.join("bin")).map_err(ReleaseError::writing(folder))?;
        let mut file = File::create(&to).map_err(ReleaseError::writing(&to))?;
        io::copy(&mut entry, &mut file).map_err(unreadable)?;
        let mode = if *wanted == PROGRAM { 0o755 } else { 0o644 };
        let mode = fs::Permissions::from_mode(mode);
        file.set_permissions(mode).map_err(ReleaseError::writing(&to))?;
    }
    if folder.join(PROGRAM).exists() {
        return Ok(());
    }
    Err(ReleaseError::Malformed {
        path: archive.to_owned(),
        why: "it has no bin/node: it must be an archive of Node.js for Linux".to_owned(),
    })
}

/// The path without the top folder, which npm calls `package` and nodejs.org `node-v24…`.
fn inner(path: &Path) -> &Path {
    let path = path.strip_prefix(".").unwrap_or(path);
    let mut components = path.components();
    match components.next() {
        Some(Component::Normal(top)) if top != "bin" && components.clone().next().is_some() => {
            components.as_path()
        }
        _ => path,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::release::archive::Tree;

    fn archive(files: &[&str]) -> tempfile::NamedTempFile {
        let root = tempfile::tempdir().unwrap();
        for name in files {
            let path = root.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, name).unwrap();
        }
        let file = tempfile::NamedTempFile::new().unwrap();
        Tree::read(root.path()).unwrap().pack(file.path(), 0).unwrap();
        file
    }

    #[test]
    fn program_and_licence_are_taken_from_both_archive_kinds() {
        for top in ["package/", "node-v24.21.0-linux-x64/", ""] {
            let all = ["bin/node", "bin/npm", "LICENSE", "include/node/node.h", "share/LICENSE"];
            let all = all.map(|name| format!("{top}{name}"));
            let from = archive(&all.each_ref().map(String::as_str));
            let to = tempfile::tempdir().unwrap();
            unpack(from.path(), to.path()).unwrap();
            let tree = Tree::read(to.path()).unwrap();
            let paths: Vec<_> = tree.entries().iter().map(|e| e.path.to_str().unwrap()).collect();
            assert_eq!(paths, ["LICENSE", "bin", "bin/node"]);
            let mode = fs::metadata(to.path().join("bin/node")).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o755);
        }
    }

    #[test]
    fn an_archive_of_something_else_is_refused() {
        let from = archive(&["package/index.js"]);
        let to = tempfile::tempdir().unwrap();
        let refused = unpack(from.path(), to.path()).unwrap_err().to_string();
        assert!(refused.contains("no bin/node"), "{refused}");
    }
}
