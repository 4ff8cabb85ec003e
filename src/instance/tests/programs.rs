//! Programs, and updates that were taken back: what the conditions say of them, and that they do not
//! say it again at every report.

use moorage_wire::{
    Sha256,
    report::{
        Audit, Backup, ConvergenceState, FailedDigest, FailedProgram, FailureReason,
        InstalledProgram, ProgramKind, Rollback, UnitReport,
    },
};
use proptest::prelude::*;
use rstest::rstest;

use crate::{
    api::{OpenClawInstanceStatus, conditions::reason, instance::Phase},
    instance::{
        Observed, Step, Wanted,
        fixtures::{nothing, now, plan_of, ready, status_of, walk, wanted},
        observed::{AgentSight, AgentView},
    },
};

const GIB: u64 = 1024 * 1024 * 1024;

pub(super) fn find(status: &OpenClawInstanceStatus, kind: &str) -> (String, String, String) {
    let found = status.conditions.iter().find(|known| known.type_ == kind).unwrap();
    (found.status.clone(), found.reason.clone(), found.message.clone())
}

fn program(kind: ProgramKind, sha256: Sha256, active: bool) -> InstalledProgram {
    InstalledProgram { kind, sha256, version: None, active }
}

/// A release with another version of this program.
fn with_other(wanted: &Wanted, kind: ProgramKind) -> Wanted {
    let mut wanted = wanted.clone();
    let artifacts = &mut wanted.release.artifacts;
    let artifact = match kind {
        ProgramKind::Openclaw => &mut artifacts.openclaw,
        ProgramKind::Node => &mut artifacts.node,
        ProgramKind::Cloudflared => &mut artifacts.cloudflared,
        _ => &mut artifacts.agent,
    };
    artifact.version = "2".to_owned();
    artifact.sha256 = other(kind);
    artifact.url = "https://user:word@artifacts.example/two?token=hidden".to_owned();
    wanted
}

fn other(kind: ProgramKind) -> Sha256 {
    Sha256::of(format!("{kind:?} 2").as_bytes())
}

/// A ready server that was just sent a release with another version of this program.
fn told(wanted: &Wanted) -> Observed {
    let old = crate::instance::fixtures::wanted();
    let mut seen = ready(&old);
    let plan = plan_of(wanted, &seen);
    let [Step::PutDesired { document, .. }] = &plan.steps[..] else { panic!("{plan:?}") };
    let progress = &mut seen.view_mut().report.desired;
    progress.digest = Some(document.digest());
    progress.state = ConvergenceState::Converging;
    seen
}

fn fail(view: &mut AgentView, state: ConvergenceState, reason: FailureReason, message: &str) {
    let progress = &mut view.report.desired;
    progress.state = state;
    let digest = progress.digest.expect("the agent has a document");
    let message = message.to_owned();
    progress.failed = vec![FailedDigest { digest, reason, message, path: None, at: now() }];
}

#[test]
fn a_server_with_the_programs_of_its_release_is_up_to_date() {
    let status = status_of(&wanted(), &ready(&wanted()));
    assert_eq!(find(&status, "UpToDate").0, "True");
    let programs = status.agent.unwrap().programs;
    let programs: Vec<_> =
        programs.iter().map(|one| (one.name.as_str(), one.version.as_deref())).collect();
    let expected = ["node", "openclaw", "cloudflared", "agent"].map(|name| (name, Some("1")));
    assert_eq!(programs, expected);
}

#[test]
fn a_server_that_installs_nothing_itself_is_judged_by_its_type_alone() {
    let seen = ready(&wanted()).with_view(|view| view.report.details.programs.clear());
    let status = status_of(&wanted(), &seen);
    assert_eq!(find(&status, "UpToDate").0, "True");
    assert_eq!(status.agent.unwrap().programs, []);
}

#[test]
fn of_a_silent_agent_nobody_knows_what_it_runs() {
    let seen = Observed { agent: AgentSight::NotAsked, ..ready(&wanted()) };
    assert_eq!(find(&status_of(&wanted(), &seen), "UpToDate").0, "Unknown");
}

#[test]
fn the_first_programs_are_named_while_they_come() {
    let wanted = wanted();
    let seen = walk(&wanted, nothing(), |step| matches!(step, Step::RotateTunnel(_)));
    let status = status_of(&wanted, &seen);
    let (holds, reason, message) = find(&status, "ConfigApplied");
    assert_eq!((holds.as_str(), reason.as_str()), ("False", reason::PROGRESSING));
    assert_eq!(message, "The server fetches and installs Node.js 1 and OpenClaw 1");
}

