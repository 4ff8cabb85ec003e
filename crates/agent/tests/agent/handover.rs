//! The operator's key changes: both are obeyed until the next one has called and ended it.

use std::fs;

use http::{Method, StatusCode};
use moorage_wire::{
    Report, Secret, Sha256,
    bootstrap::Bootstrap,
    enrolment::{EnrolmentAnswer, EnrolmentKey},
    handover::{self, HandOver},
    path,
    problem::ProblemCode,
};

use crate::{
    operator::{Operator, Successor},
    world::World,
};

fn next_enrolment_key() -> EnrolmentKey {
    EnrolmentKey::new(Secret::from([0x77; 32]))
}

fn word(operator: &Operator, next: &Successor) -> Vec<u8> {
    let identity = operator.identity.as_ref().unwrap();
    let successor = handover::Successor {
        bearer_sha256: Sha256::of(next.bearer.as_bytes()),
        identity_proof: identity.proof_under(&next_enrolment_key()),
    };
    let server = (identity.instance_id, identity.epoch);
    serde_json::to_vec(&HandOver::sign(server, &operator.key, &next.key, successor)).unwrap()
}

async fn the_operator_changes(world: World) {
    let (agent, mut operator) = world.enrolled().await;
    let next = Operator::successor(8);
    let early = next.call(&operator, Method::GET, path::REPORT, b"").await;
    assert_eq!(early.problem(), ProblemCode::Unauthorized);

    let body = word(&operator, &next);
    for _ in 0..2 {
        let taken = operator.call(Method::PUT, path::HANDOVER, None, &body).await;
        assert_eq!(taken.status, StatusCode::OK, "{taken:?}");
    }
    let keys = vec![operator.key.public_key(), next.key.public_key()];
    assert_eq!(operator.report().await.details.operator_keys, keys);
    // A restart in the middle changes nothing.
    drop(agent);
    let agent = world.start().await;
    operator.follow(&agent);
    operator.wait_until_ready().await;
    assert_eq!(operator.report().await.details.operator_keys, keys);
    let report: Report = next.call(&operator, Method::GET, path::REPORT, b"").await.json();
    assert_eq!(report.details.operator_keys, keys);

    let ended = next.call(&operator, Method::DELETE, path::HANDOVER, b"").await;
    assert_eq!(ended.status, StatusCode::OK, "{ended:?}");
    let late = operator.send(Method::GET, path::REPORT, &Operator::bearer(), b"").await.unwrap();
    assert_eq!(late.problem(), ProblemCode::Unauthorized, "the old key is worth nothing");
    drop(agent);
    let agent = world.start().await;
    operator.follow(&agent);
    crate::world::eventually("the agent obeys the next key alone", || async {
        let reply = next.call(&operator, Method::GET, path::REPORT, b"").await;
        (reply.status == StatusCode::OK).then_some(())
    })
    .await;
    let bytes = fs::read(world.layout.bootstrap()).unwrap();
    let bootstrap: Bootstrap = serde_json::from_slice(&bytes).unwrap();
    assert_eq!(bootstrap.operator_key, next.key.public_key(), "installer and worker trust it");
    // An operator that has lost its status knows the agent again by the next key.
    let answer: EnrolmentAnswer =
        next.call(&operator, Method::GET, path::ENROLMENT, b"").await.json();
    let identity = answer.identity;
    identity.verify(&next_enrolment_key(), identity.instance_id, identity.epoch).unwrap();
    // Once more, by the next key.
    let again = next.call(&operator, Method::DELETE, path::HANDOVER, b"").await;
    assert_eq!(again.status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_in_a_change_of_the_key_locks_nobody_out() {
    the_operator_changes(World::new().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_real_server_the_installer_changes_who_is_obeyed() {
    the_operator_changes(World::managed().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hand_over_that_is_not_of_the_key_in_force_is_refused() {
    let world = World::new().await;
    let (_agent, mut operator) = world.enrolled().await;
    let (next, stranger) = (Operator::successor(8), Operator::successor(9));
    let mut foreign: HandOver = serde_json::from_slice(&word(&operator, &next)).unwrap();
    foreign.to = stranger.key.public_key();
    let body = serde_json::to_vec(&foreign).unwrap();
    let refused = operator.call(Method::PUT, path::HANDOVER, None, &body).await;
    assert_eq!(refused.problem(), ProblemCode::BadSignature);
    let refused = operator.call(Method::PUT, path::HANDOVER, None, b"{}").await;
    assert_eq!(refused.problem(), ProblemCode::InvalidBody);
    assert_eq!(operator.report().await.details.operator_keys.len(), 1);
    // The key in force may name another one instead.
    let body = word(&operator, &next);
    operator.call(Method::PUT, path::HANDOVER, None, &body).await;
    operator.call(Method::DELETE, path::HANDOVER, None, b"").await;
    let reply = next.call(&operator, Method::GET, path::REPORT, b"").await;
    assert_eq!(reply.problem(), ProblemCode::Unauthorized);
}
