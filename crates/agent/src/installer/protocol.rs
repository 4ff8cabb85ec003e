//! What the agent may ask of the installer: one JSON line in, one JSON line out, one request per
//! connection, on a Unix socket that only the agent can open. There is no verb that takes a command.

use std::{collections::BTreeSet, path::PathBuf};

use jiff::Timestamp;
use moorage_wire::{Program, Sha256, handover::HandOver};
use serde::{Deserialize, Serialize};

pub use crate::signed::SignedCall;

/// Longest request, in bytes: a desired state of 1 MiB in base64, and what goes with it.
pub const LONGEST_REQUEST: usize = 1536 * 1024;
/// Longest answer, in bytes.
pub const LONGEST_ANSWER: usize = 64 * 1024;

/// The units that the agent may control.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unit {
    /// `openclaw.service`, OpenClaw's gateway.
    Openclaw,
    /// `cloudflared.service`, the tunnel connector.
    Cloudflared,
    /// `moorage-agent.service`, the client of this protocol.
    Agent,
}

/// What the agent asks for. Unknown verbs and fields are refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    rename_all = "kebab-case",
    rename_all_fields = "kebab-case",
    tag = "verb",
    deny_unknown_fields
)]
pub enum Request {
    /// Is the unit running?
    Status {
        /// One of the fixed three.
        unit: Unit,
    },
    /// Start the unit if it does not run.
    Start {
        /// One of the fixed three.
        unit: Unit,
    },
    /// Stop the unit if it runs. The agent's own stop is answered before it happens.
    Stop {
        /// One of the fixed three.
        unit: Unit,
    },
    /// Stop and start the unit. The agent's own restart is answered before it happens.
    Restart {
        /// One of the fixed three.
        unit: Unit,
    },
    /// Replace the token that cloudflared runs with (the file that user-data wrote first,
    /// `moorage_wire::bootstrap::TUNNEL_TOKEN_PATH`), atomically. Takes effect at its next start.
    WriteTunnelToken {
        /// The run token, one line of base64.
        token: String,
    },
    /// Verify and unpack what the order pins for `kind` (all but the agent, which has
    /// [`Request::UpdateAgent`]). What is installed already is left as it is.
    Install {
        /// The operator's signed word for it.
        order: SignedCall,
        /// Which artifact of the order.
        kind: Program,
        /// The fetched file; it may be removed after the answer.
        file: PathBuf,
    },
    /// Verify and unpack the integration that the order pins with this digest. One that is installed
    /// already is left as it is.
    InstallIntegration {
        /// The operator's signed word for it.
        order: SignedCall,
        /// Which artifact of the order.
        sha256: Sha256,
        /// The fetched file; it may be removed after the answer.
        file: PathBuf,
    },
    /// Remove all installed integrations but these.
    RetainIntegrations {
        /// SHA-256 of the artifacts that stay.
        keep: BTreeSet<Sha256>,
    },
    /// Make an installed artifact the current one (all but the agent). Takes effect at the next start
    /// of what uses it. Versions but this one and the one before are removed.
    Activate {
        /// Any program but the agent.
        kind: Program,
        /// Which version of it.
        sha256: Sha256,
    },
    /// What is installed, and what became of agent updates? Answered by [`Answer::Installed`].
    Installed,
    /// Verify and try the agent that the order pins, make it the current one, answer, and then
    /// restart the agent. Without [`Request::ConfirmAgent`] from the new one the old one comes back.
    UpdateAgent {
        /// The operator's signed word for it.
        order: SignedCall,
        /// The fetched file; it may be removed after the answer.
        file: PathBuf,
    },
    /// The agent that asks was reached by a signed call of the operator: it stays. Harmless when no
    /// update is under way.
    ConfirmAgent,
    /// The operator has confirmed this agent: blank the used-up one-time key in the document that
    /// user-data left, where the agent's user can read it. Copies of user-data itself, root's alone, are
    /// cloud-init's and the cloud's. Harmless when it is blank.
    EraseEnrolmentKey,
    /// The next operator is obeyed from now on: replace the operator in the document that user-data left,
    /// as the one that is in it has signed. Harmless when it is done.
    HandOver {
        /// The word of both.
        document: Box<HandOver>,
    },
    /// Turn the machine off. Answered before it happens.
    PowerOff,
    /// Restart the machine. Answered before it happens.
    Reboot,
}

