//! What a pass over a pool decides: pure functions of what is wanted and what was seen.

use jiff::Timestamp;

use crate::{
    api::{
        HostingPoolSpec, HostingPoolStatus,
        conditions::{ConditionType, Reason, Verdict, merge},
        pool::{AccessStatus, MasterKeyStatus},
    },
    cloud::CloudError,
    cloudflare::{AccountId, ZoneId},
    hetzner::{FirewallId, FirewallRule},
    problem::Problem,
};

use super::{Facilities, Offers, Outcome, Unaccounted, firewall};

/// The parts of a spec that are text in the API and more than that here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParsedSpec {
    pub account: AccountId,
    pub zone: ZoneId,
    pub rules: Vec<FirewallRule>,
}

/// Parses; an error names the field.
pub fn parse_spec(spec: &HostingPoolSpec) -> Result<ParsedSpec, Problem> {
    let invalid = |field| {
        move |error: crate::cloud::InvalidId| Problem::invalid_spec(field, &error.to_string())
    };
    let cloudflare = &spec.cloudflare;
    let allow_from = spec.hetzner.ssh.as_ref().map_or(&[][..], |ssh| &ssh.allow_from);
    Ok(ParsedSpec {
        account: AccountId::parse(&*cloudflare.account_id)
            .map_err(invalid("spec.cloudflare.accountId"))?,
        zone: ZoneId::parse(&*cloudflare.zone_id).map_err(invalid("spec.cloudflare.zoneId"))?,
        rules: firewall::rules(allow_from)?,
    })
}

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

/// What the pass found out, for the status.
#[derive(Debug, Clone)]
pub struct Findings<'a> {
    /// The generation of the spec.
    pub generation: Option<i64>,
    /// The firewall, if it is known.
    pub firewall: Option<FirewallId>,
    /// The Access objects, if they are known.
    pub access: Option<AccessStatus>,
    /// How many instances name the pool.
    pub instances: u32,
    /// The certificate to publish.
    pub certificate: Option<&'a str>,
    pub master_key: MasterKeyStatus,
    /// What is in the clouds and no instance accounts for.
    pub unaccounted: Unaccounted,
    pub deleting: bool,
    /// What stands in the way.
    pub problem: Option<&'a Problem>,
    /// Whether the pool's instances are looked after all the same.
    pub serving: bool,
    /// What Hetzner's catalogue says, if it is known.
    pub offers: Option<&'a Offers>,
}

/// The status after a pass. What is not known stays as it was.
pub fn status(
    old: &HostingPoolStatus,
    findings: &Findings<'_>,
    now: Timestamp,
) -> HostingPoolStatus {
    let certificate = findings.certificate.map(str::to_owned);
    HostingPoolStatus {
        observed_generation: findings.generation,
        conditions: merge(&old.conditions, &verdicts(findings), findings.generation, now),
        instances: findings.instances,
        firewall_id: findings.firewall.map(|id| id.0).or(old.firewall_id),
        access: findings.access.clone().or_else(|| old.access.clone()),
        sealing_certificate: certificate.or_else(|| old.sealing_certificate.clone()),
        master_key: Some(findings.master_key.clone()),
        orphans: findings.unaccounted.orphans.clone(),
        retained: findings.unaccounted.retained.clone(),
    }
}

fn verdicts(findings: &Findings<'_>) -> Vec<Verdict> {
    if findings.deleting && findings.instances > 0 {
        return held(findings);
    }
    let Some(Problem { reason, message, .. }) = findings.problem else {
        if findings.deleting {
            let message = "The pool's objects in the clouds are being deleted.";
            return vec![
                Verdict::no(ConditionType::Ready, Reason::Deleting, message),
                Verdict::yes(ConditionType::Reconciling, Reason::Deleting, message),
            ];
        }
        return vec![ready(findings.offers)];
    };
    if *reason == Reason::RateLimited && findings.serving {
        return vec![Verdict::yes(ConditionType::Ready, Reason::RateLimited, message.clone())];
    }
    let stalled = findings.problem.is_some_and(Problem::needs_a_person);
    let second = if stalled { ConditionType::Stalled } else { ConditionType::Reconciling };
    vec![
        Verdict::no(ConditionType::Ready, *reason, message.clone()),
        Verdict::yes(second, *reason, message.clone()),
    ]
}

