//! Condition types and reasons, all of them, and the one way to merge conditions into a status.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use moorage_wire::plain_text::printable;

/// The most characters of a message.
const LONGEST_MESSAGE: usize = 4096;

/// Condition types. `Ready`, `Reconciling` and `Stalled` follow kstatus; the others speak of parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ConditionType {
    /// All is as the spec says.
    Ready,
    /// Present while there is work under way.
    Reconciling,
    /// Present while only a person can help.
    Stalled,
    /// The tunnel exists and its token was rotated.
    TunnelReady,
    /// Ingress rules and DNS records are in place.
    RoutesReady,
    /// The server exists and runs.
    ServerReady,
    /// The agent is enrolled and answers.
    AgentReady,
    /// Every credential is stored on the server.
    CredentialsDelivered,
    /// OpenClaw runs with the configuration of the spec.
    ConfigApplied,
    /// The server is what the spec would make today.
    UpToDate,
}

impl ConditionType {
    /// The name in `status.conditions`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "Ready",
            Self::Reconciling => "Reconciling",
            Self::Stalled => "Stalled",
            Self::TunnelReady => "TunnelReady",
            Self::RoutesReady => "RoutesReady",
            Self::ServerReady => "ServerReady",
            Self::AgentReady => "AgentReady",
            Self::CredentialsDelivered => "CredentialsDelivered",
            Self::ConfigApplied => "ConfigApplied",
            Self::UpToDate => "UpToDate",
        }
    }
}

/// The three values of a condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConditionStatus {
    /// It holds.
    True,
    /// It does not.
    False,
    /// It cannot be told.
    Unknown,
}

impl ConditionStatus {
    fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

/// A condition as the planner states it: without times, which belong to the merge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Of what.
    pub kind: ConditionType,
    /// Whether it holds.
    pub status: ConditionStatus,
    /// For programs: one of [`reason`].
    pub reason: &'static str,
    /// For people: what is, and what to do next.
    pub message: String,
}

impl Verdict {
    /// It holds.
    pub fn yes(kind: ConditionType, reason: &'static str, message: impl Into<String>) -> Self {
        Self { kind, status: ConditionStatus::True, reason, message: message.into() }
    }

    /// It does not.
    pub fn no(kind: ConditionType, reason: &'static str, message: impl Into<String>) -> Self {
        Self { kind, status: ConditionStatus::False, reason, message: message.into() }
    }

    /// It cannot be told.
    pub fn unknown(kind: ConditionType, reason: &'static str, message: impl Into<String>) -> Self {
        Self { kind, status: ConditionStatus::Unknown, reason, message: message.into() }
    }
}

/// Lays `verdicts` over `old`: what is not stated any more goes, and `lastTransitionTime` moves only
/// where the status changes. The result is sorted by type, so that equal states are equal documents.
pub fn merge(
    old: &[Condition],
    verdicts: &[Verdict],
    generation: Option<i64>,
    now: Timestamp,
) -> Vec<Condition> {
    let mut merged: Vec<Condition> = verdicts
        .iter()
        .map(|verdict| {
            let (name, status) = (verdict.kind.as_str(), verdict.status.as_str());
            let unchanged = old.iter().find(|known| known.type_ == name && known.status == status);
            Condition {
                type_: name.to_owned(),
                status: status.to_owned(),
                reason: verdict.reason.to_owned(),
                message: shortened(&verdict.message),
                observed_generation: generation,
                last_transition_time: unchanged.map_or_else(
                    || Time(now.round(jiff::Unit::Second).unwrap_or(now)),
                    |known| known.last_transition_time.clone(),
                ),
            }
        })
        .collect();
    merged.sort_by(|left, right| left.type_.cmp(&right.type_));
    merged
}

/// A message of a length that all conditions have room for, beside a large spec too. Parts of it are a
/// server's or a cloud's words, so it is one line, without anything that a terminal obeys.
fn shortened(message: &str) -> String {
    let Some((end, _)) = message.char_indices().nth(LONGEST_MESSAGE) else {
        return printable(message);
    };
    format!("{}… (there is more)", printable(&message[..end]))
}

