use super::*;
use crate::{
    cloud::Cloud,
    doctor::finding::Verdict::{self, Fail, Pass, Unknown, Warn},
};
use rstest::rstest;
use serde_json::json;

const ACCOUNT: &str = "0123456789abcdef0123456789abcdef";
const FORBIDDEN: ErrorKind = ErrorKind::Forbidden { read_only: false };

fn healthy() -> (Wanted, Seen) {
    let zone = json!({
        "id": "z", "name": "example.com", "status": "active", "paused": false, "type": "full",
        "account": {"id": ACCOUNT}, "plan": {"legacy_id": "free"}, "created_on": "2026-01-01T00:00:00Z",
    });
    let rest = Rest {
        zone: Ok(serde_json::from_value(zone).unwrap()),
        organization: Ok(Organization {
            auth_domain: Some("team.cloudflareaccess.com".to_owned()),
        }),
        apps: Ok(Some(1)),
        policies: Ok(Some(1)),
        service_tokens: Ok(Some(1)),
        tunnels: Ok(Some(12)),
        dns_records: Ok(Some(30)),
    };
    let token = TokenCheck { status: TokenStatus::Active, expires_on: None, not_before: None };
    let now = "2026-11-30T12:00:00Z".parse().unwrap();
    let account = AccountId::parse(ACCOUNT).unwrap();
    (
        Wanted { account, domain: Some("example.com".to_owned()) },
        Seen { token: Ok(token), rest: Some(rest), now },
    )
}

fn refused<T>(kind: ErrorKind) -> Result<T, CloudError> {
    Err(CloudError::new(Cloud::Cloudflare, "get_zone", kind, "10000: no"))
}

fn rest(seen: &mut Seen) -> &mut Rest {
    seen.rest.as_mut().unwrap()
}

fn zone(seen: &mut Seen) -> &mut Zone {
    rest(seen).zone.as_mut().unwrap().as_mut().unwrap()
}

fn token_mut(seen: &mut Seen) -> &mut TokenCheck {
    seen.token.as_mut().unwrap()
}

type Change = fn(&mut Wanted, &mut Seen);

