//! cloud-init's user-data, as far as the process backend follows it: `write_files` of a
//! `#cloud-config`. Everything else in the document is accepted and ignored.

use std::ffi::OsStr;
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Component, Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

/// Hetzner's limit, in bytes.
pub const USER_DATA_LIMIT: usize = 32 * 1024;
const HEADER: &str = "#cloud-config";

/// Why user-data was not applied. Never quotes contents, which may be secret.
#[derive(Debug, thiserror::Error)]
pub enum UserDataError {
    /// Longer than Hetzner takes.
    #[error("{0} bytes are more than the limit of {USER_DATA_LIMIT}")]
    TooLong(usize),
    /// Another kind of user-data.
    #[error("the first line is not `{HEADER}`, the only kind that the process backend understands")]
    NotCloudConfig,
    /// Not the YAML that was expected.
    #[error("malformed document{0}")]
    Yaml(String),
    /// A file with something that cannot be done.
    #[error("write_files[{index}] ({path}): {problem}")]
    File {
        /// Its place in the list.
        index: usize,
        path: String,
        problem: String,
    },
}

#[derive(Deserialize)]
struct Document {
    #[serde(default)]
    write_files: Vec<FileEntry>,
}

#[derive(Deserialize)]
struct FileEntry {
    path: String,
    #[serde(default)]
    content: String,
    permissions: Option<String>,
    owner: Option<String>,
    encoding: Option<String>,
    #[serde(default)]
    append: bool,
}

/// What a document asks for.
#[derive(Default)]
pub struct UserData {
    files: Vec<File>,
}

/// A file to write, checked.
struct File {
    /// Below the root, made of plain names alone.
    path: PathBuf,
    content: Vec<u8>,
    mode: u32,
    append: bool,
}

impl UserData {
    /// Reads user-data. Empty user-data asks for nothing.
    pub fn parse(text: &str) -> Result<Self, UserDataError> {
        if text.len() > USER_DATA_LIMIT {
            return Err(UserDataError::TooLong(text.len()));
        }
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        let (first, rest) = text.split_once('\n').unwrap_or((text, ""));
        if first.trim_end() != HEADER {
            return Err(UserDataError::NotCloudConfig);
        }
        if rest.trim().is_empty() {
            return Ok(Self::default());
        }
        let document: Document = serde_saphyr::from_str(rest).map_err(|error| {
            let place = error.location().map(|at| format!(" at line {}", at.line() + 1));
            UserDataError::Yaml(place.unwrap_or_default())
        })?;
        let check = |(index, entry): (usize, FileEntry)| {
            let path = entry.path.clone();
            check(entry).map_err(|problem| UserDataError::File { index, path, problem })
        };
        let files =
            document.write_files.into_iter().enumerate().map(check).collect::<Result<_, _>>()?;
        Ok(Self { files })
    }

    /// Writes the files below `root` and says how many.
    pub fn apply(&self, root: &Path) -> Result<usize, UserDataError> {
        for (index, file) in self.files.iter().enumerate() {
            file.write(root).map_err(|error| UserDataError::File {
                index,
                path: format!("/{}", file.path.display()),
                problem: error.to_string(),
            })?;
        }
        Ok(self.files.len())
    }
}

fn check(entry: FileEntry) -> Result<File, String> {
    let path = below_root(&entry.path).ok_or("the path must be absolute and without `..`")?;
    let content = match entry.encoding.as_deref() {
        None | Some("" | "text/plain") => entry.content.into_bytes(),
        Some("b64" | "base64") => {
            let packed: String = entry.content.split_ascii_whitespace().collect();
            STANDARD.decode(packed).map_err(|_| "the content is not base64")?
        }
        Some(other) => {
            return Err(format!("the process backend does not support the encoding `{other}`"));
        }
    };
    let mode = match entry.permissions.as_deref() {
        None => 0o644,
        Some(text) => u32::from_str_radix(text.strip_prefix("0o").unwrap_or(text), 8)
            .ok()
            .filter(|mode| *mode <= 0o7777)
            .ok_or_else(|| format!("`{text}` are no octal permissions"))?,
    };
    if let Some(owner) = entry.owner.as_deref().filter(|owner| !is_owner(owner)) {
        return Err(format!("`{owner}` is no owner"));
    }
    Ok(File { path, content, mode, append: entry.append })
}

/// `user` or `user:group`. Checked only: all files belong to whoever runs the simulator.
fn is_owner(text: &str) -> bool {
    let name = |name: &str| {
        !name.is_empty()
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte))
    };
    match text.split_once(':') {
        Some((user, group)) => name(user) && name(group),
        None => name(text),
    }
}

fn below_root(path: &str) -> Option<PathBuf> {
    let mut components = Path::new(path).components();
    if components.next() != Some(Component::RootDir) {
        return None;
    }
    let names: Option<Vec<&OsStr>> = components
        .map(|component| match component {
            Component::Normal(name) => Some(name),
            _ => None,
        })
        .collect();
    let names = names.filter(|names| !names.is_empty())?;
    // A path that ends in a slash names a folder.
    (!path.ends_with('/') && !path.contains('\0')).then(|| names.iter().collect())
}

