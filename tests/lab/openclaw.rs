//! What the spec says of a running OpenClaw comes about: the token of its dashboard, the devices that it
//! lets in, its plugins.

use moorage_testbed::{Device, GatewayClient, GatewayError, LabServer};
use serde_json::{Value, json};

use crate::{lifecycle::make_ada, server::openclaw, tenant::Tenant};

const DASHBOARD: &str = "ada-dashboard";
const CONFIG: &str = "/var/lib/openclaw/.openclaw/openclaw.json";
const PLUGIN: &str = "@openclaw/zalo";
const PLUGIN_VERSION: &str = "2026.9.5";
/// What the npm registry has.
const PLUGIN_INTEGRITY: &str = "sha512-j62Dh4rdSsn6zLvs32g12AoxZLEf3xD72eyplwowlA0BygNB/cpOEIMYcLgo2rxbOrnD1i+Pyrc5pWiEkh9nrg==";

pub(crate) async fn token_devices_and_plugins_become_what_the_spec_says(tenant: Tenant) {
    let ada = make_ada(&tenant).await;
    let server = tenant.server(&ada);
    let before = process(&server).await;
    let token = the_old_token_of_the_dashboard_ends(&tenant).await;
    a_waiting_device_is_let_in(&tenant, &token).await;
    what_openclaw_changes_in_its_configuration_is_undone(&tenant, &server).await;
    assert_eq!(process(&server).await, before, "all that without a restart");
    a_pinned_plugin_comes_and_goes(&tenant, &server).await;
}

/// The process of OpenClaw.
async fn process(server: &LabServer) -> String {
    server.unit("openclaw.service", &["MainPID"]).await.unwrap()["MainPID"].clone()
}

fn host(tenant: &Tenant) -> String {
    format!("ada.{}", tenant.domain)
}

/// The token in the dashboard's Secret.
async fn token_of(tenant: &Tenant) -> Option<String> {
    let data = tenant.secret(DASHBOARD).await?.data?;
    Some(String::from_utf8(data["token"].0.clone()).unwrap())
}

/// A WebSocket of the dashboard, as this device and with this token.
async fn knock(
    tenant: &Tenant,
    device: &Device,
    token: &str,
) -> Result<(GatewayClient, Value), GatewayError> {
    let clouds = tenant.stage.simulator.endpoints();
    let mut client = GatewayClient::dial(clouds, &host(tenant)).await?;
    let hello = client.connect(device, token).await?;
    Ok((client, hello))
}

/// Gives the new one.
async fn the_old_token_of_the_dashboard_ends(tenant: &Tenant) -> String {
    let access = json!({"dashboardSecretName": DASHBOARD});
    tenant.patch_instance("ada", json!({"spec": {"access": access}})).await;
    tenant
        .eventually("the dashboard's Secret", || async {
            token_of(tenant).await.map(drop).ok_or("there is none".to_owned())
        })
        .await;
    let old = token_of(tenant).await.unwrap();
    assert_eq!(tenant.tool_call("ada", &old).await, 400);

    let access = json!({"tokenGeneration": 1});
    tenant.patch_instance("ada", json!({"spec": {"access": access}})).await;
    tenant
        .eventually("the old token gets 401", || async {
            match tenant.tool_call("ada", &old).await {
                401 => Ok(()),
                other => Err(other.to_string()),
            }
        })
        .await;
    tenant.until_ready("ada").await;
    let new = token_of(tenant).await.unwrap();
    assert_ne!(new, old);
    assert_eq!(tenant.tool_call("ada", &new).await, 400);
    let refused = knock(tenant, &Device::new(), &old).await.unwrap_err();
    assert_eq!(refused.refusal().unwrap().detail(), "AUTH_TOKEN_MISMATCH", "{refused}");
    new
}

