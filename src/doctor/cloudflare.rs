//! A Cloudflare account and its zone: the token, the zone itself, Access, and how much room there is.

use jiff::{SignedDuration, Timestamp, civil::date, tz::TimeZone};

use super::finding::{Check, Finding, Scope};
use crate::{
    api::conditions::Reason,
    cloud::{CloudError, ErrorKind},
    cloudflare::{AccountId, Organization, TokenCheck, TokenStatus, Zone},
    pool::zone,
    problem::Problem,
};

pub const TOKEN: Check = Check { id: "cloudflare.token", title: "Cloudflare's token" };
/// The zone can be read and is the right one.
pub const ZONE: Check = Check { id: "cloudflare.zone", title: "Zone" };
/// Cloudflare answers for the zone.
pub const ZONE_ACTIVE: Check = Check { id: "cloudflare.zone-active", title: "Zone in service" };
/// The domain fits the zone.
pub const DOMAIN: Check = Check { id: "cloudflare.domain", title: "Domain" };
/// The account has an organization.
pub const ZERO_TRUST: Check = Check { id: "cloudflare.zero-trust", title: "Zero Trust" };
/// Access applications.
pub const APPS: Check = Check { id: "cloudflare.access-apps", title: "Access applications" };
/// Access policies.
pub const POLICIES: Check = Check { id: "cloudflare.access-policies", title: "Access policies" };
/// Access service tokens.
pub const SERVICE_TOKENS: Check =
    Check { id: "cloudflare.service-tokens", title: "Access service tokens" };
pub const TUNNELS: Check = Check { id: "cloudflare.tunnels", title: "Tunnels" };
pub const DNS_RECORDS: Check = Check { id: "cloudflare.dns-records", title: "DNS records" };

const ZONE_READ: Scope = Scope::Required("Zone: Zone: Read");
const DNS_EDIT: Scope = Scope::Required("Zone: DNS: Edit");
const TUNNEL_EDIT: Scope = Scope::Required("Account: Cloudflare Tunnel: Edit");
const APPS_EDIT: Scope = Scope::Required("Account: Access: Apps and Policies: Edit");
const TOKENS_EDIT: Scope = Scope::Required("Account: Access: Service Tokens: Edit");
const ORGANIZATION_READ: Scope =
    Scope::Optional("Account: Access: Organizations, Identity Providers, and Groups: Read");

/// <https://developers.cloudflare.com/cloudflare-one/account-limits/>, read 2026-11.
const MOST_APPS: u64 = 500;
const MOST_POLICIES: u64 = 500;
const MOST_SERVICE_TOKENS: u64 = 50;
const MOST_TUNNELS: u64 = 1_000;
/// A token that ends sooner than this is told.
const EXPIRES_SOON: SignedDuration = SignedDuration::from_hours(30 * 24);

/// What is wanted of Cloudflare.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The account.
    pub account: AccountId,
    /// The domain; the zone's own if none is given.
    pub domain: Option<String>,
}

/// What was seen of an account.
pub struct Seen {
    /// What Cloudflare says of the token.
    pub token: Result<TokenCheck, CloudError>,
    /// The rest, if the token is accepted.
    pub rest: Option<Rest>,
    /// When.
    pub now: Timestamp,
}

/// A number of objects.
pub type Count = Result<Option<u64>, CloudError>;

/// What is seen with a token that is accepted.
pub struct Rest {
    /// The zone.
    pub zone: Result<Option<Zone>, CloudError>,
    /// The organization.
    pub organization: Result<Organization, CloudError>,
    /// Access applications.
    pub apps: Count,
    /// Access policies.
    pub policies: Count,
    /// Access service tokens.
    pub service_tokens: Count,
    pub tunnels: Count,
    pub dns_records: Count,
}

/// All checks of the account and its zone.
pub fn judge(wanted: &Wanted, seen: &Seen) -> Vec<Finding> {
    let mut findings = vec![token(seen.token.as_ref(), seen.now)];
    let Some(rest) = &seen.rest else {
        let others = [
            &ZONE,
            &ZONE_ACTIVE,
            &DOMAIN,
            &ZERO_TRUST,
            &APPS,
            &POLICIES,
            &SERVICE_TOKENS,
            &TUNNELS,
            &DNS_RECORDS,
        ];
        findings.extend(others.map(|check| check.blocked_by(&TOKEN)));
        return findings;
    };
    findings.extend(zone_checks(wanted, &rest.zone));
    findings.push(zero_trust(rest));
    let access = [
        (&APPS, &rest.apps, APPS_EDIT, MOST_APPS),
        (&POLICIES, &rest.policies, APPS_EDIT, MOST_POLICIES),
        (&SERVICE_TOKENS, &rest.service_tokens, TOKENS_EDIT, MOST_SERVICE_TOKENS),
    ];
    for (check, seen, scope, most) in access {
        findings.push(match seen {
            Err(error) if error.kind == ErrorKind::NotEnabled => check.blocked_by(&ZERO_TRUST),
            seen => room(check, seen, scope, most),
        });
    }
    findings.push(room(&TUNNELS, &rest.tunnels, TUNNEL_EDIT, MOST_TUNNELS));
    let zone = rest.zone.as_ref().ok().and_then(Option::as_ref);
    findings.push(match zone {
        Some(zone) => room(&DNS_RECORDS, &rest.dns_records, DNS_EDIT, most_records(zone)),
        None => DNS_RECORDS.blocked_by(&ZONE),
    });
    findings
}

/// The domain of instances, if it fits the zone.
pub fn domain(wanted: &Wanted, seen: &Seen) -> Option<String> {
    let zone = zone_of(seen)?;
    let domain = wanted.domain.as_ref().unwrap_or(&zone.name);
    zone::check_domain(&zone.name, domain).is_ok().then(|| domain.clone())
}

