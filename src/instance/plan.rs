//! The planner: a synchronous function of what is wanted and what was seen. It returns the steps that
//! can be done now, what the conditions say, and when to look again.

use std::time::Duration;

use super::{
    Observed, Step, Wanted, agent, credentials, dashboard, desired_state, handover, records,
    replacement, rotation, routes, server, tunnel,
};
use crate::api::conditions::{ConditionStatus, ConditionType, Reason, Verdict};
/// What one managed thing says.
#[derive(Debug, Default)]
pub struct Part {
    /// What to do for it now.
    pub steps: Vec<Step>,
    pub verdicts: Vec<Verdict>,
    /// Whether what comes after it may go on.
    pub passable: bool,
    /// When to look again, if sooner than usual.
    pub requeue_after: Option<Duration>,
}

impl Part {
    pub fn done(verdict: Verdict) -> Self {
        Self { verdicts: vec![verdict], passable: true, ..Self::default() }
    }

    /// There is something to do; what comes after waits for it.
    pub fn todo(step: impl Into<Step>, verdict: Verdict) -> Self {
        Self { steps: vec![step.into()], verdicts: vec![verdict], ..Self::default() }
    }

    /// Nothing can be done now.
    pub fn stuck(verdict: impl Into<Verdict>) -> Self {
        Self { verdicts: vec![verdict.into()], ..Self::default() }
    }

    /// Something else has to happen first; look again soon.
    pub fn wait(verdict: impl Into<Verdict>, requeue_after: Duration) -> Self {
        Self {
            verdicts: vec![verdict.into()],
            requeue_after: Some(requeue_after),
            ..Self::default()
        }
    }
}

/// What to do now.
#[derive(Debug, Default)]
pub struct Plan {
    /// In this order; each relies on those before it.
    pub steps: Vec<Step>,
    /// One per part, without `Ready`, `Reconciling` and `Stalled`.
    pub verdicts: Vec<Verdict>,
    /// When to look again.
    pub requeue_after: Option<Duration>,
}

/// The rhythm of bring-up.
pub const SOON: Duration = Duration::from_secs(1);

/// Plans for an instance that should exist.
pub fn plan(wanted: &Wanted, observed: &Observed, timing: Timing) -> Plan {
    type Planner = fn(&Wanted, &Observed, Timing) -> Part;
    let parts: [(ConditionType, Planner); 11] = [
        (ConditionType::ServerReady, server::epoch),
        (ConditionType::TunnelReady, tunnel::plan),
        (ConditionType::RoutesReady, routes::plan),
        (ConditionType::RoutesReady, records::plan),
        (ConditionType::ServerReady, server::plan),
        (ConditionType::AgentReady, agent::plan),
        (ConditionType::AgentReady, handover::plan),
        (ConditionType::CredentialsDelivered, credentials::plan),
        (ConditionType::ConfigApplied, desired_state::plan),
        (ConditionType::TunnelReady, rotation::plan),
        (ConditionType::Ready, dashboard::plan),
    ];
    // A token that nobody should have any more does not wait for the parts to be well.
    let mut plan = Plan {
        steps: dashboard::former(wanted, observed).into_iter().map(Into::into).collect(),
        ..Plan::default()
    };
    let mut passable = true;
    for (kind, part) in parts {
        if !passable {
            state(
                &mut plan.verdicts,
                Verdict::unknown(kind, Reason::Waiting, "Waits for the parts before it"),
            );
            continue;
        }
        let part = part(wanted, observed, timing);
        passable = part.passable;
        plan.steps.extend(part.steps);
        part.verdicts.into_iter().for_each(|verdict| state(&mut plan.verdicts, verdict));
        plan.requeue_after = [plan.requeue_after, part.requeue_after].into_iter().flatten().min();
    }
    let owner = wanted.subject.owner(&observed.status);
    plan.steps.retain(|step| {
        step.touches_only_own(&owner, observed)
            && !(observed.is_mass_loss() && step.ends_a_life(observed))
    });
    plan.verdicts.retain(|verdict| {
        verdict.kind != ConditionType::Ready || verdict.status == ConditionStatus::False
    });
    plan.verdicts.push(replacement::up_to_date(wanted, observed));
    plan
}

/// How often settled things are looked at.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// Between two reports of an agent that is ready.
    pub report: Duration,
    /// Between two comparisons of the ingress rules.
    pub routes: Duration,
}

/// Adds a verdict. Of two on the same condition the first stands, unless the second says that it does
/// not hold.
fn state(verdicts: &mut Vec<Verdict>, verdict: Verdict) {
    match verdicts.iter_mut().find(|known| known.kind == verdict.kind) {
        Some(known)
            if known.status != ConditionStatus::False
                && verdict.status == ConditionStatus::False =>
        {
            *known = verdict;
        }
        Some(_) => {}
        None => verdicts.push(verdict),
    }
}
