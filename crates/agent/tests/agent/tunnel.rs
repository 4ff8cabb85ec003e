use http::Method;
use moorage_agent::installer::protocol::Unit;
use moorage_wire::{CredentialType, Sha256, path};

use crate::{
    logs::LOGS,
    world::{FIRST_TUNNEL_TOKEN, World, eventually},
};

const SECOND: &str = "second-tunnel-token-hidden-0123456789";
const THIRD: &str = "third-tunnel-token-hidden-0123456789";

fn sha256(token: &str) -> Sha256 {
    Sha256::of(token.as_bytes())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotated_tunnel_token_is_taken_up_and_the_old_one_erased() {
    let world = World::new().await;
    let (_agent, mut operator) = world.enrolled().await;
    let report = operator.report().await;
    assert_eq!(report.cloudflared.active_token_sha256, Some(sha256(FIRST_TUNNEL_TOKEN)));

    let kind = CredentialType::TunnelToken;
    let receipt = operator.deliver("moorage-tunnel", kind, SECOND).await;
    assert_eq!(operator.deliver("moorage-tunnel", kind, SECOND).await, receipt);
    let report = operator.report().await;
    assert_eq!(report.cloudflared.active_token_sha256, Some(sha256(FIRST_TUNNEL_TOKEN)));
    assert_eq!(report.cloudflared.token_sha256, [sha256(FIRST_TUNNEL_TOKEN), sha256(SECOND)]);
    let restarts = world.machine(|machine| machine.starts.get(&Unit::Cloudflared).copied());
    assert_eq!(restarts, None, "cloudflared is left alone while it is connected");

    world.machine(|machine| machine.token_accepted = SECOND.to_owned());
    let report = operator
        .report_when("rotated", |report| report.cloudflared.token_sha256 == [sha256(SECOND)])
        .await;
    assert_eq!(report.cloudflared.active_token_sha256, Some(sha256(SECOND)));
    let state = std::fs::read_to_string(world.layout.tunnel_state()).unwrap();
    assert!(!state.contains(FIRST_TUNNEL_TOKEN), "the old token is erased");
    assert!(!LOGS.contains(SECOND) && !LOGS.contains(FIRST_TUNNEL_TOKEN));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_in_a_rotation_ends_on_the_token_that_works() {
    let world = World::new().await;
    let (agent, mut operator) = world.enrolled().await;
    operator.deliver("moorage-tunnel", CredentialType::TunnelToken, SECOND).await;
    operator.deliver("moorage-tunnel", CredentialType::TunnelToken, THIRD).await;
    world.machine(|machine| machine.token_accepted = "none".to_owned());
    eventually("cloudflared is tried with the new token", || async {
        world.machine(|machine| (machine.token_running == THIRD).then_some(()))
    })
    .await;
    drop(agent);
    world.machine(|machine| machine.token_accepted = THIRD.to_owned());
    let agent = world.start().await;
    operator.follow(&agent);
    operator.wait_until_ready().await;
    operator
        .report_when("rotated", |report| {
            report.cloudflared.token_sha256 == [sha256(THIRD)] && report.cloudflared.connected
        })
        .await;
    let reply = operator.call(Method::GET, path::REPORT, None, b"").await;
    assert!(!String::from_utf8_lossy(&reply.body).contains("hidden"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_token_that_returns_is_replaced() {
    let world = World::new().await;
    let (_agent, mut operator) = world.enrolled().await;
    operator.deliver("moorage-tunnel", CredentialType::TunnelToken, SECOND).await;
    world.machine(|machine| machine.token_accepted = SECOND.to_owned());
    operator
        .report_when("rotated", |report| report.cloudflared.token_sha256 == [sha256(SECOND)])
        .await;
    let starts = || world.machine(|machine| machine.starts[&Unit::Cloudflared]);
    let before = starts();
    let path = world.layout.tunnel_token();
    let written_again = || {
        eventually("the token is written again", || async {
            (std::fs::read_to_string(&path).unwrap().trim() == SECOND).then_some(())
        })
    };

    // cloud-init ran again beside a cloudflared that is connected.
    std::fs::write(&path, FIRST_TUNNEL_TOKEN).unwrap();
    written_again().await;
    assert!(operator.report().await.cloudflared.connected);
    assert_eq!(starts(), before, "a connection is not cut");

    // It ran again at a boot: cloudflared began with the token that is gone.
    world.machine(|machine| FIRST_TUNNEL_TOKEN.clone_into(&mut machine.token_running));
    std::fs::write(&path, FIRST_TUNNEL_TOKEN).unwrap();
    written_again().await;
    let report = operator
        .report_when("connected", |report| {
            report.cloudflared.connected && report.cloudflared.active_token_sha256.is_some()
        })
        .await;
    assert_eq!(report.cloudflared.active_token_sha256, Some(sha256(SECOND)));
    assert_eq!(starts(), before + 1);
    assert!(!LOGS.contains(SECOND));
}
