use std::fs;

use http::{HeaderMap, Method, StatusCode};
use moorage_wire::{bootstrap::Bootstrap, enrolment::EnrolmentAnswer, path, problem::ProblemCode};

use crate::{
    operator::{CHALLENGE, Operator, enrolment_key},
    world::World,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_first_start_makes_keys_and_the_first_signed_call_confirms_them() {
    let world = World::without_keys().await;
    let agent = world.start().await;
    let mut operator = Operator::of(&agent);
    let health = operator.send(Method::GET, path::HEALTHZ, &HeaderMap::new(), b"").await.unwrap();
    assert_eq!((health.status, &health.body[..]), (StatusCode::OK, &b"ok"[..]));
    operator.enrol().await;

    let bytes = fs::read(world.layout.bootstrap()).unwrap();
    let bootstrap: Bootstrap = serde_json::from_slice(&bytes).unwrap();
    assert_eq!(bootstrap.enrolment_key.expose(), "", "the one-time key is erased");
    let target = format!("{}?challenge={CHALLENGE}", path::ENROLMENT);
    let open = operator.send(Method::GET, &target, &HeaderMap::new(), b"").await.unwrap();
    assert_eq!(open.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_that_lost_the_key_learns_it_again_but_can_do_nothing_else_without_it() {
    let world = World::new().await;
    let (agent, first) = world.enrolled().await;
    drop(agent);
    let agent = world.start().await;
    let mut operator = Operator::of(&agent);
    operator.wait_until_ready().await;
    let report = operator.call(Method::GET, path::REPORT, None, b"").await;
    assert_eq!(report.problem(), ProblemCode::BadSignature);
    let reply = operator.call(Method::GET, path::ENROLMENT, None, b"").await;
    assert_eq!(reply.status, StatusCode::OK, "{reply:?}");
    let answer: EnrolmentAnswer = reply.json();
    let known = first.identity.unwrap();
    assert_eq!(answer.identity, known);
    answer.identity.verify(&enrolment_key(), known.instance_id, known.epoch).unwrap();
    assert_eq!(answer.challenge_proof, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_challenge_is_refused() {
    let world = World::new().await;
    let agent = world.start().await;
    let operator = Operator::of(&agent);
    let target = format!("{}?challenge=short", path::ENROLMENT);
    let reply = operator.send(Method::GET, &target, &HeaderMap::new(), b"").await.unwrap();
    assert_eq!(reply.problem(), ProblemCode::InvalidBody);
}
