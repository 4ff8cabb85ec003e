//! The tunnel, from the visitor's browser to OpenClaw.

use moorage_testbed::{Device, GatewayClient};
use serde_json::{Value, json};

use crate::{rotation, server::openclaw, tenant::Tenant};

/// What a frame may have at most before its sender is known is 64 KiB; this is far above.
const BIG: usize = 4 << 20;

pub(crate) async fn the_old_token_is_cut_off_and_never_the_server(tenant: Tenant) {
    let ada = rotation::survive(&tenant).await;
    a_browser_speaks_with_the_gateway_as_long_as_it_wants(&tenant, &ada).await;
}

/// A browser's WebSocket to the real gateway: OpenClaw's own protocol, with the owner's token and a
/// device that the owner lets in.
async fn a_browser_speaks_with_the_gateway_as_long_as_it_wants(tenant: &Tenant, ada: &Value) {
    let access = json!({"spec": {"access": {"dashboardSecretName": "ada-dashboard"}}});
    tenant.patch_instance("ada", access).await;
    tenant.until_ready("ada").await;
    tenant.until_dashboard_answers("ada").await;
    let secret = tenant.secret("ada-dashboard").await.unwrap().data.unwrap();
    let token = String::from_utf8(secret["token"].0.clone()).unwrap();
    let dial =
        async || GatewayClient::dial(tenant.clouds(), &tenant.dashboard("ada")).await.unwrap();

    let device = Device::new();
    let mut browser = dial().await;
    assert!(!browser.challenge().nonce.is_empty() && browser.challenge().ts > 0);
    let refused = browser.connect(&device, "a-token-of-somebody-else").await.unwrap_err();
    assert_eq!(refused.refusal().unwrap().detail(), "AUTH_TOKEN_MISMATCH", "{refused}");
    browser.ended().await.unwrap();

    // The token alone is not enough for a browser that the gateway does not know.
    let refused = dial().await.connect(&device, &token).await.unwrap_err();
    let refusal = refused.refusal().unwrap();
    assert_eq!(refusal.detail(), "PAIRING_REQUIRED", "{refused}");
    let request = refusal.details["requestId"].as_str().unwrap();
    let server = tenant.server(ada);
    let approved = openclaw(&server, &["devices", "approve", request, "--json"]).await;
    assert!(approved.contains(&device.id()), "{approved}");

    let mut browser = dial().await;
    let hello = browser.connect(&device, &token).await.unwrap();
    assert_eq!(hello["protocol"], 4);
    let health = browser.call("health", json!({})).await.unwrap();
    assert_eq!(health["ok"], true, "{health}");
    big_frames_pass(&mut browser).await;
    // The gateway pings who is connected and cuts off who does not answer; on the way, the edge pings
    // cloudflared every few seconds.
    while browser.pings() == 0 {
        browser.event("tick").await.unwrap();
    }
    browser.call("health", json!({})).await.unwrap();
}

/// Both ways: what the gateway is sent, and what it answers.
async fn big_frames_pass(browser: &mut GatewayClient) {
    let padded = json!({"padding": "x".repeat(BIG)});
    assert_eq!(browser.call("health", padded).await.unwrap()["ok"], true);
    let schema = browser.call("config.schema", json!({})).await.unwrap();
    let length = schema.to_string().len();
    assert!(length > 1 << 17, "the answer has {length} bytes");
}
