//! The configuration file, and what the gateway takes from it.

use std::io;
use std::net::IpAddr;
use std::path::Path;

use serde_json::Value;

use super::schema::{Issue, check};

/// A configuration without issues.
#[derive(Debug, Clone)]
pub(super) struct Config {
    value: Value,
}

impl Config {
    /// Reads and checks a file, which must be regular and no symlink.
    pub(super) fn load(path: &Path) -> Result<Self, Vec<Issue>> {
        let whole = |message: String| vec![Issue { path: String::new(), message }];
        let text = read_regular(path)
            .map_err(|error| whole(format!("cannot read {}: {error}", path.display())))?;
        let value = serde_json::from_str(&text).map_err(|error| {
            whole(format!("not JSON, at line {} column {}", error.line(), error.column()))
        })?;
        let issues = check(&value);
        if issues.is_empty() { Ok(Self { value }) } else { Err(issues) }
    }

    pub(super) fn value(&self) -> &Value {
        &self.value
    }

    /// Names exactly this configuration.
    pub(super) fn revision(&self) -> String {
        let text = self.value.to_string();
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
        format!("sha256:{}", hex::encode(digest.as_ref()))
    }

    /// How visitors prove who they are.
    pub(super) fn auth_mode(&self) -> &str {
        self.value.pointer("/gateway/auth/mode").and_then(Value::as_str).unwrap_or("token")
    }

    /// The port, unless the stand-in was given an address.
    pub(super) fn port(&self) -> Option<u16> {
        self.value
            .pointer("/gateway/port")
            .and_then(Value::as_u64)
            .and_then(|port| u16::try_from(port).ok())
    }

    /// Whether a proxy at this address may say for whom it speaks.
    pub(super) fn trusts_proxy(&self, address: IpAddr) -> bool {
        let proxies = self.value.pointer("/gateway/trustedProxies").and_then(Value::as_array);
        let mut proxies = proxies.into_iter().flatten().filter_map(Value::as_str);
        proxies.any(|proxy| proxy.parse() == Ok(address))
    }

    /// Channels that are switched on, and which secret each needs first of all.
    pub(super) fn enabled_channels(&self) -> Vec<(&str, Option<&'static str>)> {
        let channels = self.value.get("channels").and_then(Value::as_object);
        let enabled =
            |channel: &Value| channel.get("enabled").and_then(Value::as_bool).unwrap_or(true);
        channels
            .into_iter()
            .flatten()
            .filter(|(name, channel)| *name != "defaults" && enabled(channel))
            .map(|(name, _)| (name.as_str(), needed_secret(name)))
            .collect()
    }
}

fn needed_secret(channel: &str) -> Option<&'static str> {
    match channel {
        "telegram" | "slack" => Some("botToken"),
        "discord" => Some("token"),
        "googlechat" => Some("serviceAccount"),
        _ => None,
    }
}

fn read_regular(path: &Path) -> io::Result<String> {
    if !std::fs::symlink_metadata(path)?.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    std::fs::read_to_string(path)
}
