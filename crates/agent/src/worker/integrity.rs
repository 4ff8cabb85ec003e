//! Whether the packages of an installed plugin are the pinned ones, by what npm noted of each when it
//! unpacked and checked it: `package-lock.json` of the folder that OpenClaw gives each plugin.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use moorage_wire::{
    desired::Integration,
    failure::{FailureCode, Stage},
};
use serde_json::Value;

use super::{WorkError, packed::LOCKFILE};
use crate::disk::{Disk, DiskError};

/// Of the plugin's own package in `folder`, whatever the release says of it.
pub(super) fn installed(
    disk: &Disk,
    folder: &Path,
    integration: &Integration,
) -> Result<Option<String>, DiskError> {
    let Some(project) = project(folder, integration) else { return Ok(None) };
    let below = format!("node_modules/{}", integration.name);
    let lock: Option<Value> = disk.read_json(&project.join(LOCKFILE))?;
    let noted = lock
        .as_ref()
        .and_then(|lock| lock.get("packages")?.get(&below)?.get("integrity")?.as_str());
    Ok(noted.map(str::to_owned))
}

/// Refuses a tree that has a package which the artifact, unpacked to `packed`, does not pin.
pub(super) fn check_tree(
    disk: &Disk,
    folder: &Path,
    packed: &Path,
    integration: &Integration,
) -> Result<(), WorkError> {
    let refuse = |why: String| Err(wrong(integration, why));
    let Some(project) = project(folder, integration) else {
        return refuse("OpenClaw keeps it where it is not known".to_owned());
    };
    let read = |folder: &Path| disk.read_json::<Value>(&folder.join(LOCKFILE));
    let (installed, pinned) = (read(&project)?, read(packed)?);
    let (Some(installed), Some(pinned)) = (installed, pinned) else {
        return refuse("what it depends on is not known".to_owned());
    };
    let pinned: BTreeSet<_> = packages(&pinned).filter_map(|(_, integrity)| integrity).collect();
    // What comes within another package is pinned by that.
    let foreign = packages(&installed)
        .find(|(_, integrity)| integrity.is_some_and(|integrity| !pinned.contains(integrity)));
    match foreign {
        None => Ok(()),
        Some((at, _)) => {
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"@/-_.".contains(&byte);
            let at = if at.bytes().all(plain) { at } else { "a package" };
            refuse(format!("{at} is not what the release pins"))
        }
    }
}

fn packages(lock: &Value) -> impl Iterator<Item = (&str, Option<&str>)> {
    let all = lock.get("packages").and_then(Value::as_object).into_iter().flatten();
    all.map(|(at, package)| (at.as_str(), package.get("integrity").and_then(Value::as_str)))
}

/// The folder that npm worked in, out of the one that OpenClaw loads the plugin from.
fn project(folder: &Path, integration: &Integration) -> Option<PathBuf> {
    let below = Path::new("node_modules").join(&integration.name);
    folder.ancestors().nth(below.components().count()).map(Path::to_owned)
}

pub(super) fn check(integration: &Integration, found: Option<&str>) -> Result<(), WorkError> {
    let why = match (integration.integrity.as_deref(), found) {
        (Some(wanted), Some(found)) if wanted == found => return Ok(()),
        (None, _) => "the release does not pin its integrity".to_owned(),
        (Some(wanted), Some(found)) if is_integrity(found) => {
            format!("the package has the integrity {found}, and the release pins {wanted}")
        }
        (Some(_), _) => "the integrity of the package is not known".to_owned(),
    };
    Err(wrong(integration, why))
}

fn wrong(integration: &Integration, why: String) -> WorkError {
    WorkError::of_integration(integration, (Stage::Verification, FailureCode::WrongBytes), why)
}

/// What may stand in a message.
fn is_integrity(text: &str) -> bool {
    let base64 = |byte: u8| byte.is_ascii_alphanumeric() || b"+/=-".contains(&byte);
    text.len() <= 200 && text.bytes().all(base64)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use moorage_wire::desired::IntegrationKind;
    use serde_json::json;

    use super::*;

    fn plugin(pin: Option<&str>) -> Integration {
        Integration {
            kind: IntegrationKind::Plugin,
            name: "@a/b".to_owned(),
            version: "1.0.0".to_owned(),
            integrity: pin.map(str::to_owned),
            artifact: None,
            unpinned: true,
        }
    }

    #[test]
    fn a_package_is_the_pinned_one_or_the_difference_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let project = folder.path().join("npm/projects/a-b-1");
        let package = project.join("node_modules/@a/b");
        let disk = Disk::default();
        assert_eq!(installed(&disk, &package, &plugin(None)).unwrap(), None);
        fs::create_dir_all(&project).unwrap();
        let lock = json!({"packages": {"node_modules/@a/b": {"integrity": "sha512-AAAA"}}});
        disk.write_json(&project.join(LOCKFILE), &lock).unwrap();
        let found = installed(&disk, &package, &plugin(None)).unwrap();
        check(&plugin(Some("sha512-AAAA")), found.as_deref()).unwrap();
        for (pin, found, says) in [
            (
                Some("sha512-BBBB"),
                Some("sha512-AAAA"),
                "sha512-AAAA, and the release pins sha512-BBBB",
            ),
            (Some("sha512-BBBB"), Some("odd \u{1b}"), "not known"),
            (Some("sha512-BBBB"), None, "not known"),
            (None, Some("sha512-AAAA"), "does not pin"),
        ] {
            let refused = check(&plugin(pin), found).unwrap_err().to_string();
            assert!(refused.contains(says), "{refused}");
        }
    }

    #[test]
    fn a_tree_with_an_unpinned_package_is_refused_by_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let (project, packed) = (folder.path().join("project"), folder.path().join("packed"));
        let package = project.join("node_modules/@a/b");
        let disk = Disk::default();
        let lock = |leftpad: &str| {
            json!({"packages": {
                "": {"dependencies": {"@a/b": "1.0.0"}},
                "node_modules/@a/b": {"integrity": "sha512-AAAA"},
                "node_modules/@a/b/node_modules/within": {"inBundle": true},
                "node_modules/leftpad": {"integrity": leftpad},
            }})
        };
        let check = || check_tree(&disk, &package, &packed, &plugin(None));
        assert!(check().unwrap_err().to_string().contains("not known"));
        for folder in [&project, &packed] {
            fs::create_dir_all(folder).unwrap();
            disk.write_json(&folder.join(LOCKFILE), &lock("sha512-LLLL")).unwrap();
        }
        check().unwrap();
        disk.write_json(&project.join(LOCKFILE), &lock("sha512-EVIL")).unwrap();
        let refused = check().unwrap_err().to_string();
        assert!(refused.contains("node_modules/leftpad is not what"), "{refused}");
    }
}
