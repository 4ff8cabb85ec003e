//! `GET /v1/enrolment`: open, with a proof under the one-time key, until the operator confirmed the
//! agent; afterwards a signed call like the others.

use std::time::Duration;

use http::StatusCode;
use moorage_wire::{enrolment::EnrolmentAnswer, problem::ProblemCode};

use super::answer::{Answer, refuse};
use crate::{core::Core, identity::Keys};

/// The keys are being made.
pub(super) fn not_ready() -> Answer {
    refuse(ProblemCode::Internal, "the agent is making its keys; ask again in a second")
        .with_status(StatusCode::SERVICE_UNAVAILABLE)
        .retry_after(Duration::from_secs(1))
}

/// Answers a challenge before enrolment.
pub(super) fn open(core: &Core, query: &str) -> Answer {
    let Some(challenge) = challenge_in(query) else {
        let message = "?challenge= must be 32 to 128 hexadecimal characters";
        return refuse(ProblemCode::InvalidBody, message);
    };
    match (core.keys(), core.enrolment_key()) {
        (Some(keys), Some(key)) => {
            let answer = EnrolmentAnswer::fresh(&key, keys.identity.clone(), challenge);
            Answer::json(StatusCode::OK, &answer)
        }
        _ => not_ready(),
    }
}

/// Answers the operator after enrolment.
pub(super) fn confirmed(core: &Core, keys: &Keys) -> Answer {
    let identity = core.obeyed().identity(&keys.identity);
    let answer = EnrolmentAnswer { identity, challenge_proof: None };
    Answer::json(StatusCode::OK, &answer)
}

fn challenge_in(query: &str) -> Option<&str> {
    let challenge = query.split('&').find_map(|pair| pair.strip_prefix("challenge="))?;
    let valid = (32..=128).contains(&challenge.len())
        && challenge.bytes().all(|byte| byte.is_ascii_hexdigit());
    valid.then_some(challenge)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::challenge_in;

    #[rstest]
    #[case(&format!("challenge={}", "a".repeat(32)), true)]
    #[case(&format!("x=1&challenge={}", "0".repeat(128)), true)]
    #[case(&format!("challenge={}", "a".repeat(31)), false)]
    #[case(&format!("challenge={}", "a".repeat(129)), false)]
    #[case(&format!("challenge={}", "g".repeat(32)), false)]
    #[case("", false)]
    fn a_challenge_is_hexadecimal_of_bounded_length(#[case] query: &str, #[case] taken: bool) {
        assert_eq!(challenge_in(query).is_some(), taken);
    }
}
