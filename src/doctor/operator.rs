//! The machine that asks: what it trusts, whom it reaches, what time it has.

use jiff::{SignedDuration, Timestamp};

use super::finding::{Check, Finding};
use crate::cloud::Cloud;

/// Certificates of authorities that the system trusts.
pub const ROOTS: Check = Check { id: "operator.roots", title: "Certificate authorities" };
/// Hetzner's API answers.
pub const HETZNER_API: Check = Check { id: "operator.hetzner-api", title: "Way to Hetzner's API" };
/// Cloudflare's API answers.
pub const CLOUDFLARE_API: Check =
    Check { id: "operator.cloudflare-api", title: "Way to Cloudflare's API" };
/// The time here is the time there.
pub const CLOCK: Check = Check { id: "operator.clock", title: "Clock" };

/// Beyond this, signatures and tokens begin to be refused as too old or not valid yet.
const MOST_SKEW: SignedDuration = SignedDuration::from_secs(30);

/// What a call without a token came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reached {
    /// The API's host.
    pub host: String,
    /// Its addresses, or why the name has none.
    pub addresses: Result<usize, String>,
    /// The time that the answer named, or why there was no answer.
    pub answer: Result<Option<Timestamp>, String>,
    /// The time here when it came.
    pub now: Timestamp,
}

/// The authorities of the system. `extra` says that the command line gives others.
pub fn roots(count: usize, problems: &[String], extra: bool) -> Finding {
    match (count, extra) {
        (0, true) => ROOTS.pass("The system has none, but --cloud-ca gives some"),
        (0, false) => {
            let why = problems.first().map(|why| format!(" ({why})")).unwrap_or_default();
            ROOTS.fail(
                format!(
                    "The system has no certificates of authorities, so no cloud can be trusted{why}"
                ),
                "Install ca-certificates, in the operator's image as well, or set SSL_CERT_FILE",
            )
        }
        (count, _) => ROOTS.pass(format!("{count} in the system's store")),
    }
}

/// The check of a cloud's API.
pub fn api_check(cloud: Cloud) -> &'static Check {
    match cloud {
        Cloud::Hetzner => &HETZNER_API,
        Cloud::Cloudflare => &CLOUDFLARE_API,
    }
}

/// Whether a cloud's API can be reached.
pub fn reached(cloud: Cloud, seen: &Reached) -> Finding {
    let (check, host) = (api_check(cloud), &seen.host);
    match (&seen.addresses, &seen.answer) {
        (Err(why), _) => check.fail(
            format!("{host} has no address here: {why}"),
            "Correct the resolver of this machine, or let the cluster's DNS resolve names outside of it",
        ),
        (Ok(_), Err(why)) => check.fail(
            format!("{host} does not answer: {why}"),
            "Let HTTPS (TCP 443) to it pass. If its certificate is refused, something on the way replaces it: name that authority with --cloud-ca",
        ),
        (Ok(count), Ok(_)) => {
            let word = if *count == 1 { "address" } else { "addresses" };
            check.pass(format!("{host} answers ({count} {word})"))
        }
    }
}

/// The clock, by the answers of both clouds.
pub fn clock(seen: &[Reached]) -> Finding {
    let skews = seen.iter().filter_map(|reached| {
        let there = (*reached.answer.as_ref().ok()?)?;
        Some(reached.now.duration_since(there).abs())
    });
    match skews.min() {
        None => CLOCK.unknown("No answer named a time"),
        Some(skew) if skew > MOST_SKEW => CLOCK.fail(
            format!("The clock here is {} s off", skew.as_secs()),
            "Have it set by a time server (NTP)",
        ),
        Some(skew) => CLOCK.pass(format!("At most {} s off", skew.as_secs().max(1))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::finding::Verdict::{self, Fail, Pass, Unknown};
    use rstest::rstest;

    fn seen(answer: Result<Option<i64>, &str>) -> Reached {
        let now = Timestamp::from_second(1_000_000).unwrap();
        Reached {
            host: "api.example".to_owned(),
            addresses: Ok(2),
            answer: answer
                .map(|off| off.map(|off| now + SignedDuration::from_secs(off)))
                .map_err(str::to_owned),
            now,
        }
    }

    #[rstest]
    #[case::some(140, false, Pass)]
    #[case::none(0, false, Fail)]
    #[case::none_but_ours(0, true, Pass)]
    fn without_authorities_nothing_can_be_trusted(
        #[case] count: usize,
        #[case] extra: bool,
        #[case] verdict: Verdict,
    ) {
        assert_eq!(roots(count, &[], extra).verdict, verdict);
    }

    #[rstest]
    #[case::answers(seen(Ok(Some(0))), Pass)]
    #[case::no_answer(seen(Err("refused")), Fail)]
    #[case::no_name(Reached { addresses: Err("no such host".to_owned()), ..seen(Err("")) }, Fail)]
    fn an_api_that_cannot_be_reached_fails(#[case] seen: Reached, #[case] verdict: Verdict) {
        assert_eq!(reached(Cloud::Hetzner, &seen).verdict, verdict);
    }

    #[rstest]
    #[case::right(&[Ok(Some(2))], Pass)]
    #[case::slow(&[Ok(Some(31))], Fail)]
    #[case::fast(&[Ok(Some(-31))], Fail)]
    #[case::one_of_them_is_wrong(&[Ok(Some(900)), Ok(Some(1))], Pass)]
    #[case::no_time(&[Ok(None), Err("refused")], Unknown)]
    fn the_clock_is_compared_with_both_clouds(
        #[case] answers: &[Result<Option<i64>, &str>],
        #[case] verdict: Verdict,
    ) {
        let seen: Vec<_> = answers.iter().map(|answer| seen(*answer)).collect();
        assert_eq!(clock(&seen).verdict, verdict);
    }
}
