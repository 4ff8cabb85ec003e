//! What the agent says of a document that it cannot carry out, in words that name the culprit and the
//! remedy. The agent's own words may hold counts that move; they are made coarse, so that the status
//! is not written for each of them.

use moorage_wire::report::{
    ConvergenceState, FailedDigest, FailureReason, PairingFailure, ProgramKind,
};

use super::{Observed, Wanted, observed::AgentView, programs};
use crate::api::conditions::{ConditionType::ConfigApplied, Verdict, reason};

/// What failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setback {
    /// One of [`reason`].
    pub reason: &'static str,
    /// What happened and why.
    pub what: String,
    /// What a person does.
    pub remedy: &'static str,
}

/// The agent gave the document up.
pub fn given_up(wanted: &Wanted, view: &AgentView, failed: &FailedDigest) -> Verdict {
    let Setback { reason, what, remedy } = of(wanted, view, failed);
    let kept = if view.report.desired.state == ConvergenceState::RolledBack {
        "; the last good state is back"
    } else {
        ""
    };
    Verdict::no(ConfigApplied, reason, format!("{what}{kept}; {remedy}"))
}

/// The agent goes on trying.
pub fn held_up(wanted: &Wanted, view: &AgentView, trouble: &FailedDigest) -> Verdict {
    match trouble.reason {
        FailureReason::Artifact | FailureReason::Integration => {
            let Setback { reason, what, remedy } = of(wanted, view, trouble);
            let message =
                format!("{what}; the server tries again by itself, and if it lasts: {remedy}");
            Verdict::no(ConfigApplied, reason, message)
        }
        _ => {
            let why = coarse(&trouble.message);
            let message = format!("The server cannot go on yet and tries again by itself: {why}");
            Verdict::no(ConfigApplied, reason::PROGRESSING, message)
        }
    }
}

/// Devices that the spec approves and OpenClaw did not let in, if there are any.
pub fn unpaired(view: &AgentView) -> Option<Verdict> {
    let failed = &view.report.details.failed_pairings;
    let of = |refused: bool| {
        let ids = failed.iter().filter(|one| (one.reason == PairingFailure::Refused) == refused);
        let ids: Vec<_> = ids.map(|one| one.request.as_str()).collect();
        (!ids.is_empty()).then(|| ids.join(", "))
    };
    let absent = of(false).map(|ids| {
        format!(
            "no device waits with the pairing request {ids}: take it out of spec.access.approvedPairings, and approve the id that the device shows when it connects again"
        )
    });
    let refused = of(true).map(|ids| {
        format!(
            "it refused to approve the pairing request {ids}: let the device connect again, or annotate moorage.dev/retry to try again"
        )
    });
    let why: Vec<_> = absent.into_iter().chain(refused).collect();
    let message = format!("OpenClaw runs with the configuration, but {}", why.join("; "));
    (!why.is_empty()).then(|| Verdict::yes(ConfigApplied, reason::PAIRING_FAILED, message))
}

/// Whether the agent does not go on by itself.
pub fn is_final(seen: &Observed) -> bool {
    seen.agent.view().is_some_and(|view| {
        matches!(view.report.desired.state, ConvergenceState::RolledBack | ConvergenceState::Failed)
    })
}

/// The words for a failure.
pub fn of(wanted: &Wanted, view: &AgentView, failed: &FailedDigest) -> Setback {
    let (artifacts, details) = (&wanted.release.artifacts, &view.report.details);
    let taken_back = programs::taken_back(artifacts, details, failed);
    let why = coarse(&failed.message);
    match failed.reason {
        FailureReason::Artifact => artifact(wanted, view, failed),
        FailureReason::Integration => integration(wanted, &why),
        FailureReason::InvalidConfig => configuration(failed, &why),
        FailureReason::Unhealthy | FailureReason::System | FailureReason::Unknown => {
            if let Some(kind) = taken_back {
                return programs::rolled_back(artifacts, kind, &why);
            }
            let what = if failed.reason == FailureReason::Unhealthy {
                "OpenClaw did not become healthy"
            } else {
                "The desired state could not be reached"
            };
            Setback {
                reason: reason::ROLLED_BACK,
                what: format!("{what}{}: {why}", place(failed)),
                remedy: "correct spec.config, or annotate moorage.dev/retry to try again",
            }
        }
    }
}

fn place(failed: &FailedDigest) -> String {
    failed.path.as_ref().map(|path| format!(" at {path}")).unwrap_or_default()
}

fn configuration(failed: &FailedDigest, why: &str) -> Setback {
    let what = "OpenClaw rejects the configuration";
    // An agent may say it in the same words.
    let what =
        if why.contains(what) { why.to_owned() } else { format!("{what}{}: {why}", place(failed)) };
    let remedy = "correct spec.config, or annotate moorage.dev/retry to try again";
    Setback { reason: reason::CONFIG_REJECTED, what, remedy }
}

fn integration(wanted: &Wanted, why: &str) -> Setback {
    let why = why.replacen("an integration cannot be installed: ", "", 1);
    let what = format!("An integration cannot be installed: {why}");
    let mut all = wanted.release.integrations.iter();
    if all.any(|one| one.is_barred() && why.starts_with(&format!("{} ", one.name))) {
        return Setback {
            reason: reason::INTEGRATION_NOT_PINNED,
            what,
            remedy: "use a release with its artifact, or take it out of spec.integrations",
        };
    }
    Setback {
        reason: reason::INTEGRATION_FAILED,
        what,
        remedy: "take it out of spec.integrations, use a release that approves another version, or annotate moorage.dev/retry to try again",
    }
}

fn artifact(wanted: &Wanted, view: &AgentView, failed: &FailedDigest) -> Setback {
    let artifacts = &wanted.release.artifacts;
    let culprit = programs::ORDER
        .into_iter()
        .find(|kind| is_named(wanted, *kind, &failed.message))
        .or_else(|| {
            // They are fetched in order.
            let behind = programs::behind(artifacts, &view.report.details);
            behind.first().map(|(kind, _)| *kind)
        });
    let source = culprit.and_then(|kind| Some((kind, programs::pinned(artifacts, kind)?)));
    let what = match source {
        Some((kind, artifact)) => {
            let prefix = format!("{} {}: ", artifact.version, artifact.sha256);
            let why = coarse(failed.message.strip_prefix(&prefix).unwrap_or(&failed.message));
            let (program, address) = (programs::titled(artifacts, kind), address(&artifact.url));
            // An agent may begin with the address.
            if why.starts_with(&address) {
                format!("{program} from {why}")
            } else {
                format!("{program} from {address} cannot be installed: {why}")
            }
        }
        None => {
            format!("A program of the release cannot be installed: {}", coarse(&failed.message))
        }
    };
    let remedy = "mend the file on that server, use another release, or annotate moorage.dev/retry to try again";
    Setback { reason: reason::ARTIFACT_FAILED, what, remedy }
}

fn is_named(wanted: &Wanted, kind: ProgramKind, message: &str) -> bool {
    programs::pinned(&wanted.release.artifacts, kind).is_some_and(|artifact| {
        message.contains(&artifact.sha256.to_string())
            || message.split_whitespace().any(|word| word == address(&artifact.url))
    })
}

/// An address without what may be secret in it: credentials and query.
fn address(url: &str) -> String {
    let url = url.split(['?', '#']).next().unwrap_or_default();
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let host = host.rsplit('@').next().unwrap_or_default();
    format!("{scheme}://{host}/{path}")
}

/// Counts of bytes in the words of an agent, rounded down to powers of two.
pub fn coarse(text: &str) -> String {
    let words: Vec<&str> = text.split(' ').collect();
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
