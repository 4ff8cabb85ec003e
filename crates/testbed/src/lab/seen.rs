//! What the simulator says of a server of the lab.

use std::{net::IpAddr, path::PathBuf};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Deserializer};

/// What came of a knock at a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Probed {
    /// Something accepted the connection.
    Open,
    /// The host said that nothing listens there.
    Refused,
    /// No answer.
    Dropped,
    /// The host or a router said that it is not allowed or not there.
    Unreachable,
}

/// How far cloud-init is in this life of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CloudInit {
    /// Not at its end.
    Unfinished,
    /// Done without errors.
    Done,
    /// Done with errors.
    Failed,
}

/// A server as the backend sees it.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LabServerState {
    /// Its id at the cloud.
    pub id: u64,
    pub name: String,
    pub addresses: Vec<IpAddr>,
    /// Whether the power is on.
    #[serde(deserialize_with = "is_on")]
    pub power: bool,
    /// How far cloud-init is.
    pub cloud_init: CloudInit,
    /// How often it was started.
    pub starts: u32,
    /// Its folder on this machine; `console.log` is in it.
    pub folder: PathBuf,
    /// The network namespace of everything outside.
    pub outside: PathBuf,
}

fn is_on<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    Ok(String::deserialize(deserializer)? == "on")
}

/// What a program inside left.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Executed {
    /// Its exit code; 137 when it took too long.
    pub exit_code: Option<i32>,
    #[serde(deserialize_with = "from_base64")]
    pub stdout: Vec<u8>,
    /// What it complained of.
    #[serde(deserialize_with = "from_base64")]
    pub stderr: Vec<u8>,
}

fn from_base64<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    let text = String::deserialize(deserializer)?;
    STANDARD.decode(text).map_err(serde::de::Error::custom)
}

impl Executed {
    /// Whether it ended with 0.
    pub fn succeeded(&self) -> bool {
        self.exit_code == Some(0)
    }

    /// Standard output as text, without the last line's end.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).trim_end().to_owned()
    }
}
