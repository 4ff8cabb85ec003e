//! The part of a report that older agents do not have: programs, their past, and the room they have.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{MOST_FAILED, MOST_KEYS, MOST_PAIRINGS, MOST_PROGRAMS, MOST_UNITS};
use crate::{
    bounded,
    digest::Sha256,
    failure::Failure,
    identity::OperatorPublicKey,
    plain_text::{PlainText, VersionText},
    program::Component,
};

/// Programs, their past, and the room they have.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Details {
    /// Every installed version of every program; empty where the agent does not install.
    #[serde(deserialize_with = "bounded::list::<_, _, MOST_PROGRAMS>")]
    pub programs: Vec<InstalledProgram>,
    /// Programs that were tried and rolled back.
    #[serde(deserialize_with = "bounded::list::<_, _, MOST_FAILED>")]
    pub failed_programs: Vec<FailedProgram>,
    /// The last update that was rolled back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_rollback: Option<Rollback>,
    /// The units that run programs.
    #[serde(deserialize_with = "bounded::list::<_, _, MOST_UNITS>")]
    pub units: Vec<UnitReport>,
    /// OpenClaw's own security audit of the configuration that it runs with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audit: Option<Audit>,
    /// The last verified backup of OpenClaw.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backup: Option<Backup>,
    /// Approved pairing requests of the present document that were looked for and did not come to a
    /// pairing.
    #[serde(deserialize_with = "bounded::list::<_, _, MOST_PAIRINGS>")]
    pub failed_pairings: Vec<FailedPairing>,
    /// Size of the file system of OpenClaw's state; zero if unknown.
    pub disk_total_bytes: u64,
    /// Memory of the machine; zero if unknown.
    pub memory_total_bytes: u64,
    /// Whether the agent takes integrations as artifacts; older ones refuse a document that has any.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub packed_integrations: bool,
    /// What the machine's clock shows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clock: Option<Timestamp>,
    /// The operator's keys that the agent obeys: the one in force first, then the next one while it is
    /// handed over. Empty of agents that cannot be handed over.
    #[serde(deserialize_with = "bounded::list::<_, _, MOST_KEYS>")]
    pub operator_keys: Vec<OperatorPublicKey>,
}

/// One installed version of a program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InstalledProgram {
    pub kind: Component,
    /// SHA-256 of the artifact that it was installed from.
    pub sha256: Sha256,
    /// The version that the release gives it, if the agent has that release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<VersionText>,
    /// Whether it is the current one.
    pub active: bool,
}

/// A program that was tried and rolled back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FailedProgram {
    pub kind: Component,
    /// SHA-256 of the artifact that it was installed from.
    pub sha256: Sha256,
    /// In words, for operators that do not read `failure`.
    pub reason: PlainText,
    /// Why, as fields; absent from older agents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// When, by the server's clock.
    pub at: Timestamp,
}

/// An update that was rolled back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rollback {
    pub what: Component,
    /// The artifact that did not work.
    pub from: Sha256,
    /// The one that is back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<Sha256>,
    /// For people: why, without values.
    pub reason: PlainText,
    /// Why, as fields; absent from older agents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// When, by the server's clock.
    pub at: Timestamp,
}

/// A systemd unit that runs a program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UnitReport {
    /// Its name: `openclaw`, `cloudflared` or `agent`.
    pub unit: PlainText<64>,
    /// Whether its process runs.
    pub running: bool,
    /// How often it was started since boot.
    pub starts: u32,
}

/// Findings of a security audit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Audit {
    /// How many are critical.
    pub critical: u64,
    /// How many are warnings.
    pub warn: u64,
}

/// A pairing request that was approved and did not lead to a pairing. It is not retried before another
/// document comes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FailedPairing {
    /// Its id, as the document has it.
    pub request: PlainText<128>,
    /// What came of the request.
    pub reason: PairingFailure,
}

/// Why a pairing request could not be let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PairingFailure {
    /// No device waits with it: it is mistyped, too old, or replaced by a newer one.
    NotWaiting,
    /// OpenClaw refused the approval.
    Refused,
    /// A reason of a newer agent.
    #[serde(other)]
    Unknown,
}

/// A backup that OpenClaw made and verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Backup {
    /// When it was made, by the server's clock.
    pub at: Timestamp,
    /// Size of the archive.
    pub bytes: u64,
}
