//! What the conditions say of a document that the agent cannot carry out: by the fields of its report,
//! whatever the words in it.

use moorage_wire::{
    Failure, Program,
    failure::{FailureCode, Stage},
    program::Component,
    report::{ConvergenceState, FailedDigest, FailedProgram, FailureReason, Rollback},
};
use proptest::prelude::*;
use rstest::rstest;

use super::programs::{find, other, told, with_other};
use crate::{
    api::{OpenClawInstanceStatus, conditions::Reason, instance::Phase},
    instance::{
        Observed, Wanted,
        fixtures::{now, ready, status_of, wanted},
        observed::AgentView,
    },
};

/// The agent tried the document that it has, in vain, and says so in these words beside the fields.
fn fail(
    view: &mut AgentView,
    state: ConvergenceState,
    reason: FailureReason,
    failure: &Failure,
    words: &str,
) {
    let progress = &mut view.report.desired;
    progress.state = state;
    progress.failed = vec![FailedDigest {
        digest: progress.digest.expect("the agent has a document"),
        reason,
        message: words.into(),
        failure: Some(failure.clone()),
        path: None,
        issues: Vec::new(),
        at: now(),
    }];
}

fn failed(
    wanted: &Wanted,
    observed: Observed,
    state: ConvergenceState,
    reason: FailureReason,
    failure: &Failure,
) -> OpenClawInstanceStatus {
    status_of(wanted, &observed.with_view(|view| fail(view, state, reason, failure, "")))
}

#[rstest]
#[case::wrong_bytes(
    ConvergenceState::RolledBack,
    Failure::new(Stage::Verification, FailureCode::WrongBytes).with_detail("SHA-256 differs"),
    "OpenClaw 2 cannot be installed from https://artifacts.example/two: the file is not the one that the release pins (SHA-256 differs); the last good state is back. Correct the file on that server, use another release, or annotate moorage.dev/retry",
    Phase::Stalled
)]
#[case::refused_by_the_installer(
    ConvergenceState::Failed,
    Failure::new(Stage::Unpacking, FailureCode::BadArtifact).with_detail("a path leaves its folder"),
    "OpenClaw 2 cannot be installed from https://artifacts.example/two: the file is not a usable artifact (a path leaves its folder). Correct",
    Phase::Stalled
)]
#[case::server_down(
    ConvergenceState::Converging,
    Failure::new(Stage::Download, FailureCode::Unreachable).with_detail("connection refused"),
    "OpenClaw 2 cannot be installed from https://artifacts.example/two: the server with the file cannot be reached (connection refused); the server retries. If it lasts, correct the file",
    Phase::Updating
)]
#[case::of_a_newer_agent(
    ConvergenceState::Converging,
    Failure::new(Stage::Unknown, FailureCode::Unknown),
    "OpenClaw 2 cannot be installed from https://artifacts.example/two: the agent is newer than this operator and gives another reason; the server retries",
    Phase::Updating
)]
fn an_artifact_that_fails_is_named_with_address_and_remedy(
    #[case] state: ConvergenceState,
    #[case] failure: Failure,
    #[case] expected: &str,
    #[case] phase: Phase,
) {
    // Node.js comes first, so it is not the culprit by its place.
    let wanted = with_other(&with_other(&wanted(), Program::Node), Program::Openclaw);
    let failure = failure.of(Program::Openclaw);
    let status = failed(&wanted, told(&wanted), state, FailureReason::Artifact, &failure);
    let (holds, reason, message) = find(&status, "ConfigApplied");
    assert_eq!((holds.as_str(), reason.as_str()), ("False", Reason::ArtifactFailed.as_str()));
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
    let failure = Failure::new(Stage::Installation, FailureCode::CommandFailed);
    let failure = failure.of_integration("@acme/weather").with_detail("no version 3");
    let status = failed(&wanted, ready(&wanted), state, FailureReason::Integration, &failure);
    let (_, reason, message) = find(&status, "Ready");
    assert_eq!(reason, Reason::IntegrationFailed);
    let expected =
        "The integration @acme/weather cannot be installed: a command failed (no version 3)";
    assert!(message.starts_with(expected), "{message}");
    assert!(message.contains("spec.integrations"), "{message}");
    assert_eq!(status.phase, Some(phase));
}

fn update_failure(program: Program) -> Failure {
    let failure = match program {
        Program::Agent => Failure::new(Stage::Start, FailureCode::DeadlineExceeded),
        Program::Openclaw | Program::Node => Failure::new(Stage::Start, FailureCode::ProcessEnded)
            .with_detail("it ended 3 times: exit status 1"),
        Program::Cloudflared => {
            Failure::new(Stage::Health, FailureCode::DeadlineExceeded).with_detail("60 s")
        }
    };
    failure.of(program).in_update()
}

/// An update of this program was rolled back, and these words are said of it.
fn rolled_back(wanted: &Wanted, program: Program, [first, second]: [&str; 2]) -> Observed {
    told(wanted).with_view(|view| {
        let failure = update_failure(program);
        let reason = FailureReason::Unhealthy;
        fail(view, ConvergenceState::RolledBack, reason, &failure, first);
        let (kind, from, at) = (program.into(), other(program), now());
        let (reason, failure) = (second.into(), Some(failure));
        let details = &mut view.report.details;
        if program == Program::Agent {
            details.failed_programs.push(FailedProgram { kind, sha256: from, reason, failure, at });
        } else {
            let rollback = Rollback { what: kind, from, to: None, reason, failure, at };
            details.last_rollback = Some(rollback);
        }
    })
}

