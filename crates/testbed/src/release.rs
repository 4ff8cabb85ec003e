//! A folder of artifacts as the lab's artifact server shows it, and the `OpenClawRelease` that pins
//! them.

use std::{
    fmt::Write as _,
    fs::{self, File},
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use aws_lc_rs::digest::{Context, SHA256};
use serde_json::{Map, Value, json};
use tempfile::TempDir;

/// Where servers of the lab find the folder.
const SERVER: &str = "http://artifacts.moorage.test";

/// The folder. Dropping it removes it.
#[derive(Debug)]
pub struct ReleaseFolder {
    folder: TempDir,
    artifacts: Map<String, Value>,
}

impl ReleaseFolder {
    pub fn new() -> io::Result<Self> {
        let folder = tempfile::Builder::new().prefix("moorage-artifacts-").tempdir()?;
        Ok(Self { folder, artifacts: Map::new() })
    }

    /// Shows `file` as the artifact of a kind (openclaw, node, cloudflared, agent), in place of the one
    /// that the release had. What was there before can still be fetched.
    pub fn add(&mut self, kind: &str, version: &str, file: &Path) -> io::Result<()> {
        let artifact = self.show(kind, version, file)?;
        self.artifacts.insert(kind.to_owned(), artifact);
        Ok(())
    }

    /// Shows `file` and gives the artifact as it stands in a release, without making it part of this one.
    pub fn show(&self, kind: &str, version: &str, file: &Path) -> io::Result<Value> {
        let file = file.canonicalize()?;
        let (sha256, size) = digest(&file)?;
        let name = format!("{kind}-{version}-{}", &sha256[..12]);
        keep(&file, &self.folder.path().join(&name))?;
        let url = format!("{SERVER}/{name}");
        Ok(json!({"version": version, "url": url, "sha256": sha256, "size": size}))
    }

    /// Shows `file` under an address that nobody but `owner` knows: faults of it strike nobody else. Gives
    /// the artifact, and the path of the address.
    pub fn show_for(
        &self,
        owner: &str,
        kind: &str,
        version: &str,
        file: &Path,
    ) -> io::Result<(Value, String)> {
        let mut artifact = self.show(kind, version, file)?;
        let path = format!("/{kind}-{version}.{owner}");
        keep(&file.canonicalize()?, &self.folder.path().join(&path[1..]))?;
        artifact["url"] = json!(format!("{SERVER}{path}"));
        Ok((artifact, path))
    }

    /// The folder, for the artifact server.
    pub fn path(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    /// The release of that name, with all artifacts that were added.
    pub fn release(&self, name: &str, version: &str) -> Value {
        json!({
            "apiVersion": "moorage.dev/v1alpha1",
            "kind": "OpenClawRelease",
            "metadata": {"name": name},
            "spec": {"version": version, "artifacts": self.artifacts},
        })
    }
}

/// Leaves the same file at `shown`, where it stays whatever becomes of `file`: whoever showed it first
/// may be done before others who show the same.
fn keep(file: &Path, shown: &Path) -> io::Result<()> {
    match fs::hard_link(file, shown) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        // Another file system.
        Err(_) => fs::copy(file, shown).map(drop),
        Ok(()) => Ok(()),
    }
}

/// SHA-256 in hexadecimal, and the size in bytes.
fn digest(file: &Path) -> io::Result<(String, u64)> {
    let mut file = File::open(file)?;
    let (mut context, mut size) = (Context::new(&SHA256), 0);
    let mut buffer = vec![0; 1 << 16];
    loop {
        let length = file.read(&mut buffer)?;
        if length == 0 {
            break;
        }
        context.update(&buffer[..length]);
        size += length as u64;
    }
    let hash = context.finish();
    let text = hash.as_ref().iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    });
    Ok((text, size))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_artifact_is_pinned_by_what_is_in_it() {
        let source = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(source.path(), "abc").unwrap();
        let mut folder = ReleaseFolder::new().unwrap();
        folder.add("agent", "0.1.0", source.path()).unwrap();
        let release = folder.release("one", "2026.9.6");
        let agent = &release["spec"]["artifacts"]["agent"];
        assert_eq!(agent["size"], 3);
        assert_eq!(
            agent["sha256"],
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        let name = agent["url"].as_str().unwrap().strip_prefix(SERVER).unwrap();
        let shown = folder.path().join(name.trim_start_matches('/'));
        assert_eq!(std::fs::read_to_string(shown).unwrap(), "abc");
    }
}
