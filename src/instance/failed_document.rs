//! A document that the agent cannot carry out, in words that name the culprit and the remedy. They are
//! made from the fields of the agent's report alone.

use moorage_wire::{
    Failure, Program,
    failure::{FailureCode, Stage},
    program::Component,
    report::{ConvergenceState, FailedDigest, FailureReason, PairingFailure},
};

use super::{Observed, Wanted, config_issues, observed::AgentView, older_agents, programs};
use crate::api::conditions::{ConditionType::ConfigApplied, Reason, Verdict};
use crate::problem::Problem;

pub(super) const REPLACE_ARTIFACT: &str = "correct the file on that server, use another release, or annotate moorage.dev/retry to try again";
pub(super) const REPLACE_INTEGRATION: &str = "take it out of spec.integrations, use a release that approves another version, or annotate moorage.dev/retry to try again";
const PIN_INTEGRATION: &str =
    "use a release with its artifact, or take it out of spec.integrations";
pub(super) const CORRECT_CONFIG: &str =
    "correct spec.config, or annotate moorage.dev/retry to try again";
const REPLACE_PROGRAM: &str =
    "use a release with another version, or annotate moorage.dev/retry to try again";
pub(super) const CORRECT_EITHER: &str =
    "correct spec.config, use another release, or annotate moorage.dev/retry to try again";
const MAKE_ROOM: &str = "remove data of OpenClaw that is not needed, or rebuild the instance with a larger server type (a rebuild deletes its data)";
const SEE_JOURNAL: &str = "see journalctl -u moorage-agent -u moorage-worker -u moorage-installer -u openclaw over the pool's SSH fallback";

/// What failed and what to do, before it is known whether the server retries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// For programs.
    pub reason: Reason,
    /// What happened and why.
    pub what: String,
    /// What a person does, as a clause.
    pub remedy: &'static str,
}

/// The agent gave the document up.
pub fn given_up(wanted: &Wanted, view: &AgentView, failed: &FailedDigest) -> Problem {
    let Explanation { reason, what, remedy } = of(wanted, failed);
    let kept = if view.report.desired.state == ConvergenceState::RolledBack {
        "; the last good state is back"
    } else {
        ""
    };
    Problem::new(ConfigApplied, reason, format!("{what}{kept}. {}", capitalized(remedy)))
}

/// The agent retries the document by itself.
pub fn held_up(wanted: &Wanted, failed: &FailedDigest) -> Problem {
    let Explanation { reason, what, remedy } = match failed.reason {
        FailureReason::Artifact | FailureReason::Integration => of(wanted, failed),
        _ => waiting(failed),
    };
    let message = format!("{what}; the server retries. If it lasts, {remedy}");
    Problem::new(ConfigApplied, reason, message)
}

