//! The Secret for the dashboard, and the one that was asked for before.

use rstest::rstest;

use crate::{
    agent::AgentError,
    api::{conditions::Reason, instance::Phase},
    credentials::secret_source::SecretVersion,
    instance::{
        Observed, Step, Wanted,
        dashboard::DashboardStep,
        fixtures::{kinds, plan_of, ready, status_of, wanted},
        observed::{AgentState, DashboardState},
    },
};

const NAME: &str = "ada-dashboard";

fn version() -> SecretVersion {
    SecretVersion { uid: "u-7".to_owned(), resource_version: "7".to_owned() }
}

/// A ready instance whose status names this Secret.
fn recorded(wanted: &Wanted, name: Option<&str>) -> Observed {
    let mut observed = ready(wanted);
    observed.status.dashboard_secret_name = name.map(str::to_owned);
    observed
}

#[test]
fn one_of_somebody_else_is_left_alone() {
    let wanted = wanted().with_dashboard_secret();
    let observed = Observed { dashboard_secret: DashboardState::Foreign, ..ready(&wanted) };
    assert_eq!(plan_of(&wanted, &observed).steps, []);
    let status = status_of(&wanted, &observed);
    assert_eq!(status.phase, Some(Phase::Stalled));
    let ready = status.conditions.iter().find(|known| known.type_ == "Ready").unwrap();
    assert_eq!(ready.reason, Reason::ForeignSecret);
}

#[rstest]
#[case::absent(DashboardState::Absent, None)]
#[case::stale(DashboardState::Stale(version()), Some(version()))]
fn it_is_written_once_the_status_names_it(
    #[case] state: DashboardState,
    #[case] version: Option<SecretVersion>,
) {
    let wanted = wanted().with_dashboard_secret();
    let observed = Observed { dashboard_secret: state.clone(), ..recorded(&wanted, None) };
    assert_eq!(
        plan_of(&wanted, &observed).steps,
        [Step::Dashboard(DashboardStep::Record(Some(NAME.to_owned())))]
    );
    let observed = Observed { dashboard_secret: state, ..recorded(&wanted, Some(NAME)) };
    let write = Step::Dashboard(DashboardStep::Write { name: NAME.to_owned(), version });
    assert_eq!(plan_of(&wanted, &observed).steps, [write]);
}

#[rstest]
#[case::another_name(wanted().with_dashboard_secret())]
#[case::none(wanted())]
fn the_former_one_goes_before_its_name_is_forgotten(#[case] wanted: Wanted) {
    let former = || Observed {
        dashboard_secret: DashboardState::Absent,
        ..recorded(&wanted, Some("former"))
    };
    let observed = Observed { former_dashboard: Some(version()), ..former() };
    let delete =
        Step::Dashboard(DashboardStep::Delete { name: "former".to_owned(), version: version() });
    assert_eq!(plan_of(&wanted, &observed).steps.as_slice(), std::slice::from_ref(&delete));
    assert_eq!(plan_of(&wanted, &former()).steps, [Step::Dashboard(DashboardStep::Record(None))]);
    // It does not wait for an agent that is silent.
    let silent = AgentState::Silent(AgentError::NotReady);
    let observed = Observed { former_dashboard: Some(version()), agent: silent, ..former() };
    assert!(plan_of(&wanted, &observed).steps.contains(&delete));
}

#[test]
fn one_that_stands_is_only_recorded() {
    let wanted = wanted().with_dashboard_secret();
    let observed = Observed {
        dashboard_secret: DashboardState::Current(version()),
        ..recorded(&wanted, None)
    };
    assert_eq!(kinds(&plan_of(&wanted, &observed)), ["RecordDashboardSecret"]);
    let observed = Observed {
        dashboard_secret: DashboardState::Current(version()),
        ..recorded(&wanted, Some(NAME))
    };
    assert_eq!(kinds(&plan_of(&wanted, &observed)), [] as [&str; 0]);
}
