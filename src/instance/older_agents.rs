//! Reports of agents that do not send their failures as fields. Their words are shown as they are, and
//! decide nothing.

use moorage_wire::{
    PlainText,
    report::{FailedDigest, FailureReason},
};

use super::failed_document::{self, Explanation};
use crate::api::conditions::Reason;

/// What such an agent says of a document that does not work.
pub(super) fn explanation(failed: &FailedDigest) -> Explanation {
    let words = words(&failed.message);
    let place = failed_document::place(failed);
    let (reason, what, remedy) = match failed.reason {
        FailureReason::Artifact => (
            Reason::ArtifactFailed,
            format!("An artifact of the release cannot be installed: {words}"),
            failed_document::REPLACE_ARTIFACT,
        ),
        FailureReason::Integration => (
            Reason::IntegrationFailed,
            format!("OpenClaw's integrations cannot be installed: {words}"),
            failed_document::REPLACE_INTEGRATION,
        ),
        FailureReason::InvalidConfig => (
            Reason::ConfigRejected,
            format!("The configuration is rejected{place}: {words}"),
            failed_document::CORRECT_CONFIG,
        ),
        FailureReason::Unhealthy | FailureReason::System | FailureReason::Unknown => (
            Reason::RolledBack,
            format!("The desired state does not work{place}: {words}"),
            failed_document::CORRECT_EITHER,
        ),
    };
    Explanation { reason, what, remedy }
}

/// The words of such an agent, fit for a status: one line of bounded length. Counts of bytes, which
/// change with every report, are rounded down to powers of two, so that the status is not written for
/// each of them.
pub(super) fn words(text: &str) -> String {
    let plain = <PlainText>::new(text);
    let words: Vec<&str> = plain.as_str().split(' ').collect();
    let is_unit = |word: &&str| {
        ["bytes", "MB", "MiB", "GB", "GiB"].contains(&word.trim_end_matches([',', '.', ':', ';']))
    };
    let round = |(index, word): (usize, &&str)| match word.parse::<u64>() {
        Ok(count) if words.get(index + 1).is_some_and(is_unit) => {
            count.checked_ilog2().map_or(0, |exponent| 1_u64 << exponent).to_string()
        }
        _ => (*word).to_owned(),
    };
    words.iter().enumerate().map(round).collect::<Vec<_>>().join(" ")
}