#[rstest]
#[case::openclaw(
    Program::Openclaw,
    "OpenClaw 2 was rolled back: its process ended (it ended 3 times: exit status 1)"
)]
#[case::node(
    Program::Node,
    "Node.js 2 was rolled back: its process ended (it ended 3 times: exit status 1)"
)]
#[case::cloudflared(
    Program::Cloudflared,
    "cloudflared 2 was rolled back: it did not connect in time (60 s)"
)]
#[case::agent(
    Program::Agent,
    "the agent 2 was rolled back: it did not answer on its socket in time"
)]
fn an_update_that_was_rolled_back_says_of_what_and_why(
    #[case] program: Program,
    #[case] expected: &str,
) {
    let wanted = with_other(&wanted(), program);
    let status = status_of(&wanted, &rolled_back(&wanted, program, [""; 2]));
    let (holds, reason, message) = find(&status, "ConfigApplied");
    assert_eq!((holds.as_str(), reason.as_str()), ("False", Reason::RolledBack.as_str()));
    let expected = format!("The update to {expected}; the last good state is back. Use a release");
    assert!(message.starts_with(&expected), "{message}");
    assert!(message.contains("moorage.dev/retry"), "{message}");
    assert_eq!(find(&status, "UpToDate").1, Reason::RolledBack);
    assert_eq!(status.phase, Some(Phase::Stalled));
    let rollback = status.agent.unwrap().last_rollback.unwrap();
    assert_eq!(rollback.program, program.name());
    assert_eq!(
        (rollback.sha256, rollback.at.as_str()),
        (other(program).to_string(), "2026-09-01T12:00:00Z")
    );
}

#[rstest]
#[case::config(
    FailureReason::InvalidConfig,
    Reason::ConfigRejected,
    "OpenClaw 2 rejects the configuration; the last good state is back. Correct spec.config"
)]
#[case::health(
    FailureReason::Unhealthy,
    Reason::RolledBack,
    "The update to OpenClaw 2 was rolled back: "
)]
fn a_failed_update_of_openclaw_names_the_new_version(
    #[case] failed_for: FailureReason,
    #[case] expected: Reason,
    #[case] words: &str,
) {
    let wanted = with_other(&wanted(), Program::Openclaw);
    let failure = update_failure(Program::Openclaw);
    let state = ConvergenceState::RolledBack;
    let status = failed(&wanted, told(&wanted), state, failed_for, &failure);
    let (_, reason, message) = find(&status, "ConfigApplied");
    assert_eq!(reason, expected);
    assert!(message.starts_with(words), "{message}");
}

#[test]
fn a_server_without_room_for_an_update_says_what_to_do() {
    let wanted = wanted();
    let failure = Failure::new(Stage::Preparation, FailureCode::NoSpace).of(Program::Openclaw);
    let failure = failure.with_detail("1024 MiB have to be free");
    let state = ConvergenceState::Converging;
    let status = failed(&wanted, ready(&wanted), state, FailureReason::System, &failure);
    let (_, reason, message) = find(&status, "ConfigApplied");
    assert_eq!(reason, Reason::Progressing);
    let expected = "The server cannot reach the desired state yet: there is too little free disk space (1024 MiB have to be free); the server retries. If it lasts, remove data";
    assert!(message.starts_with(expected), "{message}");
}

fn stages() -> impl Strategy<Value = Stage> {
    prop::sample::select(vec![Stage::Download, Stage::Start, Stage::Health, Stage::Unknown])
}

fn codes() -> impl Strategy<Value = FailureCode> {
    prop::sample::select(vec![
        FailureCode::Unreachable,
        FailureCode::WrongBytes,
        FailureCode::NotPinned,
        FailureCode::ConfigRejected,
        FailureCode::ProcessEnded,
        FailureCode::DeadlineExceeded,
        FailureCode::NoSpace,
        FailureCode::Unknown,
    ])
}

prop_compose! {
    fn failures()(
        stage in stages(),
        code in codes(),
        component in prop::option::of(prop::sample::select(vec![
            Component::Program(Program::Openclaw),
            Component::Program(Program::Agent),
            Component::Integration,
            Component::Unknown,
        ])),
        update in any::<bool>(),
    ) -> Failure {
        Failure { program: component, update, ..Failure::new(stage, code) }
    }
}

proptest! {
    #[test]
    fn words_of_an_agent_that_sends_fields_decide_nothing(
        failure in failures(),
        reason in prop::sample::select(vec![
            FailureReason::Artifact,
            FailureReason::Integration,
            FailureReason::InvalidConfig,
            FailureReason::Unhealthy,
            FailureReason::System,
            FailureReason::Unknown,
        ]),
        state in prop::sample::select(vec![
            ConvergenceState::Converging,
            ConvergenceState::RolledBack,
            ConvergenceState::Failed,
        ]),
        words in "\\PC{0,80}",
    ) {
        let wanted = with_other(&wanted(), Program::Openclaw);
        let said = |words: &str| {
            let observed = told(&wanted).with_view(|view| fail(view, state, reason, &failure, words));
            status_of(&wanted, &observed)
        };
        prop_assert_eq!(said(&words), said(""));
        let digest = other(Program::Openclaw);
        let misleading = format!("the agent 1: https://artifacts.example/node {digest} {words}");
        prop_assert_eq!(said(&misleading), said(""));
    }

    #[test]
    fn words_of_a_rollback_decide_nothing(
        program in prop::sample::select(Program::ALL.to_vec()),
        first in "\\PC{0,40}",
        second in "\\PC{0,40}",
    ) {
        let wanted = with_other(&wanted(), program);
        let said = |words| status_of(&wanted, &rolled_back(&wanted, program, words));
        prop_assert_eq!(said([&first, &second]), said(["", ""]));
    }
}
