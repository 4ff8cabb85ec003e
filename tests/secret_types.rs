//! Types that hold secrets cannot be printed, cloned, compared or serialized; and whatever derives its
//! `Debug` has no secret in it but in such a type.

#![allow(clippy::unwrap_used)] // Helpers of tests, outside of test functions.

use std::{
    fs,
    path::{Path, PathBuf},
};

use moorage::{
    agent::{AccessHeaders, ServerKeys},
    api::{OpenClawInstanceSpec, instance::CredentialSpec},
    cloud::{ApiToken, SecretText},
    cloudflare::IssuedServiceToken,
    cluster::{DashboardAccess, DashboardSecret},
    credentials::{key_ring::Unsealed, secret_source::SecretView, wrapping_key::WrappingKey},
    master_key::{BearerToken, GatewayToken, MasterKey, TunnelRunToken, TunnelSecret},
};
use moorage_wire::{InstallationId, Secret};
use serde_json::json;

/// Does not compile if the type has one of the traits: then two impls fit, and the compiler cannot
/// tell which is meant.
macro_rules! lacks {
    ($type:ty: $($bound:path),+) => {
        const _: fn() = || {
            trait Lacks<Marker> {
                fn holds() {}
            }
            impl<T: ?Sized> Lacks<()> for T {}
            $({
                #[allow(dead_code)]
                struct Has;
                impl<T: ?Sized + $bound> Lacks<Has> for T {}
            })+
            <$type as Lacks<_>>::holds();
        };
    };
}

macro_rules! cannot_leak {
    ($($type:ty),+ $(,)?) => {
        $(lacks!($type: Clone, PartialEq, std::fmt::Display, serde::Serialize);)+
    };
}

cannot_leak!(
    Secret,
    SecretText,
    ApiToken,
    MasterKey,
    BearerToken,
    GatewayToken,
    TunnelSecret,
    TunnelRunToken,
    WrappingKey,
    ServerKeys,
    AccessHeaders,
    IssuedServiceToken,
    Unsealed,
    SecretView,
    DashboardSecret,
);
// Those that print nothing at all. (A private key is shared behind a pointer, so that it can be cloned.)
lacks!(ServerKeys: std::fmt::Debug);
lacks!(WrappingKey: std::fmt::Debug);
lacks!(DashboardAccess<'static>: std::fmt::Debug);
lacks!(moorage_wire::sealing::SealingKey: std::fmt::Debug, serde::Serialize);
lacks!(moorage::credentials::key_ring::KeyRing: std::fmt::Debug, serde::Serialize);

const PLAINTEXT: &str = "geheim-geheim-geheim";

#[test]
fn what_can_be_printed_shows_nothing() {
    let secret = || Secret::from(PLAINTEXT.to_owned());
    let text = || SecretText::new(PLAINTEXT.to_owned());
    let view: k8s_openapi::api::core::v1::Secret =
        serde_json::from_value(json!({"stringData": {"k": PLAINTEXT}})).unwrap();
    let credential: CredentialSpec =
        serde_json::from_value(json!({"name": "a", "type": "OpenAiApiKey", "sealed": PLAINTEXT}))
            .unwrap();
    let spec: OpenClawInstanceSpec = serde_json::from_value(json!({
        "pool": "p", "hostname": "h", "config": {"k": PLAINTEXT}, "credentials": [credential],
    }))
    .unwrap();
    let headers = AccessHeaders { client_id: "id".to_owned(), client_secret: secret() };
    // A key of one byte alone is refused.
    let mut bytes = [7; 32];
    bytes[0] = 0;
    let key = MasterKey::new(Secret::from(bytes), InstallationId::from_bytes([9; 8])).unwrap();
    let instance = moorage_wire::InstanceId::from_bytes([1; 16]);
    let bearer = key.bearer_token(instance, moorage_wire::Epoch::from_bytes([2; 8]));
    let printed = format!(
        "{:?} {:?} {:?} {:?} {:?} {headers:?} {key:?} {bearer:?}",
        secret(),
        text(),
        SecretView::from(view),
        credential,
        spec,
    );
    assert!(!printed.contains("geheim"), "{printed}");
    // The master key is of sevens, in any notation that a derived output could have.
    assert!(!printed.contains("7, 7") && !printed.contains("0707"), "{printed}");
}

/// Types that hold what may be secret, and print it.
const OPEN: [&str; 4] = ["ByteString", "KubeSecret", "Zeroizing", "OaepPrivateDecryptingKey"];
/// Names of fields that would be secret, if they were text or bytes.
const NAMES: [&str; 7] =
    ["token", "secret", "password", "private_key", "plaintext", "user_data", "api_key"];
const TEXTS: [&str; 5] = ["String", "Vec<u8>", "[u8;", "Arc<str>", "Cow<"];
/// Fields with such a name that are none, by the line that documents them.
const ALLOWED: [&str; 4] = [
    "/// The Secret's name.",
    "/// Its name.",
    "/// The Secret for the dashboard's URL and token.",
    // The order to the installer: its line of JSON is wiped, the order itself is not printed.
    "/// The run token, one line of base64.",
];

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let is_source = path.extension().is_some_and(|kind| kind == "rs");
        if path.is_dir() && name != "tests" {
            sources(&path, found);
        } else if is_source && !name.ends_with("tests.rs") && name != "fakes.rs" {
            found.push(path);
        }
    }
}