/// One thing is wrong, one finding says so, and nothing else fails or warns.
#[rstest]
#[case::healthy(|_: &mut Wanted, _: &mut Seen| (), TOKEN, Pass)]
#[case::disabled(|_: &mut Wanted, seen: &mut Seen| token_mut(seen).status = TokenStatus::Disabled, TOKEN, Fail)]
#[case::ended(|_: &mut Wanted, seen: &mut Seen| token_mut(seen).expires_on = "2026-11-30T11:00:00Z".parse().ok(), TOKEN, Fail)]
#[case::ends_soon(|_: &mut Wanted, seen: &mut Seen| token_mut(seen).expires_on = "2026-12-24T00:00:00Z".parse().ok(), TOKEN, Warn)]
#[case::begins_later(|_: &mut Wanted, seen: &mut Seen| token_mut(seen).not_before = "2026-12-24T00:00:00Z".parse().ok(), TOKEN, Fail)]
#[case::no_such_zone(|_: &mut Wanted, seen: &mut Seen| rest(seen).zone = Ok(None), ZONE, Fail)]
#[case::zone_unseen(|_: &mut Wanted, seen: &mut Seen| rest(seen).zone = refused(FORBIDDEN), ZONE, Fail)]
#[case::another_account(|wanted: &mut Wanted, _: &mut Seen| wanted.account = AccountId::parse("a").unwrap(), ZONE, Fail)]
#[case::pending(|_: &mut Wanted, seen: &mut Seen| zone(seen).status = Some("pending".to_owned().into()), ZONE_ACTIVE, Fail)]
#[case::paused(|_: &mut Wanted, seen: &mut Seen| zone(seen).paused = true, ZONE_ACTIVE, Fail)]
#[case::partial(|_: &mut Wanted, seen: &mut Seen| zone(seen).kind = Some("partial".to_owned().into()), ZONE_ACTIVE, Fail)]
#[case::below_the_zone(|wanted: &mut Wanted, _: &mut Seen| wanted.domain = Some("eu.example.com".to_owned()), DOMAIN, Fail)]
#[case::another_domain(|wanted: &mut Wanted, _: &mut Seen| wanted.domain = Some("example.org".to_owned()), DOMAIN, Fail)]
#[case::the_zones_own(|wanted: &mut Wanted, _: &mut Seen| wanted.domain = None, DOMAIN, Pass)]
#[case::no_zero_trust(|_: &mut Wanted, seen: &mut Seen| rest(seen).organization = refused(ErrorKind::NotEnabled), ZERO_TRUST, Fail)]
#[case::no_zero_trust_seen_by_access(|_: &mut Wanted, seen: &mut Seen| rest(seen).apps = refused(ErrorKind::NotEnabled), ZERO_TRUST, Fail)]
#[case::organization_unseen(|_: &mut Wanted, seen: &mut Seen| rest(seen).organization = refused(FORBIDDEN), ZERO_TRUST, Pass)]
#[case::apps_unseen(|_: &mut Wanted, seen: &mut Seen| rest(seen).apps = refused(FORBIDDEN), APPS, Fail)]
#[case::apps_full(|_: &mut Wanted, seen: &mut Seen| rest(seen).apps = Ok(Some(500)), APPS, Fail)]
#[case::policies_nearly_full(|_: &mut Wanted, seen: &mut Seen| rest(seen).policies = Ok(Some(450)), POLICIES, Warn)]
#[case::tokens_full(|_: &mut Wanted, seen: &mut Seen| rest(seen).service_tokens = Ok(Some(50)), SERVICE_TOKENS, Fail)]
#[case::tokens_unseen(|_: &mut Wanted, seen: &mut Seen| rest(seen).service_tokens = refused(FORBIDDEN), SERVICE_TOKENS, Fail)]
#[case::tunnels_full(|_: &mut Wanted, seen: &mut Seen| rest(seen).tunnels = Ok(Some(1_000)), TUNNELS, Fail)]
#[case::tunnels_unseen(|_: &mut Wanted, seen: &mut Seen| rest(seen).tunnels = refused(FORBIDDEN), TUNNELS, Fail)]
#[case::records_full(|_: &mut Wanted, seen: &mut Seen| rest(seen).dns_records = Ok(Some(200)), DNS_RECORDS, Fail)]
#[case::records_of_a_paid_zone(|_: &mut Wanted, seen: &mut Seen| { rest(seen).dns_records = Ok(Some(200)); zone(seen).plan = None; }, DNS_RECORDS, Pass)]
#[case::records_of_an_old_zone(|_: &mut Wanted, seen: &mut Seen| { rest(seen).dns_records = Ok(Some(200)); zone(seen).created_on = "2024-08-31T00:00:00Z".parse().ok(); }, DNS_RECORDS, Pass)]
#[case::records_unseen(|_: &mut Wanted, seen: &mut Seen| rest(seen).dns_records = refused(FORBIDDEN), DNS_RECORDS, Fail)]
#[case::no_number(|_: &mut Wanted, seen: &mut Seen| rest(seen).tunnels = Ok(None), TUNNELS, Unknown)]
fn what_is_wrong_with_an_account_is_one_finding(
    #[case] change: Change,
    #[case] check: Check,
    #[case] verdict: Verdict,
) {
    let (mut wanted, mut seen) = healthy();
    change(&mut wanted, &mut seen);
    let mut found = false;
    for finding in judge(&wanted, &seen) {
        if finding.id == check.id {
            assert_eq!(finding.verdict, verdict, "{finding:?}");
            assert_eq!(finding.remedy.is_some(), matches!(verdict, Warn | Fail), "{finding:?}");
            found = true;
        } else {
            assert!(matches!(finding.verdict, Pass | Unknown), "{finding:?}");
        }
    }
    assert!(found, "{} is not judged", check.id);
}

#[test]
fn without_a_token_nothing_else_is_judged() {
    let (wanted, mut seen) = healthy();
    (seen.token, seen.rest) = (refused(ErrorKind::Unauthorized), None);
    let findings = judge(&wanted, &seen);
    assert_eq!((findings[0].id, findings[0].verdict), (TOKEN.id, Fail));
    assert!(findings[1..].iter().all(|finding| finding.verdict == Unknown), "{findings:#?}");
}
