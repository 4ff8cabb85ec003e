//! The agent's report: what is on the server and how it is. Versions, digests and health; never a
//! value.
//!
//! What is read is bounded, since whoever has the server writes it: texts are one line of some length, and
//! of lists only the beginning counts. Fields are only ever added, with a default for agents that do not send
//! them. Where a `failure` stands beside a `message` or `reason`, the text is for operators that do not read
//! the fields.

mod details;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    bounded,
    credential::CredentialName,
    digest::Sha256,
    enrolment::AgentIdentity,
    failure::Failure,
    plain_text::{PlainText, VersionText},
    receipt::Receipt,
};

pub use details::{
    Audit, Backup, Details, FailedPairing, FailedProgram, InstalledProgram, PairingFailure,
    Rollback, UnitReport,
};

// What is read of each list. No honest agent has more, but older ones name all that was ever consumed: of a
// ciphertext that is not among these they say so when it is handed in again.
const MOST_CREDENTIALS: usize = 128;
const MOST_CONSUMED: usize = 512;
const MOST_PROGRAMS: usize = 64;
const MOST_FAILED: usize = 32;
const MOST_UNITS: usize = 8;
const MOST_PAIRINGS: usize = 100;
const MOST_KEYS: usize = 8;

/// The most points of a rejected configuration that an agent tells.
pub const MOST_ISSUES: usize = 20;

/// Answer of `GET /v1/report`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// The agent's keys, with the proof that survives enrolment.
    pub identity: AgentIdentity,
    /// The agent's own version.
    pub agent_version: VersionText,
    /// How far the agent is with the desired state.
    pub desired: DesiredProgress,
    /// One receipt per credential that is stored now.
    #[serde(deserialize_with = "bounded::list::<_, _, MOST_CREDENTIALS>")]
    pub receipts: Vec<Receipt>,
    /// The ciphertexts that were consumed, so that a replay is recognised: the newest of each credential,
    /// and of all that ever were.
    #[serde(deserialize_with = "bounded::list::<_, _, MOST_CONSUMED>")]
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
    #[serde(default, deserialize_with = "bounded::list::<_, _, MOST_FAILED>")]
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
    pub message: PlainText,
    /// What happened, as fields; absent from older agents, and for failures that they recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// The first offending path in the configuration, if one was named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PlainText<256>>,
    /// All that OpenClaw has against the configuration; empty from older agents, and if it is not what failed.
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "bounded::list::<_, _, MOST_ISSUES>"
    )]
    pub issues: Vec<ConfigIssue>,
    /// When it was given up, or last tried; by the server's clock.
    pub at: Timestamp,
}

/// A point of a configuration that OpenClaw rejects.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConfigIssue {
    /// Where, with dots between the keys; empty for the document as a whole.
    pub path: PlainText<256>,
    /// What OpenClaw says of it, without values of the configuration.
    pub message: PlainText<256>,
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
    pub version: Option<VersionText>,
    /// For people, when something is wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<PlainText>,
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
    #[serde(deserialize_with = "bounded::list::<_, _, MOST_KEYS>")]
    pub token_sha256: Vec<Sha256>,
}

