//! `package-lock.json`: which packages there are, and whether each is pinned to one exact file of the
//! registry.

use std::{collections::BTreeMap, path::Path};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Deserialize;
use serde_json::Value;

use super::{ReleaseError, node_architecture};
use crate::api::release::Architecture;

/// Where npm says that public packages come from. A mirror is named to npm, not in the lockfile.
pub(super) const REGISTRY: &str = "https://registry.npmjs.org/";

/// A lockfile in which every package is pinned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lockfile {
    /// By path in the tree, such as `node_modules/a/node_modules/b`.
    packages: BTreeMap<String, LockedPackage>,
    /// The path of what all this is for.
    subject: String,
    version: String,
}

/// A package as a lockfile pins it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockedPackage {
    /// With its scope.
    pub name: String,
    /// Exact.
    pub version: String,
    /// Its file, unless it comes within that of the package that it lies in.
    pub file: Option<PackageFile>,
    /// What it says of its licence.
    pub licence: Option<String>,
    place: Place,
}

/// The file that a package is unpacked from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackageFile {
    /// At the registry.
    pub url: String,
    /// `sha512-<base64>`, as npm writes it.
    pub integrity: String,
    /// The same, decoded.
    pub sha512: Vec<u8>,
}

/// Where a package is needed and can be used; empty lists mean anywhere.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
struct Place {
    #[serde(default)]
    dev: bool,
    #[serde(default, alias = "devOptional")]
    optional: bool,
    #[serde(default)]
    os: Vec<String>,
    #[serde(default)]
    cpu: Vec<String>,
    #[serde(default)]
    libc: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    #[serde(default)]
    lockfile_version: u32,
    packages: BTreeMap<String, Written>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Written {
    name: Option<String>,
    version: Option<String>,
    resolved: Option<String>,
    integrity: Option<String>,
    license: Option<Value>,
    #[serde(default)]
    in_bundle: bool,
    #[serde(default)]
    link: bool,
    #[serde(flatten)]
    place: Place,
    #[serde(default)]
    dependencies: BTreeMap<String, String>,
}

impl Lockfile {
    /// Reads the lockfile of OpenClaw and refuses it, by the package's name, if anything in it is not
    /// pinned.
    pub fn parse(path: &Path, text: &str) -> Result<Self, ReleaseError> {
        let (packages, wanted) = read(path, text)?;
        // npm, because OpenClaw installs plugins with it.
        if !wanted.keys().eq(["npm", "openclaw"]) {
            let why = "its root must depend on openclaw and npm alone".to_owned();
            return Err(ReleaseError::Malformed { path: path.to_owned(), why });
        }
        Self::of(path, packages, &wanted, "openclaw")
    }

    /// The same for the lockfile of a plugin, as OpenClaw has npm write it.
    pub fn parse_plugin(path: &Path, text: &str, plugin: &str) -> Result<Self, ReleaseError> {
        let (packages, wanted) = read(path, text)?;
        Self::of(path, packages, &wanted, plugin)
    }

    fn of(
        path: &Path,
        packages: BTreeMap<String, LockedPackage>,
        wanted: &BTreeMap<String, String>,
        subject: &str,
    ) -> Result<Self, ReleaseError> {
        check_bundled(&packages)?;
        let at = format!("node_modules/{subject}");
        let found = packages.get(&at).map(|package| package.version.clone());
        let why = format!("its root must depend on {subject} at an exact version");
        let version = found
            .filter(|version| wanted.get(subject) == Some(version))
            .ok_or(ReleaseError::Malformed { path: path.to_owned(), why })?;
        Ok(Self { packages, subject: at, version })
    }

    /// The version of OpenClaw, or of the plugin.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// OpenClaw itself, or the plugin itself.
    pub fn subject(&self) -> Option<&LockedPackage> {
        self.packages.get(&self.subject)
    }

    /// All packages, wherever they can be used, by path in the tree.
    pub fn all(&self) -> impl Iterator<Item = (&str, &LockedPackage)> {
        self.packages.iter().map(|(at, package)| (at.as_str(), package))
    }

    /// Something that is not the same in another tree, or in one of both alone.
    pub fn difference<'a>(&'a self, other: &'a Self) -> Option<&'a str> {
        let only = |one: &'a Self, other: &'a Self| {
            one.all().find(|(at, package)| {
                let there = other.packages.get(*at);
                there.is_none_or(|there| {
                    (&there.version, &there.file) != (&package.version, &package.file)
                })
            })
        };
        only(self, other).or_else(|| only(other, self)).map(|(at, _)| at)
    }

    /// What belongs on a server of `architecture`, by path in the tree.
    pub fn on_servers(
        &self,
        architecture: Architecture,
    ) -> impl Iterator<Item = (&str, &LockedPackage)> {
        let wanted = self.packages.iter().filter(move |(_, package)| package.fits(architecture));
        wanted.map(|(at, package)| (at.as_str(), package))
    }