/// Reasons of conditions and Events.
pub mod reason {
    /// All is as the spec says.
    pub const READY: &str = "Ready";
    /// Work is under way.
    pub const PROGRESSING: &str = "Progressing";
    /// Not looked at yet: something that comes before it is missing.
    pub const WAITING: &str = "Waiting";
    /// `spec.suspend` is true.
    pub const SUSPENDED: &str = "Suspended";
    /// Being deleted.
    pub const DELETING: &str = "Deleting";
    /// The object in etcd cannot be read.
    pub const MALFORMED: &str = "Malformed";
    /// The object is so large that etcd takes no status with it.
    pub const OBJECT_TOO_LARGE: &str = "ObjectTooLarge";
    /// A field of the spec is invalid.
    pub const INVALID_SPEC: &str = "InvalidSpec";
    /// `spec.config` sets a key that is Moorage's.
    pub const RESERVED_CONFIG_KEY: &str = "ReservedConfigKey";
    /// `spec.config` holds what looks like a literal key.
    pub const LITERAL_SECRET: &str = "LiteralSecret";
    /// `spec.config` refers to a key that only `spec.credentials` can give.
    pub const KEY_REFERENCE: &str = "KeyReference";
    /// OpenClaw rejects the configuration.
    pub const CONFIG_REJECTED: &str = "ConfigRejected";
    /// A program of the release cannot be fetched, or is not what was pinned.
    pub const ARTIFACT_FAILED: &str = "ArtifactFailed";
    /// An integration cannot be installed.
    pub const INTEGRATION_FAILED: &str = "IntegrationFailed";
    /// A configuration or an update did not work, and the last good state is back.
    pub const ROLLED_BACK: &str = "RolledBack";
    /// It works, but a pairing that the spec approves did not come about.
    pub const PAIRING_FAILED: &str = "PairingFailed";
    /// It works, but OpenClaw is not ready, or the server is short of disk or memory, or its packages
    /// are not set up.
    pub const DEGRADED: &str = "Degraded";
    /// The pool does not exist.
    pub const POOL_NOT_FOUND: &str = "PoolNotFound";
    /// The pool is not ready.
    pub const POOL_NOT_READY: &str = "PoolNotReady";
    /// The pool is full.
    pub const POOL_FULL: &str = "PoolFull";
    /// The namespace has as many instances in the pool as it may have.
    pub const NAMESPACE_QUOTA_EXCEEDED: &str = "NamespaceQuotaExceeded";
    /// The pool does not take instances of this namespace.
    pub const NAMESPACE_NOT_ALLOWED: &str = "NamespaceNotAllowed";
    /// The release does not exist.
    pub const RELEASE_NOT_FOUND: &str = "ReleaseNotFound";
    /// The release neither pins the integration nor says that it need not be.
    pub const INTEGRATION_NOT_PINNED: &str = "IntegrationNotPinned";
    /// The pool does not allow the release.
    pub const RELEASE_NOT_ALLOWED: &str = "ReleaseNotAllowed";
    /// The release does not approve the integration.
    pub const INTEGRATION_NOT_APPROVED: &str = "IntegrationNotApproved";
    /// The host name is reserved by the pool.
    pub const HOSTNAME_RESERVED: &str = "HostnameReserved";
    /// Another instance has the host name: it was granted first, or is older.
    pub const HOSTNAME_TAKEN: &str = "HostnameTaken";
    /// A DNS record that is not ours has the name.
    pub const FOREIGN_DNS_RECORD: &str = "ForeignDnsRecord";
    /// A server that is not ours has the name.
    pub const FOREIGN_SERVER: &str = "ForeignServer";
    /// An instance that was deleted with `deletionPolicy: Retain` left behind what has the name.
    pub const RETAINED: &str = "Retained";
    /// A sealed Secret has been waiting for long for an instance that is not there.
    pub const INSTANCE_MISSING: &str = "InstanceMissing";
    /// A second server has the labels of this instance's server.
    pub const DUPLICATE_SERVER: &str = "DuplicateServer";
    /// Event only: the instance keeps the id that an earlier version drew for it.
    pub const IDENTITY_MIGRATED: &str = "IdentityMigrated";
    /// Event only: something in a pool's clouds belongs to no instance or pool.
    pub const ORPHANS_FOUND: &str = "OrphansFound";
    /// Event only: an orphan was deleted, as the pool says.
    pub const ORPHAN_DELETED: &str = "OrphanDeleted";
    /// The server is protected from deletion at Hetzner.
    pub const DELETE_PROTECTED: &str = "DeleteProtected";
    /// The Secret of a token is missing.
    pub const TOKEN_SECRET_MISSING: &str = "TokenSecretMissing";
    /// A cloud refuses the token.
    pub const UNAUTHORIZED: &str = "Unauthorized";
    /// The token may not do this.
    pub const FORBIDDEN: &str = "Forbidden";
    /// The Cloudflare account has no Zero Trust organization.
    pub const ZERO_TRUST_NOT_ENABLED: &str = "ZeroTrustNotEnabled";
    /// The account's quota is used up.
    pub const QUOTA_EXCEEDED: &str = "QuotaExceeded";
    /// No server type is in stock in any location.
    pub const OUT_OF_STOCK: &str = "OutOfStock";
    /// A cloud or our own budget says to wait.
    pub const RATE_LIMITED: &str = "RateLimited";
    /// A cloud refuses what we sent.
    pub const CLOUD_REJECTED: &str = "CloudRejected";
    /// A cloud does not answer, or with an error of its own.
    pub const CLOUD_UNAVAILABLE: &str = "CloudUnavailable";
    /// The pool's firewall is gone: the token is of another project.
    pub const PROJECT_CHANGED: &str = "ProjectChanged";
    /// Many servers vanished at once.
    pub const MASS_DISAPPEARANCE: &str = "MassDisappearance";
    /// The running server is not what the spec would make.
    pub const SERVER_MISMATCH: &str = "ServerMismatch";
    /// The namespace has had as many servers made in the last hour as it may.
    pub const SERVER_RATE_EXCEEDED: &str = "ServerRateExceeded";
    /// The server replaced another one a moment ago, and is to be replaced itself.
    pub const REBUILD_TOO_SOON: &str = "RebuildTooSoon";
    /// The release is made for another processor than the server's, or than all that the pool offers.
    pub const ARCHITECTURE_MISMATCH: &str = "ArchitectureMismatch";
    /// The server is gone; keys have to be sealed again.
    pub const REDELIVERY_REQUIRED: &str = "RedeliveryRequired";
    /// The tunnel was deleted by somebody: the server cannot be told of another one.
    pub const TUNNEL_LOST: &str = "TunnelLost";
    /// The server is off.
    pub const SERVER_OFF: &str = "ServerOff";
    /// The agent does not answer.
    pub const AGENT_UNREACHABLE: &str = "AgentUnreachable";
    /// The agent has not answered once although its server was made some time ago.
    pub const AGENT_NEVER_ANSWERED: &str = "AgentNeverAnswered";
    /// Cloudflare's bot protection or WAF stops the operator's calls to the agent.
    pub const EDGE_CHALLENGE: &str = "EdgeChallenge";
    /// The agent's proof is wrong.
    pub const ENROLMENT_REFUSED: &str = "EnrolmentRefused";
    /// The master key is missing.
    pub const MASTER_KEY_MISSING: &str = "MasterKeyMissing";
    /// The server was made under another master key.
    pub const MASTER_KEY_CHANGED: &str = "MasterKeyChanged";
    /// A ciphertext that was consumed comes back again and again.
    pub const RECREATED_BY_SOURCE: &str = "RecreatedBySource";
    /// A Secret holds a key that no credential names.
    pub const UNUSED_KEY: &str = "UnusedKey";
    /// The dashboard's Secret exists and is not ours.
    pub const FOREIGN_SECRET: &str = "ForeignSecret";
    /// All credentials are stored.
    pub const DELIVERED: &str = "Delivered";
    /// The agent refuses the value.
    pub const AGENT_REFUSED: &str = "AgentRefused";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transition_time_moves_only_when_the_status_changes() {
        let (first, later) = (Timestamp::UNIX_EPOCH, Timestamp::from_second(60).unwrap());
        let waiting = Verdict::no(ConditionType::Ready, reason::WAITING, "a");
        let progressing = Verdict::no(ConditionType::Ready, reason::PROGRESSING, "b");
        let ready = Verdict::yes(ConditionType::Ready, reason::READY, "c");

        let start = merge(&[], &[waiting], Some(1), first);
        let same = merge(&start, &[progressing], Some(2), later);
        assert_eq!(same[0].last_transition_time.0, first);
        assert_eq!((same[0].message.as_str(), same[0].observed_generation), ("b", Some(2)));
        let changed = merge(&same, &[ready], Some(2), later);
        assert_eq!(changed[0].last_transition_time.0, later);
    }

