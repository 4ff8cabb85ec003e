//! The Secret with the dashboard's URL and token, where the customer asks for one; and the one that
//! was asked for before.

use super::{Observed, Part, Step, Wanted, observed::DashboardState, plan::Timing};
use crate::api::conditions::{ConditionType::Ready, Reason, Verdict};

/// What to do about the Secret that the status names and the spec does not any more: it holds a token
/// that still opens the dashboard.
pub fn former(wanted: &Wanted, observed: &Observed) -> Option<Step> {
    let former = observed.status.dashboard_secret_name.as_ref()?;
    if wanted.dashboard_secret.as_ref() == Some(former) {
        return None;
    }
    Some(match observed.former_dashboard.clone() {
        Some(version) => Step::DeleteDashboardSecret { name: former.clone(), version },
        None => Step::RecordDashboardSecret(None),
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
            Step::RecordDashboardSecret(Some(name.clone()))
        }
        _ if observed.status.dashboard_secret_name.as_ref() != Some(name) => return passable,
        DashboardState::NotWanted | DashboardState::Current(_) => return passable,
        DashboardState::Absent => Step::WriteDashboardSecret { name: name.clone(), version: None },
        DashboardState::Stale(version) => {
            Step::WriteDashboardSecret { name: name.clone(), version: Some(version.clone()) }
        }
    };
    Part { steps: vec![step], ..passable }
}