fn waiting(failed: &FailedDigest) -> Explanation {
    let code = failed.failure.as_ref().map(|failure| failure.code);
    let why = match &failed.failure {
        Some(failure) => cause(failure),
        None => older_agents::words(&failed.message),
    };
    Explanation {
        reason: Reason::Progressing,
        what: format!("The server cannot reach the desired state yet: {why}"),
        remedy: if code == Some(FailureCode::NoSpace) { MAKE_ROOM } else { SEE_JOURNAL },
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
    (!why.is_empty()).then(|| Verdict::yes(ConfigApplied, Reason::PairingFailed, message))
}

/// Whether the agent does not retry.
pub fn is_final(observed: &Observed) -> bool {
    observed.agent.view().is_some_and(|view| {
        matches!(view.report.desired.state, ConvergenceState::RolledBack | ConvergenceState::Failed)
    })
}

/// What failed, and what to do.
pub fn of(wanted: &Wanted, failed: &FailedDigest) -> Explanation {
    match &failed.failure {
        Some(failure) => told(wanted, failed, failure),
        None => older_agents::explanation(failed),
    }
}

fn told(wanted: &Wanted, failed: &FailedDigest, failure: &Failure) -> Explanation {
    let (subject, why, place) = (subject(wanted, failure), cause(failure), place(failed));
    let (reason, what, remedy) = match failed.reason {
        FailureReason::Artifact => {
            let from = source(wanted, failure).map(|from| format!(" from {from}"));
            let from = from.unwrap_or_default();
            let what = format!("{subject} cannot be installed{from}: {why}");
            (Reason::ArtifactFailed, what, REPLACE_ARTIFACT)
        }
        FailureReason::Integration => {
            let (reason, remedy) = match failure.code {
                FailureCode::NotPinned => (Reason::IntegrationNotPinned, PIN_INTEGRATION),
                _ => (Reason::IntegrationFailed, REPLACE_INTEGRATION),
            };
            (reason, format!("{subject} cannot be installed: {why}"), remedy)
        }
        FailureReason::InvalidConfig => {
            let program = if failure.update { subject } else { "OpenClaw".to_owned() };
            let issues = config_issues::told(&wanted.config, &failed.issues);
            let issues = issues.map_or(place, |issues| format!(": {issues}"));
            let what = format!("{program} rejects the configuration{issues}");
            (Reason::ConfigRejected, what, CORRECT_CONFIG)
        }
        _ if failure.update => {
            let what = format!("The update to {subject} was rolled back: {why}");
            (Reason::RolledBack, what, REPLACE_PROGRAM)
        }
        FailureReason::Unhealthy => {
            let what = format!("OpenClaw does not work with the configuration{place}: {why}");
            (Reason::RolledBack, what, CORRECT_CONFIG)
        }
        FailureReason::System | FailureReason::Unknown => {
            let what = format!("The desired state cannot be reached{place}: {why}");
            (Reason::RolledBack, what, CORRECT_EITHER)
        }
    };
    Explanation { reason, what: capitalized(&what), remedy }
}

/// Where in the configuration.
pub(super) fn place(failed: &FailedDigest) -> String {
    failed.path.as_ref().map(|path| format!(" at {path}")).unwrap_or_default()
}

/// What it happened to, with the version that the release pins.
fn subject(wanted: &Wanted, failure: &Failure) -> String {
    match failure.program {
        Some(Component::Program(program)) => programs::titled(&wanted.release.artifacts, program),
        Some(Component::Integration) => {
            let name = failure.integration.as_ref().map_or("", |name| name.as_str());
            let mut all = wanted.release.integrations.iter();
            let version = all.find(|one| one.name == name).map(|one| one.version.as_str());
            let words = ["the integration", name, version.unwrap_or_default()];
            words.into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
        }
        Some(Component::Unknown) | None => "a program of the release".to_owned(),
    }
}

/// Where what failed is fetched from.
fn source(wanted: &Wanted, failure: &Failure) -> Option<String> {
    let release = &wanted.release;
    let url = match failure.program? {
        Component::Program(program) => &program.pinned(&release.artifacts).url,
        Component::Integration => {
            let name = failure.integration.as_ref()?.as_str();
            let one = release.integrations.iter().find(|one| one.name == name)?;
            &one.artifact.as_ref()?.url
        }
        Component::Unknown => return None,
    };
    Some(address(url))
}

/// What is wrong with a running OpenClaw, or with its connector.
pub(super) fn running(failure: &Failure) -> String {
    let what = match failure.program {
        Some(Component::Program(Program::Cloudflared)) => {
            "cloudflared has not taken up its new token"
        }
        _ => "it has not taken up its new secrets",
    };
    format!("{what}: {}", cause(failure))
}

/// Why it failed, as a clause.
pub(super) fn cause(failure: &Failure) -> String {
    let clause = match failure.code {
        FailureCode::Unreachable => "the server with the file cannot be reached",
        FailureCode::HttpStatus => "the server with the file answers with an error",
        FailureCode::InvalidUrl => "the URL cannot be used",
        FailureCode::WrongBytes => "the file is not the one that the release pins",
        FailureCode::BadArtifact => "the file is not a usable artifact",
        FailureCode::NotPinned => "the release does not pin all of it",
        FailureCode::ConfigRejected => "the configuration is rejected",
        FailureCode::ProcessEnded => "its process ended",
        FailureCode::DeadlineExceeded if failure.program == Some(Program::Cloudflared.into()) => {
            "it did not connect in time"
        }
        FailureCode::DeadlineExceeded if failure.stage == Stage::Start => {
            "it did not answer on its socket in time"
        }
        FailureCode::DeadlineExceeded => "it did not become healthy in time",
        FailureCode::NotConfirmed => "no signed call of the operator reached it in time",
        FailureCode::Interrupted => "its trial was interrupted too often",
        FailureCode::FailedBefore => "this version failed before",
        FailureCode::NoSpace => "there is too little free disk space",
        FailureCode::Deferred => "something else has to be done first",
        FailureCode::CommandFailed => "a command failed",
        FailureCode::ServiceFailed => "a part of the agent does not do its work",
        FailureCode::System => "the operating system refused",
        FailureCode::NotTakenUp => "the old value is still in use",
        FailureCode::Unknown => "the agent is newer than this operator and gives another reason",
    };
    if failure.detail.is_empty() {
        clause.to_owned()
    } else {
        format!("{clause} ({})", failure.detail)
    }
}

fn capitalized(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

/// An address without what may be secret in it: credentials and query.
fn address(url: &str) -> String {
    let url = url.split(['?', '#']).next().unwrap_or_default();
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let host = host.rsplit('@').next().unwrap_or_default();
    format!("{scheme}://{host}/{path}")
}
