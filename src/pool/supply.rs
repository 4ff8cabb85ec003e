//! What instances get of a pool after a look at it, and what its sweeps say.

use crate::{api::conditions::Reason, cloud::CloudError, problem::Problem};

use super::{Facilities, Outcome};

/// How far the pool's first sweep and the ones after it are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SweepState {
    /// None has ended yet.
    Pending,
    /// The last one worked.
    Done,
    /// The last one failed.
    Failed {
        error: CloudError,
        /// An earlier one of this session worked.
        swept_before: bool,
        /// How often in a row.
        times: u32,
    },
}

/// What instances get of a pool.
pub struct Supply {
    /// See [`crate::controller::pool_runtime::PoolRuntime::facilities`].
    pub facilities: Result<Facilities, Problem>,
    /// See [`crate::controller::pool_runtime::PoolRuntime::intake`].
    pub intake: Result<(), Problem>,
}

impl Supply {
    /// That the token is of another project, if it is: then what was seen before counts for nothing.
    pub fn project_changed(&self) -> Option<Problem> {
        self.facilities.as_ref().err().filter(|why| is_project_changed(why)).cloned()
    }
}

fn is_project_changed(why: &Problem) -> bool {
    why.reason == Reason::ProjectChanged
}

/// What instances get after a look at the pool. A look that was refused proves nothing about what was
/// found before it, so that serves on; only of another project nothing is believed. Where the budget is
/// spent new instances come all the same: they wait for it themselves.
pub fn supply(
    outcome: &Outcome,
    kept: Option<Facilities>,
    swept: Option<&Problem>,
    deleting: bool,
) -> Supply {
    let found = outcome.facilities();
    let passing = |why: &Problem| why.reason == Reason::RateLimited;
    let refused =
        swept.filter(|why| [Reason::Unauthorized, Reason::Forbidden].contains(&why.reason));
    let mut intake = match (&found, refused) {
        (Err(why), _) if kept.is_none() || !passing(why) => Err(why.clone()),
        (_, Some(why)) => Err(why.clone()),
        _ => Ok(()),
    };
    if deleting && intake.is_ok() {
        let message = "it is being deleted. Name another pool in a new instance";
        intake = Err(Problem::whole(Reason::Deleting, message));
    }
    let facilities = match (found, kept) {
        (Err(why), Some(kept)) if !is_project_changed(&why) => Ok(kept),
        (found, _) => found,
    };
    Supply { facilities, intake }
}

/// What the sweeps say about the pool. A single failure after a success is no news: the inventory
/// is a little older, and the next sweep comes soon.
pub fn sweep_problem(
    state: &SweepState,
    token_secret: impl Fn(&CloudError) -> String,
) -> Option<Problem> {
    match state {
        SweepState::Done => None,
        SweepState::Pending => Some(Problem::whole(
            Reason::Progressing,
            "The clouds are being listed for the first time.",
        )),
        SweepState::Failed { error, swept_before, times } => {
            let problem = Problem::of_pool(error, &token_secret(error));
            let blip = *swept_before && *times < 2 && !problem.needs_a_person();
            (!blip).then_some(problem)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cloud::{Cloud, ErrorKind},
        hetzner::FirewallId,
    };
    use rstest::rstest;

    fn error(kind: ErrorKind) -> CloudError {
        CloudError::new(Cloud::Hetzner, "list_firewalls", kind, "request 4711")
    }

    #[rstest]
    #[case::first_failure(false, 1, ErrorKind::Transient { maybe_applied: false }, true)]
    #[case::blip(true, 1, ErrorKind::Transient { maybe_applied: false }, false)]
    #[case::lasting(true, 2, ErrorKind::Transient { maybe_applied: false }, true)]
    #[case::bad_token(true, 1, ErrorKind::Unauthorized, true)]
    fn a_failing_sweep_is_told_unless_it_is_a_blip(
        #[case] swept_before: bool,
        #[case] times: u32,
        #[case] kind: ErrorKind,
        #[case] told: bool,
    ) {
        let state = SweepState::Failed { error: error(kind), swept_before, times };
        assert_eq!(sweep_problem(&state, |_| String::new()).is_some(), told);
    }

    fn facilities() -> Facilities {
        Facilities {
            firewall: FirewallId(7),
            ssh_keys: Vec::new(),
            access: std::sync::Arc::new(crate::agent::AccessHeaders {
                client_id: "id".to_owned(),
                client_secret: moorage_wire::Secret::from([0; 32]),
            }),
            offers: std::sync::Arc::default(),
        }
    }

    fn outcome(kind: Option<ErrorKind>) -> Outcome {
        let problem = kind.map(|kind| Problem::of_pool(&error(kind), "Secret"));
        let Facilities { firewall, access, offers, .. } = facilities();
        match problem {
            Some(_) => Outcome { problem, ..Outcome::default() },
            None => Outcome {
                firewall: Some(firewall),
                headers: Some(access),
                offers: Some(offers),
                ..Outcome::default()
            },
        }
    }

    const PAUSE: std::time::Duration = std::time::Duration::from_secs(7);

    #[rstest]
    #[case::spent_budget(ErrorKind::BudgetExhausted { wait: PAUSE }, true)]
    #[case::rate_limit(ErrorKind::RateLimited { retry_after: PAUSE }, true)]
    #[case::revoked_token(ErrorKind::Unauthorized, false)]
    #[case::outage(ErrorKind::Transient { maybe_applied: false }, false)]
    fn a_look_that_is_refused_takes_nothing_from_running_instances(
        #[case] kind: ErrorKind,
        #[case] takes_new_ones: bool,
    ) {
        let refused = outcome(Some(kind));
        let supply = supply(&refused, Some(facilities()), None, false);
        assert_eq!(supply.facilities.unwrap().firewall, FirewallId(7));
        assert_eq!(supply.intake.is_ok(), takes_new_ones);
        let never_seen = super::supply(&refused, None, None, false);
        assert!(never_seen.facilities.is_err() && never_seen.intake.is_err());
    }

    #[test]
    fn of_another_project_nothing_is_believed() {
        let blocked = Problem::whole(Reason::ProjectChanged, "Firewall 7 is gone");
        let problem = Some(blocked.clone());
        let outcome = Outcome { problem, ..Outcome::default() };
        let supply = supply(&outcome, Some(facilities()), None, false);
        assert_eq!(supply.project_changed(), Some(blocked));
        assert!(supply.intake.is_err());
    }

    #[test]
    fn a_deleted_pool_serves_its_own_and_takes_no_new_ones() {
        let supply = supply(&outcome(None), None, None, true);
        assert!(supply.facilities.is_ok());
        assert_eq!(supply.intake.unwrap_err().reason, Reason::Deleting);
    }
}
