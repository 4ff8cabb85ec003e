use http::StatusCode;
use moorage_agent::{Agent, installer::protocol::Unit};
use moorage_wire::{
    CredentialType, Receipt,
    credential::GATEWAY_TOKEN,
    failure::FailureCode,
    problem::{Problem, ProblemCode},
    report::ConvergenceState,
};
use rstest::rstest;
use serde_json::json;

use crate::{
    logs::LOGS,
    machine::Gateway,
    operator::{Operator, desired},
    world::{World, eventually},
};

const FIRST: &str = "sk-ant-credentials-hidden-first-00000";
const SECOND: &str = "sk-ant-credentials-hidden-second-1111";
const KIND: CredentialType = CredentialType::AnthropicApiKey;

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_reloads_openclaw_and_refuses_the_old_value() {
    let world = World::new().await;
    let (_agent, mut operator) = world.enrolled().await;
    let first = operator.deliver("anthropic", KIND, FIRST).await;
    assert_eq!(operator.deliver("anthropic", KIND, FIRST).await, first, "the same receipt again");
    let document = desired(json!({"a": 1}), &["anthropic"]);
    operator.put_desired(&document).await;
    operator.wait_for(&document, ConvergenceState::Converged).await;

    let reloads = world.calls("reload");
    operator.deliver("anthropic", KIND, SECOND).await;
    assert_eq!(world.secrets(), json!({"anthropic": SECOND}));
    eventually("OpenClaw reloads its secrets", || async {
        (world.calls("reload") > reloads).then_some(())
    })
    .await;
    let reply = operator.put_credential("anthropic", KIND, FIRST).await;
    assert_eq!(reply.status, StatusCode::CONFLICT);
    let problem: Problem = reply.json();
    assert_eq!((problem.code, problem.receipt), (ProblemCode::AlreadyConsumed, Some(first)));
    let report = operator.report().await;
    assert_eq!((report.receipts.len(), report.consumed.len()), (1, 2));
    assert!(!LOGS.contains(FIRST) && !LOGS.contains(SECOND));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_credential_that_is_no_longer_desired_is_erased() {
    let world = World::new().await;
    let (_agent, mut operator) = world.enrolled().await;
    operator.deliver("anthropic", KIND, FIRST).await;
    operator.deliver("other", KIND, SECOND).await;
    let document = desired(json!({}), &["anthropic"]);
    operator.put_desired(&document).await;
    operator.wait_for(&document, ConvergenceState::Converged).await;
    eventually("the value is erased", || async {
        (world.secrets() == json!({"anthropic": FIRST})).then_some(())
    })
    .await;
    let report = operator.report().await;
    assert_eq!((report.receipts.len(), report.consumed.len()), (1, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_of_the_last_good_config_stay_in_a_rollback() {
    let world = World::new().await;
    let (_agent, mut operator) = world.enrolled().await;
    operator.deliver("anthropic", KIND, FIRST).await;
    let good = desired(json!({"a": 1}), &["anthropic"]);
    operator.put_desired(&good).await;
    operator.wait_for(&good, ConvergenceState::Converged).await;
    let bad = desired(json!({"unknownKey": 1}), &[]);
    operator.put_desired(&bad).await;
    operator.wait_for(&bad, ConvergenceState::RolledBack).await;
    assert_eq!(world.secrets(), json!({"anthropic": FIRST}));
    let better = desired(json!({"a": 2}), &[]);
    operator.put_desired(&better).await;
    operator.wait_for(&better, ConvergenceState::Converged).await;
    eventually("the value is erased", || async { (world.secrets() == json!({})).then_some(()) })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_formats_and_names_are_refused_without_a_trace() {
    let world = World::new().await;
    let (_agent, mut operator) = world.enrolled().await;
    let reply = operator.put_credential("anthropic", KIND, "credentials-hidden-malformed").await;
    assert_eq!(reply.problem(), ProblemCode::InvalidFormat);
    assert!(!String::from_utf8_lossy(&reply.body).contains("hidden"));
    let body = serde_json::to_vec(&operator.seal("a", KIND, FIRST)).unwrap();
    let reply = operator.call(http::Method::PUT, "/v1/credentials/b", None, &body).await;
    assert_eq!(reply.problem(), ProblemCode::CannotUnseal);
    assert_eq!(world.secrets(), json!({}));
    assert!(!LOGS.contains("credentials-hidden-malformed"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_end_behind_a_value_is_not_stored() {
    let world = World::new().await;
    let (_agent, mut operator) = world.enrolled().await;
    operator.deliver("anthropic", KIND, &format!("{FIRST}\n")).await;
    assert_eq!(world.secrets(), json!({"anthropic": FIRST}));
}

#[tokio::test(flavor = "multi_thread")]
async fn receipts_and_consumed_ciphertexts_survive_a_restart() {
    let world = World::new().await;
    let (agent, mut operator) = world.enrolled().await;
    operator.deliver("anthropic", KIND, FIRST).await;
    let before: Receipt = operator.deliver("anthropic", KIND, SECOND).await;
    drop(agent);
    let agent = world.start().await;
    operator.follow(&agent);
    operator.wait_until_ready().await;
    let report = operator.report().await;
    assert_eq!(report.receipts, [before]);
    assert_eq!(report.consumed.len(), 2);
}

const OLD_TOKEN: &str = "old-gateway-token-hidden-0123456789ab";
const NEW_TOKEN: &str = "new-gateway-token-hidden-0123456789ab";

/// A server whose gateway runs with the old token.
async fn with_gateway(gateway: Gateway) -> (World, Agent, Operator) {
    let world = World::new().await;
    world.machine(|machine| machine.gateway = gateway);
    let (agent, mut operator) = world.enrolled().await;
    operator.deliver(GATEWAY_TOKEN, CredentialType::GatewayToken, OLD_TOKEN).await;
    let token = json!({"id": format!("/{GATEWAY_TOKEN}")});
    let document = desired(json!({"gateway": {"auth": {"token": token}}}), &[GATEWAY_TOKEN]);
    operator.put_desired(&document).await;
    operator.wait_for(&document, ConvergenceState::Converged).await;
    (world, agent, operator)
}

fn starts(world: &World) -> u32 {
    world.machine(|machine| machine.starts[&Unit::Openclaw])
}

#[rstest]
#[case::at_a_reload(Gateway::Reloads, 1)]
#[case::at_a_restart_because_the_new_one_is_refused(Gateway::IgnoresReloads, 2)]
#[case::at_a_restart_because_the_old_one_is_taken(Gateway::KeepsOld, 2)]
#[tokio::test(flavor = "multi_thread")]
async fn the_old_token_of_the_gateway_ends(#[case] gateway: Gateway, #[case] wanted: u32) {
    let (world, _agent, mut operator) = with_gateway(gateway).await;
    operator.deliver(GATEWAY_TOKEN, CredentialType::GatewayToken, NEW_TOKEN).await;
    eventually("the new token alone is taken", || async {
        let tokens = world.machine(|machine| machine.gateway_tokens.clone());
        (tokens.len() == 1 && tokens.contains(NEW_TOKEN)).then_some(())
    })
    .await;
    assert_eq!(starts(&world), wanted);
    operator.report_when("no trouble", |report| report.openclaw.message.is_none()).await;
    assert!(!LOGS.contains(OLD_TOKEN) && !LOGS.contains(NEW_TOKEN));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_keeps_its_old_token_is_restarted_once() {
    let (world, _agent, mut operator) = with_gateway(Gateway::NeverForgets).await;
    operator.deliver(GATEWAY_TOKEN, CredentialType::GatewayToken, NEW_TOKEN).await;
    let told = |report: &moorage_wire::Report| {
        let failure = report.openclaw.failure.as_ref();
        failure.is_some_and(|failure| failure.code == FailureCode::NotTakenUp)
    };
    operator.report_when("told", told).await;
    let reloads = world.calls("reload");
    eventually("it is looked at again", || async {
        (world.calls("reload") > reloads + 1).then_some(())
    })
    .await;
    assert_eq!(starts(&world), 2, "one restart is enough to know");
    world.machine(|machine| machine.gateway_tokens.retain(|token| token == NEW_TOKEN));
    operator.report_when("no trouble", |report| report.openclaw.message.is_none()).await;
}
