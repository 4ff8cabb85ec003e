//! The agent's report: what is on the server and how it is. Versions, digests and health; never a
//! value.
//!
//! Fields are only ever added, with a default for agents that do not send them. Where a `failure` stands
//! beside a `message` or `reason`, the text is for operators that do not read the fields.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    credential::CredentialName, digest::Sha256, enrolment::AgentIdentity, failure::Failure,
    identity::OperatorPublicKey, program::Component, receipt::Receipt,
};

/// Answer of `GET /v1/report`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// The agent's keys, with the proof that survives enrolment.
    pub identity: AgentIdentity,
    /// The agent's own version.
    pub agent_version: String,
    /// How far the agent is with the desired state.
    pub desired: DesiredProgress,
    /// One receipt per credential that is stored now.
    pub receipts: Vec<Receipt>,
    /// The ciphertexts that were consumed, so that a replay is recognised: the newest of each credential,
    /// and of all that ever were.
    pub consumed: Vec<Consumed>,
    /// By OpenClaw's own health endpoints, and what the agent could not have it do.
    pub openclaw: OpenClawHealth,
    /// By cloudflared's metrics endpoint, and the token files.
    pub cloudflared: CloudflaredHealth,
    /// Room, reboots and the first boot.
    pub machine: Machine,
    /// What else there is to know; absent from older agents.
    #[serde(default)]
    pub details: Details,
}

/// How far the agent is with the desired state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DesiredProgress {
    /// Digest of the document that the agent has; absent before the first.
    pub digest: Option<Sha256>,
    /// What became of it.
    pub state: ConvergenceState,
    /// Documents that were tried and did not work. They are not retried, except one whose reason
    /// is [`FailureReason::System`]: that is what holds up the present document, and it is retried.
    #[serde(default)]
    pub failed: Vec<FailedDigest>,
}

/// What became of the desired state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ConvergenceState {
    /// There is none yet.
    Waiting,
    /// Being installed, configured or started; a failure that is retried is among `failed`.
    Converging,
    /// Everything runs as the document says.
    Converged,
    /// Tried, failed, and the last good state is back.
    RolledBack,
    /// Failed with nothing to go back to.
    Failed,
    /// A state of a newer agent.
    #[serde(other)]
    Unknown,
}

/// A document that did not work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FailedDigest {
    /// SHA-256 of the document's bytes.
    pub digest: Sha256,
    /// Coarse; older operators have no more to go by.
    pub reason: FailureReason,
    /// For people: what happened, without values.
    pub message: String,
    /// What happened, as fields; absent from older agents, and for failures that they recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// The offending path in the configuration, if one was named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// When it was given up, or last tried; by the server's clock.
    pub at: Timestamp,
}

/// Why a desired state failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FailureReason {
    /// OpenClaw rejects the configuration.
    InvalidConfig,
    /// OpenClaw did not become healthy with it.
    Unhealthy,
    /// An artifact could not be fetched, or is not what was pinned.
    Artifact,
    /// An integration could not be installed.
    Integration,
    /// The disk is full, a file cannot be written, and the like.
    System,
    /// A reason of a newer agent.
    #[serde(other)]
    Unknown,
}

/// A ciphertext that was opened and stored once, so that it is not again.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Consumed {
    /// The credential that it was for.
    pub credential: CredentialName,
    /// SHA-256 of the ciphertext.
    pub source_sha256: Sha256,
}

/// How OpenClaw is, as its `/startupz` and `/readyz` say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OpenClawHealth {
    /// By its health endpoints.
    pub state: OpenClawState,
    /// Its version, as it says itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// For people, when something is wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// What is wrong, as fields; absent from older agents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
}

/// The states of OpenClaw, by its own health endpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OpenClawState {
    /// Its unit does not run.
    Stopped,
    /// Running, `/startupz` is not 200 yet.
    Starting,
    /// `/startupz` is 200, `/readyz` is not: a channel is down, for example.
    Degraded,
    /// `/readyz` is 200.
    Ready,
    /// A state of a newer agent.
    #[serde(other)]
    Unknown,
}

/// How the tunnel connector is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CloudflaredHealth {
    /// Whether it holds at least one connection.
    pub connected: bool,
    /// SHA-256 of the token that it runs with now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active_token_sha256: Option<Sha256>,
    /// SHA-256 of every token that is on the server: two while a rotation is under way.
    pub token_sha256: Vec<Sha256>,
}

/// The machine's own state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Machine {
    /// Bytes free on the file system of OpenClaw's state.
    pub disk_free_bytes: u64,
    /// Bytes of memory available.
    pub memory_available_bytes: u64,
    /// Whether an upgrade waits for a reboot.
    pub reboot_pending: bool,
    /// Whether the packages and settings of the first boot are done; older agents do not say, and are
    /// taken to mean it.
    #[serde(default = "yes")]
    pub setup_done: bool,
}

fn yes() -> bool {
    true
}

/// Programs, their past, and the room they have.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Details {
    /// Every installed version of every program; empty where the agent does not install.
    pub programs: Vec<InstalledProgram>,
    /// Programs that were tried and rolled back.
    pub failed_programs: Vec<FailedProgram>,
    /// The last update that was rolled back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_rollback: Option<Rollback>,
    /// The units that run programs.
    pub units: Vec<UnitReport>,
    /// OpenClaw's own security audit of the configuration that it runs with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audit: Option<Audit>,
    /// The last verified backup of OpenClaw.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backup: Option<Backup>,
    /// Approved pairing requests of the present document that were looked for and did not come to a
    /// pairing.
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
    pub operator_keys: Vec<OperatorPublicKey>,
}

/// One installed version of a program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InstalledProgram {
    /// Which program.
    pub kind: Component,
    /// SHA-256 of the artifact that it was installed from.
    pub sha256: Sha256,
    /// The version that the release gives it, if the agent has that release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Whether it is the current one.
    pub active: bool,
}

/// A program that was tried and rolled back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FailedProgram {
    /// Which program.
    pub kind: Component,
    /// SHA-256 of the artifact that it was installed from.
    pub sha256: Sha256,
    /// In words, for operators that do not read `failure`.
    pub reason: String,
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
    /// Which program.
    pub what: Component,
    /// The artifact that did not work.
    pub from: Sha256,
    /// The one that is back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<Sha256>,
    /// For people: why, without values.
    pub reason: String,
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
    pub unit: String,
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
    pub request: String,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_without_setup_done_means_done() {
        let older = r#"{"diskFreeBytes": 1, "memoryAvailableBytes": 2, "rebootPending": false}"#;
        let machine: Machine = serde_json::from_str(older).expect("it can be read");
        assert!(machine.setup_done);
    }
}
