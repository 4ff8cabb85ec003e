//! Programs that the agent brings: first installation, updates that work, and updates that are rolled
//! back with their data. The worker is behind its socket.

use std::{fs, time::Duration};

use jiff::Timestamp;
use moorage_agent::{
    Agent,
    installer::protocol::{AgentFailure, Ending, FailedAgent, Unit, UnitFailure},
};
use moorage_wire::{
    CredentialType, DesiredState, Failure, PlainText, Program, Report, Sha256,
    failure::{FailureCode, Stage},
    report::{ConvergenceState, FailureReason, OpenClawState},
};
use rstest::rstest;
use serde_json::{Value, json};

use crate::{
    operator::Operator,
    world::{World, eventually},
};

const KEY: &str = "sk-ant-programs-hidden-0123456789abc";

pub(crate) fn sha256(name: &str) -> Sha256 {
    Sha256::of(name.as_bytes())
}

/// A server that runs version 1 of everything.
pub(crate) async fn first() -> (World, Agent, Operator, DesiredState) {
    let world = World::managed().await;
    let (agent, mut operator) = world.enrolled().await;
    let document = world.release(json!({"a": 1}), [1, 1, 1]);
    operator.put_desired(&document).await;
    operator.wait_for(&document, ConvergenceState::Converged).await;
    (world, agent, operator, document)
}

/// The same, with an agent that waits an hour for OpenClaw's health.
async fn first_with_patience() -> (World, Agent, Operator) {
    let (mut world, agent, mut operator, _) = first().await;
    drop(agent);
    world.settings.timing.health_deadline = Duration::from_secs(3600);
    let agent = world.start().await;
    operator.follow(&agent);
    operator.wait_until_ready().await;
    (world, agent, operator)
}

pub(crate) fn data(world: &World) -> String {
    fs::read_to_string(world.layout.openclaw_state().join("data")).unwrap_or_default()
}

/// The last failure, as fields.
fn told(report: &Report) -> Failure {
    let failed = report.desired.failed.last().expect("something failed");
    failed.failure.clone().expect("it has fields")
}

pub(crate) fn active(world: &World, kind: Program) -> Option<Sha256> {
    world.machine(|machine| machine.active(kind))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_server_gets_its_programs_and_credentials() {
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
async fn without_a_worker_a_document_is_asked_for_again() {
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
async fn the_worker_takes_over_the_key_of_an_older_agent() {
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
async fn a_download_is_retried_while_the_old_version_runs() {
    let (world, _agent, mut operator, _) = first().await;
    let second = world.release(json!({"a": 1}), [2, 1, 1]);
    let files = world.machine(|machine| std::mem::take(&mut machine.files));
    operator.put_desired(&second).await;
    let report = operator.report_when("reported", |report| !report.desired.failed.is_empty()).await;
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
async fn a_wrong_file_fails_the_document_until_it_is_repaired() {
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
async fn a_failing_version_is_rolled_back_with_its_data() {
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
    assert_eq!(activations(), before, "it is not retried");

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
async fn a_version_that_exits_is_rolled_back_at_once(
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
async fn a_rejected_configuration_rolls_an_update_back() {
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
async fn a_cloudflared_that_does_not_connect_is_rolled_back() {
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
async fn the_agent_is_updated_last_and_a_failed_one_reported() {
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
async fn an_update_without_a_backup_waits_while_openclaw_runs() {
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