    #[test]
    fn a_message_of_any_length_leaves_room_for_the_rest_of_a_status() {
        let long = Verdict::no(ConditionType::Ready, reason::INVALID_SPEC, "é".repeat(100_000));
        let conditions = merge(&[], &[long], None, Timestamp::UNIX_EPOCH);
        assert!(conditions[0].message.len() <= 2 * LONGEST_MESSAGE + 30);
        assert!(conditions[0].message.ends_with("(there is more)"));
    }

    #[test]
    fn a_condition_that_is_not_stated_any_more_goes() {
        let stalled = Verdict::yes(ConditionType::Stalled, reason::INVALID_SPEC, "");
        let start = merge(&[], &[stalled], None, Timestamp::UNIX_EPOCH);
        assert_eq!(merge(&start, &[], None, Timestamp::UNIX_EPOCH), vec![]);
    }

    #[test]
    fn a_message_is_one_line_that_no_terminal_obeys() {
        let message = "refused:\u{1b}[2J\n\u{202e}Ready True";
        let verdict = Verdict::no(ConditionType::Ready, reason::AGENT_REFUSED, message);
        let conditions = merge(&[], &[verdict], None, Timestamp::UNIX_EPOCH);
        assert_eq!(conditions[0].message, "refused: [2J  Ready True");
    }
}