/// What the installer answers. Unknown fields are ignored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", rename_all_fields = "kebab-case", tag = "result")]
pub enum Answer {
    /// Done; there is no more to say.
    Done,
    /// Answer to [`Request::Status`], which asks systemd.
    Status {
        /// Whether its process runs.
        running: bool,
        /// Grows with every start since boot; tells a restart from a long run. Some backends count
        /// the starts, systemd's tells hundredths of a second from boot to start.
        starts: u32,
        /// How it failed, while it is down for that.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        failure: Option<UnitFailure>,
    },
    /// Answer to [`Request::Installed`], by what is on disk.
    Installed(Inventory),
    /// Refused, or not done; nothing half-made is left.
    Failed {
        /// What to make of it.
        #[serde(default)]
        reason: Reason,
        /// For the journal and the report; never holds a value.
        message: String,
    },
}

impl Answer {
    /// A failure with a reason for the agent and a text for people.
    pub fn failed(reason: Reason, message: impl Into<String>) -> Self {
        Self::Failed { reason, message: message.into() }
    }
}

/// A unit that should run and does not, because its process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct UnitFailure {
    /// How the last process ended.
    pub ending: Ending,
    /// How often systemd restarted it since somebody started it.
    pub restarts: u32,
    /// Whether systemd does not restart it any more.
    pub given_up: bool,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "how")]
pub enum Ending {
    Exited {
        /// Exit status, 0 to 255.
        status: i32,
    },
    /// A signal ended it.
    Killed {
        /// Its number, as in signal(7).
        signal: i32,
    },
    /// The kernel ended it: memory ran out.
    OutOfMemory,
    /// In another way; the journal says more.
    #[serde(other)]
    Other,
}

impl std::fmt::Display for Ending {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exited { status } => write!(to, "exit status {status}"),
            Self::Killed { signal } => write!(to, "signal {signal}"),
            Self::OutOfMemory => to.write_str("out of memory"),
            Self::Other => to.write_str("the journal says how"),
        }
    }
}

/// Why the installer refused or failed, as far as it matters what to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// The request is not understood or not allowed. Repeating it does not help.
    Refused,
    /// The order is not the operator's for this server and epoch.
    BadOrder,
    /// The file is not what the order pins: fetch it again.
    WrongBytes,
    /// The bytes are the pinned ones, but they are no usable artifact: an archive that leaves its
    /// folder, a program that does not start. Another release is needed.
    BadArtifact,
    /// This agent was tried before and rolled back; a new `retry` in the desired state lets it be retried.
    FailedBefore,
    /// Not installed, so it cannot be activated.
    NotInstalled,
    /// Something else is under way, such as an agent update that is not confirmed yet: try later.
    Busy,
    /// No room on the disk. Nothing half-made is left.
    DiskFull,
    /// The operating system or systemd failed; try again.
    #[default]
    #[serde(other)]
    System,
}

/// What is installed, and what became of agent updates.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Inventory {
    /// Every installed version of every artifact.
    pub artifacts: Vec<InstalledArtifact>,
    /// SHA-256 of every installed integration's artifact.
    #[serde(default)]
    pub integrations: BTreeSet<Sha256>,
    /// The agent update that is under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_update: Option<Sha256>,
    /// Agents that were tried and rolled back.
    #[serde(default)]
    pub failed_agents: Vec<FailedAgent>,
}

impl Inventory {
    /// The current version of an artifact.
    pub fn active(&self, kind: Program) -> Option<Sha256> {
        let mut all = self.artifacts.iter();
        all.find(|one| one.kind == kind && one.active).map(|one| one.sha256)
    }

    /// Whether a version is installed.
    pub fn has(&self, kind: Program, sha256: Sha256) -> bool {
        self.artifacts.iter().any(|one| one.kind == kind && one.sha256 == sha256)
    }
}

