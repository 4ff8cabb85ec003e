//! Devices that the owner approved.

use std::fs;

use moorage_wire::{
    DesiredState,
    report::{ConvergenceState, FailedPairing, PairingFailure},
};
use serde_json::json;

use crate::{
    operator::desired,
    world::{World, eventually},
};

fn waiting(world: &World, ids: &[&str]) {
    let pending: Vec<_> = ids.iter().map(|id| json!({"requestId": id})).collect();
    let list = json!({"pending": pending, "paired": []}).to_string();
    fs::write(world.layout.openclaw_state().join("devices"), list).unwrap();
}

fn approving(ids: &[&str], retry: Option<&str>) -> DesiredState {
    DesiredState {
        approved_pairings: ids.iter().map(|id| (*id).to_owned()).collect(),
        retry: retry.map(str::to_owned),
        ..desired(json!({"a": 1}), &[])
    }
}

fn failed(request: &str, reason: PairingFailure) -> FailedPairing {
    FailedPairing { request: request.into(), reason }
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_devices_are_paired_and_others_reported_once() {
    let world = World::new().await;
    let (agent, mut operator) = world.enrolled().await;
    waiting(&world, &["good", "refused", "not-approved"]);
    let document = approving(&["good", "refused", "unknown", "--all"], None);
    operator.put_desired(&document).await;
    operator.wait_for(&document, ConvergenceState::Converged).await;
    let wanted = [
        failed("--all", PairingFailure::NotWaiting),
        failed("refused", PairingFailure::Refused),
        failed("unknown", PairingFailure::NotWaiting),
    ];
    operator.report_when("told", |report| report.details.failed_pairings == wanted).await;
    assert_eq!((world.calls("list"), world.calls("approve good")), (1, 1));

    // Several passes later, and in another life of the agent, which has to look once for itself.
    let looks = world.machine(|machine| machine.looks);
    eventually("some passes", || async {
        world.machine(|machine| (machine.looks > looks + 5).then_some(()))
    })
    .await;
    assert_eq!(world.calls("list"), 1, "it is not looked for in every pass");
    waiting(&world, &["refused", "not-approved"]);
    drop(agent);
    let agent = world.start().await;
    operator.follow(&agent);
    operator.wait_until_ready().await;
    operator.report_when("told again", |report| report.details.failed_pairings == wanted).await;
    assert_eq!((world.calls("list"), world.calls("approve good")), (2, 1));

    let retried = approving(&["good", "unknown"], Some("now"));
    waiting(&world, &["unknown"]);
    operator.put_desired(&retried).await;
    operator.wait_for(&retried, ConvergenceState::Converged).await;
    operator.report_when("let in", |report| report.details.failed_pairings.is_empty()).await;
    assert_eq!(world.calls("approve unknown"), 1);
}
