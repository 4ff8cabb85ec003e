//! What a pass over a pool decides: pure functions of what is wanted and what was seen.

use jiff::Timestamp;

use crate::{
    api::{
        HostingPoolSpec, HostingPoolStatus,
        conditions::{ConditionType, Verdict, merge, reason},
        pool::AccessStatus,
    },
    cloud::CloudError,
    cloudflare::{AccountId, Zone, ZoneId},
    hetzner::{FirewallId, FirewallRule},
    pool::{Blocked, Offers},
};

use super::{
    firewall,
    trouble::{Again, Trouble},
};

/// The parts of a spec that are text in the API and more than that here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParsedSpec {
    /// The Cloudflare account.
    pub account: AccountId,
    /// The zone.
    pub zone: ZoneId,
    /// The firewall's rules.
    pub rules: Vec<FirewallRule>,
}

/// Parses; an error names the field.
pub fn parse_spec(spec: &HostingPoolSpec) -> Result<ParsedSpec, Trouble> {
    let invalid = |field| {
        move |error: crate::cloud::InvalidId| Trouble::invalid_spec(field, &error.to_string())
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

/// Whether the zone is the one that the spec speaks of.
pub fn check_zone(zone: Option<&Zone>, account: &AccountId, domain: &str) -> Result<(), Trouble> {
    let Some(zone) = zone else {
        return Err(Trouble {
            again: Again::Slowly,
            ..Trouble::invalid_spec(
                "spec.cloudflare.zoneId",
                "the API token sees no such zone; the id is wrong, or the token lacks Zone Read on it",
            )
        });
    };
    if zone.account.id != *account {
        return Err(Trouble::invalid_spec(
            "spec.cloudflare.accountId",
            &format!("the zone {} belongs to account {}", zone.name, zone.account.id),
        ));
    }
    if zone.name != domain {
        return Err(Trouble::invalid_spec(
            "spec.cloudflare.domain",
            &format!("the zone of this zoneId is {}", zone.name),
        ));
    }
    Ok(())
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
        /// Why.
        error: CloudError,
        /// An earlier one of this session worked.
        swept_before: bool,
        /// How often in a row.
        times: u32,
    },
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
    /// Being deleted.
    pub deleting: bool,
    /// What stands in the way.
    pub trouble: Option<&'a Trouble>,
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
    }
}

fn verdicts(findings: &Findings<'_>) -> Vec<Verdict> {
    let Some(Trouble { blocked: Blocked { reason, message }, .. }) = findings.trouble else {
        if findings.deleting {
            let message = "The pool's objects in the clouds are being deleted.";
            return vec![
                Verdict::no(ConditionType::Ready, reason::DELETING, message),
                Verdict::yes(ConditionType::Reconciling, reason::DELETING, message),
            ];
        }
        return vec![ready(findings.offers)];
    };
    let stalled = findings.trouble.is_some_and(Trouble::is_stalled);
    let second = if stalled { ConditionType::Stalled } else { ConditionType::Reconciling };
    vec![
        Verdict::no(ConditionType::Ready, reason, message.clone()),
        Verdict::yes(second, reason, message.clone()),
    ]
}

/// The verdict on a pool that works. That Hetzner lacks something keeps no instance that is there from
/// being looked after.
fn ready(offers: Option<&Offers>) -> Verdict {
    let Some((offers, unknown)) = offers.and_then(|offers| Some((offers, offers.unknown()?)))
    else {
        let message = "Instances can be made in this pool.";
        return Verdict::yes(ConditionType::Ready, reason::READY, message);
    };
    if offers.none_left() {
        let message = format!("No server can be made in this pool: {unknown}.");
        return Verdict::no(ConditionType::Ready, reason::INVALID_SPEC, message);
    }
    let message = format!("Instances can be made in this pool, but {unknown}.");
    Verdict::yes(ConditionType::Ready, reason::DEGRADED, message)
}

/// What the sweeps say about the pool. A single failure after a success is no news: the inventory
/// is a little older, and the next sweep comes soon.
pub fn sweep_trouble(
    state: &SweepState,
    token_secret: impl Fn(&CloudError) -> String,
) -> Option<Trouble> {
    match state {
        SweepState::Done => None,
        SweepState::Pending => Some(Trouble {
            blocked: Blocked {
                reason: reason::PROGRESSING,
                message: "The clouds are being listed for the first time.".to_owned(),
            },
            again: Again::Backoff,
        }),
        SweepState::Failed { error, swept_before, times } => {
            let trouble = Trouble::cloud(error, &token_secret(error));
            let blip = *swept_before && *times < 2 && !trouble.is_stalled();
            (!blip).then_some(trouble)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cloud::{Cloud, ErrorKind},
        cloudflare::ZoneAccount,
    };
    use rstest::rstest;

    const ACCOUNT: &str = "0123456789abcdef0123456789abcdef";

    fn zone(name: &str, account: &str) -> Zone {
        Zone {
            id: ZoneId::parse("z").unwrap(),
            name: name.to_owned(),
            status: None,
            account: ZoneAccount { id: AccountId::parse(account).unwrap() },
        }
    }

    #[rstest]
    #[case::right(Some(zone("example.com", ACCOUNT)), None)]
    #[case::none(None, Some("spec.cloudflare.zoneId"))]
    #[case::other_account(Some(zone("example.com", "a")), Some("spec.cloudflare.accountId"))]
    #[case::other_domain(Some(zone("example.org", ACCOUNT)), Some("spec.cloudflare.domain"))]
    fn a_wrong_zone_names_the_field(#[case] zone: Option<Zone>, #[case] field: Option<&str>) {
        let account = AccountId::parse(ACCOUNT).unwrap();
        match (check_zone(zone.as_ref(), &account, "example.com"), field) {
            (Ok(()), None) => {}
            (Err(trouble), Some(field)) => {
                assert_eq!(trouble.blocked.reason, reason::INVALID_SPEC);
                assert!(trouble.blocked.message.starts_with(field), "{}", trouble.blocked.message);
            }
            (result, _) => panic!("{result:?}"),
        }
    }

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
        assert_eq!(sweep_trouble(&state, |_| String::new()).is_some(), told);
    }

    #[test]
    fn what_is_not_known_stays_in_the_status() {
        let old = HostingPoolStatus {
            firewall_id: Some(7),
            sealing_certificate: Some("pem".to_owned()),
            ..HostingPoolStatus::default()
        };
        let trouble = Trouble::invalid_spec("spec.capacity", "x");
        let findings = Findings {
            generation: Some(2),
            firewall: None,
            access: None,
            instances: 3,
            certificate: None,
            deleting: false,
            trouble: Some(&trouble),
            offers: None,
        };
        let new = status(&old, &findings, Timestamp::UNIX_EPOCH);
        assert_eq!((new.firewall_id, new.instances), (Some(7), 3));
        assert_eq!(new.sealing_certificate.as_deref(), Some("pem"));
        let types: Vec<_> = new.conditions.iter().map(|each| each.type_.as_str()).collect();
        assert_eq!(types, ["Ready", "Stalled"]);
    }
}