#[rstest]
#[case::openclaw(ProgramKind::Openclaw, "OpenClaw 2")]
#[case::node(ProgramKind::Node, "Node.js 2")]
#[case::cloudflared(ProgramKind::Cloudflared, "cloudflared 2")]
#[case::agent(ProgramKind::Agent, "the agent 2")]
fn an_update_is_named_from_the_new_release_to_the_new_program(
    #[case] kind: ProgramKind,
    #[case] title: &str,
) {
    let wanted = with_other(&wanted(), kind);
    let before = status_of(&wanted, &ready(&crate::instance::fixtures::wanted()));
    assert_eq!(find(&before, "UpToDate").1, reason::PROGRESSING);
    assert!(find(&before, "UpToDate").2.contains(title));

    let mut seen = told(&wanted);
    let message = |seen: &Observed| find(&status_of(&wanted, seen), "ConfigApplied").2;
    assert_eq!(message(&seen), format!("The server fetches and installs {title}"));
    seen.view_mut().report.details.programs.push(program(kind, other(kind), false));
    assert_eq!(message(&seen), format!("The server changes over to {title}"));

    let view = seen.view_mut();
    for one in &mut view.report.details.programs {
        one.active = one.kind != kind || one.sha256 == other(kind);
    }
    view.report.desired.state = ConvergenceState::Converged;
    let status = status_of(&wanted, &seen);
    assert_eq!((find(&status, "UpToDate").0.as_str(), status.phase), ("True", Some(Phase::Ready)));
}

#[rstest]
#[case::wrong_bytes(
    ConvergenceState::RolledBack,
    "2 {sha256}: https://artifacts.example/two is not what the release pins: SHA-256 differs",
    "OpenClaw 2 from https://artifacts.example/two is not what the release pins: SHA-256 differs; the last good state is back; mend the file on that server, use another release, or annotate moorage.dev/retry",
    Phase::Stalled
)]
#[case::refused_by_the_installer(
    ConvergenceState::Failed,
    "2 {sha256}: a path leaves its folder",
    "OpenClaw 2 from https://artifacts.example/two cannot be installed: a path leaves its folder; mend",
    Phase::Stalled
)]
#[case::server_down(
    ConvergenceState::Converging,
    "https://artifacts.example/two cannot be fetched after 5000 bytes: connection refused",
    "OpenClaw 2 from https://artifacts.example/two cannot be fetched after 4096 bytes: connection refused; the server tries again by itself",
    Phase::Updating
)]
#[case::not_named(
    ConvergenceState::Converging,
    "no route to host",
    "OpenClaw 2 from https://artifacts.example/two cannot be installed: no route to host; the server tries",
    Phase::Updating
)]
fn an_artifact_that_fails_is_named_with_its_address_and_the_remedy(
    #[case] state: ConvergenceState,
    #[case] message: &str,
    #[case] expected: &str,
    #[case] phase: Phase,
) {
    let wanted = with_other(&wanted(), ProgramKind::Openclaw);
    let message = message.replace("{sha256}", &other(ProgramKind::Openclaw).to_string());
    let seen = told(&wanted).with_view(|view| fail(view, state, FailureReason::Artifact, &message));
    let status = status_of(&wanted, &seen);
    let (holds, reason, message) = find(&status, "ConfigApplied");
    assert_eq!((holds.as_str(), reason.as_str()), ("False", reason::ARTIFACT_FAILED));
    assert!(message.starts_with(expected), "{message}");
    assert!(!message.contains("hidden") && !message.contains("word@"), "{message}");
    assert_eq!(status.phase, Some(phase));
    assert_eq!(find(&status, "UpToDate").0, "False");
}

#[rstest]
#[case::at_an_update(ConvergenceState::RolledBack, Phase::Stalled)]
#[case::tried_again(ConvergenceState::Converging, Phase::Updating)]
fn an_integration_that_fails_has_a_reason_of_its_own(
    #[case] state: ConvergenceState,
    #[case] phase: Phase,
) {
    let wanted = wanted();
    let words = "an integration cannot be installed: no version 3 of x";
    let seen =
        ready(&wanted).with_view(|view| fail(view, state, FailureReason::Integration, words));
    let status = status_of(&wanted, &seen);
    let (_, reason, message) = find(&status, "Ready");
    assert_eq!(reason, reason::INTEGRATION_FAILED);
    assert!(
        message.starts_with("An integration cannot be installed: no version 3 of x"),
        "{message}"
    );
    assert!(message.contains("spec.integrations"), "{message}");
    assert_eq!(status.phase, Some(phase));
}

