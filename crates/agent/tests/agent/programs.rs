//! Programs that the agent brings: first installation, updates that work, updates that are taken
//! back with their data, and a power cut at any point of them. The worker is behind its socket.

use std::{fs, time::Duration};

use http::Method;
use jiff::Timestamp;
use moorage_agent::{
    Agent,
    installer::protocol::{AgentFailure, Ending, FailedAgent, Unit, UnitFailure},
};
use moorage_wire::{
    CredentialType, DesiredState, Failure, Program, Report, Sha256,
    failure::{FailureCode, PlainText, Stage},
    path,
    report::{ConvergenceState, FailureReason, OpenClawState},
};
use rstest::rstest;
use serde_json::{Value, json};

use crate::{
    crash::{count_crashes, in_two_lives},
    operator::Operator,
    world::{World, eventually},
};

const KEY: &str = "sk-ant-programs-hidden-0123456789abc";

fn sha256(name: &str) -> Sha256 {
    Sha256::of(name.as_bytes())
}

/// A server that runs version 1 of everything.
async fn first() -> (World, Agent, Operator, DesiredState) {
    let world = World::managed().await;
    let (agent, mut operator) = world.enrolled().await;
    let document = world.release(json!({"a": 1}), [1, 1, 1]);
    operator.put_desired(&document).await;
    operator.wait_for(&document, ConvergenceState::Converged).await;
    (world, agent, operator, document)
}

/// The same, with an agent that waits for an OpenClaw's start as long as there is hope.
async fn first_with_patience() -> (World, Agent, Operator) {
    let (mut world, agent, mut operator, _) = first().await;
    drop(agent);
    world.settings.timing.health_deadline = Duration::from_secs(3600);
    let agent = world.start().await;
    operator.follow(&agent);
    operator.wait_until_ready().await;
    (world, agent, operator)
}

fn data(world: &World) -> String {
    fs::read_to_string(world.layout.openclaw_state().join("data")).unwrap_or_default()
}

/// The last failure, as fields.
fn told(report: &Report) -> Failure {
    let failed = report.desired.failed.last().expect("something failed");
    failed.failure.clone().expect("it is told as fields")
}

