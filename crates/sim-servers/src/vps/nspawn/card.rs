//! What the admin API shows of a server.

use std::net::IpAddr;
use std::path::PathBuf;

use serde::Serialize;
use serde_json::Value;

use super::hardware::Hardware;

/// A server as the admin API shows it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Card {
    pub(super) id: u64,
    pub(super) name: String,
    pub(super) hardware: Hardware,
    pub(super) addresses: Vec<IpAddr>,
    pub(super) power: Power,
    pub(super) cloud_init: CloudInit,
    /// How often it was started.
    pub(super) starts: u32,
    /// Its folder on this machine; `console.log` is in it.
    pub(super) folder: PathBuf,
    /// The network namespace of everything outside.
    pub(super) outside: PathBuf,
}

#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Power {
    On,
    Off,
}

/// How far cloud-init is in this life of the server.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum CloudInit {
    Unfinished,
    Done,
    Failed,
}

impl CloudInit {
    /// How the result that cloud-init has written is to be understood.
    pub(super) fn of(result: &[u8]) -> Self {
        match serde_json::from_slice::<Value>(result) {
            Ok(result) if result["v1"]["errors"].as_array().is_some_and(Vec::is_empty) => {
                Self::Done
            }
            Ok(_) => Self::Failed,
            // It is being written.
            Err(_) => Self::Unfinished,
        }
    }
}
