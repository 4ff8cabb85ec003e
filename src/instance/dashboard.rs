//! The Secret with the dashboard's URL and token, where the customer asks for one; and the one that
//! was asked for before.

use std::fmt;

use super::{
    Observed, Part, Wanted,
    observed::DashboardState,
    placeholders::version,
    plan::Timing,
    step::{Own, PartStep},
};
use crate::{
    api::{
        OpenClawInstanceStatus,
        conditions::{ConditionType::Ready, Reason, Verdict},
    },
    credentials::secret_source::SecretVersion,
};

/// One thing to do about the dashboard's Secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DashboardStep {
    /// Write into the status which Secret it is, before it is made: so it is found again when the spec
    /// names another or none.
    Record(Option<String>),
    Write {
        name: String,
        /// The exact object to correct; none to make it.
        version: Option<SecretVersion>,
    },
    /// Delete the one that was it before.
    Delete { name: String, version: SecretVersion },
}

/// What a step did to the dashboard's Secret.
#[derive(Debug)]
pub enum DashboardOutcome {
    /// The status names it.
    Recorded,
    /// It holds the URL and the token.
    Written(SecretVersion),
    /// The former one is gone.
    Deleted,
}

impl PartStep for DashboardStep {
    type Outcome = DashboardOutcome;

    fn touches_only_own(&self, _: &Own<'_>) -> bool {
        true
    }

    fn status_first(&self, observed: &Observed) -> Option<OpenClawInstanceStatus> {
        let Self::Record(name) = self else { return None };
        let dashboard_secret_name = name.clone();
        Some(OpenClawInstanceStatus { dashboard_secret_name, ..observed.status.clone() })
    }

    fn foresee(&self, _: &Wanted, _: &Observed) -> DashboardOutcome {
        match self {
            Self::Record(_) => DashboardOutcome::Recorded,
            Self::Write { .. } => DashboardOutcome::Written(version()),
            Self::Delete { .. } => DashboardOutcome::Deleted,
        }
    }

    fn note(outcome: DashboardOutcome, observed: &mut Observed) {
        match outcome {
            DashboardOutcome::Recorded => {}
            DashboardOutcome::Written(version) => {
                observed.dashboard_secret = DashboardState::Current(version);
            }
            DashboardOutcome::Deleted => observed.former_dashboard = None,
        }
    }
}

impl fmt::Display for DashboardStep {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Record(Some(name)) => {
                write!(formatter, "record in the status that the dashboard's Secret is {name}")
            }
            Self::Record(None) => {
                formatter.write_str("record in the status that the dashboard has no Secret")
            }
            Self::Write { name, .. } => {
                write!(formatter, "write the dashboard's URL and token into Secret {name}")
            }
            Self::Delete { name, .. } => {
                write!(formatter, "delete Secret {name}, which was the dashboard's before")
            }
        }
    }
}

/// What to do about the Secret that the status names and the spec does not any more: it holds a token
/// that still opens the dashboard.
pub fn former(wanted: &Wanted, observed: &Observed) -> Option<DashboardStep> {
    let former = observed.status.dashboard_secret_name.as_ref()?;
    if wanted.dashboard_secret.as_ref() == Some(former) {
        return None;
    }
    Some(match observed.former_dashboard.clone() {
        Some(version) => DashboardStep::Delete { name: former.clone(), version },
        None => DashboardStep::Record(None),
    })
}

/// Made only if absent, corrected only if ours, and recorded before either.
pub fn plan(wanted: &Wanted, observed: &Observed, _: Timing) -> Part {
    let passable = Part { passable: true, ..Part::default() };
    let Some(name) = &wanted.dashboard_secret else { return passable };
    let step = match &observed.dashboard_secret {
        DashboardState::Foreign => {
            return Part::stuck(Verdict::no(
                Ready,
                Reason::ForeignSecret,
                format!(
                    "Secret {name} exists and is not this instance's; choose another spec.access.dashboardSecretName or delete it"
                ),
            ));
        }
        // The former one goes first, or its name would be forgotten.
        _ if observed.status.dashboard_secret_name.is_none() => {
            DashboardStep::Record(Some(name.clone()))
        }
        _ if observed.status.dashboard_secret_name.as_ref() != Some(name) => return passable,
        DashboardState::NotWanted | DashboardState::Current(_) => return passable,
        DashboardState::Absent => DashboardStep::Write { name: name.clone(), version: None },
        DashboardState::Stale(version) => {
            DashboardStep::Write { name: name.clone(), version: Some(version.clone()) }
        }
    };
    Part { steps: vec![step.into()], ..passable }
}
