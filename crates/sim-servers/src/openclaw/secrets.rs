//! Secret references and the file provider behind them.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::config::Config;

/// Why a reference has no value. Never quotes one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum SecretError {
    #[error("{0}: there is no secret provider `{1}`")]
    NoProvider(String, String),
    #[error("{0}: the stand-in supports the sources `file` (mode `json`) and `env`, not `{1}`")]
    Unsupported(String, String),
    #[error("{0}: {1}: {2}")]
    File(String, PathBuf, String),
    #[error("{0}: no value for id `{1}`")]
    NoValue(String, String),
}

/// The values that the gateway works with, by the dotted path of the configuration.
#[derive(Default)]
pub(super) struct Secrets {
    values: BTreeMap<String, String>,
    /// References of channels that have no value: the gateway runs, the channel does not.
    missing: BTreeMap<String, SecretError>,
}

impl Secrets {
    /// Resolves everything that is in use. A channel without its secret is noted; anything else without
    /// its secret fails the whole.
    pub(super) fn resolve(config: &Config) -> Result<Self, SecretError> {
        let mut found = Vec::new();
        find(config.value(), "", &mut found);
        let disabled = disabled_channels(config.value());
        let mut secrets = Self::default();
        for (path, value) in found {
            if disabled.iter().any(|prefix| path.starts_with(prefix)) {
                continue;
            }
            match read(config.value(), &path, value) {
                Ok(text) => {
                    secrets.values.insert(path, text);
                }
                Err(error @ SecretError::File(..)) => return Err(error),
                Err(error) if path.starts_with("channels.") => {
                    secrets.missing.insert(path, error);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(secrets)
    }

    /// The value of a field that is a secret, literal or by reference.
    pub(super) fn get(&self, path: &str) -> Option<&str> {
        self.values.get(path).map(String::as_str)
    }

    /// Channels that are switched on and lack their secret, and why.
    pub(super) fn channel_problems(&self, config: &Config) -> Vec<String> {
        let missing = self.missing.values().map(ToString::to_string);
        let absent = config.enabled_channels().into_iter().filter_map(|(channel, field)| {
            let path = format!("channels.{channel}.{}", field?);
            let known = self.values.contains_key(&path) || self.missing.contains_key(&path);
            (!known).then(|| format!("{path}: not set"))
        });
        missing.chain(absent).collect()
    }

    /// SHA-256 of each value by its path: shows what arrived without showing it.
    pub(super) fn fingerprints(&self) -> BTreeMap<&str, String> {
        let sha256 = |text: &str| {
            hex::encode(
                aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes()).as_ref(),
            )
        };
        self.values.iter().map(|(path, value)| (path.as_str(), sha256(value))).collect()
    }
}

/// The names of fields that may hold a literal secret; references are found anywhere.
const SECRET_FIELDS: [&str; 8] = [
    "apiKey",
    "token",
    "password",
    "botToken",
    "appToken",
    "signingSecret",
    "serviceAccount",
    "webhookSecret",
];

/// All secrets of a document with their paths.
fn find<'a>(value: &'a Value, path: &str, found: &mut Vec<(String, &'a Value)>) {
    let Some(fields) = value.as_object() else { return };
    for (key, value) in fields {
        let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        if path == "secrets" {
            continue;
        }
        let literal = value.is_string() && SECRET_FIELDS.contains(&key.as_str());
        if literal || is_reference(value) {
            found.push((path, value));
        } else {
            find(value, &path, found);
        }
    }
}

fn is_reference(value: &Value) -> bool {
    value.get("source").is_some_and(Value::is_string)
        && value.get("id").is_some_and(Value::is_string)
}

fn disabled_channels(config: &Value) -> Vec<String> {
    let channels = config.get("channels").and_then(Value::as_object);
    channels
        .into_iter()
        .flatten()
        .filter(|(_, channel)| channel.get("enabled") == Some(&Value::Bool(false)))
        .map(|(name, _)| format!("channels.{name}."))
        .collect()
}

fn read(config: &Value, path: &str, value: &Value) -> Result<String, SecretError> {
    if let Some(literal) = value.as_str() {
        return Ok(literal.to_owned());
    }
    let text = |key: &str| value.get(key).and_then(Value::as_str);
    let source = text("source").unwrap_or_default();
    let id = text("id").unwrap_or_default();
    let no_value = || SecretError::NoValue(path.to_owned(), id.to_owned());
    match source {
        "env" => std::env::var(id).map_err(|_| no_value()),
        "file" => {
            let default = config
                .pointer("/secrets/defaults/file")
                .and_then(Value::as_str)
                .unwrap_or("default");
            let name = text("provider").unwrap_or(default);
            let no_provider = || SecretError::NoProvider(path.to_owned(), name.to_owned());
            let provider = config
                .get("secrets")
                .and_then(|secrets| secrets.get("providers")?.get(name))
                .ok_or_else(no_provider)?;
            let unsupported =
                |what: &str| SecretError::Unsupported(path.to_owned(), what.to_owned());
            if provider.get("source").and_then(Value::as_str) != Some("file") {
                return Err(no_provider());
            }
            let mode = provider.get("mode").and_then(Value::as_str).unwrap_or("json");
            if mode != "json" {
                return Err(unsupported(&format!("file, mode {mode}")));
            }
            let file = provider.get("path").and_then(Value::as_str).ok_or_else(no_provider)?;
            let file = Path::new(file);
            let document = open(file)
                .map_err(|problem| SecretError::File(path.to_owned(), file.to_owned(), problem))?;
            match document.pointer(id) {
                Some(Value::String(text)) => Ok(text.clone()),
                Some(object @ Value::Object(_)) => Ok(object.to_string()),
                _ => Err(no_value()),
            }
        }
        other => Err(SecretError::Unsupported(path.to_owned(), other.to_owned())),
    }
}

/// Reads a provider's file, which must be regular, have one name, and be its owner's alone.
fn open(path: &Path) -> Result<Value, String> {
    let metadata = std::fs::symlink_metadata(path).map_err(|error| error.to_string())?;
    if !metadata.is_file() {
        return Err("not a regular file".to_owned());
    }
    if metadata.nlink() != 1 {
        return Err(format!("has {} hard links, expected one", metadata.nlink()));
    }
    if metadata.mode() & 0o077 != 0 {
        let mode = metadata.mode() & 0o777;
        return Err(format!("permissions {mode:03o} let others in, expected 600"));
    }
    if metadata.uid() != rustix::process::geteuid().as_raw() {
        return Err("belongs to another user".to_owned());
    }
    let text = std::fs::read(path).map_err(|error| error.to_string())?;
    serde_json::from_slice(&text).map_err(|_| "not JSON".to_owned())
}
