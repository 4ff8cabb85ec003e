//! The status of a pool after a pass: what is known stays, and the verdicts say the rest.

use jiff::Timestamp;

use crate::{
    api::{
        HostingPoolStatus,
        conditions::{ConditionType, Reason, Verdict, merge},
        pool::{AccessStatus, MasterKeyStatus, UsageStatus},
    },
    hetzner::FirewallId,
    problem::Problem,
};

use super::{Offers, Unaccounted};

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
    /// How much of Cloudflare's limits is used, if it was seen.
    pub usage: Option<UsageStatus>,
}

/// The status after a pass. What is not known stays as it was.
pub fn of_pass(
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
        usage: usage(old.usage, findings.usage),
        sealing_certificate: certificate.or_else(|| old.sealing_certificate.clone()),
        master_key: Some(findings.master_key.clone()),
        orphans: findings.unaccounted.orphans.clone(),
        retained: findings.unaccounted.retained.clone(),
    }
}

/// What was not looked at this time is as it was.
fn usage(old: Option<UsageStatus>, seen: Option<UsageStatus>) -> Option<UsageStatus> {
    let Some(seen) = seen else { return old };
    let old = old.unwrap_or_default();
    Some(UsageStatus {
        access_applications: seen.access_applications.or(old.access_applications),
        service_tokens: seen.service_tokens.or(old.service_tokens),
        ..seen
    })
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cloud::{Cloud, CloudError, ErrorKind},
        controller::pool::fakes,
    };
    use rstest::rstest;

    fn error(kind: ErrorKind) -> CloudError {
        CloudError::new(Cloud::Hetzner, "list_firewalls", kind, "request 4711")
    }

    #[test]
    fn what_is_not_known_stays_in_the_status() {
        let old = HostingPoolStatus {
            firewall_id: Some(7),
            sealing_certificate: Some("pem".to_owned()),
            ..HostingPoolStatus::default()
        };
        let problem = Problem::invalid_spec("spec.capacity", "x");
        let findings =
            Findings { generation: Some(2), problem: Some(&problem), serving: false, ..findings() };
        let new = of_pass(&old, &findings, Timestamp::UNIX_EPOCH);
        assert_eq!((new.firewall_id, new.instances), (Some(7), 3));
        assert_eq!(new.sealing_certificate.as_deref(), Some("pem"));
        let types: Vec<_> = new.conditions.iter().map(|each| each.type_.as_str()).collect();
        assert_eq!(types, ["Ready", "Stalled"]);
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
            usage: None,
        }
    }

    #[test]
    fn a_deleted_pool_says_how_to_get_it_back() {
        let findings = Findings { deleting: true, ..findings() };
        let said = of_pass(&HostingPoolStatus::default(), &findings, Timestamp::UNIX_EPOCH);
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
        let wait = std::time::Duration::from_secs(7);
        let problem = Problem::of_pool(&error(ErrorKind::BudgetExhausted { wait }), "Secret");
        let findings = Findings { problem: Some(&problem), serving, ..findings() };
        let said = of_pass(&HostingPoolStatus::default(), &findings, Timestamp::UNIX_EPOCH);
        assert_eq!((&*said.conditions[0].type_, &*said.conditions[0].status), ("Ready", ready));
    }
}
