//! What the status says: kstatus, times, and that the same is the same.

use rstest::rstest;

use crate::{
    agent::AgentError,
    api::{
        OpenClawInstanceStatus,
        conditions::{ConditionType, Reason},
        instance::Phase,
    },
    instance::{
        Observed, Step,
        fixtures::{before, nothing, ready, status_after, status_of, wanted},
        observed::AgentState,
        server::ServerStep,
        status,
    },
    problem::Problem,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

fn find<'a>(status: &'a OpenClawInstanceStatus, kind: &str) -> Option<&'a Condition> {
    status.conditions.iter().find(|known| known.type_ == kind)
}

fn holds(status: &OpenClawInstanceStatus, kind: &str) -> bool {
    find(status, kind).is_some_and(|known| known.status == "True")
}

fn problem(reason: Reason) -> Problem {
    Problem::new(ConditionType::RoutesReady, reason, "no")
}

#[rstest]
#[case::nothing_yet(nothing(), None, "Reconciling", Phase::Provisioning)]
#[case::half_way(before(&wanted(), |step| *step == Step::Server(ServerStep::Create)), None, "Reconciling", Phase::Provisioning)]
#[case::ready(ready(&wanted()), None, "Ready", Phase::Ready)]
#[case::a_passing_failure(ready(&wanted()), Some(problem(Reason::CloudUnavailable)), "Reconciling", Phase::Updating)]
#[case::a_terminal_failure(ready(&wanted()), Some(problem(Reason::CloudRejected)), "Stalled", Phase::Stalled)]
#[case::a_lost_tunnel(ready(&wanted()).without_tunnel(), None, "Stalled", Phase::Stalled)]
fn exactly_one_of_ready_reconciling_and_stalled_holds(
    #[case] observed: Observed,
    #[case] failure: Option<Problem>,
    #[case] which: &str,
    #[case] phase: Phase,
) {
    let status = status_after(&wanted(), &observed, failure);
    let holding: Vec<_> = ["Ready", "Reconciling", "Stalled"]
        .into_iter()
        .filter(|kind| holds(&status, kind))
        .collect();
    assert_eq!(holding, [which]);
    assert!(find(&status, "Ready").is_some(), "Ready is always stated");
    assert_eq!(status.phase, Some(phase));
}

#[test]
fn the_same_twice_is_the_same_status() {
    let wanted = wanted().with_two_credentials();
    let observed = || Observed { status: status_of(&wanted, &ready(&wanted)), ..ready(&wanted) };
    let first = status_of(&wanted, &observed());
    let later = status_of(&wanted, &observed().at("2026-09-01T12:04:00Z"));
    assert_eq!(first, later, "a pass at which nothing happened writes nothing");
}

#[test]
fn a_failure_shows_on_its_part_and_on_ready() {
    let status =
        status_after(&wanted(), &ready(&wanted()), Some(problem(Reason::CloudUnavailable)));
    for kind in ["RoutesReady", "Ready", "Reconciling"] {
        let condition = find(&status, kind).unwrap();
        assert_eq!(
            (condition.reason.as_str(), condition.message.as_str()),
            ("CloudUnavailable", "no"),
            "{kind}"
        );
    }
    assert!(!holds(&status, "RoutesReady"));
    assert!(holds(&status, "ServerReady"));
}

#[test]
fn what_failed_says_more_than_what_waits_before_it() {
    let observed = nothing();
    let status = status_after(&wanted(), &observed, Some(problem(Reason::CloudUnavailable)));
    assert_eq!(find(&status, "Ready").unwrap().reason, Reason::CloudUnavailable);
}

#[test]
fn a_transition_time_stays_while_only_words_change() {
    let wanted = wanted();
    let first = status_after(&wanted, &ready(&wanted), Some(problem(Reason::CloudUnavailable)));
    let mut other = problem(Reason::CloudUnavailable);
    other.message = "still no".to_owned();
    let observed = Observed { status: first.clone(), ..ready(&wanted) }.at("2026-09-01T13:00:00Z");
    let second = status_after(&wanted, &observed, Some(other));
    for kind in ["Ready", "RoutesReady", "ServerReady"] {
        let time = |status| find(status, kind).unwrap().last_transition_time.clone();
        assert_eq!(time(&first), time(&second), "{kind}");
    }
    assert_eq!(find(&second, "RoutesReady").unwrap().message, "still no");
}

#[test]
fn the_ids_of_a_server_that_cannot_be_seen_stay() {
    let wanted = wanted();
    let old = status_of(&wanted, &ready(&wanted));
    let mut observed = Observed { status: old.clone(), ..ready(&wanted) };
    observed.agent = AgentState::Silent(AgentError::unreachable("timed out"));
    let status = status_of(&wanted, &observed);
    assert_eq!(status.server, old.server);
    assert_eq!(status.agent, old.agent);
    assert_eq!(status.tunnel, old.tunnel);
}

#[test]
fn the_master_key_of_a_server_is_recorded_once() {
    let wanted = wanted();
    let mut observed = ready(&wanted);
    observed.status.server.as_mut().unwrap().master_key_id = Some("key-0".to_owned());
    assert_eq!(
        status_of(&wanted, &observed).server.unwrap().master_key_id.as_deref(),
        Some("key-0")
    );
}

