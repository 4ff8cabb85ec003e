//! Small lockfiles for tests.

use aws_lc_rs::digest::{SHA512, digest};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

/// That of a file with this text.
pub(super) fn integrity(text: &str) -> String {
    format!("sha512-{}", STANDARD.encode(digest(&SHA512, text.as_bytes())))
}

/// As npm writes it.
pub(super) fn package(name: &str, version: &str) -> Value {
    json!({
        "version": version,
        "resolved": format!("https://registry.npmjs.org/{name}/-/{name}-{version}.tgz"),
        "integrity": integrity(name),
        "license": "MIT",
    })
}

/// OpenClaw 2026.9.6 and more.
pub(super) fn lockfile_with(packages: &[(&str, Value)]) -> Value {
    let mut document = json!({
        "name": "openclaw-release",
        "lockfileVersion": 3,
        "packages": {
            "": {"dependencies": {"npm": "11.21.2", "openclaw": "2026.9.6"}},
            "node_modules/npm": package("npm", "11.21.2"),
            "node_modules/openclaw": package("openclaw", "2026.9.6"),
        },
    });
    for (at, package) in packages {
        document["packages"][at] = package.clone();
    }
    document
}
