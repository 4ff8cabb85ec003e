//! A plugin's packages in the form in which npm keeps what it has fetched (`cacache`): each file under
//! its SHA-512, and an index by address. npm that is told to be offline takes them for the registry.
//!
//! Of each package the registry seems to have the pinned versions alone, described by the lockfile.

use std::{
    collections::BTreeMap,
    fs,
    io::Read as _,
    path::{Path, PathBuf},
};

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, SHA512, digest};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use flate2::read::GzDecoder;
use moorage_wire::Sha256;
use serde_json::{Map, Value, json};
use url::Url;

use super::{
    Progress, ReleaseError,
    lockfile::{LockedPackage, PackageFile, REGISTRY},
    plugin::{Packing, PinnedPlugin},
    source,
};

/// npm's name of the folder.
const FOLDER: &str = "_cacache";
/// What npm asks for when it wants all, or as little as it needs, of a package's description. It takes
/// only what was an answer to the same question.
const QUESTIONS: [&str; 2] = [
    "application/json",
    "application/vnd.npm.install-v1+json; q=1.0, application/json; q=0.8, */*",
];
/// What the lockfile says of a package's place in the tree, and not of the package.
const OF_THE_TREE: [&str; 9] = [
    "resolved",
    "integrity",
    "inBundle",
    "dev",
    "optional",
    "devOptional",
    "peer",
    "extraneous",
    "link",
];

/// Writes the packages that a server may need below `to`.
pub(super) async fn write(
    plugin: &PinnedPlugin,
    packing: &Packing<'_>,
    to: &Path,
    progress: Progress<'_>,
) -> Result<(), ReleaseError> {
    let cache = Cache { folder: to.join(FOLDER), time: packing.time };
    let raw: Value = serde_json::from_str(&plugin.lock)
        .map_err(|error| ReleaseError::Malformed { path: to.into(), why: error.to_string() })?;
    let mut known: BTreeMap<String, Map<String, Value>> = BTreeMap::new();
    for (at, package) in plugin.lockfile.all() {
        let Some(file) = &package.file else { continue };
        let mut description = describe(package, file, &raw["packages"][at]);
        if plugin.lockfile.on_servers(packing.architecture).any(|(there, _)| there == at) {
            let bytes = fetch(file, packing, progress).await?;
            cache.add(&file.url, None, &bytes)?;
            if package.name == plugin.name {
                // OpenClaw reads it before it fetches anything.
                description["openclaw"] = manifest(&bytes, &file.url)?["openclaw"].take();
            }
        }
        known.entry(package.name.clone()).or_default().insert(package.version.clone(), description);
    }
    // Plugins have OpenClaw for a peer; what they get is a link to the one that runs.
    let host = json!({
        "name": "openclaw", "version": packing.openclaw,
        "dist": {"tarball": format!("{REGISTRY}openclaw/-/openclaw-{}.tgz", packing.openclaw)},
    });
    known.entry("openclaw".to_owned()).or_default().insert(packing.openclaw.to_owned(), host);
    for (name, versions) in known {
        let address = format!("{REGISTRY}{}", name.replace('/', "%2f"));
        // Without a `latest`, npm takes the highest version that fits.
        let document = json!({"name": name, "dist-tags": {}, "versions": versions}).to_string();
        for question in QUESTIONS {
            cache.add(&address, Some(question), document.as_bytes())?;
        }
    }
    Ok(())
}

/// One version of a package as the registry would describe it.
fn describe(package: &LockedPackage, file: &PackageFile, locked: &Value) -> Value {
    let mut description = locked.as_object().cloned().unwrap_or_default();
    description.retain(|key, _| !OF_THE_TREE.contains(&key.as_str()));
    description.insert("name".to_owned(), json!(package.name));
    description.insert("version".to_owned(), json!(package.version));
    let dist = json!({"tarball": file.url, "integrity": file.integrity});
    description.insert("dist".to_owned(), dist);
    Value::Object(description)
}