async fn a_waiting_device_is_let_in(tenant: &Tenant, token: &str) {
    let device = Device::new();
    let refused = knock(tenant, &device, token).await.unwrap_err();
    let refusal = refused.refusal().unwrap();
    assert_eq!(refusal.detail(), "PAIRING_REQUIRED", "{refused}");
    let request = refusal.details["requestId"].as_str().unwrap().to_owned();

    let approve = async |ids: &[&str]| {
        let access = json!({"approvedPairings": ids});
        tenant.patch_instance("ada", json!({"spec": {"access": access}})).await;
    };
    approve(&[&request, "nobody-asked"]).await;
    let said = tenant.until_reason("ada", "ConfigApplied", "PairingFailed").await;
    assert!(said.contains("nobody-asked") && !said.contains(&request), "{said}");
    let (mut client, hello) = knock(tenant, &device, token).await.unwrap();
    assert_eq!(hello["type"], "hello-ok");
    let paired = client.call("device.pair.list", json!({})).await.unwrap();
    assert!(paired.to_string().contains(&device.id()), "{paired}");

    approve(&[&request]).await;
    tenant.until_reason("ada", "ConfigApplied", "Ready").await;
    knock(tenant, &device, token).await.unwrap();
    let stranger = knock(tenant, &Device::new(), token).await.unwrap_err();
    assert_eq!(stranger.refusal().unwrap().detail(), "PAIRING_REQUIRED", "{stranger}");
}

async fn what_openclaw_changes_in_its_configuration_is_undone(tenant: &Tenant, server: &LabServer) {
    let file = async || {
        let written = server.exec(&["stat", "-c", "%.9Y", CONFIG]).await.unwrap();
        (written, server.read(CONFIG).await.unwrap())
    };
    let (written, before) = file().await;
    let said = openclaw(server, &["config", "set", "logging.level", "debug"]).await;
    assert!(said.contains("Updated logging.level"), "{said}");
    tenant
        .eventually("the configuration is what it was", || async {
            let (now, text) = file().await;
            if now != written && text == before { Ok(()) } else { Err(now) }
        })
        .await;
}

/// Applies a release that approves the plugin with this pin; gives its name.
async fn release_with(tenant: &Tenant, name: &str, integrity: &str) -> String {
    let plugin = json!({
        "name": PLUGIN, "kind": "Plugin", "version": PLUGIN_VERSION, "integrity": integrity,
        "allowUnpinned": true,
    });
    tenant.apply_release(name, |spec| spec["integrations"] = json!([plugin])).await
}

/// The version of the plugin that OpenClaw lists.
async fn listed(server: &LabServer) -> Option<String> {
    let list: Value =
        serde_json::from_str(&openclaw(server, &["plugins", "list", "--json"]).await).unwrap();
    let plugins = list["plugins"].as_array().unwrap();
    let ours = plugins
        .iter()
        .find(|plugin| plugin["rootDir"].as_str().is_some_and(|folder| folder.ends_with(PLUGIN)))?;
    assert_eq!(ours["status"], "loaded", "{ours}");
    ours["version"].as_str().map(str::to_owned)
}

async fn a_pinned_plugin_comes_and_goes(tenant: &Tenant, server: &LabServer) {
    let wrong = release_with(tenant, "wrong", &format!("sha512-{}==", "A".repeat(86))).await;
    let right = release_with(tenant, "right", PLUGIN_INTEGRITY).await;
    let before = process(server).await;
    let wanted = json!({"release": wrong, "integrations": [{"name": PLUGIN}]});
    tenant.patch_instance("ada", json!({"spec": wanted})).await;
    let said = tenant.until_reason("ada", "ConfigApplied", "IntegrationFailed").await;
    assert!(said.contains(PLUGIN) && said.contains(PLUGIN_INTEGRITY), "{said}");
    tenant.until_dashboard_answers("ada").await;
    assert_eq!(listed(server).await, None);
    assert_eq!(process(server).await, before, "OpenClaw was not disturbed");

    tenant.patch_instance("ada", json!({"spec": {"release": right}})).await;
    tenant.until_reason("ada", "ConfigApplied", "Ready").await;
    tenant.until_ready("ada").await;
    assert_eq!(listed(server).await.as_deref(), Some(PLUGIN_VERSION));
    tenant.until_dashboard_answers("ada").await;

    tenant.patch_instance("ada", json!({"spec": {"integrations": []}})).await;
    tenant.until_ready("ada").await;
    assert_eq!(listed(server).await, None);
    tenant.until_dashboard_answers("ada").await;
}
