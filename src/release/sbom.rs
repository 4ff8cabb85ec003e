//! The bill of materials in `CycloneDX` 1.6: every package on the server, from the lockfile, and the
//! programs beside it.

use std::collections::BTreeMap;

use moorage_wire::Sha256;
use serde_json::{Value, json};

use super::{
    bundle::{Bundle, Packed},
    digest::Digest,
    folder::ReleaseFolder,
    lockfile::LockedPackage,
    plugin::{PinnedPlugin, slug},
};
use crate::api::release::Architecture;

/// The document of a bundle. The same pins give the same document.
pub fn document(folder: &ReleaseFolder, architecture: Architecture, bundle: &Bundle) -> Value {
    let mut packages = BTreeMap::new();
    for (_, package) in folder.lockfile.on_servers(architecture) {
        // The same package may lie in several places of the tree.
        packages.entry(purl(package)).or_insert_with(|| component(package));
    }
    let node = program("node", &bundle.node);
    let depends: Vec<_> =
        packages.keys().map(String::as_str).chain(node["bom-ref"].as_str()).collect();
    let subject = program("openclaw-bundle", &bundle.openclaw);
    let dependencies = json!([{"ref": subject["bom-ref"], "dependsOn": depends}]);
    json!({
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": serial_number(bundle),
        "version": 1,
        "metadata": {
            "timestamp": folder.programs.locked.to_string(),
            "tools": {"components": [{
                "type": "application",
                "name": "moorage",
                "version": env!("CARGO_PKG_VERSION"),
            }]},
            "component": subject,
            "properties": [
                {"name": "moorage:architecture", "value": architecture.as_str()},
            ],
        },
        "dependencies": dependencies,
        "components": packages.into_values().chain([node]).collect::<Vec<_>>(),
    })
}

/// Adds a plugin's file and everything in it.
pub fn add_plugin(
    document: &mut Value,
    plugin: &PinnedPlugin,
    architecture: Architecture,
    digest: Digest,
) {
    let mut packages = BTreeMap::new();
    for (_, package) in plugin.lockfile.on_servers(architecture) {
        packages.entry(purl(package)).or_insert_with(|| component(package));
    }
    add_file(document, &plugin.name, plugin.lockfile.version(), digest, packages);
}

/// Adds a skill's file. What a skill consists of, nobody declares.
pub fn add_skill(document: &mut Value, name: &str, version: &str, digest: Digest) {
    add_file(document, name, version, digest, BTreeMap::new());
}

fn add_file(
    document: &mut Value,
    name: &str,
    version: &str,
    digest: Digest,
    packages: BTreeMap<String, Value>,
) {
    let packed = Packed { file: String::new(), version: version.to_owned(), digest };
    let file = program(&format!("integration-{}", slug(name)), &packed);
    let on: Vec<_> = packages.keys().cloned().collect();
    let dependency = json!({"ref": file["bom-ref"], "dependsOn": on});
    push(&mut document["dependencies"], dependency);
    push(&mut document["dependencies"][0]["dependsOn"], file["bom-ref"].clone());
    let known = |reference: &Value, components: &Value| {
        let mut all = components.as_array().into_iter().flatten();
        all.any(|component| component["bom-ref"] == *reference)
    };
    for component in packages.into_values().chain([file]) {
        // Another plugin, or OpenClaw itself, may have the same package.
        if !known(&component["bom-ref"], &document["components"]) {
            push(&mut document["components"], component);
        }
    }
}

fn push(list: &mut Value, item: Value) {
    if let Some(list) = list.as_array_mut() {
        list.push(item);
    }
}

fn component(package: &LockedPackage) -> Value {
    let purl = purl(package);
    let (group, name) = match package.name.split_once('/') {
        Some((group, name)) => (Some(group), name),
        None => (None, package.name.as_str()),
    };
    let mut component = json!({
        "type": "library",
        "bom-ref": purl,
        "name": name,
        "version": package.version,
        "purl": purl,
    });
    if let Some(group) = group {
        component["group"] = json!(group);
    }
    if let Some(licence) = &package.licence {
        component["licenses"] = licences(licence);
    }
    if let Some(file) = &package.file {
        component["hashes"] = json!([{"alg": "SHA-512", "content": hex::encode(&file.sha512)}]);
        component["externalReferences"] = json!([{"type": "distribution", "url": file.url}]);
    }
    component
}

fn program(name: &str, packed: &Packed) -> Value {
    let purl = format!("pkg:generic/{name}@{}", packed.version);
    json!({
        "type": "application",
        "bom-ref": purl,
        "name": name,
        "version": packed.version,
        "purl": purl,
        "hashes": [{"alg": "SHA-256", "content": packed.digest.sha256.to_string()}],
    })
}

