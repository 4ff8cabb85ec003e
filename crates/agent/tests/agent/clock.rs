//! A clock that is at 1970 when a server begins, and right after a while.

use std::fs;

use jiff::Timestamp;
use moorage_wire::{
    Sha256,
    report::{ConvergenceState, OpenClawState},
};
use serde_json::{Value, json};

use crate::{programs::failing, world::World};

/// Sets every time in a document to the beginning of time; how many there were.
fn set_back(document: &mut Value) -> usize {
    match document {
        Value::String(text) if text.parse::<Timestamp>().is_ok() => {
            *text = Timestamp::UNIX_EPOCH.to_string();
            1
        }
        Value::Array(items) => items.iter_mut().map(set_back).sum(),
        Value::Object(fields) => fields.values_mut().map(set_back).sum(),
        _ => 0,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_noted_in_1970_does_no_harm_when_the_clock_is_right() {
    let world = World::managed().await;
    let (agent, mut operator) = world.enrolled().await;
    let first = world.release(json!({"a": 1}), [1, 1, 1]);
    operator.put_desired(&first).await;
    operator.wait_for(&first, ConvergenceState::Converged).await;
    world.machine(|machine| {
        machine.broken.insert(Sha256::of(b"openclaw-2"));
        machine.failure = Some(failing(1, true));
    });
    let bad = world.release(json!({"a": 2}), [2, 1, 1]);
    operator.put_desired(&bad).await;
    operator.wait_for(&bad, ConvergenceState::RolledBack).await;
    drop(agent);

    let layout = &world.layout;
    for path in [layout.enrolled(), layout.failed(), layout.last_rollback(), layout.backup()] {
        let mut document = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        assert!(set_back(&mut document) > 0, "{}", path.display());
        fs::write(&path, document.to_string()).unwrap();
    }
    let agent = world.start().await;
    operator.follow(&agent);
    operator.wait_until_ready().await;
    let report = operator.wait_for(&bad, ConvergenceState::RolledBack).await;
    assert_eq!(report.desired.failed[0].at, Timestamp::UNIX_EPOCH);
    assert_eq!(report.details.last_rollback.unwrap().at, Timestamp::UNIX_EPOCH);
    operator.report_when("well", |report| report.openclaw.state == OpenClawState::Ready).await;
    let third = world.release(json!({"a": 3}), [3, 1, 1]);
    operator.put_desired(&third).await;
    let report = operator.wait_for(&third, ConvergenceState::Converged).await;
    assert!(report.details.backup.unwrap().at > Timestamp::UNIX_EPOCH);
}
