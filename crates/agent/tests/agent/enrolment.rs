use std::fs;

use http::{HeaderMap, Method, StatusCode};
use moorage_wire::{
    bootstrap::Bootstrap, enrolment::EnrolmentAnswer, path, problem::ProblemCode,
    report::ConvergenceState,
};

use crate::{
    operator::{CHALLENGE, Operator, enrolment_key},
    world::{World, eventually},
};

async fn key_is_erased(world: &World) {
    eventually("the one-time key is erased", || async {
        let bytes = fs::read(world.layout.bootstrap()).unwrap();
        let bootstrap: Bootstrap = serde_json::from_slice(&bytes).unwrap();
        bootstrap.enrolment_key.is_erased().then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_start_makes_keys_that_a_signed_call_confirms() {
    let world = World::without_keys().await;
    let agent = world.start().await;
    let mut operator = Operator::of(&agent);
    let health = operator.send(Method::GET, path::HEALTHZ, &HeaderMap::new(), b"").await.unwrap();
    assert_eq!((health.status, &health.body[..]), (StatusCode::OK, &b"ok"[..]));
    operator.enrol().await;

    key_is_erased(&world).await;
    let target = format!("{}?challenge={CHALLENGE}", path::ENROLMENT);
    let open = operator.send(Method::GET, &target, &HeaderMap::new(), b"").await.unwrap();
    assert_eq!(open.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_without_the_key_can_only_learn_it_again() {
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
async fn erasing_the_used_enrolment_key_is_retried() {
    let world = World::managed().await;
    let before = fs::read(world.layout.bootstrap()).unwrap();
    world.machine(|machine| machine.failing_erasures = 2);
    let asked = || world.machine(|machine| machine.erasures);
    let agent = world.start().await;
    let mut operator = Operator::of(&agent);
    operator.wait_until_ready().await;
    assert_eq!(asked(), 0, "an agent that nobody confirmed needs the key");
    operator.enrol().await;
    key_is_erased(&world).await;
    assert_eq!(asked(), 3);

    // It starts, enrolled, with the blank document, and has nothing to ask for.
    drop(agent);
    let agent = world.start().await;
    operator.follow(&agent);
    operator.wait_until_ready().await;
    let document = world.release(serde_json::json!({"a": 1}), [1, 1, 1]);
    operator.put_desired(&document).await;
    operator.wait_for(&document, ConvergenceState::Converged).await;
    assert_eq!(asked(), 3);

    // As by a cloud-init that is made to run again.
    drop(agent);
    fs::write(world.layout.bootstrap(), before).unwrap();
    let agent = world.start().await;
    operator.follow(&agent);
    operator.wait_until_ready().await;
    key_is_erased(&world).await;
    assert_eq!(operator.report().await.identity, operator.identity.clone().unwrap());
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
