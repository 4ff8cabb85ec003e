//! Condition types and reasons, all of them, and the one way to merge conditions into a status.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use moorage_wire::plain_text::printable;

pub use super::reason::{Place, Reason, Severity};

/// The most characters of a message.
const LONGEST_MESSAGE: usize = 4096;

/// Condition types, in the order in which people read them and in which the first one that is
/// wrong is told. `Ready`, `Reconciling` and `Stalled` follow kstatus; the others speak of parts.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    strum::VariantArray,
    strum::IntoStaticStr,
)]
pub enum ConditionType {
    /// All is as the spec says.
    Ready,
    /// Present while there is work under way.
    Reconciling,
    /// Present while only a person can help.
    Stalled,
    /// The server exists and runs.
    ServerReady,
    /// The tunnel exists and its token was rotated.
    TunnelReady,
    /// Ingress rules and DNS records are in place.
    RoutesReady,
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
    /// All of them, in their order.
    pub const ALL: &[Self] = <Self as strum::VariantArray>::VARIANTS;

    /// The name in `status.conditions`.
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// The one of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.as_str() == name)
    }

    /// Whether it speaks of a part, not of the whole.
    pub fn is_part(self) -> bool {
        !matches!(self, Self::Ready | Self::Reconciling | Self::Stalled)
    }

    /// Whether `Ready` depends on it. A verdict of the planner on `Ready` itself counts as well.
    pub fn decides_ready(self) -> bool {
        !matches!(self, Self::Reconciling | Self::Stalled | Self::UpToDate)
    }
}

/// The three values of a condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConditionStatus {
    True,
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
    /// Which condition.
    pub kind: ConditionType,
    pub status: ConditionStatus,
    /// For programs: one of [`reason`].
    pub reason: Reason,
    /// For people: what is, and what to do next.
    pub message: String,
}

impl Verdict {
    /// The condition holds.
    pub fn yes(kind: ConditionType, reason: Reason, message: impl Into<String>) -> Self {
        Self { kind, status: ConditionStatus::True, reason, message: message.into() }
    }

    /// The condition does not hold.
    pub fn no(kind: ConditionType, reason: Reason, message: impl Into<String>) -> Self {
        Self { kind, status: ConditionStatus::False, reason, message: message.into() }
    }

    /// It cannot be told.
    pub fn unknown(kind: ConditionType, reason: Reason, message: impl Into<String>) -> Self {
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
                reason: verdict.reason.as_str().to_owned(),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transition_time_moves_only_when_the_status_changes() {
        let (first, later) = (Timestamp::UNIX_EPOCH, Timestamp::from_second(60).unwrap());
        let waiting = Verdict::no(ConditionType::Ready, Reason::Waiting, "a");
        let progressing = Verdict::no(ConditionType::Ready, Reason::Progressing, "b");
        let ready = Verdict::yes(ConditionType::Ready, Reason::Ready, "c");

        let start = merge(&[], &[waiting], Some(1), first);
        let same = merge(&start, &[progressing], Some(2), later);
        assert_eq!(same[0].last_transition_time.0, first);
        assert_eq!((same[0].message.as_str(), same[0].observed_generation), ("b", Some(2)));
        let changed = merge(&same, &[ready], Some(2), later);
        assert_eq!(changed[0].last_transition_time.0, later);
    }

    #[test]
    fn a_message_of_any_length_leaves_room_for_the_rest_of_a_status() {
        let long = Verdict::no(ConditionType::Ready, Reason::InvalidSpec, "é".repeat(100_000));
        let conditions = merge(&[], &[long], None, Timestamp::UNIX_EPOCH);
        assert!(conditions[0].message.len() <= 2 * LONGEST_MESSAGE + 30);
        assert!(conditions[0].message.ends_with("(there is more)"));
    }

    #[test]
    fn a_condition_that_is_not_stated_any_more_goes() {
        let stalled = Verdict::yes(ConditionType::Stalled, Reason::InvalidSpec, "");
        let start = merge(&[], &[stalled], None, Timestamp::UNIX_EPOCH);
        assert_eq!(merge(&start, &[], None, Timestamp::UNIX_EPOCH), vec![]);
    }

    #[test]
    fn a_message_is_one_line_that_no_terminal_obeys() {
        let message = "refused:\u{1b}[2J\n\u{202e}Ready True";
        let verdict = Verdict::no(ConditionType::Ready, Reason::AgentRefused, message);
        let conditions = merge(&[], &[verdict], None, Timestamp::UNIX_EPOCH);
        assert_eq!(conditions[0].message, "refused: [2J  Ready True");
    }
}
