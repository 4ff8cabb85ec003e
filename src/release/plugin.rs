//! A plugin with everything that it depends on: its pins in the repository, and the file that servers
//! install it from. Which packages there are decided OpenClaw's own installation, once
//! ([`super::openclaw`]); here they are fetched, checked and packed.

use std::{
    fs,
    path::{Path, PathBuf},
};

use moorage_wire::Sha256;
use serde_json::{Value, json};
use url::Url;

use super::{
    Progress, ReleaseError, archive::Tree, bundle::write_json, digest::Digest, folder::LOCKFILE,
    folder::PACKAGE, lockfile::Lockfile, npm_cache, openclaw::OpenClaw,
};
use crate::api::release::{Architecture, IntegrationKind};

/// The folder of pinned plugins within that of a release: one for each, named like the package.
pub const PLUGINS: &str = "integrations";
/// What an artifact says of itself; the agent reads it.
pub(super) const INDEX: &str = "integration.json";

/// Changes whenever the same pins would give other bytes.
const FORMAT: u32 = 1;

/// A plugin whose whole tree is pinned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PinnedPlugin {
    /// Its package, with its scope.
    pub name: String,
    /// The lockfile as it is kept.
    pub lock: String,
    pub lockfile: Lockfile,
}

/// How the file of a plugin is made.
pub struct Packing<'a> {
    /// For which servers.
    pub architecture: Architecture,
    /// The version of OpenClaw that it is for.
    pub openclaw: &'a str,
    /// The time of everything in it, in seconds since 1970.
    pub time: u64,
    /// A mirror of the registry.
    pub registry: Option<&'a Url>,
    /// Where packages are kept that were fetched.
    pub downloads: &'a Path,
    /// Where finished files are kept.
    pub finished: &'a Path,
}

impl PinnedPlugin {
    /// All plugins of a release's folder, by name.
    pub fn all(release: &Path) -> Result<Vec<Self>, ReleaseError> {
        let root = release.join(PLUGINS);
        let mut names = Vec::new();
        for name in folders(&root)? {
            if name.starts_with('@') {
                let within = folders(&root.join(&name))?;
                names.extend(within.into_iter().map(|rest| format!("{name}/{rest}")));
            } else {
                names.push(name);
            }
        }
        names.into_iter().map(|name| Self::read(release, name)).collect()
    }

    fn read(release: &Path, name: String) -> Result<Self, ReleaseError> {
        let path = folder(release, &name).join(LOCKFILE);
        let lock = fs::read_to_string(&path).map_err(ReleaseError::reading(&path))?;
        let lockfile = Lockfile::parse_plugin(&path, &lock, &name)?;
        Ok(Self { name, lock, lockfile })
    }

    /// Has OpenClaw install the plugin from the registry, which is taken at its word at this one time,
    /// and keeps what came of it.
    pub fn pin(
        release: &Path,
        name: &str,
        version: &str,
        openclaw: &OpenClaw,
        settings: &str,
    ) -> Result<Self, ReleaseError> {
        let folder = folder(release, name);
        if folder.exists() {
            return Err(ReleaseError::Invalid(format!(
                "{} is pinned already; remove that folder to pin it again",
                folder.display()
            )));
        }
        let project = openclaw.install(name, version, settings)?;
        let mut lock: Value = serde_json::from_str(&project.lock).map_err(|error| {
            ReleaseError::Malformed { path: folder.join(LOCKFILE), why: error.to_string() }
        })?;
        // npm names it after the folder that it worked in.
        lock["name"] = json!("openclaw-plugin");
        let lock = format!("{lock:#}\n");
        let lockfile = Lockfile::parse_plugin(&folder.join(LOCKFILE), &lock, name)?;
        fs::create_dir_all(&folder).map_err(ReleaseError::writing(&folder))?;
        for (file, text) in [(PACKAGE, &project.package), (LOCKFILE, &lock)] {
            let path = folder.join(file);
            fs::write(&path, text).map_err(ReleaseError::writing(path))?;
        }
        Ok(Self { name: name.to_owned(), lock, lockfile })
    }

    /// The SHA-512 of the plugin's own package.
    pub fn integrity(&self) -> Option<&str> {
        Some(self.lockfile.subject()?.file.as_ref()?.integrity.as_str())
    }

