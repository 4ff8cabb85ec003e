//! OpenClaw's own security audit of what it runs with.

use std::fs;

use moorage_agent::installer::protocol::Unit;
use moorage_wire::report::{Audit, ConvergenceState};
use serde_json::json;

use crate::{
    operator::desired,
    world::{World, eventually},
};

const FINDINGS: Audit = Audit { critical: 2, warn: 1 };

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_audit_is_retried_until_it_has_a_result() {
    let world = World::new().await;
    let (_agent, mut operator) = world.enrolled().await;
    let hindrance = world.layout.openclaw_state().join("no-audit");
    fs::write(&hindrance, "").unwrap();
    let document = desired(json!({"a": 1}), &[]);
    operator.put_desired(&document).await;
    let report = operator.wait_for(&document, ConvergenceState::Converged).await;
    assert_eq!(report.details.audit, None);
    eventually("it was tried", || async { (world.calls("audit") > 0).then_some(()) }).await;
    fs::remove_file(hindrance).unwrap();
    operator.report_when("told", |report| report.details.audit == Some(FINDINGS)).await;

    // Passes later it is not repeated, but for another configuration.
    let audits = world.calls("audit");
    world.machine(|machine| machine.running.insert(Unit::Openclaw, false));
    eventually("OpenClaw runs again", || async {
        world.machine(|machine| machine.running[&Unit::Openclaw].then_some(()))
    })
    .await;
    assert_eq!(world.calls("audit"), audits);
    let document = desired(json!({"a": 2}), &[]);
    operator.put_desired(&document).await;
    operator.wait_for(&document, ConvergenceState::Converged).await;
    eventually("it is audited", || async { (world.calls("audit") == audits + 1).then_some(()) })
        .await;
}