/// A pool that is being deleted and cannot go yet. It says how to get it back.
fn held(findings: &Findings<'_>) -> Vec<Verdict> {
    let mut message = format!(
        "The pool is being deleted, but {} instances use it: they are looked after as before, and no new ones are taken. \
         Delete them, or keep the pool: remove its finalizer by hand and apply the same pool again (docs/operations.md).",
        findings.instances
    );
    if let Some(problem) = findings.problem {
        message = format!("{message} {}", problem.message);
    }
    vec![
        Verdict::no(ConditionType::Ready, Reason::Deleting, message.clone()),
        Verdict::yes(ConditionType::Reconciling, Reason::Deleting, message),
    ]
}

/// The verdict on a pool that works. That Hetzner lacks something keeps no instance that is there from
/// being looked after.
fn ready(offers: Option<&Offers>) -> Verdict {
    let Some((offers, unknown)) = offers.and_then(|offers| Some((offers, offers.unknown()?)))
    else {
        let message = "Instances can be made in this pool.";
        return Verdict::yes(ConditionType::Ready, Reason::Ready, message);
    };
    if offers.none_left() {
        let message = format!("No server can be made in this pool: {unknown}.");
        return Verdict::no(ConditionType::Ready, Reason::InvalidSpec, message);
    }
    let message = format!("Instances can be made in this pool, but {unknown}.");
    Verdict::yes(ConditionType::Ready, Reason::NotOffered, message)
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
        controller::pool::fakes,
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

    #[test]
    fn what_is_not_known_stays_in_the_status() {
        let old = HostingPoolStatus {
            firewall_id: Some(7),
            sealing_certificate: Some("pem".to_owned()),
            ..HostingPoolStatus::default()
        };
        let problem = Problem::invalid_spec("spec.capacity", "x");
        let findings = Findings {
            generation: Some(2),
            firewall: None,
            access: None,
            instances: 3,
            certificate: None,
            master_key: fakes::master_key(),
            unaccounted: Unaccounted::default(),
            deleting: false,
            problem: Some(&problem),
            serving: false,
            offers: None,
        };
        let new = status(&old, &findings, Timestamp::UNIX_EPOCH);
        assert_eq!((new.firewall_id, new.instances), (Some(7), 3));
        assert_eq!(new.sealing_certificate.as_deref(), Some("pem"));
        let types: Vec<_> = new.conditions.iter().map(|each| each.type_.as_str()).collect();
        assert_eq!(types, ["Ready", "Stalled"]);
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

    /// Of a pool that works for three instances.
    fn findings() -> Findings<'static> {
        Findings {
            generation: Some(1),
            firewall: None,
            access: None,
            instances: 3,
            certificate: None,
            master_key: fakes::master_key(),
            unaccounted: Unaccounted::default(),
            deleting: false,
            problem: None,
            serving: true,
            offers: None,
        }
    }

    #[test]
    fn a_deleted_pool_serves_its_own_and_takes_no_new_ones() {
        let supply = supply(&outcome(None), None, None, true);
        assert!(supply.facilities.is_ok());
        assert_eq!(supply.intake.unwrap_err().reason, Reason::Deleting);
        let findings = Findings { deleting: true, ..findings() };
        let said = status(&HostingPoolStatus::default(), &findings, Timestamp::UNIX_EPOCH);
        let ready = &said.conditions[0];
        assert_eq!((&*ready.type_, &*ready.reason), ("Ready", "Deleting"));
        for part in ["3 instances", "remove its finalizer"] {
            assert!(ready.message.contains(part), "{}", ready.message);
        }
    }

    #[rstest]
    #[case::serving(true, "True")]
    #[case::never_seen(false, "False")]
    fn a_spent_budget_makes_no_pool_unready_that_works(#[case] serving: bool, #[case] ready: &str) {
        let wait = PAUSE;
        let problem = Problem::of_pool(&error(ErrorKind::BudgetExhausted { wait }), "Secret");
        let findings = Findings { problem: Some(&problem), serving, ..findings() };
        let said = status(&HostingPoolStatus::default(), &findings, Timestamp::UNIX_EPOCH);
        assert_eq!((&*said.conditions[0].type_, &*said.conditions[0].status), ("Ready", ready));
    }
}