    /// The file for servers. Of two builds with the same pins, the second takes what the first made.
    ///
    /// `openclaw` gives an OpenClaw that installs it once as a server will, without any registry.
    pub async fn pack(
        &self,
        packing: &Packing<'_>,
        openclaw: impl FnOnce() -> Result<OpenClaw, ReleaseError>,
        progress: Progress<'_>,
    ) -> Result<(PathBuf, Digest), ReleaseError> {
        let (finished, file) = (packing.finished, self.finished(packing));
        if file.exists() {
            return Ok((file.clone(), Digest::of_file(&file)?));
        }
        fs::create_dir_all(finished).map_err(ReleaseError::writing(finished))?;
        let scratch = tempfile::Builder::new().prefix(".making-").tempdir_in(finished);
        let scratch = scratch.map_err(ReleaseError::writing(finished))?;
        let tree = scratch.path().join("tree");
        fs::create_dir(&tree).map_err(ReleaseError::writing(&tree))?;
        let Self { name, lockfile, .. } = self;
        let count = lockfile.on_servers(packing.architecture).count();
        progress(&format!("packing {name} {}: {count} packages", lockfile.version()));
        self.lay_out(packing, &tree, progress).await?;
        let made = scratch.path().join("made.tar.gz");
        Tree::read(&tree)?.pack(&made, packing.time)?;
        progress(&format!("OpenClaw installs {name} once, as servers will, without a registry"));
        self.try_out(packing, &tree, &openclaw()?)?;
        fs::rename(&made, &file).map_err(ReleaseError::writing(&file))?;
        Ok((file.clone(), Digest::of_file(&file)?))
    }

    /// Makes what is packed.
    async fn lay_out(
        &self,
        packing: &Packing<'_>,
        tree: &Path,
        progress: Progress<'_>,
    ) -> Result<(), ReleaseError> {
        let index = index(IntegrationKind::Plugin, &self.name, self.lockfile.version());
        write_json(&tree.join(INDEX), &index)?;
        let lock = tree.join(LOCKFILE);
        fs::write(&lock, &self.lock).map_err(ReleaseError::writing(&lock))?;
        npm_cache::write(self, packing, tree, progress).await
    }

    /// Installs from the packages alone. npm writes to its cache, so this comes after packing.
    fn try_out(
        &self,
        packing: &Packing<'_>,
        tree: &Path,
        openclaw: &OpenClaw,
    ) -> Result<(), ReleaseError> {
        let cpu = super::node_architecture(packing.architecture);
        let settings =
            format!("offline=true\ncache={}\nos=linux\ncpu={cpu}\nlibc=glibc\n", tree.display());
        let project = openclaw.install(&self.name, self.lockfile.version(), &settings)?;
        let lockfile = Lockfile::parse_plugin(Path::new(LOCKFILE), &project.lock, &self.name)?;
        match self.lockfile.difference(&lockfile) {
            None => Ok(()),
            Some(at) => Err(ReleaseError::OtherTree(format!("{at} of {}", self.name))),
        }
    }

    /// Where the file is kept when it is made.
    pub fn finished(&self, packing: &Packing<'_>) -> PathBuf {
        packing.finished.join(format!("{}.tar.gz", self.key(packing)))
    }

    /// What tells this file from all others.
    fn key(&self, packing: &Packing<'_>) -> String {
        let Packing { architecture, openclaw, time, .. } = packing;
        let lock = Sha256::of(self.lock.as_bytes());
        let moorage = env!("CARGO_PKG_VERSION");
        let parts = format!("{FORMAT} {moorage} {architecture} {openclaw} {time} {lock}");
        let key = Sha256::of(parts.as_bytes()).to_string();
        format!("{}-{architecture}-{}", slug(&self.name), &key[..16])
    }
}

/// What an artifact says of itself.
pub(super) fn index(kind: IntegrationKind, name: &str, version: &str) -> Value {
    json!({"kind": kind, "name": name, "version": version})
}

/// A package's name as part of a file's name.
pub fn slug(name: &str) -> String {
    name.trim_start_matches('@').replace('/', "-")
}

/// Whether it is a name that npm or the hub may have, and nothing else as a path.
pub fn check_name(name: &str) -> Result<(), ReleaseError> {
    let plain = |part: &str| {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        part.starts_with(|first: char| first.is_ascii_alphanumeric())
            && part.len() <= 100
            && part.bytes().all(allowed)
    };
    let fits = match name.strip_prefix('@').map(|rest| rest.split_once('/')) {
        Some(Some((owner, rest))) => plain(owner) && plain(rest),
        Some(None) => false,
        None => plain(name),
    };
    if fits {
        return Ok(());
    }
    Err(ReleaseError::Invalid(format!("{name} is no name of a package, such as @openclaw/zalo")))
}

fn folder(release: &Path, name: &str) -> PathBuf {
    release.join(PLUGINS).join(name)
}

