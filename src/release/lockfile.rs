//! `package-lock.json`: which packages there are, and whether each is pinned to one exact file of the
//! registry.

use std::{collections::BTreeMap, path::Path};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Deserialize;
use serde_json::Value;

use super::{ReleaseError, node_architecture};
use crate::api::release::Architecture;

/// Where npm says that public packages come from. A mirror is named to npm, not in the lockfile.
const REGISTRY: &str = "https://registry.npmjs.org/";

/// A lockfile in which every package is pinned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lockfile {
    /// By path in the tree, such as `node_modules/a/node_modules/b`.
    packages: BTreeMap<String, LockedPackage>,
    openclaw: String,
}

/// One package, pinned.
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
    /// Reads a lockfile and refuses it, by the package's name, if anything in it is not pinned.
    pub fn parse(path: &Path, text: &str) -> Result<Self, ReleaseError> {
        let malformed = |why: String| ReleaseError::Malformed { path: path.to_owned(), why };
        let mut document: Document =
            serde_json::from_str(text).map_err(|error| malformed(error.to_string()))?;
        if document.lockfile_version != 3 {
            return Err(malformed(
                "lockfileVersion must be 3, as npm 7 and later write it".to_owned(),
            ));
        }
        let root = document.packages.remove("");
        let wanted = root.map(|root| root.dependencies).unwrap_or_default();
        // npm, because OpenClaw installs plugins with it.
        let both = wanted.keys().eq(["npm", "openclaw"]);
        let Some(openclaw) = wanted.get("openclaw").filter(|_| both) else {
            return Err(malformed("its root must depend on openclaw and npm alone".to_owned()));
        };
        let mut packages = BTreeMap::new();
        for (at, written) in document.packages {
            let package = check(&at, written)
                .map_err(|why| ReleaseError::Unpinned { package: at.clone(), why })?;
            packages.insert(at, package);
        }
        let lockfile = Self { packages, openclaw: openclaw.clone() };
        lockfile.check_bundled()?;
        match lockfile.packages.get("node_modules/openclaw") {
            Some(package) if package.version == *openclaw => Ok(lockfile),
            _ => Err(malformed(format!("it does not have openclaw {openclaw}, an exact version"))),
        }
    }

    /// The version of OpenClaw.
    pub fn openclaw(&self) -> &str {
        &self.openclaw
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

    /// A package within another's file is pinned by that file.
    fn check_bundled(&self) -> Result<(), ReleaseError> {
        for at in
            self.packages.iter().filter(|(_, package)| package.file.is_none()).map(|(at, _)| at)
        {
            let around = at.match_indices("/node_modules/").map(|(end, _)| &at[..end]);
            let mut holders = around.filter_map(|around| self.packages.get(around));
            if !holders.any(|holder| holder.file.is_some()) {
                let why = "it claims to come within another package, but lies in none".to_owned();
                return Err(ReleaseError::Unpinned { package: at.clone(), why });
            }
        }
        Ok(())
    }
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
mod tests {
    use super::*;
    use crate::release::testing::{integrity, lockfile_with, package};
    use serde_json::json;

    fn parse(document: &Value) -> Result<Lockfile, ReleaseError> {
        Lockfile::parse(Path::new("package-lock.json"), &document.to_string())
    }

    fn refusal(at: &str, change: impl FnOnce(&mut Value)) -> String {
        let mut added = package("leftpad", "1.0.0");
        change(&mut added);
        parse(&lockfile_with(&[(at, added)])).unwrap_err().to_string()
    }

    #[test]
    fn a_package_without_integrity_is_refused_by_name() {
        let why = refusal("node_modules/leftpad", |package| {
            package.as_object_mut().unwrap().remove("integrity");
        });
        assert!(why.contains("node_modules/leftpad: it has no integrity"), "{why}");
        let why =
            refusal("node_modules/leftpad", |package| package["integrity"] = json!("sha1-AAAA"));
        assert!(why.contains("node_modules/leftpad: its integrity is not one SHA-512"), "{why}");
    }

    #[test]
    fn a_package_from_elsewhere_than_the_registry_is_refused_by_name() {
        for url in [
            "git+ssh://git@github.com/a/leftpad.git#abc",
            "https://registry.npmjs.org.evil.example/leftpad-1.0.0.tgz",
            "http://registry.npmjs.org/leftpad/-/leftpad-1.0.0.tgz",
            "file:../leftpad",
        ] {
            let why = refusal("node_modules/leftpad", |package| package["resolved"] = json!(url));
            assert!(why.contains("node_modules/leftpad") && why.contains(url), "{why}");
        }
    }

    #[test]
    fn a_link_and_a_path_that_climbs_are_refused() {
        let why = refusal("node_modules/leftpad", |package| package["link"] = json!(true));
        assert!(why.contains("node_modules/leftpad: it is a link"), "{why}");
        let why = refusal("node_modules/../../leftpad", |_| ());
        assert!(why.contains("dotted"), "{why}");
        let why = refusal("packages/leftpad", |_| ());
        assert!(why.contains("outside"), "{why}");
    }

    #[test]
    fn a_bundled_package_is_pinned_by_the_package_that_holds_it() {
        let bundled = json!({"version": "1.0.0", "inBundle": true});
        let within = "node_modules/openclaw/node_modules/leftpad";
        parse(&lockfile_with(&[(within, bundled.clone())])).unwrap();
        let why = parse(&lockfile_with(&[("node_modules/leftpad", bundled)])).unwrap_err();
        assert!(why.to_string().contains("lies in none"), "{why}");
    }

    #[test]
    fn a_range_instead_of_a_version_is_refused() {
        let mut document = lockfile_with(&[]);
        document["packages"][""]["dependencies"]["openclaw"] = json!("^2026.9.6");
        assert!(parse(&document).unwrap_err().to_string().contains("exact version"));
    }

    #[test]
    fn other_platforms_and_development_packages_stay_away_from_servers() {
        let only = |os: &str, cpu: &str, libc: &str| {
            let mut package = package("native", "1.0.0");
            package["optional"] = json!(true);
            package["os"] = json!([os]);
            package["cpu"] = json!([cpu]);
            package["libc"] = json!([libc]);
            package
        };
        let mut dev = package("dev", "1.0.0");
        dev["dev"] = json!(true);
        let lockfile = parse(&lockfile_with(&[
            ("node_modules/x64", only("linux", "x64", "glibc")),
            ("node_modules/arm64", only("linux", "arm64", "glibc")),
            ("node_modules/musl", only("linux", "x64", "musl")),
            ("node_modules/mac", only("darwin", "x64", "glibc")),
            ("node_modules/not-windows", only("!win32", "x64", "glibc")),
            ("node_modules/dev", dev),
        ]))
        .unwrap();
        let on =
            |architecture| lockfile.on_servers(architecture).map(|(at, _)| at).collect::<Vec<_>>();
        assert_eq!(
            on(Architecture::X86),
            [
                "node_modules/not-windows",
                "node_modules/npm",
                "node_modules/openclaw",
                "node_modules/x64"
            ]
        );
        assert_eq!(
            on(Architecture::Arm),
            ["node_modules/arm64", "node_modules/npm", "node_modules/openclaw"]
        );
    }

    #[test]
    fn what_npm_left_out_or_exchanged_is_told_by_name() {
        let mut native = package("native", "1.0.0");
        native["optional"] = json!(true);
        let document = lockfile_with(&[("node_modules/native", native)]);
        let lockfile = parse(&document).unwrap();
        let compare = |change: &dyn Fn(&mut Value)| {
            let mut record = document.clone();
            record["packages"].as_object_mut().unwrap().remove("");
            change(&mut record["packages"]);
            let record = record.to_string();
            let checked = lockfile.check_installed(Path::new("r"), &record, Architecture::X86);
            checked.map_err(|error| error.to_string())
        };
        compare(&|_| ()).unwrap();
        let why = compare(&|packages| {
            packages.as_object_mut().unwrap().remove("node_modules/native");
        });
        assert!(why.unwrap_err().contains("node_modules/native is missing"));
        let why = compare(&|packages| {
            packages["node_modules/native"]["integrity"] = json!(integrity("x"));
        });
        assert!(why.unwrap_err().contains("node_modules/native is another"));
        let why = compare(&|packages| packages["node_modules/more"] = package("more", "1.0.0"));
        assert!(why.unwrap_err().contains("node_modules/more should not"));
    }

    #[test]
    fn licences_are_read_in_every_form_that_packages_use() {
        let forms = [
            (json!("MIT"), Some("MIT")),
            (json!({"type": "ISC", "url": "…"}), Some("ISC")),
            (json!([{"type": "MIT"}, "Apache-2.0"]), Some("MIT OR Apache-2.0")),
            (json!(null), None),
        ];
        for (written, read) in forms {
            assert_eq!(licence(&written).as_deref(), read);
        }
    }
}
