//! Programs: what the conditions say of them, and that they do not say it again at every report.

use moorage_wire::{
    Program, Sha256,
    report::{Audit, Backup, ConvergenceState, InstalledProgram, Rollback, UnitReport},
};
use proptest::prelude::*;
use rstest::rstest;

use crate::{
    api::{OpenClawInstanceStatus, conditions::Reason, instance::Phase},
    instance::{
        Observed, Step, Wanted,
        desired_state::PutDesired,
        fixtures::{nothing, now, plan_of, ready, status_of, walk, wanted},
        observed::AgentState,
        rotation::RotationStep,
    },
};

const GIB: u64 = 1024 * 1024 * 1024;

pub(super) fn find(status: &OpenClawInstanceStatus, kind: &str) -> (String, String, String) {
    let found = status.conditions.iter().find(|known| known.type_ == kind).unwrap();
    (found.status.clone(), found.reason.clone(), found.message.clone())
}

/// A release with another version of this program.
pub(super) fn with_other(wanted: &Wanted, program: Program) -> Wanted {
    let mut wanted = wanted.clone();
    let artifacts = &mut wanted.release.artifacts;
    let artifact = match program {
        Program::Openclaw => &mut artifacts.openclaw,
        Program::Node => &mut artifacts.node,
        Program::Cloudflared => &mut artifacts.cloudflared,
        Program::Agent => &mut artifacts.agent,
    };
    artifact.version = "2".to_owned();
    artifact.sha256 = other(program);
    artifact.url = "https://user:word@artifacts.example/two?token=hidden".to_owned();
    wanted
}

pub(super) fn other(program: Program) -> Sha256 {
    Sha256::of(format!("{program:?} 2").as_bytes())
}

/// A ready server that was just sent a release with another version of this program.
pub(super) fn told(wanted: &Wanted) -> Observed {
    let old = crate::instance::fixtures::wanted();
    let mut observed = ready(&old);
    let plan = plan_of(wanted, &observed);
    let [Step::DesiredState(PutDesired { document, .. })] = &plan.steps[..] else {
        panic!("{plan:?}")
    };
    let progress = &mut observed.view_mut().report.desired;
    progress.digest = Some(document.digest());
    progress.state = ConvergenceState::Converging;
    observed
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
fn a_server_that_installs_nothing_is_judged_by_its_type() {
    let observed = ready(&wanted()).with_view(|view| view.report.details.programs.clear());
    let status = status_of(&wanted(), &observed);
    assert_eq!(find(&status, "UpToDate").0, "True");
    assert_eq!(status.agent.unwrap().programs, []);
}

#[test]
fn of_a_silent_agent_nobody_knows_what_it_runs() {
    let observed = Observed { agent: AgentState::NotAsked, ..ready(&wanted()) };
    assert_eq!(find(&status_of(&wanted(), &observed), "UpToDate").0, "Unknown");
}

#[test]
fn the_first_programs_are_named_while_they_come() {
    let wanted = wanted();
    let observed =
        walk(&wanted, nothing(), |step| matches!(step, Step::Rotation(RotationStep::Rotate(_))));
    let status = status_of(&wanted, &observed);
    let (holds, reason, message) = find(&status, "ConfigApplied");
    assert_eq!((holds.as_str(), reason.as_str()), ("False", Reason::Progressing.as_str()));
    assert_eq!(message, "The server fetches and installs Node.js 1 and OpenClaw 1");
}

#[rstest]
#[case::openclaw(Program::Openclaw, "OpenClaw 2")]
#[case::node(Program::Node, "Node.js 2")]
#[case::cloudflared(Program::Cloudflared, "cloudflared 2")]
#[case::agent(Program::Agent, "the agent 2")]
fn an_update_is_named_from_the_new_release_to_the_new_program(
    #[case] program: Program,
    #[case] title: &str,
) {
    let wanted = with_other(&wanted(), program);
    let before = status_of(&wanted, &ready(&crate::instance::fixtures::wanted()));
    assert_eq!(find(&before, "UpToDate").1, Reason::Progressing);
    assert!(find(&before, "UpToDate").2.contains(title));

    let mut observed = told(&wanted);
    let message = |observed: &Observed| find(&status_of(&wanted, observed), "ConfigApplied").2;
    assert_eq!(message(&observed), format!("The server fetches and installs {title}"));
    let (kind, sha256) = (program.into(), other(program));
    let installed = InstalledProgram { kind, sha256, version: None, active: false };
    observed.view_mut().report.details.programs.push(installed);
    assert_eq!(message(&observed), format!("The server changes over to {title}"));

    let view = observed.view_mut();
    for one in &mut view.report.details.programs {
        one.active = one.kind != kind || one.sha256 == sha256;
    }
    view.report.desired.state = ConvergenceState::Converged;
    let status = status_of(&wanted, &observed);
    assert_eq!((find(&status, "UpToDate").0.as_str(), status.phase), ("True", Some(Phase::Ready)));
}

#[test]
fn a_rollback_of_another_release_is_not_blamed() {
    let wanted = wanted();
    let observed = ready(&wanted).with_view(|view| {
        view.report.details.last_rollback = Some(Rollback {
            what: Program::Openclaw.into(),
            from: Sha256::of(b"older"),
            to: None,
            reason: "why".into(),
            failure: None,
            at: now(),
        });
    });
    let status = status_of(&wanted, &observed);
    assert_eq!(status.phase, Some(Phase::Ready));
    assert_eq!(status.agent.unwrap().last_rollback.unwrap().program, "openclaw");
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
            let (unit, starts) = ("agent".into(), self.starts);
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
        let observed = Observed { status: left.clone(), ..right.ready(&wanted) };
        prop_assert_eq!(&status_of(&wanted, &observed), &left);
    }
}
