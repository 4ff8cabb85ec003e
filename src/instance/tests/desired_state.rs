//! The one document that the agent converges to.

use moorage_wire::{
    Failure, Program,
    failure::{FailureCode, Stage},
    report::{
        Audit, ConvergenceState, FailedPairing, FailureReason, OpenClawState, PairingFailure,
    },
};
use rstest::rstest;
use serde_json::json;

use crate::{
    api::{annotation::Mark, conditions::Reason, instance::Phase},
    instance::{
        Observed, Step, Wanted,
        desired_state::PutDesired,
        fixtures::{kinds, name, nothing, plan_of, ready, status_of, walk, wanted},
        rotation::RotationStep,
    },
};

fn condition(wanted: &Wanted, observed: &Observed) -> (String, String, String) {
    let status = status_of(wanted, observed);
    let found = status.conditions.into_iter().find(|known| known.type_ == "ConfigApplied").unwrap();
    (found.status, found.reason, found.message)
}

fn is_put(step: &Step) -> bool {
    matches!(step, Step::DesiredState(PutDesired { .. }))
}

#[test]
fn a_document_replaces_what_the_agent_has() {
    let wanted = wanted();
    let first = walk(&wanted, nothing(), is_put);
    let plan = plan_of(&wanted, &first);
    assert!(
        plan.steps
            .iter()
            .any(|step| matches!(step, Step::DesiredState(PutDesired { replaces: None, .. }))),
        "{plan:?}"
    );

    let observed = ready(&wanted);
    let has = observed.view().report.desired.digest;
    let changed = wanted.with_config(json!({"agents": {"defaults": {"workspace": "~/work"}}}));
    let plan = plan_of(&changed, &observed);
    let [Step::DesiredState(PutDesired { document, replaces })] = &plan.steps[..] else {
        panic!("{plan:?}")
    };
    assert!(has.is_some());
    assert_eq!(*replaces, has);
    assert_eq!(document.config.pointer("/agents/defaults/workspace"), Some(&json!("~/work")));
}

#[test]
fn a_document_refers_only_to_values_that_are_stored() {
    let wanted = wanted().with_two_credentials();
    let observed = nothing()
        .with_secret("2026-09-01T11:30:00Z", &[("anthropic", 1)])
        .without_secret(&["telegram"]);
    let at_sending = walk(&wanted, observed, is_put);
    let plan = plan_of(&wanted, &at_sending);
    let document = plan.steps.iter().find_map(|step| match step {
        Step::DesiredState(PutDesired { document, .. }) => Some(document),
        _ => None,
    });
    let document = document.unwrap();
    assert_eq!(
        document.config.pointer("/models/providers/anthropic/apiKey/id"),
        Some(&json!("/anthropic"))
    );
    assert_eq!(document.config.pointer("/channels/telegram"), None);
    assert!(
        document.credentials.contains(&name("telegram")),
        "a value that comes later is not erased"
    );
}

#[test]
fn openclaw_starts_once_with_all_values_that_were_handed_in() {
    let wanted = wanted().with_two_credentials();
    let observed = nothing().with_both_values();
    let keys = crate::instance::fixtures::agent_keys();
    let timing = crate::instance::fixtures::TIMING;
    let way = crate::instance::forecast::forecast(&wanted, observed, timing, &keys);
    let sent = way.then.iter().filter(|happening| {
        matches!(happening, crate::instance::forecast::Happening::Step(step) if is_put(step))
    });
    assert_eq!(sent.count(), 1);
}

#[rstest]
#[case::invalid(
    ConvergenceState::RolledBack,
    FailureReason::InvalidConfig,
    Reason::ConfigRejected,
    "OpenClaw rejects the configuration at channels.telegram.botToken; the last good state is back. Correct"
)]
#[case::never_worked(
    ConvergenceState::Failed,
    FailureReason::InvalidConfig,
    Reason::ConfigRejected,
    "OpenClaw rejects the configuration at channels.telegram.botToken. Correct"
)]
#[case::unhealthy(
    ConvergenceState::RolledBack,
    FailureReason::Unhealthy,
    Reason::RolledBack,
    "OpenClaw does not work with the configuration at channels.telegram.botToken: "
)]
#[case::of_a_newer_agent(
    ConvergenceState::Failed,
    FailureReason::Unknown,
    Reason::RolledBack,
    "The desired state cannot be reached at channels.telegram.botToken: "
)]
fn a_failed_document_is_reported_and_not_sent_again(
    #[case] state: ConvergenceState,
    #[case] failure: FailureReason,
    #[case] expected: Reason,
    #[case] words: &str,
) {
    let wanted = wanted();
    let observed =
        ready(&wanted).with_failed_config(state, failure, Some("channels.telegram.botToken"));
    assert_eq!(plan_of(&wanted, &observed).steps, []);
    let (status, reason, message) = condition(&wanted, &observed);
    assert_eq!((status.as_str(), reason.as_str()), ("False", expected.as_str()));
    assert!(message.contains(words), "{message}");
    assert_eq!(status_of(&wanted, &observed).phase, Some(Phase::Stalled));
}