/// Every struct and enum that derives `Debug`, with its body.
fn printable(text: &str) -> Vec<(String, String)> {
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
    let mut found = Vec::new();
    for (start, _) in text.match_indices("#[derive(") {
        let rest = &text[start..];
        let traits = &rest[..rest.find(")]").unwrap()];
        let derives = traits.split(|c: char| !c.is_alphanumeric()).any(|word| word == "Debug");
        let kinds = ["struct ", "enum "];
        let Some(at) = kinds.iter().filter_map(|kind| rest.find(kind)).min() else { continue };
        if !derives {
            continue;
        }
        let body = &rest[at..];
        let end = body.find("\n}").or_else(|| body.find(';')).unwrap_or(body.len());
        // A unit or tuple struct ends with the line.
        let line = body.lines().next().unwrap();
        let body = if line.ends_with(';') { line } else { &body[..end] };
        let name = body.split(|c: char| !(c.is_alphanumeric() || c == '_')).nth(1).unwrap();
        found.push((name.to_owned(), body.to_owned()));
    }
    found
}

/// What is wrong with a body: fields that print what may be secret.
fn leaks(body: &str) -> Vec<String> {
    let mut before = "";
    let mut leaks = Vec::new();
    for line in body.lines() {
        let code = line.trim();
        let documented = ALLOWED.contains(&before.trim());
        let open = OPEN
            .iter()
            .any(|open| code.split(|c: char| !c.is_alphanumeric()).any(|word| word == *open));
        let field = code.trim_start_matches("pub ").trim_start_matches("pub(super) ");
        let named = field.split_once(": ").is_some_and(|(name, kind)| {
            NAMES.iter().any(|known| name == *known || name.ends_with(&format!("_{known}")))
                && TEXTS.iter().any(|text| kind.contains(text))
        });
        if !code.starts_with("//") && (open || (named && !documented)) {
            leaks.push(code.to_owned());
        }
        if !code.is_empty() {
            before = line;
        }
    }
    leaks
}

#[test]
fn what_derives_its_output_has_no_secret_in_the_open() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (mut files, mut seen, mut wrong) = (Vec::new(), 0, Vec::new());
    for folder in ["src", "crates/wire/src", "crates/agent/src"] {
        sources(&root.join(folder), &mut files);
    }
    for file in files {
        for (name, body) in printable(&fs::read_to_string(&file).unwrap()) {
            seen += 1;
            let file = file.strip_prefix(root).unwrap().display();
            wrong.extend(leaks(&body).iter().map(|leak| format!("{file}: {name}: {leak}")));
        }
    }
    assert!(seen > 200, "the types are not found any more: {seen}");
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn the_search_finds_what_it_should() {
    let text =
        "#[derive(Clone, Debug)]\npub struct Leak {\n    /// It.\n    pub api_token: String,\n}\n";
    let [(name, body)] = &printable(text)[..] else { panic!("not one type") };
    assert_eq!((name.as_str(), leaks(body).len()), ("Leak", 1));
    let raw = "#[derive(Debug)]\nstruct Raw(Vec<ByteString>);\n";
    assert_eq!(leaks(&printable(raw)[0].1).len(), 1);
    let fine = "#[derive(Debug)]\nstruct Fine {\n    token: Secret,\n    /// The Secret's name.\n    secret: String,\n}\n";
    assert_eq!(leaks(&printable(fine)[0].1), [] as [&str; 0]);
}