/// The names of the folders in a folder, sorted; none if it is not there.
fn folders(parent: &Path) -> Result<Vec<String>, ReleaseError> {
    if !parent.exists() {
        return Ok(Vec::new());
    }
    let mut names = Vec::new();
    for entry in fs::read_dir(parent).map_err(ReleaseError::reading(parent))? {
        let entry = entry.map_err(ReleaseError::reading(parent))?;
        if entry.path().is_dir() {
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::digest::{SHA512, digest};
    use axum::{Router, routing::get};
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    use flate2::{Compression, write::GzEncoder};

    use super::*;

    /// A package as npm packs it.
    fn package(name: &str) -> Vec<u8> {
        let mut builder = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
        let text = json!({"name": name, "openclaw": {"channel": "zalo"}}).to_string();
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(text.len() as u64);
        builder.append_data(&mut header, "package/package.json", text.as_bytes()).unwrap();
        builder.into_inner().unwrap().finish().unwrap()
    }

    /// A plugin that depends on one package everywhere and on one on Arm, all of them in `downloads`.
    fn plugin(downloads: &Path) -> PinnedPlugin {
        let entry = |name: &str, more: Value| {
            let bytes = package(name);
            let sha512 = digest(&SHA512, &bytes);
            fs::write(downloads.join(hex::encode(sha512.as_ref())), &bytes).unwrap();
            let mut entry = json!({
                "version": "1.0.0",
                "resolved": format!("https://registry.npmjs.org/{name}/-/x-1.0.0.tgz"),
                "integrity": format!("sha512-{}", STANDARD.encode(sha512)),
            });
            entry.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            entry
        };
        let lock = json!({"lockfileVersion": 3, "packages": {
            "": {"dependencies": {"@a/b": "1.0.0"}},
            "node_modules/@a/b": entry("@a/b", json!({"dependencies": {"leftpad": "^1.0.0"}})),
            "node_modules/leftpad": entry("leftpad", json!({})),
            "node_modules/arm": entry("arm", json!({"cpu": ["arm64"], "optional": true})),
        }})
        .to_string();
        let lockfile = Lockfile::parse_plugin(Path::new(LOCKFILE), &lock, "@a/b").unwrap();
        PinnedPlugin { name: "@a/b".to_owned(), lock, lockfile }
    }

    fn packing<'a>(downloads: &'a Path, registry: Option<&'a Url>) -> Packing<'a> {
        let (architecture, openclaw) = (Architecture::X86, "2026.9.6");
        Packing { architecture, openclaw, time: 7, registry, downloads, finished: downloads }
    }

    #[tokio::test]
    async fn the_same_pins_give_the_same_bytes() {
        let downloads = tempfile::tempdir().unwrap();
        let plugin = plugin(downloads.path());
        let mut digests = Vec::new();
        for _ in 0..2 {
            let tree = tempfile::tempdir().unwrap();
            let packing = packing(downloads.path(), None);
            plugin.lay_out(&packing, tree.path(), &|_| ()).await.unwrap();
            let file = tempfile::NamedTempFile::new().unwrap();
            let listed = Tree::read(tree.path()).unwrap();
            digests.push(listed.pack(file.path(), packing.time).unwrap());
            let kept = |name: &str| {
                let sha512 = hex::encode(digest(&SHA512, &package(name)).as_ref());
                let below =
                    format!("_cacache/content-v2/sha512/{}/{}", &sha512[..2], &sha512[2..4]);
                tree.path().join(below).join(&sha512[4..]).exists()
            };
            assert_eq!((kept("@a/b"), kept("leftpad"), kept("arm")), (true, true, false));
        }
        assert_eq!(digests[0], digests[1]);
    }

    #[tokio::test]
    async fn a_registry_with_other_bytes_than_pinned_is_refused() {
        let downloads = tempfile::tempdir().unwrap();
        let plugin = plugin(downloads.path());
        let leftpad = hex::encode(digest(&SHA512, &package("leftpad")).as_ref());
        fs::write(downloads.path().join(&leftpad), "damaged").unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mirror: Url = format!("http://{}/", listener.local_addr().unwrap()).parse().unwrap();
        let router = Router::new().route("/leftpad/-/{file}", get(|| async { "evil" }));
        tokio::spawn(async move { axum::serve(listener, router).await });
        let tree = tempfile::tempdir().unwrap();
        let packing = packing(downloads.path(), Some(&mirror));
        let refused = plugin.lay_out(&packing, tree.path(), &|_| ()).await.unwrap_err().to_string();
        assert!(refused.contains("leftpad") && refused.contains("other bytes"), "{refused}");
        assert_eq!(
            fs::read(downloads.path().join(leftpad)).unwrap(),
            b"damaged",
            "nothing is kept"
        );
    }

    #[test]
    fn names_that_are_paths_or_options_are_refused() {
        for name in ["@openclaw/zalo", "plain", "@a/b.c_d-e"] {
            check_name(name).unwrap();
        }
        for name in ["", "@a", "@a/b/c", "../x", "@../x", "@a/..", "a/b", "--force", "a b", "@/x"] {
            assert!(check_name(name).is_err(), "{name}");
        }
    }
}