fn active(world: &World, kind: Program) -> Option<Sha256> {
    world.machine(|machine| machine.active(kind))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_server_gets_its_programs_and_a_worker_writes_what_openclaw_reads() {
    let world = World::managed().await;
    let (_agent, mut operator) = world.enrolled().await;
    operator.deliver("anthropic", CredentialType::AnthropicApiKey, KEY).await;
    let mut document = world.release(json!({"a": 1}), [1, 1, 1]);
    document.credentials.insert("anthropic".parse().unwrap());
    operator.put_desired(&document).await;
    let report = operator.wait_for(&document, ConvergenceState::Converged).await;
    assert_eq!(report.openclaw.state, OpenClawState::Ready);
    assert_eq!(world.secrets(), json!({"anthropic": KEY}));
    let active: Vec<_> = report.details.programs.iter().filter(|one| one.active).collect();
    assert_eq!(active.len(), 4);
    let openclaw = active.iter().find(|one| one.kind == Program::Openclaw.into()).unwrap();
    assert_eq!(openclaw.version.as_deref(), Some("2026.9.1"));
    let activated = world.machine(|machine| machine.activated.clone());
    let node = (Program::Node, sha256("node-1"));
    assert_eq!(activated, [node, (Program::Openclaw, sha256("openclaw-1"))]);
    assert_eq!(fs::read_dir(world.layout.downloads()).unwrap().count(), 0);
    let units: Vec<_> = report.details.units.iter().map(|unit| unit.unit.as_str()).collect();
    assert_eq!(units, ["openclaw", "cloudflared", "agent"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_worker_the_agent_answers_and_the_operator_sends_a_later_document_again() {
    let mut world = World::managed_without_worker().await;
    let (_agent, mut operator) = world.enrolled().await;
    let first = world.release(json!({"a": 1}), [1, 1, 1]);
    operator.put_desired(&first).await;
    let is_told = |report: &Report| {
        let failed = report.desired.failed.last();
        let failure = failed.and_then(|failed| failed.failure.as_ref());
        failure.is_some_and(|failure| failure.code == FailureCode::ServiceFailed)
    };
    operator.report_when("told", is_told).await;
    let worker = world.start_worker();
    operator.wait_for(&first, ConvergenceState::Converged).await;

    worker.abort();
    let socket = world.layout.worker_socket();
    eventually("the worker is gone", || async {
        tokio::net::UnixStream::connect(&socket).await.is_err().then_some(())
    })
    .await;
    let second = world.release(json!({"a": 2}), [1, 1, 1]);
    operator.put_desired(&second).await;
    operator.report_when("told", is_told).await;
    world.start_worker();
    // Its signature has a nonce that is none of this worker's.
    operator.report_when("asked for again", |report| report.desired.digest.is_none()).await;
    operator.put_desired(&second).await;
    operator.wait_for(&second, ConvergenceState::Converged).await;
    operator.deliver("anthropic", CredentialType::AnthropicApiKey, KEY).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_agents_server_goes_on_and_its_key_becomes_the_workers() {
    let world = World::managed().await;
    // As an older agent left them: one key for everything, and none of the worker's.
    let path = world.layout.identity();
    let mut keys: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let stored: Value =
        serde_json::from_slice(&fs::read(world.layout.worker_key()).unwrap()).unwrap();
    let fields = keys.as_object_mut().unwrap();
    fields.remove("tunnelKey");
    fields.insert("sealingKey".to_owned(), stored["key"].clone());
    fields["identity"].as_object_mut().unwrap().remove("tunnelCertificate");
    fs::write(&path, keys.to_string()).unwrap();
    fs::remove_file(world.layout.worker_key()).unwrap();

    let (_agent, mut operator) = world.enrolled().await;
    let before = operator.identity.clone().unwrap();
    let report = operator
        .report_when("a key for the tunnel alone", |report| {
            report.identity.tunnel_certificate.is_some()
        })
        .await;
    assert_eq!(report.identity.sealing_certificate, before.sealing_certificate);
    assert_eq!(report.identity.proof, before.proof);
    assert!(!fs::read_to_string(&path).unwrap().contains(stored["key"].as_str().unwrap()));
    operator.identity = Some(report.identity);
    operator.deliver("anthropic", CredentialType::AnthropicApiKey, KEY).await;
    assert_eq!(world.secrets(), json!({"anthropic": KEY}));
    let token = "the-rotated-tunnel-token-0123456789";
    operator.deliver("moorage-tunnel", CredentialType::TunnelToken, token).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_artifact_server_that_is_down_is_asked_again_while_the_old_version_runs() {
    let (world, _agent, mut operator, _) = first().await;
    let second = world.release(json!({"a": 1}), [2, 1, 1]);
    let files = world.machine(|machine| std::mem::take(&mut machine.files));
    operator.put_desired(&second).await;
    let report =
        operator.report_when("in trouble", |report| !report.desired.failed.is_empty()).await;
    assert_eq!(report.desired.failed[0].reason, FailureReason::Artifact);
    let unavailable = Failure::new(Stage::Download, FailureCode::HttpStatus).of(Program::Openclaw);
    assert_eq!(told(&report), unavailable.with_detail("status 503"));
    assert_eq!(report.desired.state, ConvergenceState::Converging);
    assert_eq!(report.openclaw.state, OpenClawState::Ready);
    // What is delivered meanwhile does not wait for the download.
    operator.deliver("anthropic", CredentialType::AnthropicApiKey, KEY).await;
    world.machine(|machine| machine.files = files);
    let report = operator.wait_for(&second, ConvergenceState::Converged).await;
    assert!(report.desired.failed.is_empty());
    assert_eq!(active(&world, Program::Openclaw), Some(sha256("openclaw-2")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_not_the_pinned_one_fails_the_document_until_it_is_repaired() {
    let (world, _agent, mut operator, _) = first().await;
    let second = world.release(json!({"a": 1}), [2, 1, 1]);
    world.machine(|machine| machine.files.insert("openclaw-2".into(), b"openclaw-X".to_vec()));
    operator.put_desired(&second).await;
    let report = operator.wait_for(&second, ConvergenceState::RolledBack).await;
    let failed = report.desired.failed.last().unwrap();
    assert_eq!(failed.reason, FailureReason::Artifact);
    let wrong = Failure::new(Stage::Verification, FailureCode::WrongBytes).of(Program::Openclaw);
    assert_eq!(told(&report), wrong.with_detail("SHA-256 differs"));
    // For operators that do not read the fields.
    for part in ["/openclaw-2", &sha256("openclaw-2").to_string()] {
        assert!(failed.message.contains(part), "{}", failed.message);
    }
    assert_eq!(report.openclaw.state, OpenClawState::Ready);
    world.machine(|machine| machine.files.insert("openclaw-2".into(), b"openclaw-2".to_vec()));
    operator.wait_for(&second, ConvergenceState::Converged).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_backs_up_switches_and_reports() {
    let (world, _agent, mut operator, _) = first().await;
    let second = world.release(json!({"a": 2}), [2, 1, 1]);
    operator.put_desired(&second).await;
    let report = operator.wait_for(&second, ConvergenceState::Converged).await;
    assert_eq!(data(&world), sha256("openclaw-2").to_string());
    assert_eq!(world.calls("backup"), 1);
    assert!(report.details.backup.is_some() && report.details.last_rollback.is_none());
    assert_eq!(fs::read_dir(world.layout.backups()).unwrap().count(), 1);
    eventually("nothing is left behind", || async {
        (!world.layout.snapshot().exists() && !world.layout.update().exists()).then_some(())
    })
    .await;
    assert_eq!(world.machine(|machine| machine.openclaw_config.clone()), json!({"a": 2}));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_does_not_start_is_taken_back_with_its_data_and_not_tried_again() {
    let (world, agent, mut operator, _) = first().await;
    world.machine(|machine| machine.broken.insert(sha256("openclaw-2")));
    let bad = world.release(json!({"a": 2}), [2, 1, 1]);
    operator.put_desired(&bad).await;
    let report = operator.wait_for(&bad, ConvergenceState::RolledBack).await;
    let failed = report.desired.failed.last().unwrap();
    assert_eq!((failed.digest, failed.reason), (bad.digest(), FailureReason::Unhealthy));
    let late = Failure::new(Stage::Health, FailureCode::DeadlineExceeded).of(Program::Openclaw);
    let failure = told(&report);
    assert_eq!(Failure { detail: PlainText::default(), ..failure.clone() }, late.in_update());
    assert!(failed.message.contains("OpenClaw 2026.9.2"), "{}", failed.message);
    let rollback = report.details.last_rollback.unwrap();
    assert_eq!(rollback.failure, Some(failure));
    assert_eq!(rollback.what, Program::Openclaw.into());
    assert_eq!((rollback.from, rollback.to), (sha256("openclaw-2"), Some(sha256("openclaw-1"))));
    runs_version_one(&world, &mut operator).await;

    let activations = || world.machine(|machine| machine.activated.len());
    let before = activations();
    drop(agent);
    let agent = world.start().await;
    operator.follow(&agent);
    operator.wait_until_ready().await;
    operator.wait_for(&bad, ConvergenceState::RolledBack).await;
    assert_eq!(activations(), before, "it is not tried again");

    world.machine(|machine| machine.broken.clear());
    let retried = DesiredState { retry: Some("once more".into()), ..bad };
    operator.put_desired(&retried).await;
    operator.wait_for(&retried, ConvergenceState::Converged).await;
    assert_eq!(data(&world), sha256("openclaw-2").to_string());
}

/// How a test's OpenClaw ends when it does not start.
pub(crate) fn failing(status: i32, given_up: bool) -> UnitFailure {
    UnitFailure { ending: Ending::Exited { status }, restarts: 0, given_up }
}

#[rstest]
#[case::given_up(failing(78, true), "systemd gave up on it after 0 restarts: exit status 78")]
#[case::again_and_again(failing(1, false), "it ended 3 times: exit status 1")]
#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_ends_by_itself_is_taken_back_without_waiting_for_it(
    #[case] failure: UnitFailure,
    #[case] said: &str,
) {
    let (world, _agent, mut operator) = first_with_patience().await;
    world.machine(|machine| {
        machine.broken.insert(sha256("openclaw-2"));
        machine.failure = Some(failure);
    });
    let bad = world.release(json!({"a": 2}), [2, 1, 1]);
    operator.put_desired(&bad).await;
    let report = operator.wait_for(&bad, ConvergenceState::RolledBack).await;
    let failed = report.desired.failed.last().unwrap();
    assert_eq!(failed.reason, FailureReason::Unhealthy);
    let ended = Failure::new(Stage::Start, FailureCode::ProcessEnded).of(Program::Openclaw);
    assert_eq!(told(&report), ended.in_update().with_detail(said));
    for part in ["OpenClaw 2026.9.2: ", "journalctl -u openclaw"] {
        assert!(failed.message.contains(part), "{}", failed.message);
    }
    assert_eq!(report.details.last_rollback.unwrap().reason, failed.message);
    runs_version_one(&world, &mut operator).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_starts_at_its_third_try_stays() {
    let (world, _agent, mut operator) = first_with_patience().await;
    world.machine(|machine| {
        machine.broken.insert(sha256("openclaw-2"));
        machine.failure = Some(failing(1, false));
        machine.recovers_after = Some(2);
    });
    let second = world.release(json!({"a": 2}), [2, 1, 1]);
    operator.put_desired(&second).await;
    operator.wait_for(&second, ConvergenceState::Converged).await;
    assert_eq!(active(&world, Program::Openclaw), Some(sha256("openclaw-2")));
}

async fn runs_version_one(world: &World, operator: &mut Operator) {
    operator
        .report_when("healthy again", |report| report.openclaw.state == OpenClawState::Ready)
        .await;
    assert_eq!(active(world, Program::Openclaw), Some(sha256("openclaw-1")));
    assert_eq!(data(world), sha256("openclaw-1").to_string());
    assert_eq!(world.machine(|machine| machine.openclaw_config.clone()), json!({"a": 1}));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_that_the_new_version_rejects_names_its_path_and_takes_all_back() {
    let (world, _agent, mut operator, _) = first().await;
    let bad = world.release(json!({"agents": {"unknownKey": 1}}), [2, 1, 1]);
    operator.put_desired(&bad).await;
    let report = operator.wait_for(&bad, ConvergenceState::RolledBack).await;
    let failed = report.desired.failed.last().unwrap();
    assert_eq!(failed.reason, FailureReason::InvalidConfig);
    assert_eq!(failed.path.as_deref(), Some("agents.unknownKey"));
    let rejected = Failure::new(Stage::Configuration, FailureCode::ConfigRejected);
    assert_eq!(told(&report), rejected.of(Program::Openclaw).in_update());
    runs_version_one(&world, &mut operator).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connector_that_does_not_connect_is_taken_back_and_one_that_does_stays() {
    let (world, _agent, mut operator, _) = first().await;
    world.machine(|machine| machine.broken.insert(sha256("cloudflared-2")));
    let bad = world.release(json!({"a": 1}), [1, 2, 1]);
    operator.put_desired(&bad).await;
    let report = operator.wait_for(&bad, ConvergenceState::RolledBack).await;
    assert_eq!(active(&world, Program::Cloudflared), Some(sha256("cloudflared-1")));
    let failure = told(&report);
    assert_eq!((failure.program, failure.update), (Some(Program::Cloudflared.into()), true));
    assert_eq!(failure.code, FailureCode::DeadlineExceeded);
    assert_eq!(report.details.last_rollback.unwrap().what, Program::Cloudflared.into());
    operator.report_when("connected", |report| report.cloudflared.connected).await;
    let good = world.release(json!({"a": 1}), [1, 3, 1]);
    operator.put_desired(&good).await;
    operator.wait_for(&good, ConvergenceState::Converged).await;
    assert_eq!(active(&world, Program::Cloudflared), Some(sha256("cloudflared-3")));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_agent_itself_comes_last_and_one_that_failed_is_reported_and_left_alone() {
    let (world, _agent, mut operator, _) = first().await;
    let update = world.release(json!({"a": 2}), [2, 1, 2]);
    operator.put_desired(&update).await;
    eventually("the installer is asked for the agent", || async {
        world.machine(|machine| machine.agents_asked_for.first().copied())
    })
    .await;
    assert_eq!(active(&world, Program::Openclaw), Some(sha256("openclaw-2")));
    world.machine(|machine| {
        machine.failed_agents.push(FailedAgent {
            sha256: sha256("agent-2"),
            reason: AgentFailure::NoSocket,
            retry: None,
            at: Timestamp::UNIX_EPOCH,
        });
    });
    let report = operator.wait_for(&update, ConvergenceState::RolledBack).await;
    let failed = report.desired.failed.last().unwrap();
    assert!(failed.message.contains("did not answer on its socket"), "{}", failed.message);
    let silent = Failure::new(Stage::Start, FailureCode::DeadlineExceeded).of(Program::Agent);
    assert_eq!(told(&report), silent.in_update());
    assert_eq!(report.details.failed_programs[0].failure, Some(told(&report)));
    assert_eq!(report.details.failed_programs[0].sha256, sha256("agent-2"));
    assert_eq!(report.openclaw.state, OpenClawState::Ready);
}

#[tokio::test(flavor = "multi_thread")]
async fn openclaw_runs_while_its_data_cannot_be_made_safe_also_after_a_reboot() {
    let (world, agent, mut operator, _) = first().await;
    let hindrance = world.layout.openclaw_state().join("no-backup");
    fs::write(&hindrance, "").unwrap();
    let second = world.release(json!({"a": 2}), [2, 1, 1]);
    operator.put_desired(&second).await;
    eventually("the update waits", || async { world.layout.update().exists().then_some(()) }).await;
    drop(agent);
    world.machine(|machine| machine.running.insert(Unit::Openclaw, false));
    let agent = world.start().await;
    operator.follow(&agent);
    operator.wait_until_ready().await;
    let report = operator
        .report_when("told, with the old version running", |report| {
            !report.desired.failed.is_empty() && report.openclaw.state == OpenClawState::Ready
        })
        .await;
    assert_eq!(report.desired.failed[0].reason, FailureReason::System);
    assert_eq!(told(&report).code, FailureCode::CommandFailed);
    assert_eq!(active(&world, Program::Openclaw), Some(sha256("openclaw-1")));
    fs::remove_file(hindrance).unwrap();
    operator.wait_for(&second, ConvergenceState::Converged).await;
    assert_eq!(data(&world), sha256("openclaw-2").to_string());
}

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
async fn a_power_cut_at_any_write_of_an_update_ends_on_the_new_version() {
    let crashes = count_crashes(|at| update_with_crash(at, true), 6).await;
    assert!(crashes > 25, "only {crashes} steps were tried");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_power_cut_at_any_write_of_a_rollback_ends_on_the_old_version_with_its_data() {
    let crashes = count_crashes(|at| update_with_crash(at, false), 6).await;
    assert!(crashes > 35, "only {crashes} steps were tried");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_power_cut_at_any_write_of_a_trial_of_cloudflared_ends_on_the_one_that_connects() {
    for works in [true, false] {
        let crashes = count_crashes(|at| connector_with_crash(at, works), 6).await;
        assert!(crashes > 15, "only {crashes} steps were tried");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn packages_are_reported_as_set_up_when_the_first_boot_says_so() {
    let world = World::managed().await;
    let (_agent, mut operator) = world.enrolled().await;
    assert!(!operator.report().await.machine.setup_done);
    let mark = world.layout.setup_done();
    fs::create_dir_all(mark.parent().unwrap()).unwrap();
    assert!(!operator.report().await.machine.setup_done);
    fs::write(&mark, "").unwrap();
    assert!(operator.report().await.machine.setup_done);
}