/// The machine's own state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Machine {
    /// Bytes free on the file system of OpenClaw's state.
    pub disk_free_bytes: u64,
    /// What the kernel says that programs can still get (`MemAvailable`).
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{
        identity::{Epoch, InstanceId},
        plain_text::LONGEST_TEXT,
        secret::Secret,
        signature::AgentKey,
    };

    #[test]
    fn a_report_without_setup_done_means_done() {
        let older = r#"{"diskFreeBytes": 1, "memoryAvailableBytes": 2, "rebootPending": false}"#;
        let machine: Machine = serde_json::from_str(older).expect("it can be read");
        assert!(machine.setup_done);
    }

    /// What whoever took a server over would send to fill the operator's memory and its statuses.
    fn hostile() -> serde_json::Value {
        let key = AgentKey::from_seed(&Secret::from([1; 32]));
        let long = "\u{1b}[2J\n\u{202e}".repeat(100_000);
        let many = |item: serde_json::Value| vec![item; 5_000];
        let (digest, at) = (Sha256::of(b"x"), Timestamp::UNIX_EPOCH);
        let server = (InstanceId::from_bytes([1; 16]), Epoch::from_bytes([2; 8]));
        let failure = json!({
            "program": "integration", "integration": long, "stage": "start", "code": "system",
            "detail": long,
        });
        let receipt = json!({
            "instanceId": server.0, "epoch": server.1, "credential": "key", "type": "AnthropicApiKey",
            "sourceSha256": digest, "storedAt": at, "signature": "s".repeat(1_000),
        });
        json!({
            "identity": {
                "instanceId": server.0, "epoch": server.1, "publicKey": key.public_key(),
                "sealingCertificate": long, "proof": digest,
                "tunnelCertificate": {"certificate": long, "signature": long},
            },
            "agentVersion": long,
            "desired": {"digest": digest, "state": long, "failed": many(json!({
                "digest": digest, "reason": "system", "message": "m", "path": "p", "failure": null,
                "at": at,
            })).into_iter().chain([json!({
                "digest": digest, "reason": "system", "message": long, "path": long, "at": at,
                "failure": failure,
            })]).rev().collect::<Vec<_>>()},
            "receipts": many(receipt),
            "consumed": many(json!({"credential": "a".repeat(40), "sourceSha256": digest})),
            "openclaw": {"state": "ready", "version": long, "message": long, "failure": failure},
            "cloudflared": {"connected": true, "tokenSha256": many(json!(digest))},
            "machine": {"diskFreeBytes": 1, "memoryAvailableBytes": 2, "rebootPending": false},
            "details": {
                "programs": many(json!({
                    "kind": "agent", "sha256": digest, "version": "1", "active": true,
                })),
                "failedPrograms": many(json!({
                    "kind": "agent", "sha256": digest, "reason": "r", "at": at,
                })),
                "lastRollback": {"what": "agent", "from": digest, "reason": long, "at": at},
                "units": many(json!({"unit": "u", "running": true, "starts": 1})),
                "failedPairings": many(json!({"request": "r", "reason": "refused"})),
                "operatorKeys": many(json!(key.public_key())),
            },
        })
    }

    #[test]
    fn a_report_of_any_size_is_read_within_bounds() {
        let report = hostile();
        assert!(report.to_string().len() > 4_000_000);
        let report: Report = serde_json::from_str(&report.to_string()).expect("it can be read");
        assert_eq!(report.agent_version.len(), 64);
        assert_eq!(report.receipts.len(), MOST_CREDENTIALS);
        assert_eq!(report.consumed.len(), MOST_CONSUMED);
        assert_eq!(report.desired.failed.len(), MOST_FAILED);
        assert_eq!(report.details.failed_pairings.len(), MOST_PAIRINGS);
        let shown = [
            report.agent_version.as_str(),
            report.openclaw.version.as_ref().unwrap(),
            report.openclaw.message.as_ref().unwrap(),
            &report.desired.failed[0].message,
            report.desired.failed[0].path.as_ref().unwrap(),
            &report.details.last_rollback.as_ref().unwrap().reason,
        ];
        for text in shown {
            assert!(text.len() <= LONGEST_TEXT, "{text}");
            assert!(!text.contains(['\u{1b}', '\n', '\u{202e}']), "{text:?}");
        }
        assert!(report.identity.sealing_certificate.len() <= 8 * 1024);
        assert!(report.receipts.iter().all(|receipt| receipt.signature.len() <= 128));
        let kept = serde_json::to_string(&report).unwrap();
        assert!(kept.len() <= 256 * 1024, "{} bytes", kept.len());
        assert_eq!(serde_json::from_str::<Report>(&kept).unwrap(), report);
    }
}