#[test]
fn a_failed_document_is_sent_again_when_it_changes() {
    let plain = wanted();
    let failed = || {
        ready(&plain).with_failed_config(
            ConvergenceState::RolledBack,
            FailureReason::InvalidConfig,
            None,
        )
    };
    let corrected = plain.clone().with_config(json!({"agents": {}}));
    assert_eq!(kinds(&plan_of(&corrected, &failed())), ["PutDesired"]);
    let retried = Wanted { retry: Some(Mark::new("1")), ..plain.clone() };
    assert_eq!(kinds(&plan_of(&retried, &failed())), ["PutDesired"]);
}

#[test]
fn an_older_failure_does_not_speak_of_the_present_document() {
    let plain = wanted();
    let observed = ready(&plain).with_failed_config(
        ConvergenceState::Converged,
        FailureReason::InvalidConfig,
        None,
    );
    assert_eq!(status_of(&plain, &observed).phase, Some(Phase::Ready));
}

#[rstest]
#[case::ready(OpenClawState::Ready, "True", Phase::Ready)]
#[case::degraded(OpenClawState::Degraded, "True", Phase::Degraded)]
#[case::starting(OpenClawState::Starting, "False", Phase::Updating)]
#[case::stopped(OpenClawState::Stopped, "False", Phase::Updating)]
#[case::of_a_newer_agent(OpenClawState::Unknown, "False", Phase::Updating)]
fn a_converged_server_is_as_openclaw_says(
    #[case] state: OpenClawState,
    #[case] expected: &str,
    #[case] phase: Phase,
) {
    let wanted = wanted();
    let observed = ready(&wanted).with_view(|view| view.report.openclaw.state = state);
    assert_eq!(condition(&wanted, &observed).0, expected);
    assert_eq!(status_of(&wanted, &observed).phase, Some(phase));
}

#[test]
fn a_gateway_that_keeps_an_old_token_is_told() {
    let wanted = wanted();
    let said = "the gateway still takes its old token, even after a restart";
    let observed = |failure: Option<Failure>| {
        ready(&wanted).with_view(|view| {
            view.report.openclaw.message = Some(said.into());
            view.report.openclaw.failure = failure;
        })
    };
    let failure = Failure::new(Stage::Reload, FailureCode::NotTakenUp);
    let (of_openclaw, of_tunnel) =
        (failure.clone().of(Program::Openclaw), failure.of(Program::Cloudflared));
    let new = "OpenClaw runs with the configuration, but";
    for (failure, expected) in [
        (None, format!("{new} {said}")),
        (Some(of_openclaw), format!("{new} it has not taken up its new secrets: the old value")),
        (Some(of_tunnel), format!("{new} cloudflared has not taken up its new token: the old")),
    ] {
        let (status, reason, message) = condition(&wanted, &observed(failure));
        assert_eq!((status.as_str(), reason.as_str()), ("True", Reason::OldSecretsInUse.as_str()));
        assert!(message.starts_with(&expected), "{message}");
    }
}

#[test]
fn critical_audit_findings_are_reported_and_warnings_not() {
    let wanted = wanted();
    let found = |critical, warn| {
        let audit = Some(Audit { critical, warn });
        ready(&wanted).with_view(|view| view.report.details.audit = audit)
    };
    let (status, reason, message) = condition(&wanted, &found(2, 0));
    assert_eq!((status.as_str(), reason.as_str()), ("True", Reason::InsecureConfig.as_str()));
    assert!(message.contains("2 critical") && message.contains("security audit"), "{message}");
    assert_eq!(status_of(&wanted, &found(2, 0)).phase, Some(Phase::Degraded));
    assert_eq!(condition(&wanted, &found(0, 7)), condition(&wanted, &ready(&wanted)));
}

#[test]
fn a_failed_pairing_is_reported_and_disturbs_nothing() {
    let wanted = wanted();
    let failed = |request: &str, reason| FailedPairing { request: request.into(), reason };
    let observed = ready(&wanted).with_view(|view| {
        view.report.details.failed_pairings = vec![
            failed("gone", PairingFailure::NotWaiting),
            failed("bad", PairingFailure::Refused),
        ];
    });
    let (status, reason, message) = condition(&wanted, &observed);
    assert_eq!((status.as_str(), reason.as_str()), ("True", Reason::PairingFailed.as_str()));
    assert!(message.contains("waits with the pairing request gone:"), "{message}");
    assert!(message.contains("refused to approve the pairing request bad:"), "{message}");
    assert_eq!(status_of(&wanted, &observed).phase, Some(Phase::Ready));
}

#[test]
fn the_tunnel_is_rotated_while_openclaw_starts() {
    let wanted = wanted();
    let observed =
        walk(&wanted, nothing(), |step| matches!(step, Step::Rotation(RotationStep::Rotate(_))));
    assert_eq!(observed.view().report.desired.state, ConvergenceState::Converging);
}
