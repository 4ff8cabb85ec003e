//! Whether a zone can carry a pool: it is the right one, its domain fits, and Cloudflare answers for it.
//! Pure; the operator refuses to make servers for what fails here, and `moorage doctor` tells it before.

use crate::{
    api::conditions::Reason,
    cloudflare::{AccountId, Zone, ZoneKind, ZoneStatus},
    problem::{Problem, Retry},
};

/// The most characters of an Access application's domain, which is `*-mgmt.` and the pool's.
/// <https://developers.cloudflare.com/cloudflare-one/account-limits/> (read 2026-11).
pub const LONGEST_APP_DOMAIN: usize = 63;
/// The most characters of a pool's domain.
pub const LONGEST_DOMAIN: usize = LONGEST_APP_DOMAIN - "*-mgmt.".len();

/// Whether the zone is the one that the spec speaks of.
pub fn check_identity(zone: Option<&Zone>, account: &AccountId) -> Result<(), Problem> {
    let Some(zone) = zone else {
        return Err(Problem::invalid_spec(
            "spec.cloudflare.zoneId",
            "the API token sees no such zone; the id is wrong, or the token lacks Zone Read on it",
        )
        .retrying(Retry::Slowly));
    };
    if zone.account.id == *account {
        return Ok(());
    }
    Err(Problem::invalid_spec(
        "spec.cloudflare.accountId",
        &format!("the zone {} belongs to account {}", zone.name, zone.account.id),
    ))
}

/// Whether host names one level below `domain` get a certificate, and Access takes them.
pub fn check_domain(zone: &str, domain: &str) -> Result<(), Problem> {
    let invalid = |what: &str| Err(Problem::invalid_spec("spec.cloudflare.domain", what));
    if domain.strip_suffix(zone).is_some_and(|rest| rest.ends_with('.')) {
        return invalid(&format!(
            "{domain} lies below the zone {zone}, and Cloudflare's Universal SSL covers one level below the zone only. Use {zone} itself, or a zone of its own for {domain}"
        ));
    }
    if domain != zone {
        return invalid(&format!("the zone of this zoneId is {zone}"));
    }
    if domain.len() > LONGEST_DOMAIN {
        return invalid(&format!(
            "it has {} characters, and Cloudflare Access takes {LONGEST_DOMAIN} at most. Use a shorter domain",
            domain.len()
        ));
    }
    Ok(())
}

/// Whether Cloudflare answers for the zone's names and passes visitors through its edge.
pub fn check_service(zone: &Zone) -> Result<(), Problem> {
    let name = &zone.name;
    let stopped = |message: String| {
        Err(Problem::whole(Reason::ZoneNotActive, message).retrying(Retry::Slowly))
    };
    match &zone.status {
        None | Some(ZoneStatus::Active) => {}
        Some(status) => {
            let servers = zone.name_servers.iter().flatten().cloned().collect::<Vec<_>>();
            let servers = if servers.is_empty() {
                "those that Cloudflare's dashboard shows".to_owned()
            } else {
                servers.join(", ")
            };
            return stopped(format!(
                "The zone {name} is {status}, so Cloudflare does not answer for its names. Set its name servers at the registrar to {servers}"
            ));
        }
    }
    if zone.paused {
        return stopped(format!(
            "Cloudflare is paused on the zone {name}, so no tunnel and no Access works. Enable it: Cloudflare's dashboard, the zone's Overview, Advanced Actions"
        ));
    }
    match &zone.kind {
        None | Some(ZoneKind::Full) => Ok(()),
        Some(kind) => stopped(format!(
            "The zone {name} is of type {kind}, so its names are not answered by Cloudflare alone. Convert it to a full (primary) setup, or use another zone"
        )),
    }
}

/// All of it.
pub fn check(zone: Option<&Zone>, account: &AccountId, domain: &str) -> Result<(), Problem> {
    check_identity(zone, account)?;
    let Some(zone) = zone else { return Ok(()) };
    check_domain(&zone.name, domain)?;
    check_service(zone)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::{Value, json};

    const ACCOUNT: &str = "0123456789abcdef0123456789abcdef";

    fn zone(changes: &Value) -> Zone {
        let mut zone = json!({
            "id": "z", "name": "example.com", "status": "active", "paused": false, "type": "full",
            "account": {"id": ACCOUNT}, "name_servers": ["ada.ns.cloudflare.com"],
        });
        zone.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        serde_json::from_value(zone).unwrap()
    }

    #[rstest]
    #[case::right(Some(json!({})), None)]
    #[case::none(None, Some((Reason::InvalidSpec, "spec.cloudflare.zoneId")))]
    #[case::other_account(Some(json!({"account": {"id": "a"}})), Some((Reason::InvalidSpec, "spec.cloudflare.accountId")))]
    #[case::other_domain(Some(json!({"name": "example.org"})), Some((Reason::InvalidSpec, "the zone of this zoneId is example.org")))]
    #[case::only_alike(Some(json!({"name": "ample.com"})), Some((Reason::InvalidSpec, "the zone of this zoneId is ample.com")))]
    #[case::below_the_zone(Some(json!({"name": "com"})), Some((Reason::InvalidSpec, "one level below the zone only")))]
    #[case::pending(Some(json!({"status": "pending"})), Some((Reason::ZoneNotActive, "name servers at the registrar to ada.ns.cloudflare.com")))]
    #[case::paused(Some(json!({"paused": true})), Some((Reason::ZoneNotActive, "paused")))]
    #[case::partial(Some(json!({"type": "partial"})), Some((Reason::ZoneNotActive, "type partial")))]
    #[case::an_older_answer(Some(json!({"status": null, "type": "full"})), None)]
    fn a_zone_that_cannot_carry_a_pool_is_told(
        #[case] changes: Option<Value>,
        #[case] expected: Option<(Reason, &str)>,
    ) {
        let account = AccountId::parse(ACCOUNT).unwrap();
        let zone = changes.as_ref().map(zone);
        match (check(zone.as_ref(), &account, "example.com"), expected) {
            (Ok(()), None) => {}
            (Err(problem), Some((reason, part))) => {
                assert_eq!(problem.reason, reason);
                assert!(problem.message.contains(part), "{}", problem.message);
            }
            (result, _) => panic!("{result:?}"),
        }
    }

    #[rstest]
    #[case::longest(LONGEST_DOMAIN, true)]
    #[case::too_long(LONGEST_DOMAIN + 1, false)]
    fn a_domain_that_access_does_not_take_is_refused(#[case] length: usize, #[case] right: bool) {
        let domain = format!("{}.example", "d".repeat(length - ".example".len()));
        assert_eq!(check_domain(&domain, &domain).is_ok(), right);
    }
}
