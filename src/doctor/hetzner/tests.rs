use super::*;
use crate::{
    cloud::{Cloud, ErrorKind},
    doctor::finding::Verdict::{self, Fail, Pass, Unknown, Warn},
};
use rstest::rstest;
use serde_json::json;

const NOW: &str = "2026-11-30T12:00:00Z";

fn wanted() -> Wanted {
    Wanted {
        server_types: vec!["cx33".to_owned(), "cax21".to_owned()],
        locations: vec!["fsn1".to_owned(), "nbg1".to_owned()],
        image: "debian-13".to_owned(),
        ssh_keys: Some(1),
    }
}

fn kind(name: &str, architecture: &str) -> ServerType {
    let places = json!([{"name": "fsn1", "available": true}, {"name": "nbg1", "available": true}]);
    let kind = json!({"name": name, "architecture": architecture, "locations": places});
    serde_json::from_value(kind).unwrap()
}

fn image(architecture: &str) -> Image {
    let image = json!({"name": "debian-13", "architecture": architecture, "status": "available"});
    serde_json::from_value(image).unwrap()
}

fn healthy() -> Seen {
    let location = |name: &str| Location { name: name.to_owned() };
    Seen {
        allowance: Ok(Allowance { servers: Some(3), remaining: Some(3_599), limit: Some(3_600) }),
        rest: Some(Rest {
            types: Ok(vec![kind("cx33", "x86"), kind("cax21", "arm")]),
            locations: Ok(vec![location("fsn1"), location("nbg1"), location("hel1")]),
            images: Ok(vec![image("x86"), image("arm")]),
            primary_ips: Ok(Some(3)),
            ssh_keys: Ok(1),
        }),
        now: NOW.parse().unwrap(),
    }
}

fn refused<T>(kind: ErrorKind) -> Result<T, CloudError> {
    Err(CloudError::new(Cloud::Hetzner, "list_servers", kind, ""))
}

fn ending(seen: &mut Seen, at: &str) {
    let kind = &mut seen.rest.as_mut().unwrap().types.as_mut().unwrap()[0];
    kind.deprecation = Some(Deprecation {
        announced: "2026-01-01T00:00:00Z".parse().unwrap(),
        unavailable_after: at.parse().unwrap(),
    });
}

fn rest(seen: &mut Seen) -> &mut Rest {
    seen.rest.as_mut().unwrap()
}

fn first_type(seen: &mut Seen) -> &mut ServerType {
    &mut rest(seen).types.as_mut().unwrap()[0]
}

type Change = fn(&mut Wanted, &mut Seen);

/// One thing is wrong, and one finding says so.
#[rstest]
#[case::healthy(|_: &mut Wanted, _: &mut Seen| (), TOKEN, Pass)]
#[case::few_calls_left(|_: &mut Wanted, seen: &mut Seen| seen.allowance.as_mut().unwrap().remaining = Some(700), RATE_LIMIT, Warn)]
#[case::no_word_of_the_limit(|_: &mut Wanted, seen: &mut Seen| seen.allowance.as_mut().unwrap().limit = None, RATE_LIMIT, Unknown)]
#[case::sold_out_somewhere(|_: &mut Wanted, seen: &mut Seen| first_type(seen).locations[0].available = Some(false), OFFER, Warn)]
#[case::not_offered_somewhere(|_: &mut Wanted, seen: &mut Seen| { first_type(seen).locations.pop(); }, OFFER, Warn)]
#[case::to_be_ended(|_: &mut Wanted, seen: &mut Seen| ending(seen, "2027-01-01T00:00:00Z"), OFFER, Warn)]
#[case::ended(|_: &mut Wanted, seen: &mut Seen| ending(seen, "2026-11-01T00:00:00Z"), OFFER, Warn)]
#[case::no_such_type(|wanted: &mut Wanted, _: &mut Seen| wanted.server_types.push("cx34".to_owned()), OFFER, Fail)]
#[case::no_such_location(|wanted: &mut Wanted, _: &mut Seen| wanted.locations.push("fsn2".to_owned()), LOCATION, Fail)]
#[case::no_image(|_: &mut Wanted, seen: &mut Seen| { rest(seen).images.as_mut().unwrap().pop(); }, IMAGE, Fail)]
#[case::old_image(|_: &mut Wanted, seen: &mut Seen| rest(seen).images.as_mut().unwrap()[0].deprecated = NOW.parse().ok(), IMAGE, Warn)]
#[case::image_withdrawn(|_: &mut Wanted, seen: &mut Seen| rest(seen).images.as_mut().unwrap()[0].status = Some("unavailable".to_owned()), IMAGE, Fail)]
#[case::no_ssh_key(|wanted: &mut Wanted, _: &mut Seen| wanted.ssh_keys = Some(0), SSH_KEYS, Pass)]
#[case::no_pool(|wanted: &mut Wanted, _: &mut Seen| wanted.ssh_keys = None, SSH_KEYS, Pass)]
#[case::outage(|_: &mut Wanted, seen: &mut Seen| rest(seen).primary_ips = refused(ErrorKind::Maintenance), ROOM, Fail)]
fn what_is_wrong_with_a_project_is_one_finding(
    #[case] change: Change,
    #[case] check: Check,
    #[case] verdict: Verdict,
) {
    let (mut wanted, mut seen) = (wanted(), healthy());
    change(&mut wanted, &mut seen);
    let findings = judge(&wanted, &seen);
    let worst = findings.iter().filter(|finding| finding.id == check.id);
    assert_eq!(worst.map(|finding| finding.verdict).max(), Some(verdict), "{findings:#?}");
    let others = findings.iter().filter(|finding| finding.id != check.id);
    // A type that is not offered in a new location is told with it.
    for finding in others.filter(|finding| check != LOCATION || finding.id != OFFER.id) {
        assert_eq!(finding.verdict, Pass, "{finding:?}");
    }
}

#[rstest]
#[case::bad_token(ErrorKind::Unauthorized)]
#[case::outage(ErrorKind::Transient { maybe_applied: false })]
fn without_a_token_nothing_else_is_judged(#[case] kind: ErrorKind) {
    let seen = Seen { allowance: refused(kind), rest: None, ..healthy() };
    let findings = judge(&wanted(), &seen);
    assert_eq!((findings[0].id, findings[0].verdict), (TOKEN.id, Fail));
    assert!(findings[1..].iter().all(|finding| finding.verdict == Unknown), "{findings:#?}");
}

#[test]
fn nothing_to_order_fails_and_the_next_server_is_named() {
    let (wanted, mut seen) = (wanted(), healthy());
    let offers = |seen: &Seen| {
        let findings = judge(&wanted, seen);
        findings.into_iter().find(|finding| finding.id == OFFERS.id).unwrap()
    };
    assert!(offers(&seen).detail.ends_with("cx33 in fsn1"));
    first_type(&mut seen).locations[0].available = Some(false);
    assert!(offers(&seen).detail.ends_with("cx33 in nbg1"));
    for kind in rest(&mut seen).types.as_mut().unwrap() {
        kind.locations.iter_mut().for_each(|place| place.available = Some(false));
    }
    assert_eq!(offers(&seen).verdict, Fail);
}