/// The bytes of a package, checked; from the cache of downloads if they are there.
async fn fetch(
    file: &PackageFile,
    packing: &Packing<'_>,
    progress: Progress<'_>,
) -> Result<Vec<u8>, ReleaseError> {
    let kept = packing.downloads.join(hex::encode(&file.sha512));
    let is_right = |bytes: &[u8]| digest(&SHA512, bytes).as_ref() == file.sha512;
    if let Ok(bytes) = fs::read(&kept)
        && is_right(&bytes)
    {
        return Ok(bytes);
    }
    let invalid = |error: url::ParseError| {
        ReleaseError::Invalid(format!("{} is no address: {error}", file.url))
    };
    let path = file.url.strip_prefix(REGISTRY).unwrap_or(&file.url);
    let url = match packing.registry {
        Some(mirror) => mirror.join(path),
        None => Url::parse(&file.url),
    };
    let url = url.map_err(invalid)?;
    let (fetched, _) = source::fetch(&url, packing.downloads, progress).await?;
    let bytes = fs::read(fetched.path()).map_err(ReleaseError::reading(fetched.path()))?;
    if !is_right(&bytes) {
        let why = format!("{url} has other bytes than its integrity says");
        return Err(ReleaseError::Unpinned { package: path.to_owned(), why });
    }
    fetched.persist(&kept).map_err(|error| ReleaseError::writing(&kept)(error.error))?;
    Ok(bytes)
}

/// A package's own `package.json`.
fn manifest(package: &[u8], url: &str) -> Result<Value, ReleaseError> {
    let malformed = |why: String| ReleaseError::Malformed { path: PathBuf::from(url), why };
    let read = || -> std::io::Result<Option<String>> {
        let mut archive = tar::Archive::new(GzDecoder::new(package));
        for entry in archive.entries()? {
            let mut entry = entry?;
            let is_it = {
                let path = entry.path()?;
                path.components().count() == 2 && path.ends_with("package.json")
            };
            if is_it {
                let mut text = String::new();
                entry.read_to_string(&mut text)?;
                return Ok(Some(text));
            }
        }
        Ok(None)
    };
    let text = read().map_err(|error| malformed(error.to_string()))?;
    let text = text.ok_or_else(|| malformed("it has no package.json".to_owned()))?;
    serde_json::from_str(&text).map_err(|error| malformed(error.to_string()))
}

/// npm's cache, as its libraries `cacache` and `make-fetch-happen` write it.
struct Cache {
    folder: PathBuf,
    time: u64,
}

impl Cache {
    /// Adds an answer of `address` to a question.
    fn add(&self, address: &str, question: Option<&str>, bytes: &[u8]) -> Result<(), ReleaseError> {
        let sha512 = digest(&SHA512, bytes);
        put(&self.place("content-v2/sha512", &hex::encode(sha512.as_ref())), bytes)?;
        let key = format!("make-fetch-happen:request-cache:{address}");
        let place = self.place("index-v5", &Sha256::of(key.as_bytes()).to_string());
        let time = self.time * 1000;
        let headers = question.map_or(json!({}), |question| json!({"accept": question}));
        let entry = json!({
            "key": key,
            "integrity": format!("sha512-{}", STANDARD.encode(sha512)),
            "time": time,
            "size": bytes.len(),
            "metadata": {
                "time": time,
                "url": address,
                "reqHeaders": headers,
                "resHeaders": {},
                "options": {"compress": true},
            },
        })
        .to_string();
        let sha1 = digest(&SHA1_FOR_LEGACY_USE_ONLY, entry.as_bytes());
        let mut bucket = fs::read(&place).unwrap_or_default();
        bucket.extend_from_slice(format!("\n{}\t{entry}", hex::encode(sha1.as_ref())).as_bytes());
        put(&place, &bucket)
    }

    fn place(&self, below: &str, hash: &str) -> PathBuf {
        self.folder.join(below).join(&hash[..2]).join(&hash[2..4]).join(&hash[4..])
    }
}

fn put(path: &Path, bytes: &[u8]) -> Result<(), ReleaseError> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let written = fs::create_dir_all(folder).and_then(|()| fs::write(path, bytes));
    written.map_err(ReleaseError::writing(path))
}
