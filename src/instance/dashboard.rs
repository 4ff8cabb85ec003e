//! The Secret with the dashboard's URL and token, where the customer asks for one.

use super::{Observed, Part, Step, Wanted, observed::DashboardSight, plan::Timing};
use crate::api::conditions::{ConditionType::Ready, Verdict, reason};

/// Made only if absent, corrected only if ours.
pub fn plan(wanted: &Wanted, seen: &Observed, _: Timing) -> Part {
    let Some(name) = &wanted.dashboard_secret else {
        return Part { passable: true, ..Part::default() };
    };
    match seen.dashboard_secret {
        DashboardSight::NotWanted | DashboardSight::Current => {
            Part { passable: true, ..Part::default() }
        }
        DashboardSight::Absent | DashboardSight::Stale => Part {
            steps: vec![Step::WriteDashboardSecret(name.clone())],
            passable: true,
            ..Part::default()
        },
        DashboardSight::Foreign => Part::stuck(Verdict::no(
            Ready,
            reason::FOREIGN_SECRET,
            format!(
                "Secret {name} exists and is not this instance's; choose another spec.access.dashboardSecretName or delete it"
            ),
        )),
    }
}
