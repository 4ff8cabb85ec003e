//! Reports of agents that do not send their failures as fields, as they were recorded.

use moorage_wire::{Report, report::ConvergenceState};
use rstest::rstest;

use super::programs::find;
use crate::{
    api::{conditions::Reason, instance::Phase},
    instance::{
        Observed,
        fixtures::{ready, status_of, wanted},
    },
};

const ROLLBACK: &str = include_str!("../../../crates/wire/tests/older_reports/rollback.json");
const AGENT: &str = include_str!("../../../crates/wire/tests/older_reports/agent.json");
const ARTIFACT: &str = include_str!("../../../crates/wire/tests/older_reports/artifact.json");
const CONFIG: &str = include_str!("../../../crates/wire/tests/older_reports/config.json");
const FIRST: &str = include_str!("../../../crates/wire/tests/older_reports/first.json");
const INTEGRATION: &str = include_str!("../../../crates/wire/tests/older_reports/integration.json");

/// A server whose agent says of its document what the recorded one says.
fn reporting(recorded: &str) -> Observed {
    let recorded: Report = serde_json::from_str(recorded).unwrap();
    ready(&wanted()).with_view(|view| {
        let digest = view.report.desired.digest.unwrap();
        view.report.desired = recorded.desired;
        view.report.desired.digest = Some(digest);
        view.report.desired.failed.iter_mut().for_each(|failed| failed.digest = digest);
        view.report.details.last_rollback = recorded.details.last_rollback;
        view.report.details.failed_programs = recorded.details.failed_programs;
        view.report.openclaw = recorded.openclaw;
    })
}

#[rstest]
#[case::rollback(
    ROLLBACK,
    Reason::RolledBack,
    "The desired state does not work: OpenClaw 2026.9.2: OpenClaw did not start within 5 s; the last good state is back. Correct spec.config, use another release, or annotate moorage.dev/retry to try again",
    Phase::Stalled
)]
#[case::agent(
    AGENT,
    Reason::RolledBack,
    "The desired state does not work: the agent 2026.9.2: it did not answer on its socket; the last",
    Phase::Stalled
)]
#[case::artifact(
    ARTIFACT,
    Reason::ArtifactFailed,
    "An artifact of the release cannot be installed: 2026.9.2 ca4e838fc2f3119c9f495bf55aa1c6e5887949857f4b5b4d697474b0c46484c6: http://127.0.0.1:35299/openclaw-2 is not what the release pins: SHA-256 differs; the last good state is back. Correct the file",
    Phase::Stalled
)]
#[case::config(
    CONFIG,
    Reason::ConfigRejected,
    "The configuration is rejected at agents.unknownKey: OpenClaw rejects the configuration at agents.unknownKey; the last good state is back. Correct spec.config",
    Phase::Stalled
)]
#[case::of_the_first_agents(
    FIRST,
    Reason::ConfigRejected,
    "The configuration is rejected at agents.unknownKey: ",
    Phase::Stalled
)]
#[case::integration(
    INTEGRATION,
    Reason::IntegrationFailed,
    "OpenClaw's integrations cannot be installed: an integration cannot be installed: @acme/weather 1.0.0: the release does not pin all of it, so that it would be resolved here; the server retries. If it lasts, take it out",
    Phase::Updating
)]
fn words_of_an_older_agent_are_shown_as_they_are(
    #[case] recorded: &str,
    #[case] expected: Reason,
    #[case] words: &str,
    #[case] phase: Phase,
) {
    let status = status_of(&wanted(), &reporting(recorded));
    let (holds, reason, message) = find(&status, "ConfigApplied");
    assert_eq!((holds.as_str(), reason.as_str()), ("False", expected.as_str()));
    assert!(message.starts_with(words), "{message}");
    assert_eq!(status.phase, Some(phase));
}

#[test]
fn the_last_rollback_of_an_older_agent_is_in_the_status() {
    for (recorded, program, why) in [
        (ROLLBACK, "openclaw", "OpenClaw 2026.9.2: OpenClaw did not start within 5 s"),
        (AGENT, "agent", "it did not answer on its socket"),
    ] {
        let status = status_of(&wanted(), &reporting(recorded));
        let rollback = status.agent.unwrap().last_rollback.unwrap();
        assert_eq!((rollback.program.as_str(), rollback.reason.as_str()), (program, why));
    }
}

#[test]
fn figures_of_an_older_agent_that_move_are_not_in_the_status() {
    let held_up = |free: u64| {
        reporting(ROLLBACK).with_view(|view| {
            view.report.desired.state = ConvergenceState::Converging;
            let failed = &mut view.report.desired.failed[0];
            failed.message =
                format!("an update needs 3000 MB on the disk,\nand {free} MB are free").into();
        })
    };
    let status = status_of(&wanted(), &held_up(1100));
    let (_, reason, message) = find(&status, "ConfigApplied");
    assert_eq!(reason, Reason::Progressing);
    assert!(message.contains("needs 2048 MB on the disk, and 1024 MB are free;"), "{message}");
    assert_eq!(status, status_of(&wanted(), &held_up(1200)));
}
