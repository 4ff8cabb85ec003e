//! The programs of a release: which the server has, which it lacks, and what became of updates. What
//! is said of them here changes only when a program does.

use jiff::Timestamp;
use moorage_wire::{
    Program,
    desired::Artifacts,
    report::{ConvergenceState, Details, FailedDigest},
};

use super::{
    Observed, Wanted, desired_state, failed_document, host_health, observed::AgentView,
    older_agents, versions,
};
use crate::api::{
    conditions::{ConditionType::UpToDate, Reason, Verdict},
    instance::{ProgramStatus, RollbackStatus},
};

/// A program with the version that the release pins.
pub fn titled(artifacts: &Artifacts, program: Program) -> String {
    format!("{} {}", program.title(), program.pinned(artifacts).version)
}

/// How far a program that should be current is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// It is not on the server yet.
    Missing,
    /// It is on the server, and another one is current.
    Installed,
}

/// The programs that are not those of the release; none where the agent does not install.
pub fn behind(artifacts: &Artifacts, details: &Details) -> Vec<(Program, Stage)> {
    if details.programs.is_empty() {
        return Vec::new();
    }
    let stage = |program: Program| {
        let artifact = program.pinned(artifacts);
        let mut all = details.programs.iter();
        match all.find(|one| one.kind == program.into() && one.sha256 == artifact.sha256) {
            Some(one) if one.active => None,
            Some(_) => Some((program, Stage::Installed)),
            None => Some((program, Stage::Missing)),
        }
    };
    Program::ALL.iter().copied().filter_map(stage).collect()
}

/// What the server is about with its programs, if anything.
pub fn progress(artifacts: &Artifacts, details: &Details) -> Option<String> {
    let behind = behind(artifacts, details);
    let at = |stage: Stage| {
        let kinds = behind.iter().filter(|(_, at)| *at == stage);
        listed(&kinds.map(|(kind, _)| titled(artifacts, *kind)).collect::<Vec<_>>())
    };
    match (at(Stage::Missing), at(Stage::Installed)) {
        (None, None) => None,
        (Some(missing), None) => Some(format!("The server fetches and installs {missing}")),
        (None, Some(installed)) => Some(format!("The server changes over to {installed}")),
        (Some(missing), Some(installed)) => Some(format!(
            "The server fetches and installs {missing}, and changes over to {installed}"
        )),
    }
}

/// `a`, `a and b`, `a, b and c`; nothing for none.
pub fn listed(items: &[String]) -> Option<String> {
    let (last, others) = items.split_last()?;
    Some(if others.is_empty() { last.clone() } else { format!("{} and {last}", others.join(", ")) })
}

/// Whether the programs of a server that is otherwise what the spec asks for are those of the release.
pub fn up_to_date(wanted: &Wanted, observed: &Observed) -> Verdict {
    let Some(view) = observed.agent.view() else {
        let message = "The server is of the right type; its agent has to say which programs it has";
        return Verdict::unknown(UpToDate, Reason::Waiting, message);
    };
    let (release, details) = (&wanted.release, &view.report.details);
    let reboot = host_health::reboot(view);
    let behind = behind(&release.artifacts, details);
    let kinds: Vec<_> = behind.iter().map(|(kind, _)| titled(&release.artifacts, *kind)).collect();
    let Some(kinds) = listed(&kinds) else {
        let message = format!("The server is what the spec asks for{reboot}");
        return Verdict::yes(UpToDate, Reason::Ready, message);
    };
    let reason = match given_up(wanted, view) {
        Some(failed) => failed_document::of(wanted, failed).reason,
        None => Reason::Progressing,
    };
    let message =
        format!("The server does not run {kinds} of release {} yet{reboot}", release.name);
    Verdict::no(UpToDate, reason, message)
}

/// Why the agent gave up what is wanted now, if it did.
fn given_up<'a>(wanted: &Wanted, view: &'a AgentView) -> Option<&'a FailedDigest> {
    let progress = &view.report.desired;
    if progress.failed.is_empty() {
        return None;
    }
    let digest = desired_state::document(wanted, view).digest();
    let over = matches!(progress.state, ConvergenceState::RolledBack | ConvergenceState::Failed);
    let current = over && progress.digest == Some(digest);
    progress.failed.iter().find(|failed| current && failed.digest == digest)
}

/// The current programs, for the status.
pub fn status(artifacts: &Artifacts, details: &Details) -> Vec<ProgramStatus> {
    let current = |program: Program| {
        let mut all = details.programs.iter();
        let one = all.find(|one| one.active && one.kind == program.into())?;
        let pinned = program.pinned(artifacts);
        let version = (pinned.sha256 == one.sha256).then(|| pinned.version.clone());
        Some(ProgramStatus {
            name: program.name().to_owned(),
            version: version.or_else(|| one.version.as_deref().and_then(versions::plausible)),
            sha256: one.sha256.to_string(),
        })
    };
    Program::ALL.iter().copied().filter_map(current).collect()
}

/// The last update that was rolled back, for the status.
pub fn last_rollback(details: &Details) -> Option<RollbackStatus> {
    let rollback = details
        .last_rollback
        .iter()
        .map(|one| (one.at, one.what, one.from, &one.failure, &one.reason));
    let failed = details
        .failed_programs
        .iter()
        .map(|one| (one.at, one.kind, one.sha256, &one.failure, &one.reason));
    let (at, kind, from, failure, reason) = rollback.chain(failed).max_by_key(|(at, ..)| *at)?;
    Some(RollbackStatus {
        program: kind.name().to_owned(),
        sha256: from.to_string(),
        reason: match failure {
            Some(failure) => failed_document::cause(failure),
            None => older_agents::words(reason),
        },
        at: to_the_second(at),
    })
}

/// When, as a status says it.
pub fn to_the_second(at: Timestamp) -> String {
    at.round(jiff::Unit::Second).unwrap_or(at).to_string()
}