impl File {
    fn write(&self, root: &Path) -> io::Result<()> {
        let mut folder = root.to_owned();
        for name in self.path.parent().into_iter().flat_map(Path::components) {
            folder.push(name);
            make_folder(&folder)?;
        }
        let target = root.join(&self.path);
        let mut content = Vec::new();
        if self.append {
            match std::fs::symlink_metadata(&target) {
                Ok(metadata) if metadata.is_file() => content = std::fs::read(&target)?,
                Ok(_) => return Err(io::Error::other("not a regular file")),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        content.extend_from_slice(&self.content);
        // Renaming replaces a symlink instead of following it out of the root.
        let mut staged = target.clone().into_os_string();
        staged.push(".cloud-init");
        let mut file =
            std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&staged)?;
        file.write_all(&content)?;
        file.set_permissions(std::fs::Permissions::from_mode(self.mode))?;
        std::fs::rename(staged, target)
    }
}

fn make_folder(path: &Path) -> io::Result<()> {
    match std::fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => Ok(()),
        Ok(_) => Err(io::Error::other(format!("{} is no folder", path.display()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => std::fs::create_dir(path),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;

    fn apply(text: &str) -> (tempfile::TempDir, Result<usize, UserDataError>) {
        let root = tempfile::tempdir().unwrap();
        let result = UserData::parse(text).and_then(|data| data.apply(root.path()));
        (root, result)
    }

    #[test]
    fn files_are_written_with_their_modes() {
        let (root, result) = apply(
            "#cloud-config\nruncmd: [[echo, hello]]\nwrite_files:\n\
             - {path: /etc/moorage/a.json, permissions: '0600', owner: 'root:root', content: '{}'}\n\
             - path: /etc/b\n  encoding: b64\n  content: |\n    aGVs\n    bG8=\n\
             - {path: /etc/b, content: ' again', append: true}\n",
        );
        assert_eq!(result.unwrap(), 3);
        let secret = root.path().join("etc/moorage/a.json");
        assert_eq!(std::fs::metadata(&secret).unwrap().permissions().mode() & 0o7777, 0o600);
        assert_eq!(std::fs::read_to_string(root.path().join("etc/b")).unwrap(), "hello again");
    }

    #[test]
    fn json_is_yaml() {
        let (root, result) = apply(
            "#cloud-config\n{\"write_files\":[{\"path\":\"/a\",\"content\":\"\\u007b\\n\"}]}",
        );
        assert_eq!(result.unwrap(), 1);
        assert_eq!(std::fs::read_to_string(root.path().join("a")).unwrap(), "{\n");
    }

    #[rstest]
    #[case::script("#!/bin/sh\n", "first line")]
    #[case::broken("#cloud-config\nwrite_files: [\n", "malformed")]
    #[case::relative("#cloud-config\nwrite_files: [{path: etc/a}]", "absolute")]
    #[case::escape("#cloud-config\nwrite_files: [{path: /../a}]", "absolute")]
    #[case::deep_escape("#cloud-config\nwrite_files: [{path: /etc/../../a}]", "absolute")]
    #[case::folder("#cloud-config\nwrite_files: [{path: /etc/}]", "absolute")]
    #[case::root("#cloud-config\nwrite_files: [{path: /}]", "absolute")]
    #[case::gzip("#cloud-config\nwrite_files: [{path: /a, encoding: gz+b64}]", "encoding")]
    #[case::base64(
        "#cloud-config\nwrite_files: [{path: /a, encoding: b64, content: '%'}]",
        "base64"
    )]
    #[case::mode("#cloud-config\nwrite_files: [{path: /a, permissions: rw}]", "octal")]
    #[case::owner("#cloud-config\nwrite_files: [{path: /a, owner: 'root; rm'}]", "owner")]
    fn what_cannot_be_followed_is_refused_with_its_reason(
        #[case] text: &str,
        #[case] reason: &str,
    ) {
        let (root, result) = apply(text);
        let message = result.unwrap_err().to_string();
        assert!(message.contains(reason), "{message}");
        assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 0);
    }

    #[test]
    fn user_data_beyond_the_limit_is_refused() {
        let text = format!("#cloud-config\n# {}", "x".repeat(USER_DATA_LIMIT));
        assert!(matches!(UserData::parse(&text), Err(UserDataError::TooLong(_))));
    }

    #[test]
    fn symlinks_do_not_lead_out_of_the_root() {
        let root = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("file"), "outside").unwrap();
        std::os::unix::fs::symlink(outside.path(), root.path().join("folder")).unwrap();
        std::os::unix::fs::symlink(outside.path().join("file"), root.path().join("link")).unwrap();
        let through =
            UserData::parse("#cloud-config\nwrite_files: [{path: /folder/file, content: x}]")
                .unwrap();
        assert!(through.apply(root.path()).is_err());
        let onto =
            UserData::parse("#cloud-config\nwrite_files: [{path: /link, content: x}]").unwrap();
        assert_eq!(onto.apply(root.path()).unwrap(), 1);
        assert_eq!(std::fs::read_to_string(outside.path().join("file")).unwrap(), "outside");
    }

    proptest! {
        #[test]
        fn no_user_data_makes_the_parser_panic(text in "(#cloud-config\n)?.{0,200}") {
            let _ = UserData::parse(&text);
        }
    }
}
