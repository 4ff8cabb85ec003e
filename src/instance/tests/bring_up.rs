//! From nothing to ready, and the rest that follows.

use rstest::rstest;

use crate::{
    agent::{AgentError, Reached},
    api::{annotation::Rebuild, conditions::Reason, instance::Phase},
    hetzner::{Server, ServerStatus},
    instance::{
        Observed, Step, Wanted,
        credentials::CredentialStep,
        fixtures::{
            self, FIRST_EPOCH, TIMING, agent_keys, before, kind, kinds, nothing, plan_of, ready,
            status_of, wanted,
        },
        forecast::{Happening, forecast},
        observed::{AgentState, DashboardState, ServerState},
        placeholders,
        server::ServerStep,
    },
};

fn way(wanted: &Wanted, observed: Observed) -> Vec<&'static str> {
    let forecast = forecast(wanted, observed, TIMING, &agent_keys());
    let then = forecast.then.iter().map(|happening| match happening {
        Happening::Step(step) => kind(step),
        Happening::AgentEnrols => "(agent enrols)",
        Happening::ServerConverges { .. } => "(server converges)",
    });
    forecast.now.iter().map(kind).chain(then).collect()
}

#[test]
fn a_bring_up_is_never_unprotected_at_any_step() {
    let wanted = wanted().with_two_credentials().with_dashboard_secret();
    let observed =
        Observed { dashboard_secret: DashboardState::Absent, ..nothing().with_both_values() };
    insta::assert_snapshot!(way(&wanted, observed).join("\n"), @r"
    RecordEpoch
    CreateTunnel
    PutRoutes
    EnsureRecords
    CreateServer
    (agent enrols)
    DeliverGatewayToken
    DeliverCredential
    DeliverCredential
    PutDesired
    DeliverTunnelToken
    RecordDashboardSecret
    RotateTunnel
    WriteDashboardSecret
    DeleteSecret
    (server converges)
    ");
}

#[test]
fn nothing_is_made_before_the_epoch_stands_in_the_status() {
    let plan = plan_of(&wanted(), &nothing());
    assert_eq!(plan.steps, [Step::Server(ServerStep::RecordEpoch(FIRST_EPOCH))]);
}

#[rstest]
#[case::plain(wanted())]
#[case::with_credentials(wanted().with_two_credentials())]
#[case::with_a_dashboard_secret(wanted().with_dashboard_secret())]
fn with_nothing_to_do_the_instance_is_ready(#[case] wanted: Wanted) {
    let observed = fixtures::walk(&wanted, nothing().with_both_values(), |_| false);
    let observed =
        Observed { dashboard_secret: DashboardState::Current(placeholders::version()), ..observed };
    let plan = plan_of(&wanted, &observed);
    assert_eq!(plan.steps, []);
    assert_eq!(plan.requeue_after, None);
    assert_eq!(status_of(&wanted, &observed).phase, Some(Phase::Ready));
}

#[test]
fn a_crash_between_any_two_steps_leads_to_the_same_end() {
    let wanted = wanted().with_two_credentials();
    for stop in [
        "CreateTunnel",
        "PutRoutes",
        "EnsureRecords",
        "CreateServer",
        "DeliverTunnelToken",
        "RotateTunnel",
    ] {
        let mut observed =
            fixtures::walk(&wanted, nothing().with_both_values(), |step| kind(step) == stop);
        // A new process remembers nothing.
        observed.tunnel_memory = crate::instance::observed::TunnelMemory::default();
        let end = fixtures::walk(&wanted, observed, |_| false);
        assert_eq!(
            status_of(&wanted, &end).phase,
            Some(Phase::Ready),
            "after a crash before {stop}"
        );
        assert_eq!(end.epoch, Some(FIRST_EPOCH), "after a crash before {stop}");
    }
}

#[test]
fn an_unanswered_creation_prepares_the_tunnel_again() {
    let wanted = wanted();
    let mut observed = before(&wanted, |step| *step == Step::Server(ServerStep::Create));
    observed.tunnel_memory = crate::instance::observed::TunnelMemory::default();
    // The rest waits: user-data with a token that the tunnel does not take would never come up.
    assert_eq!(kinds(&plan_of(&wanted, &observed)), ["BootstrapTunnel"]);
}

#[rstest]
#[case::boots(AgentError::unreachable("refused"), Reason::Progressing)]
#[case::makes_its_keys(AgentError::NotReady, Reason::Progressing)]
#[case::is_behind_a_closed_door(AgentError::AccessDenied, Reason::AgentUnreachable)]
#[case::is_challenged(AgentError::Challenged, Reason::EdgeChallenge)]
#[case::is_another(AgentError::NotAuthentic("proof".into()), Reason::EnrolmentRefused)]
fn before_an_agent_has_enrolled_it_is_asked_again_soon(
    #[case] error: AgentError,
    #[case] expected: Reason,
) {
    let wanted = wanted();
    let mut observed =
        before(&wanted, |step| *step == Step::Credentials(CredentialStep::DeliverGatewayToken));
    observed.status.agent = None;
    observed.agent = AgentState::Silent(error);
    let ServerState::Present(server) = &mut observed.server else { panic!("it was made") };
    server.created = observed.now;
    let plan = plan_of(&wanted, &observed);
    assert_eq!(plan.steps, []);
    let status = status_of(&wanted, &observed);
    let condition = status.conditions.iter().find(|known| known.type_ == "AgentReady").unwrap();
    assert_eq!(condition.reason, expected);
    assert!(plan.requeue_after.unwrap() < TIMING.report, "{:?}", plan.requeue_after);
}

#[rstest]
#[case(Reached::Nothing, "certificate")]
#[case(Reached::Edge, "cloudflared has never connected")]
#[case(Reached::Connector, "agent has never answered")]
#[case(Reached::Somewhere, "routes")]
fn an_agent_that_never_comes_is_told_and_asked_ever_more_seldom(
    #[case] reached: Reached,
    #[case] likely: &str,
) {
    let wanted = wanted();
    let mut observed =
        before(&wanted, |step| *step == Step::Credentials(CredentialStep::DeliverGatewayToken));
    observed.status.agent = None;
    let detail = "HTTP 530".to_owned();
    observed.agent = AgentState::Silent(AgentError::Unreachable { reached, detail });
    let created = observed.server.present().expect("it was made").created;
    let mut at = |minutes: i64| {
        observed.now = created + jiff::SignedDuration::from_mins(minutes);
        let status = status_of(&wanted, &observed);
        let condition = status.conditions.into_iter().find(|known| known.type_ == "AgentReady");
        (plan_of(&wanted, &observed).requeue_after.expect("it is asked again"), condition.unwrap())
    };
    let (soon, booting) = at(1);
    assert_eq!(booting.reason, Reason::Progressing);
    let (later, told) = at(6);
    assert_eq!(told.reason, Reason::AgentNeverAnswered);
    assert!(told.message.contains(likely), "{}", told.message);
    let (last, same) = at(600);
    assert_eq!(same.message, told.message, "a status that changes with time wakes its instance up");
    assert!(soon < later && later < last && last <= TIMING.report, "{soon:?} {later:?} {last:?}");
}

#[test]
fn a_silent_agent_is_asked_again_before_the_next_report() {
    let wanted = wanted();
    let mut observed = ready(&wanted);
    observed.agent = AgentState::Silent(AgentError::unreachable("timed out"));
    let plan = plan_of(&wanted, &observed);
    assert_eq!(plan.steps, []);
    assert!(
        plan.requeue_after.is_some_and(|requeue_after| requeue_after < TIMING.report),
        "{:?}",
        plan.requeue_after
    );
}

#[rstest]
#[case::rescue(|server: &mut Server| server.rescue_enabled = true, Reason::RescueEnabled, "reset the server")]
#[case::locked(|server: &mut Server| server.locked = true, Reason::Locked, "its actions")]
fn what_hetzner_does_to_a_silent_server_is_told(
    #[case] change: fn(&mut Server),
    #[case] reason: Reason,
    #[case] words: &str,
) {
    let wanted = wanted();
    let mut observed = ready(&wanted);
    let ServerState::Present(server) = &mut observed.server else { panic!("there is a server") };
    change(server);
    let told = |observed: &Observed| {
        let status = status_of(&wanted, observed);
        let condition = status.conditions.into_iter().find(|known| known.type_ == "AgentReady");
        condition.unwrap()
    };
    // One that answers is well, whatever is prepared for its next boot.
    assert_eq!(told(&observed).reason, Reason::Ready);
    observed.agent = AgentState::Silent(AgentError::unreachable("timed out"));
    let silent = told(&observed);
    assert_eq!(silent.reason, reason);
    assert!(silent.message.contains(words), "{}", silent.message);
}

#[test]
fn a_server_that_is_off_is_left_off_and_says_so() {
    let wanted = wanted();
    let mut observed = ready(&wanted);
    let ServerState::Present(server) = &mut observed.server else { panic!("there is a server") };
    server.status = ServerStatus::Off;
    assert_eq!(plan_of(&wanted, &observed).steps, []);
    assert_eq!(status_of(&wanted, &observed).phase, Some(Phase::Stalled));
}

#[test]
fn a_rebuild_that_cannot_be_read_is_told_and_ignored() {
    let wanted = Wanted { rebuild: Rebuild::Unreadable, ..wanted() };
    let observed = ready(&wanted);
    assert_eq!(plan_of(&wanted, &observed).steps, []);
    let status = status_of(&wanted, &observed);
    let condition = status.conditions.iter().find(|known| known.type_ == "UpToDate").unwrap();
    assert_eq!(condition.reason, Reason::InvalidAnnotation);
    let id = observed.server.present().unwrap().id;
    assert!(condition.message.contains(&format!("Set it to {id} ")), "{}", condition.message);
    assert_eq!(status.phase, Some(Phase::Ready));
}

#[test]
fn a_server_that_does_not_match_the_spec_is_kept() {
    let mut wanted = wanted();
    let observed = ready(&wanted);
    wanted.placements[0].server_type = "cx43".to_owned();
    assert_eq!(plan_of(&wanted, &observed).steps, []);
    let status = status_of(&wanted, &observed);
    let condition = status.conditions.iter().find(|known| known.type_ == "UpToDate").unwrap();
    assert_eq!(condition.reason, Reason::ServerMismatch);
    assert_eq!(status.phase, Some(Phase::Ready));
}