/// A version of a program that is installed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct InstalledArtifact {
    pub kind: Program,
    /// The digest of the file that it was installed from.
    pub sha256: Sha256,
    /// Whether it is the current one.
    pub active: bool,
}

/// An agent that was tried and rolled back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct FailedAgent {
    /// SHA-256 of its artifact.
    pub sha256: Sha256,
    /// What was wrong with it.
    pub reason: AgentFailure,
    /// The `retry` of the desired state under which it failed; it is retried under another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<String>,
    /// When, by the server's clock.
    pub at: Timestamp,
}

/// What was wrong with an agent that was tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AgentFailure {
    /// It did not say its version when tried, before anything was switched.
    Trial,
    /// It was not on its socket in time.
    NoSocket,
    /// No signed call of the operator reached it in time.
    NotConfirmed,
    /// The installer of the same binary did not start.
    Installer,
    /// A reason of a newer installer.
    #[serde(other)]
    Unknown,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_one_object_with_its_verb() {
        let activate =
            Request::Activate { kind: Program::Node, sha256: Sha256::from_bytes([1; 32]) };
        let text = serde_json::to_string(&activate).unwrap();
        let digest = "01".repeat(32);
        assert_eq!(text, format!(r#"{{"verb":"activate","kind":"node","sha256":"{digest}"}}"#));
        assert_eq!(serde_json::from_str::<Request>(&text).unwrap(), activate);
        let text = r#"{"verb":"installed"}"#;
        assert_eq!(serde_json::from_str::<Request>(text).unwrap(), Request::Installed);
    }

    #[test]
    fn unknown_verbs_and_fields_are_refused() {
        for text in [
            r#"{"verb":"run","command":"id"}"#,
            r#"{"verb":"status","unit":"ssh"}"#,
            r#"{"verb":"status","unit":"openclaw","as":"root"}"#,
        ] {
            assert!(serde_json::from_str::<Request>(text).is_err(), "{text} was taken");
        }
    }

    #[test]
    fn unknown_reasons_of_a_newer_installer_are_system_errors() {
        let text = r#"{"result":"failed","reason":"on-strike","message":"no"}"#;
        let answer: Answer = serde_json::from_str(text).unwrap();
        assert_eq!(answer, Answer::failed(Reason::System, "no"));
        let text = r#"{"result":"failed","message":"no"}"#;
        assert_eq!(serde_json::from_str::<Answer>(text).unwrap(), answer);
    }

    #[test]
    fn a_status_of_older_and_newer_installers_is_read() {
        let text = r#"{"result":"status","running":false,"starts":7}"#;
        let answer: Answer = serde_json::from_str(text).unwrap();
        assert_eq!(answer, Answer::Status { running: false, starts: 7, failure: None });
        let text = r#"{"result":"status","running":false,"starts":7,
            "failure":{"ending":{"how":"bored","of":1},"restarts":2,"given-up":true}}"#;
        let failure = UnitFailure { ending: Ending::Other, restarts: 2, given_up: true };
        let answer: Answer = serde_json::from_str(text).unwrap();
        assert_eq!(answer, Answer::Status { running: false, starts: 7, failure: Some(failure) });
    }

    #[test]
    fn an_inventory_survives_its_journey() {
        let sha256 = Sha256::from_bytes([7; 32]);
        let inventory = Inventory {
            artifacts: vec![InstalledArtifact { kind: Program::Agent, sha256, active: true }],
            integrations: BTreeSet::from([sha256]),
            agent_update: Some(sha256),
            failed_agents: vec![FailedAgent {
                sha256,
                reason: AgentFailure::NoSocket,
                retry: None,
                at: Timestamp::UNIX_EPOCH,
            }],
        };
        let text = serde_json::to_string(&Answer::Installed(inventory.clone())).unwrap();
        assert_eq!(
            serde_json::from_str::<Answer>(&text).unwrap(),
            Answer::Installed(inventory.clone())
        );
        assert_eq!(inventory.active(Program::Agent), Some(sha256));
        assert!(!inventory.has(Program::Node, sha256));
    }
}
