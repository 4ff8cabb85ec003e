//! The spec of a pool, parsed.

use crate::{
    api::{HostingPoolSpec, pool::MOST_DOMAIN},
    cloudflare::{AccountId, ZoneId},
    hetzner::FirewallRule,
    problem::Problem,
};

use super::firewall;

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
    // An older CRD lets a longer one in.
    if cloudflare.domain.len() > MOST_DOMAIN {
        let what = format!(
            "it has {} characters, and {MOST_DOMAIN} at most leave room for the names below it",
            cloudflare.domain.len()
        );
        return Err(Problem::invalid_spec("spec.cloudflare.domain", &what));
    }
    let allow_from = spec.hetzner.ssh.as_ref().map_or(&[][..], |ssh| &ssh.allow_from);
    Ok(ParsedSpec {
        account: AccountId::parse(&*cloudflare.account_id)
            .map_err(invalid("spec.cloudflare.accountId"))?,
        zone: ZoneId::parse(&*cloudflare.zone_id).map_err(invalid("spec.cloudflare.zoneId"))?,
        rules: firewall::rules(allow_from)?,
    })
}