    /// Compares with npm's own record of what it installed. npm leaves an optional package out without
    /// a word when it cannot be fetched, or when the Node.js that runs npm does not suit it.
    pub fn check_installed(
        &self,
        record: &Path,
        text: &str,
        architecture: Architecture,
    ) -> Result<(), ReleaseError> {
        let document: Document = serde_json::from_str(text).map_err(|error| {
            ReleaseError::Malformed { path: record.to_owned(), why: error.to_string() }
        })?;
        let mut installed = document.packages;
        for (at, package) in self.on_servers(architecture) {
            let found = installed.remove(at);
            let found = found.ok_or_else(|| ReleaseError::OtherTree(format!("{at} is missing")))?;
            let integrity = package.file.as_ref().map(|file| &file.integrity);
            if found.version.as_ref() != Some(&package.version)
                || found.integrity.as_ref() != integrity
            {
                return Err(ReleaseError::OtherTree(format!("{at} is another version or file")));
            }
        }
        match installed.keys().next() {
            None => Ok(()),
            Some(more) => Err(ReleaseError::OtherTree(format!("{more} should not be there"))),
        }
    }
}

type Packages = BTreeMap<String, LockedPackage>;

/// The packages, and what the root depends on.
fn read(path: &Path, text: &str) -> Result<(Packages, BTreeMap<String, String>), ReleaseError> {
    let malformed = |why: String| ReleaseError::Malformed { path: path.to_owned(), why };
    let mut document: Document =
        serde_json::from_str(text).map_err(|error| malformed(error.to_string()))?;
    if document.lockfile_version != 3 {
        return Err(malformed("lockfileVersion must be 3, as npm 7 and later write it".to_owned()));
    }
    let root = document.packages.remove("");
    let mut packages = BTreeMap::new();
    for (at, written) in document.packages {
        let package = check(&at, written)
            .map_err(|why| ReleaseError::Unpinned { package: at.clone(), why })?;
        packages.insert(at, package);
    }
    Ok((packages, root.map(|root| root.dependencies).unwrap_or_default()))
}

/// A package within another's file is pinned by that file.
fn check_bundled(packages: &Packages) -> Result<(), ReleaseError> {
    for at in packages.iter().filter(|(_, package)| package.file.is_none()).map(|(at, _)| at) {
        let around = at.match_indices("/node_modules/").map(|(end, _)| &at[..end]);
        let mut holders = around.filter_map(|around| packages.get(around));
        if !holders.any(|holder| holder.file.is_some()) {
            let why = "it claims to come within another package, but lies in none".to_owned();
            return Err(ReleaseError::Unpinned { package: at.clone(), why });
        }
    }
    Ok(())
}

impl LockedPackage {
    fn fits(&self, architecture: Architecture) -> bool {
        let Place { dev, optional, os, cpu, libc } = &self.place;
        let here = allows(os, "linux")
            && allows(cpu, node_architecture(architecture))
            && allows(libc, "glibc");
        // One that is needed but does not suit is a failure for npm to tell.
        !dev && (here || !optional)
    }
}

/// npm's rule for `os`, `cpu` and `libc`: any of the names, none of those behind a `!`.
fn allows(list: &[String], value: &str) -> bool {
    let (not, only): (Vec<_>, Vec<_>) = list.iter().partition(|name| name.starts_with('!'));
    let denied = not.iter().any(|name| name[1..] == *value);
    !denied && (only.is_empty() || only.iter().any(|name| *name == value || *name == "any"))
}

fn check(at: &str, written: Written) -> Result<LockedPackage, String> {
    if written.link {
        return Err("it is a link to a folder".to_owned());
    }
    let (_, folder) =
        at.rsplit_once("node_modules/").ok_or("it lies outside of node_modules".to_owned())?;
    let plain = |part: &str| !matches!(part, "" | "." | "..");
    if !at.split('/').all(plain) {
        return Err("its path has empty or dotted parts".to_owned());
    }
    let version = written.version.ok_or("it has no version".to_owned())?;
    let file = match (written.in_bundle, written.resolved, written.integrity) {
        (true, None, None) => None,
        (_, Some(url), Some(integrity)) => Some(check_file(url, integrity)?),
        (_, None, _) => return Err("it has no address (resolved)".to_owned()),
        (_, _, None) => return Err("it has no integrity".to_owned()),
    };
    Ok(LockedPackage {
        name: written.name.unwrap_or_else(|| folder.to_owned()),
        version,
        file,
        licence: written.license.as_ref().and_then(licence),
        place: written.place,
    })
}

fn check_file(url: String, integrity: String) -> Result<PackageFile, String> {
    if !url.starts_with(REGISTRY) {
        return Err(format!("it comes from {url}, not from {REGISTRY}"));
    }
    let hash = integrity.strip_prefix("sha512-").and_then(|text| STANDARD.decode(text).ok());
    match hash.filter(|hash| hash.len() == 64) {
        Some(sha512) => Ok(PackageFile { url, integrity, sha512 }),
        None => Err("its integrity is not one SHA-512".to_owned()),
    }
}

/// A string today; an object or a list of them in old packages.
fn licence(written: &Value) -> Option<String> {
    match written {
        Value::String(text) => Some(text.clone()),
        Value::Object(object) => object.get("type").and_then(licence),
        Value::Array(all) => {
            let all: Vec<_> = all.iter().filter_map(licence).collect();
            (!all.is_empty()).then(|| all.join(" OR "))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests;
