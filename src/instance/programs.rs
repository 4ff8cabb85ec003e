//! The programs of a release: which the server has, which it lacks, and what became of updates. What
//! is said of them here changes only when a program does.

use jiff::Timestamp;
use moorage_wire::{
    Sha256,
    desired::{Artifact, Artifacts},
    report::{ConvergenceState, Details, FailedDigest, InstalledProgram, ProgramKind},
};

use super::{
    Observed, Wanted, desired_state, machine,
    observed::AgentView,
    setback::{self, Setback},
};
use crate::api::{
    conditions::{ConditionType::UpToDate, Verdict, reason},
    instance::{ProgramStatus, RollbackStatus},
};

/// In the order in which a server gets them.
pub const ORDER: [ProgramKind; 4] =
    [ProgramKind::Node, ProgramKind::Openclaw, ProgramKind::Cloudflared, ProgramKind::Agent];

/// What a release pins of this kind.
pub fn pinned(artifacts: &Artifacts, kind: ProgramKind) -> Option<&Artifact> {
    match kind {
        ProgramKind::Openclaw => Some(&artifacts.openclaw),
        ProgramKind::Node => Some(&artifacts.node),
        ProgramKind::Cloudflared => Some(&artifacts.cloudflared),
        ProgramKind::Agent => Some(&artifacts.agent),
        ProgramKind::Unknown => None,
    }
}

/// A program's name for people.
pub fn title(kind: ProgramKind) -> &'static str {
    match kind {
        ProgramKind::Openclaw => "OpenClaw",
        ProgramKind::Node => "Node.js",
        ProgramKind::Cloudflared => "cloudflared",
        ProgramKind::Agent => "the agent",
        ProgramKind::Unknown => "a program",
    }
}

/// A program's name in a status.
fn name(kind: ProgramKind) -> &'static str {
    match kind {
        ProgramKind::Openclaw => "openclaw",
        ProgramKind::Node => "node",
        ProgramKind::Cloudflared => "cloudflared",
        ProgramKind::Agent => "agent",
        ProgramKind::Unknown => "unknown",
    }
}

/// A program with the version that the release pins.
pub fn titled(artifacts: &Artifacts, kind: ProgramKind) -> String {
    let version = pinned(artifacts, kind).map_or("", |artifact| artifact.version.as_str());
    format!("{} {version}", title(kind))
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
pub fn behind(artifacts: &Artifacts, details: &Details) -> Vec<(ProgramKind, Stage)> {
    if details.programs.is_empty() {
        return Vec::new();
    }
    let stage = |kind: ProgramKind| {
        let artifact = pinned(artifacts, kind)?;
        let mut all = details.programs.iter();
        match all.find(|one| one.kind == kind && one.sha256 == artifact.sha256) {
            Some(one) if one.active => None,
            Some(_) => Some((kind, Stage::Installed)),
            None => Some((kind, Stage::Missing)),
        }
    };
    ORDER.into_iter().filter_map(stage).collect()
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
pub fn up_to_date(wanted: &Wanted, seen: &Observed) -> Verdict {
    let Some(view) = seen.agent.view() else {
        let message = "The server is of the right type; its agent has to say which programs it has";
        return Verdict::unknown(UpToDate, reason::WAITING, message);
    };
    let (release, details) = (&wanted.release, &view.report.details);
    let reboot = machine::reboot(view);
    let behind = behind(&release.artifacts, details);
    let kinds: Vec<_> = behind.iter().map(|(kind, _)| titled(&release.artifacts, *kind)).collect();
    let Some(kinds) = listed(&kinds) else {
        let message = format!("The server is what the spec asks for{reboot}");
        return Verdict::yes(UpToDate, reason::READY, message);
    };
    let reason = match given_up(wanted, view) {
        Some(failed) => setback::of(wanted, view, failed).reason,
        None => reason::PROGRESSING,
    };
    let message =
        format!("The server does not run {kinds} of release {} yet{reboot}", release.name);
    Verdict::no(UpToDate, reason, message)
}

/// Why the agent gave up what is wanted now, if it did.
fn given_up<'a>(wanted: &Wanted, view: &'a AgentView) -> Option<&'a FailedDigest> {
    let progress = &view.report.desired;
    let digest = desired_state::document(wanted, view).digest();
    let over = matches!(progress.state, ConvergenceState::RolledBack | ConvergenceState::Failed);
    let current = over && progress.digest == Some(digest);
    progress.failed.iter().find(|failed| current && failed.digest == digest)
}

/// The program whose update the failure of a document took back, if it is that.
pub fn taken_back(
    artifacts: &Artifacts,
    details: &Details,
    failed: &FailedDigest,
) -> Option<ProgramKind> {
    let is_pinned = |kind: ProgramKind, sha256: &Sha256| {
        pinned(artifacts, kind).is_some_and(|artifact| artifact.sha256 == *sha256)
    };
    let rollback = details.last_rollback.as_ref().filter(|rollback| {
        rollback.reason == failed.message && is_pinned(rollback.what, &rollback.from)
    });
    let program = details.failed_programs.iter().find(|program| {
        is_pinned(program.kind, &program.sha256) && failed.message.ends_with(&program.reason)
    });
    rollback.map(|rollback| rollback.what).or(program.map(|program| program.kind))
}

/// The current programs, for the status.
pub fn status(artifacts: &Artifacts, details: &Details) -> Vec<ProgramStatus> {
    let current = |kind: ProgramKind| {
        let one = details.programs.iter().find(|one| one.active && one.kind == kind)?;
        Some(ProgramStatus {
            name: name(kind).to_owned(),
            version: version(artifacts, one),
            sha256: one.sha256.to_string(),
        })
    };
    ORDER.into_iter().filter_map(current).collect()
}

fn version(artifacts: &Artifacts, one: &InstalledProgram) -> Option<String> {
    let artifact = pinned(artifacts, one.kind).filter(|artifact| artifact.sha256 == one.sha256);
    artifact.map(|artifact| artifact.version.clone()).or_else(|| one.version.clone())
}

/// The last update that was taken back, for the status.
pub fn last_rollback(details: &Details) -> Option<RollbackStatus> {
    let rollback =
        details.last_rollback.iter().map(|one| (one.at, one.what, one.from, &one.reason));
    let failed =
        details.failed_programs.iter().map(|one| (one.at, one.kind, one.sha256, &one.reason));
    let (at, kind, from, reason) = rollback.chain(failed).max_by_key(|(at, ..)| *at)?;
    Some(RollbackStatus {
        program: name(kind).to_owned(),
        sha256: from.to_string(),
        reason: setback::coarse(reason),
        at: to_the_second(at),
    })
}

/// When, as a status says it.
pub fn to_the_second(at: Timestamp) -> String {
    at.round(jiff::Unit::Second).unwrap_or(at).to_string()
}

/// What failed, for a verdict.
pub fn rolled_back(artifacts: &Artifacts, kind: ProgramKind, why: &str) -> Setback {
    let what = titled(artifacts, kind);
    let why = why.strip_prefix(&format!("{what}: ")).unwrap_or(why);
    Setback {
        reason: reason::ROLLED_BACK,
        what: format!("The update to {what} was rolled back: {why}"),
        remedy: "use a release with another version, or annotate moorage.dev/retry to try again",
    }
}