#[rstest]
#[case::refused(|old: &OpenClawInstanceStatus| status::of_refusal(old, &Problem::whole(Reason::InvalidSpec, "no"), Some(2), later()), Phase::Stalled)]
#[case::waiting(|old: &OpenClawInstanceStatus| status::of_refusal(old, &Problem::whole(Reason::PoolNotReady, "no"), Some(2), later()), Phase::Pending)]
#[case::suspended(|old: &OpenClawInstanceStatus| status::of_suspension(old, Some(2), later()), Phase::Suspended)]
fn what_is_known_of_the_parts_stays_when_nothing_can_be_done(
    #[case] write: fn(&OpenClawInstanceStatus) -> OpenClawInstanceStatus,
    #[case] phase: Phase,
) {
    let old = status_of(&wanted(), &ready(&wanted()));
    let status = write(&old);
    assert_eq!(status.phase, Some(phase));
    assert!(!holds(&status, "Ready"));
    assert_eq!((&status.server, &status.agent, &status.urls), (&old.server, &old.agent, &old.urls));
    for kind in [
        "AgentReady",
        "ConfigApplied",
        "CredentialsDelivered",
        "RoutesReady",
        "ServerReady",
        "TunnelReady",
        "UpToDate",
    ] {
        assert_eq!(find(&status, kind), find(&old, kind), "{kind}");
        assert!(find(&status, kind).is_some(), "{kind}");
    }
    let names: Vec<_> = status.conditions.iter().map(|known| known.type_.as_str()).collect();
    assert!(names.is_sorted(), "{names:?}");
    assert_eq!(write(&status), status);
}

#[test]
fn a_suspended_instance_neither_reconciles_nor_stalls() {
    let status = status::of_suspension(&status_of(&wanted(), &nothing()), Some(1), later());
    assert_eq!((find(&status, "Reconciling"), find(&status, "Stalled")), (None, None));
}

#[test]
fn a_deletion_says_nothing_of_parts_that_go() {
    let old = status_of(&wanted(), &ready(&wanted()));
    let status = status::of_deletion(&old, None, Some(2), later());
    let names: Vec<_> = status.conditions.iter().map(|known| known.type_.as_str()).collect();
    assert_eq!(names, ["Ready", "Reconciling"]);
    let stuck = status::of_deletion(&old, Some(&problem(Reason::CloudRejected)), Some(2), later());
    assert!(holds(&stuck, "Stalled") && !holds(&stuck, "Reconciling"));
}

fn later() -> jiff::Timestamp {
    "2026-09-01T14:00:00Z".parse().unwrap()
}

#[rstest]
#[case::of_any_length(&"9".repeat(1_000_000))]
#[case::that_a_terminal_obeys("1.0\u{1b}[2J")]
#[case::with_a_forged_line("1.0\nReady True")]
fn what_is_no_version_is_not_in_the_status(#[case] said: &str) {
    let wanted = wanted();
    let mut observed = ready(&wanted).with_view(|view| {
        view.report.agent_version = said.into();
        view.report.openclaw.version = Some(said.into());
        for one in &mut view.report.details.programs {
            (one.version, one.sha256) = (Some(said.into()), moorage_wire::Sha256::of(b"another"));
        }
    });
    // Nothing is known from before that could stay.
    observed.status.agent = None;
    let agent = status_of(&wanted, &observed).agent.unwrap();
    assert!(!agent.programs.is_empty());
    assert_eq!((agent.version, agent.openclaw_version), (None, None));
    assert!(agent.programs.iter().all(|one| one.version.is_none()), "{:?}", agent.programs);
}

#[test]
fn a_version_that_alternates_does_not_change_the_status() {
    let wanted = wanted();
    let mut observed = ready(&wanted);
    let says = |observed: &mut Observed, version: &str, again: bool| {
        let view = observed.view_mut();
        view.report.agent_version = version.into();
        view.report.openclaw.version = Some(version.into());
        view.same_versions_before = again;
        observed.status = status_of(&wanted, observed);
    };
    says(&mut observed, "5.0", false);
    let first = observed.status.clone();
    for version in ["5.1", "5.2", "junk \u{1b}", "5.3"] {
        says(&mut observed, version, false);
        assert_eq!(observed.status, first, "{version}");
    }
    says(&mut observed, "5.3", true);
    assert_eq!(observed.status.agent.as_ref().unwrap().version.as_deref(), Some("5.3"));
    let release = wanted.release.artifacts.agent.version.clone();
    says(&mut observed, &release, false);
    assert_eq!(observed.status.agent.as_ref().unwrap().version.as_ref(), Some(&release));
}

#[test]
fn what_an_older_operator_took_over_unbounded_is_cut() {
    let wanted = wanted();
    let mut observed = ready(&wanted);
    observed.status = status_of(&wanted, &observed);
    let agent = observed.status.agent.as_mut().unwrap();
    agent.version = Some("9".repeat(1_000_000));
    observed.agent = AgentState::Silent(AgentError::unreachable("timed out"));
    assert_eq!(status_of(&wanted, &observed).agent.unwrap().version, None);
}