/// The check that failed, if no zone was seen.
pub fn no_zone(seen: &Seen) -> Option<&'static Check> {
    match &seen.rest {
        None => Some(&TOKEN),
        Some(_) if zone_of(seen).is_none() => Some(&ZONE),
        Some(_) => None,
    }
}

fn zone_of(seen: &Seen) -> Option<&Zone> {
    seen.rest.as_ref()?.zone.as_ref().ok()?.as_ref()
}

fn token(seen: Result<&TokenCheck, &CloudError>, now: Timestamp) -> Finding {
    const REPLACE: &str = "Make a new token and put it in its place";
    let check = match seen {
        Ok(check) => check,
        Err(error) => return TOKEN.refused(error, Scope::Required("to be read")),
    };
    if check.status != TokenStatus::Active {
        return TOKEN.fail(format!("It is {}", check.status), REPLACE);
    }
    if let Some(begin) = check.not_before.filter(|begin| *begin > now) {
        return TOKEN.fail(format!("It cannot be used before {begin}"), REPLACE);
    }
    match check.expires_on {
        Some(end) if end <= now => TOKEN.fail(format!("It ended on {end}"), REPLACE),
        Some(end) if end.duration_since(now) < EXPIRES_SOON => TOKEN.warn(
            format!("It is active, but ends on {end}"),
            "Replace it before that: Moorage cannot look after anything without it",
        ),
        Some(end) => TOKEN.pass(format!("It is active until {end}")),
        None => TOKEN.pass("It is active and does not expire"),
    }
}

fn zone_checks(wanted: &Wanted, seen: &Result<Option<Zone>, CloudError>) -> Vec<Finding> {
    let identity = match seen {
        Err(error) => Err(ZONE.refused(error, ZONE_READ)),
        Ok(zone) => match zone::check_identity(zone.as_ref(), &wanted.account) {
            Err(problem) => Err(failed(&ZONE, &problem)),
            Ok(()) => zone.as_ref().ok_or_else(|| ZONE.unknown("There is no zone")),
        },
    };
    let zone = match identity {
        Ok(zone) => zone,
        Err(finding) => {
            return vec![finding, ZONE_ACTIVE.blocked_by(&ZONE), DOMAIN.blocked_by(&ZONE)];
        }
    };
    let plan = zone.plan.as_ref().and_then(|plan| plan.legacy_id.as_deref()).unwrap_or("unknown");
    let active = match zone::check_service(zone) {
        Ok(()) => ZONE_ACTIVE.pass("Active, not paused, a full setup"),
        Err(problem) => failed(&ZONE_ACTIVE, &problem),
    };
    let domain = wanted.domain.as_deref().unwrap_or(&zone.name);
    let domain = match zone::check_domain(&zone.name, domain) {
        Ok(()) => DOMAIN.pass(format!("Instances are NAME.{domain} and NAME-mgmt.{domain}")),
        Err(problem) => failed(&DOMAIN, &problem),
    };
    vec![ZONE.pass(format!("{} of this account, plan {plan}", zone.name)), active, domain]
}

/// A problem's message is what is wrong and what to do: two sentences, of which the second is the remedy.
fn failed(check: &Check, problem: &Problem) -> Finding {
    let (detail, remedy) =
        problem.message.split_once(". ").unwrap_or((&problem.message, problem.reason.remedy()));
    check.fail(detail, remedy)
}

fn zero_trust(rest: &Rest) -> Finding {
    let calls: [Option<&CloudError>; 4] = [
        rest.organization.as_ref().err(),
        rest.apps.as_ref().err(),
        rest.policies.as_ref().err(),
        rest.service_tokens.as_ref().err(),
    ];
    let not_enabled = calls.iter().flatten().find(|error| error.kind == ErrorKind::NotEnabled);
    if let Some(error) = not_enabled {
        return ZERO_TRUST.refused(error, ORGANIZATION_READ);
    }
    match &rest.organization {
        Ok(organization) => {
            let domain = organization.auth_domain.as_deref().unwrap_or("an organization");
            ZERO_TRUST.pass(format!("The account has {domain}"))
        }
        // Access answers only where there is an organization.
        Err(_) if rest.apps.is_ok() => {
            ZERO_TRUST.pass("Access answers, so there is an organization")
        }
        Err(error) => ZERO_TRUST.refused(error, ORGANIZATION_READ),
    }
}

/// How much of a limit is used.
fn room(check: &Check, seen: &Count, scope: Scope, most: u64) -> Finding {
    let used = match seen {
        Err(error) => return check.refused(error, scope),
        Ok(None) => return check.unknown("The token may see them, but the answer has no number"),
        Ok(Some(used)) => *used,
    };
    let detail = format!("{used} of {most}");
    if used >= most {
        check.fail(detail, Reason::QuotaExceeded.remedy())
    } else if used * 10 >= most * 9 {
        check.warn(
            detail,
            "Make room before it is full, or use another account or zone for new pools",
        )
    } else {
        check.pass(detail)
    }
}

/// <https://developers.cloudflare.com/dns/manage-dns-records/>: free zones that are older have more.
fn most_records(zone: &Zone) -> u64 {
    let fewer = date(2024, 9, 1).to_zoned(TimeZone::UTC).map(|zoned| zoned.timestamp());
    let is_free = zone.plan.as_ref().and_then(|plan| plan.legacy_id.as_deref()) == Some("free");
    let is_old = zone.created_on.zip(fewer.ok()).is_some_and(|(created, fewer)| created < fewer);
    match (is_free, is_old) {
        (false, _) => 3_500,
        (true, true) => 1_000,
        (true, false) => 200,
    }
}

#[cfg(test)]
mod tests;
