//! Power cuts at any point of an update or a rollback of a program.

use std::time::Duration;

use http::Method;
use moorage_agent::installer::protocol::Unit;
use moorage_wire::{DesiredState, Program, Report, path, report::ConvergenceState};
use serde_json::json;

use crate::{
    crash::{count_crashes, in_two_lives},
    operator::Operator,
    programs::{active, data, failing, first, sha256},
    world::eventually,
};

/// An update from version 1 to 2 with a crash of the agent at step `at`; whether that was reached.
async fn update_with_crash(at: usize, works: bool) -> bool {
    let (world, agent, mut operator, _) = first().await;
    drop(agent);
    if !works {
        world.machine(|machine| {
            machine.broken.insert(sha256("openclaw-2"));
            // Whenever it may run, it ruins the data.
            machine.failure = Some(failing(1, false));
        });
    }
    let document = world.release(json!({"a": 2}), [2, 1, 1]);
    let end = if works { ConvergenceState::Converged } else { ConvergenceState::RolledBack };
    let reach = async |operator: &mut Operator| reach(operator, &document, end).await;
    let (_agent, report, crashed) = in_two_lives(&world, &mut operator, at, reach).await;
    let version = if works { "openclaw-2" } else { "openclaw-1" };
    eventually("OpenClaw runs", || async {
        world.machine(|machine| (machine.running[&Unit::Openclaw] && machine.healthy).then_some(()))
    })
    .await;
    assert_eq!(active(&world, Program::Openclaw), Some(sha256(version)), "step {at}");
    assert_eq!(data(&world), sha256(version).to_string(), "step {at}");
    let config = if works { json!({"a": 2}) } else { json!({"a": 1}) };
    assert_eq!(world.machine(|machine| machine.openclaw_config.clone()), config, "step {at}");
    assert_eq!(report.details.last_rollback.is_some(), !works, "step {at}");
    eventually("nothing is left behind", || async {
        (!world.layout.snapshot().exists() && !world.layout.update().exists()).then_some(())
    })
    .await;
    crashed
}

/// Another cloudflared with a crash of the agent at step `at`; whether that was reached.
async fn connector_with_crash(at: usize, works: bool) -> bool {
    let (mut world, agent, mut operator, _) = first().await;
    drop(agent);
    if !works {
        world.settings.timing.connect_deadline = Duration::from_millis(300);
        world.machine(|machine| machine.broken.insert(sha256("cloudflared-2")));
    }
    let document = world.release(json!({"a": 1}), [1, 2, 1]);
    let end = if works { ConvergenceState::Converged } else { ConvergenceState::RolledBack };
    let reach = async |operator: &mut Operator| reach(operator, &document, end).await;
    let (_agent, report, crashed) = in_two_lives(&world, &mut operator, at, reach).await;
    eventually("the trial is over", || async {
        (!world.layout.connector_update().exists()).then_some(())
    })
    .await;
    let version = if works { "cloudflared-2" } else { "cloudflared-1" };
    assert_eq!(active(&world, Program::Cloudflared), Some(sha256(version)), "step {at}");
    assert_eq!(report.details.last_rollback.is_some(), !works, "step {at}");
    operator.report_when("connected", |report| report.cloudflared.connected).await;
    crashed
}

/// Puts the document and waits for its end, whatever fails on the way.
async fn reach(operator: &mut Operator, document: &DesiredState, end: ConvergenceState) -> Report {
    loop {
        if let Ok(report) = step(operator, document).await
            && report.desired.digest == Some(document.digest())
            && report.desired.state == end
        {
            return report;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn step(operator: &mut Operator, document: &DesiredState) -> Result<Report, String> {
    let reply = operator.try_call(Method::GET, path::REPORT, None, b"").await?;
    let report: Report = reply.json();
    if report.desired.digest != Some(document.digest()) {
        let digest = report.desired.digest.ok_or("no document")?;
        let (tag, body) = (format!("\"{digest}\""), document.to_bytes());
        operator.try_call(Method::PUT, path::DESIRED, Some(&tag), &body).await?;
    }
    Ok(report)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_survives_a_power_cut_at_any_write() {
    let crashes = count_crashes(|at| update_with_crash(at, true), 6).await;
    assert!(crashes > 25, "only {crashes} steps were tried");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_update_survives_a_power_cut_at_any_write() {
    let crashes = count_crashes(|at| update_with_crash(at, false), 6).await;
    assert!(crashes > 35, "only {crashes} steps were tried");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trial_of_cloudflared_survives_a_power_cut() {
    for works in [true, false] {
        let crashes = count_crashes(|at| connector_with_crash(at, works), 6).await;
        assert!(crashes > 15, "only {crashes} steps were tried");
    }
}
