use std::{fs, os::unix::fs::PermissionsExt as _, time::Duration};

use http::Method;
use moorage_agent::installer::protocol::Unit;
use moorage_wire::{
    CredentialType, DesiredState,
    bootstrap::SECRETS_PATH,
    failure::FailureCode,
    path,
    problem::ProblemCode,
    report::{ConvergenceState, FailureReason, OpenClawState},
};
use serde_json::json;

use crate::{
    logs::LOGS,
    operator::desired,
    world::{World, eventually},
};

const KEY: &str = "sk-ant-convergence-hidden-0123456789";

#[tokio::test(flavor = "multi_thread")]
async fn enrol_deliver_and_converge_to_a_healthy_openclaw() {
    let world = World::new().await;
    let (_agent, mut operator) = world.enrolled().await;
    let empty = operator.report().await;
    assert_eq!(empty.desired.state, ConvergenceState::Waiting);
    assert_eq!(empty.openclaw.state, OpenClawState::Stopped);
    assert!(empty.cloudflared.connected);

    let receipt = operator.deliver("anthropic", CredentialType::AnthropicApiKey, KEY).await;
    assert_eq!(world.machine(|machine| machine.starts.get(&Unit::Openclaw).copied()), None);
    let document = desired(json!({"secrets": {"path": SECRETS_PATH}}), &["anthropic"]);
    operator.put_desired(&document).await;
    let report = operator.wait_for(&document, ConvergenceState::Converged).await;
    assert_eq!(report.openclaw.state, OpenClawState::Ready);
    assert_eq!(report.receipts, [receipt]);
    assert!(report.machine.disk_free_bytes > 0 && report.machine.memory_available_bytes > 0);
    assert!(!report.machine.reboot_pending);
    assert!(report.machine.setup_done, "nobody sets up what is not a server");

    let provider = world.machine(|machine| machine.openclaw_config["secrets"]["path"].clone());
    assert_eq!(provider, json!(world.layout.secrets()));
    for file in [world.layout.secrets(), world.layout.openclaw_config()] {
        assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o7777, 0o600);
    }
    let state = fs::metadata(world.layout.state()).unwrap();
    assert_eq!(state.permissions().mode() & 0o7777, 0o700);
    assert_eq!(fs::read(world.layout.desired()).unwrap(), document.to_bytes());
    operator
        .report_when("its version", |report| report.openclaw.version.as_deref() == Some("2026.9.6"))
        .await;
    assert!(!LOGS.contains(KEY));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rejected_configuration_is_rolled_back_and_not_retried() {
    let world = World::new().await;
    let (agent, mut operator) = world.enrolled().await;
    let good = desired(json!({"agents": {"good": true}}), &[]);
    operator.put_desired(&good).await;
    operator.wait_for(&good, ConvergenceState::Converged).await;

    let bad = desired(json!({"agents": {"unknownKey": "hunter2-in-config"}}), &[]);
    operator.put_desired(&bad).await;
    let report = operator.wait_for(&bad, ConvergenceState::RolledBack).await;
    let failed = report.desired.failed.last().unwrap();
    assert_eq!(failed.digest, bad.digest());
    assert_eq!(failed.reason, FailureReason::InvalidConfig);
    assert_eq!(failed.path.as_deref(), Some("agents.unknownKey"));
    assert!(!failed.message.contains("hunter2"), "{}", failed.message);
    assert_eq!(report.openclaw.state, OpenClawState::Ready);
    assert_eq!(world.machine(|machine| machine.openclaw_config.clone()), good.config);
    assert_eq!(world.machine(|machine| machine.starts[&Unit::Openclaw]), 1, "it never restarted");

    let validations = world.calls("validate");
    drop(agent);
    let agent = world.start().await;
    operator.follow(&agent);
    operator.wait_until_ready().await;
    let report = operator.wait_for(&bad, ConvergenceState::RolledBack).await;
    assert_eq!(report.desired.failed.len(), 1);
    assert_eq!(world.calls("validate"), validations, "a failed document is not retried");

    let retried = DesiredState { retry: Some("once more".into()), ..bad };
    operator.put_desired(&retried).await;
    operator.wait_for(&retried, ConvergenceState::RolledBack).await;
    assert_eq!(world.calls("validate"), validations + 1);
    operator.put_desired(&good).await;
    operator.wait_for(&good, ConvergenceState::Converged).await;
    assert!(!LOGS.contains("hunter2"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_that_never_becomes_healthy_is_rolled_back() {
    let mut world = World::new().await;
    world.settings.timing.health_deadline = Duration::from_secs(2);
    let (_agent, mut operator) = world.enrolled().await;
    let good = desired(json!({"a": 1}), &[]);
    operator.put_desired(&good).await;
    operator.wait_for(&good, ConvergenceState::Converged).await;
    let bad = desired(json!({"fakeUnhealthy": true}), &[]);
    operator.put_desired(&bad).await;
    let report = operator.wait_for(&bad, ConvergenceState::RolledBack).await;
    let failed = &report.desired.failed[0];
    assert_eq!(failed.reason, FailureReason::Unhealthy);
    let failure = failed.failure.as_ref().unwrap();
    let late = (FailureCode::DeadlineExceeded, false);
    assert_eq!((failure.code, failure.update), late, "a configuration is no update");
    eventually("the last good configuration runs again", || async {
        world.machine(|machine| (machine.openclaw_config == good.config).then_some(()))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_openclaw_is_not_restarted_for_a_configuration() {
    let mut world = World::new().await;
    world.settings.timing.reload_patience = Duration::from_secs(60);
    let (_agent, mut operator) = world.enrolled().await;
    let first = desired(json!({"a": 1}), &[]);
    operator.put_desired(&first).await;
    operator.wait_for(&first, ConvergenceState::Converged).await;

    fs::write(world.layout.openclaw_state().join("takes-up"), "").unwrap();
    world.machine(|machine| machine.busy = true);
    let second = desired(json!({"a": 2}), &[]);
    operator.put_desired(&second).await;
    eventually("the new configuration is written", || async {
        let live: serde_json::Value =
            serde_json::from_slice(&fs::read(world.layout.openclaw_config()).ok()?).ok()?;
        (live == second.config).then_some(())
    })
    .await;
    // Each look asks twice, and one may have begun before.
    let before = world.machine(|machine| machine.missed);
    eventually("it is asked again", || async {
        world.machine(|machine| (machine.missed >= before + 4).then_some(()))
    })
    .await;
    world.machine(|machine| machine.busy = false);
    operator.wait_for(&second, ConvergenceState::Converged).await;
    assert_eq!(world.machine(|machine| machine.starts[&Unit::Openclaw]), 1, "it never restarted");
    assert!(world.calls("config.get") > 1, "the first of these calls failed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_document_that_fails_leaves_nothing_running() {
    let mut world = World::new().await;
    world.settings.timing.health_deadline = Duration::from_secs(2);
    let (_agent, mut operator) = world.enrolled().await;
    let bad = desired(json!({"fakeUnhealthy": true}), &[]);
    operator.put_desired(&bad).await;
    operator.wait_for(&bad, ConvergenceState::Failed).await;
    eventually("OpenClaw is stopped", || async {
        world.machine(|machine| (!machine.running[&Unit::Openclaw]).then_some(()))
    })
    .await;
    let good = desired(json!({"fakeDegraded": true}), &[]);
    operator.put_desired(&good).await;
    let report = operator.wait_for(&good, ConvergenceState::Converged).await;
    assert_eq!(report.openclaw.state, OpenClawState::Degraded);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_document_supersedes_one_that_is_being_tried() {
    let mut world = World::new().await;
    world.settings.timing.health_deadline = Duration::from_secs(3600);
    let (_agent, mut operator) = world.enrolled().await;
    let slow = desired(json!({"fakeUnhealthy": true}), &[]);
    operator.put_desired(&slow).await;
    eventually("OpenClaw is started", || async {
        world.machine(|machine| machine.starts.get(&Unit::Openclaw).copied())
    })
    .await;
    let good = desired(json!({"a": 1}), &[]);
    operator.put_desired(&good).await;
    let report = operator.wait_for(&good, ConvergenceState::Converged).await;
    assert!(report.desired.failed.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_absent_installer_is_reported_and_waited_for() {
    let mut world = World::new().await;
    let socket = world.settings.installer_socket.clone();
    world.settings.installer_socket = socket.with_file_name("later.sock");
    let (_agent, mut operator) = world.enrolled().await;
    let document = desired(json!({"a": 1}), &[]);
    operator.put_desired(&document).await;
    let report = operator.report_when("reported", |report| !report.desired.failed.is_empty()).await;
    assert_eq!(report.desired.state, ConvergenceState::Converging);
    let failed = &report.desired.failed[0];
    assert_eq!(failed.reason, FailureReason::System);
    let failure = failed.failure.as_ref().unwrap();
    assert_eq!(failure.code, FailureCode::ServiceFailed);
    std::os::unix::fs::symlink(&socket, socket.with_file_name("later.sock")).unwrap();
    let report = operator.wait_for(&document, ConvergenceState::Converged).await;
    assert!(report.desired.failed.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_over_another_than_the_agent_has_is_refused() {
    let world = World::new().await;
    let (_agent, mut operator) = world.enrolled().await;
    let first = desired(json!({"a": 1}), &[]);
    operator.put_desired(&first).await;
    let second = desired(json!({"a": 2}), &[]).to_bytes();
    let wrong = format!("\"{}\"", moorage_wire::Sha256::of(b"other"));
    for if_match in [None, Some("\"none\""), Some(wrong.as_str()), Some("*")] {
        let reply = operator.call(Method::PUT, path::DESIRED, if_match, &second).await;
        assert_eq!(reply.problem(), ProblemCode::DigestMismatch, "{if_match:?}");
    }
    assert_eq!(operator.report().await.desired.digest, Some(first.digest()));
}

#[tokio::test(flavor = "multi_thread")]
async fn manual_changes_of_config_and_unit_are_reverted() {
    let world = World::new().await;
    let (_agent, mut operator) = world.enrolled().await;
    let document = desired(json!({"a": 1}), &[]);
    operator.put_desired(&document).await;
    operator.wait_for(&document, ConvergenceState::Converged).await;
    fs::write(world.layout.openclaw_config(), b"{}").unwrap();
    world.machine(|machine| machine.running.insert(Unit::Openclaw, false));
    eventually("OpenClaw runs with what is desired", || async {
        world.machine(|machine| {
            let right =
                machine.running[&Unit::Openclaw] && machine.openclaw_config == json!({"a": 1});
            (right && machine.starts[&Unit::Openclaw] > 1).then_some(())
        })
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreadable_document_keeps_openclaw_running() {
    let world = World::new().await;
    let (agent, mut operator) = world.enrolled().await;
    let document = desired(json!({"a": 1}), &[]);
    operator.put_desired(&document).await;
    operator.wait_for(&document, ConvergenceState::Converged).await;
    drop(agent);
    fs::write(world.layout.desired(), b"{\"ofANewerAgent\": true}").unwrap();
    world.machine(|machine| machine.running.insert(Unit::Openclaw, false));

    let agent = world.start().await;
    operator.follow(&agent);
    operator.wait_until_ready().await;
    let report = operator.report().await;
    assert_eq!((report.desired.digest, report.desired.state), (None, ConvergenceState::Waiting));
    eventually("OpenClaw runs again", || async {
        world.machine(|machine| machine.running[&Unit::Openclaw].then_some(()))
    })
    .await;
    operator.put_desired(&document).await;
    operator.wait_for(&document, ConvergenceState::Converged).await;
}