#[rstest]
#[case::openclaw(
    ProgramKind::Openclaw,
    "OpenClaw 2: OpenClaw did not start within 90 s",
    "OpenClaw 2 was rolled back: OpenClaw did not start within 90 s"
)]
#[case::cloudflared(
    ProgramKind::Cloudflared,
    "cloudflared 2 did not connect within 60 s",
    "cloudflared 2 was rolled back: cloudflared 2 did not connect within 60 s"
)]
#[case::agent(
    ProgramKind::Agent,
    "the agent 2: it did not answer on its socket",
    "the agent 2 was rolled back: it did not answer on its socket"
)]
fn an_update_that_was_taken_back_says_of_what_and_why(
    #[case] kind: ProgramKind,
    #[case] words: &str,
    #[case] expected: &str,
) {
    let wanted = with_other(&wanted(), kind);
    let seen = told(&wanted).with_view(|view| {
        fail(view, ConvergenceState::RolledBack, FailureReason::Unhealthy, words);
        let (from, at) = (other(kind), now());
        let details = &mut view.report.details;
        if kind == ProgramKind::Agent {
            let reason = "it did not answer on its socket".to_owned();
            details.failed_programs.push(FailedProgram { kind, sha256: from, reason, at });
        } else {
            let reason = words.to_owned();
            details.last_rollback = Some(Rollback { what: kind, from, to: None, reason, at });
        }
    });
    let status = status_of(&wanted, &seen);
    let (holds, reason, message) = find(&status, "ConfigApplied");
    assert_eq!((holds.as_str(), reason.as_str()), ("False", reason::ROLLED_BACK));
    let expected = format!("The update to {expected}; the last good state is back; use a release");
    assert!(message.starts_with(&expected), "{message}");
    assert!(message.contains("moorage.dev/retry"), "{message}");
    assert_eq!(find(&status, "UpToDate").1, reason::ROLLED_BACK);
    assert_eq!(status.phase, Some(Phase::Stalled));
    let rollback = status.agent.unwrap().last_rollback.unwrap();
    assert_eq!(
        (rollback.sha256, rollback.at.as_str()),
        (other(kind).to_string(), "2026-09-01T12:00:00Z")
    );
}

#[test]
fn a_rollback_of_another_release_is_kept_in_mind_and_blamed_for_nothing() {
    let wanted = wanted();
    let seen = ready(&wanted).with_view(|view| {
        let (what, from) = (ProgramKind::Openclaw, Sha256::of(b"older"));
        let reason = "why".to_owned();
        let rollback = Rollback { what, from, to: None, reason, at: now() };
        view.report.details.last_rollback = Some(rollback);
    });
    let status = status_of(&wanted, &seen);
    assert_eq!(status.phase, Some(Phase::Ready));
    assert_eq!(status.agent.unwrap().last_rollback.unwrap().program, "openclaw");
}

#[test]
fn what_keeps_a_server_from_going_on_is_told_without_figures_that_move() {
    let wanted = wanted();
    let held_up = |free: u64| {
        let words = format!("an update needs 3000 MB on the disk, and {free} MB are free");
        let state = ConvergenceState::Converging;
        ready(&wanted).with_view(|view| fail(view, state, FailureReason::System, &words))
    };
    let status = status_of(&wanted, &held_up(1100));
    let (_, reason, message) = find(&status, "ConfigApplied");
    assert_eq!(reason, reason::PROGRESSING);
    assert!(message.ends_with("needs 2048 MB on the disk, and 1024 MB are free"), "{message}");
    assert_eq!(status, status_of(&wanted, &held_up(1200)));
}

/// What moves from report to report of a server at which nothing happens.
#[derive(Debug, Clone)]
struct Noise {
    free: u64,
    available: u64,
    bytes: u64,
    starts: u32,
    findings: u64,
    turn: usize,
}

prop_compose! {
    fn noise()(
        free in 10 * GIB..40 * GIB,
        available in GIB..4 * GIB,
        (bytes, starts, findings) in any::<(u64, u32, u64)>(),
        turn in 0_usize..4,
    ) -> Noise {
        Noise { free, available, bytes, starts, findings, turn }
    }
}

impl Noise {
    fn ready(&self, wanted: &Wanted) -> Observed {
        ready(wanted).with_view(|view| {
            view.at += jiff::SignedDuration::from_secs(i64::from(self.starts));
            view.report.machine.disk_free_bytes = self.free;
            view.report.machine.memory_available_bytes = self.available;
            let details = &mut view.report.details;
            details.disk_total_bytes = 40 * GIB;
            details.memory_total_bytes = 4 * GIB;
            details.backup = Some(Backup { at: now(), bytes: self.bytes });
            let (unit, starts) = ("agent".to_owned(), self.starts);
            details.units = vec![UnitReport { unit, running: true, starts }];
            details.audit = Some(Audit { critical: 0, warn: self.findings });
            details.programs.rotate_left(self.turn);
        })
    }
}

proptest! {
    #[test]
    fn reports_that_differ_in_what_moves_give_the_same_status(left in noise(), right in noise()) {
        let wanted = wanted();
        let left = status_of(&wanted, &left.ready(&wanted));
        let seen = Observed { status: left.clone(), ..right.ready(&wanted) };
        prop_assert_eq!(&status_of(&wanted, &seen), &left);
    }
}