/// An SPDX expression if it has the form of one, else a name.
fn licences(said: &str) -> Value {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".+-".contains(&byte);
    let term = |word: &str| {
        let word = word.trim_matches(['(', ')']);
        !word.is_empty() && word.bytes().all(plain)
    };
    let operator = |word: &str| matches!(word, "AND" | "OR" | "WITH");
    let alternates = said.split_whitespace().enumerate().all(|(at, word)| match at % 2 {
        0 => term(word) && !operator(word),
        _ => operator(word),
    });
    let complete = said.split_whitespace().count() % 2 == 1;
    if alternates && complete {
        json!([{"expression": said}])
    } else {
        json!([{"license": {"name": said}}])
    }
}

/// The address of a package in the form of package-url: the `@` of a scope is encoded.
fn purl(package: &LockedPackage) -> String {
    let encode = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' | b'_' | b'~' | b'/' => {
            char::from(byte).to_string()
        }
        other => format!("%{other:02X}"),
    };
    let name: String = package.name.bytes().map(encode).collect();
    let version: String = package.version.bytes().map(encode).collect();
    format!("pkg:npm/{name}@{version}")
}

/// A UUID (version 8, RFC 9562) out of what the document is about.
fn serial_number(bundle: &Bundle) -> String {
    let digests = format!("{}{}", bundle.openclaw.digest.sha256, bundle.node.digest.sha256);
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&Sha256::of(digests.as_bytes()).as_bytes()[..16]);
    bytes[6] = bytes[6] & 0x0f | 0x80;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let text = hex::encode(bytes);
    let parts = [&text[..8], &text[8..12], &text[12..16], &text[16..20], &text[20..]];
    format!("urn:uuid:{}", parts.join("-"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::release::{
        digest::Digest,
        folder::{Program, Programs},
        lockfile::Lockfile,
        testing::{lockfile_with, package},
    };
    use std::path::Path;

    fn bundle() -> Bundle {
        let packed = |file: &str, version: &str| Packed {
            file: file.to_owned(),
            version: version.to_owned(),
            digest: Digest { sha256: Sha256::of(file.as_bytes()), size: 1 },
        };
        Bundle {
            openclaw: packed("openclaw.tar.gz", "2026.9.6"),
            node: packed("node.tar.gz", "24.21.0"),
        }
    }

    fn folder() -> ReleaseFolder {
        let mut scoped = package("@scope/name", "1.0.0-beta+1");
        scoped["license"] = json!("(MIT AND Zlib)");
        let mut odd = package("odd", "2.0.0");
        odd["license"] = json!("SEE LICENSE IN LICENSE.md");
        let lock = lockfile_with(&[
            ("node_modules/@scope/name", scoped.clone()),
            ("node_modules/openclaw/node_modules/@scope/name", scoped),
            ("node_modules/odd", odd),
            ("node_modules/odd/node_modules/within", json!({"version": "3.0.0", "inBundle": true})),
        ])
        .to_string();
        ReleaseFolder {
            path: "releases/2026.9.6".into(),
            package: "{}".to_owned(),
            lockfile: Lockfile::parse(Path::new("package-lock.json"), &lock).unwrap(),
            lock,
            programs: Programs {
                locked: "2026-11-25T22:18:00Z".parse().unwrap(),
                node: Program { version: "24.21.0".to_owned(), files: BTreeMap::new() },
                cloudflared: None,
            },
            plugins: Vec::new(),
        }
    }

    #[test]
    fn a_bill_lists_each_package_once_with_licence_and_hash() {
        let mut document = document(&folder(), Architecture::X86, &bundle());
        document["metadata"]["tools"]["components"][0]["version"] = json!("VERSION");
        insta::assert_json_snapshot!(document);
    }

    #[test]
    fn every_reference_leads_to_a_component() {
        let document = document(&folder(), Architecture::X86, &bundle());
        let mut known: Vec<_> = document["components"].as_array().unwrap().iter().collect();
        known.push(&document["metadata"]["component"]);
        let mut known: Vec<_> = known.iter().map(|c| c["bom-ref"].as_str().unwrap()).collect();
        let count = known.len();
        known.sort_unstable();
        known.dedup();
        assert_eq!(known.len(), count, "a bom-ref is used twice");
        for dependency in document["dependencies"].as_array().unwrap() {
            assert!(known.contains(&dependency["ref"].as_str().unwrap()));
            for on in dependency["dependsOn"].as_array().unwrap() {
                assert!(known.contains(&on.as_str().unwrap()), "{on}");
            }
        }
    }

    #[test]
    fn what_is_no_spdx_expression_is_a_name() {
        for expression in ["MIT", "(MIT AND Zlib)", "MIT OR Apache-2.0", "GPL-2.0+ WITH X"] {
            assert_eq!(licences(expression)[0]["expression"], expression);
        }
        for name in ["SEE LICENSE IN X", "Public domain", "", "MIT OR", "MIT/X11"] {
            assert_eq!(licences(name)[0]["license"]["name"], name);
        }
    }
}
