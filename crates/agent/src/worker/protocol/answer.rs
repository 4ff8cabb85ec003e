//! What the worker answers.

use std::collections::BTreeSet;

use moorage_wire::{CredentialName, Failure, Sha256, report::ConfigIssue};
use serde::{Deserialize, Serialize};

use super::PairingId;

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", rename_all_fields = "kebab-case", tag = "result")]
pub(crate) enum Answer {
    Done,
    /// What credentials are sealed to.
    Certificate {
        /// PEM.
        certificate: String,
    },
    /// Nonces, in the order in which they are to be given.
    Nonces {
        /// Hexadecimal.
        nonces: Vec<String>,
    },
    /// Not done, and nothing has changed: it is not signed by the operator, or it is invalid.
    Refused {
        /// For the agent.
        reason: Refusal,
        /// For people; never holds a value.
        message: String,
    },
    /// The credentials that are there.
    Secrets(Held),
    /// The digest of the live configuration, if there is one.
    Config {
        /// Over its bytes.
        sha256: Option<Sha256>,
    },
    /// What `OpenClaw` says of itself.
    Version {
        /// As it says it.
        version: String,
    },
    /// What `OpenClaw` thinks of a configuration.
    Validation(Validation),
    /// Whether the running `OpenClaw` uses the live configuration.
    Applied {
        applied: bool,
    },
    /// What became of a reload.
    Reloaded(Reload),
    /// A verified backup was made.
    Backup {
        /// Its size in bytes.
        bytes: u64,
    },
    /// The file system of `OpenClaw`'s state.
    Room {
        /// Bytes free.
        free: u64,
        /// Bytes that the state takes.
        used: u64,
    },
    /// All of them are installed.
    Integrations {
        /// The ids under which the configuration knows the plugins.
        plugins: BTreeSet<String>,
    },
    /// What became of pairing requests.
    Pairings {
        /// Those that were let in just now.
        approved: BTreeSet<PairingId>,
        /// Those that OpenClaw does not let in. The others do not wait.
        refused: BTreeSet<PairingId>,
    },
    /// How many findings an audit had.
    Audit {
        critical: u64,
        warn: u64,
    },
    Failed {
        /// For the journal and the report; never holds a value.
        message: String,
        /// As fields; absent from older workers.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        failure: Option<Failure>,
    },
}

/// Why the worker refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Refusal {
    /// The signature is not the operator's, or for another server, call or body.
    Signature,
    /// The operator signed with a nonce that is none of the worker's last ones, or a later call was
    /// taken: it has to be signed again.
    Stale,
    /// It is not known who the operator is.
    Unprepared,
    /// Such a document is not kept.
    UnknownDocument,
    /// What is signed is not what the call takes.
    Invalid,
    /// The value is sealed to another key, or for another name or server.
    CannotUnseal,
    /// The value is not of the format of its type.
    InvalidFormat,
    /// There is another key already.
    OtherKey,
}

/// Which credentials are on the server.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct Held {
    /// The names in `secrets.json`.
    pub(crate) names: BTreeSet<CredentialName>,
    /// Whether there is the file of a Google OAuth client.
    pub(crate) google_client: bool,
}

/// What `OpenClaw` thinks of a configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "verdict")]
pub(crate) enum Validation {
    Valid,
    /// It rejects it.
    Invalid {
        /// At least what it names, at most [`MOST_ISSUES`](moorage_wire::report::MOST_ISSUES).
        issues: Vec<ConfigIssue>,
    },
}

/// What became of a reload of secrets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "outcome")]
pub(crate) enum Reload {
    /// `OpenClaw` uses what is on disk; if its gateway has a token, it was seen to.
    Done,
    /// Only a start helps.
    RestartNeeded {
        /// What its gateway was seen to do.
        because: Stale,
    },
}

/// What a gateway does that has not read its new token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Stale {
    /// It refuses the new token.
    RefusesNew,
    /// It still takes the old one.
    TakesOld,
}
