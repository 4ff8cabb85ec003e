//! What a person changes in a spec, and what is refused there.

use serde_json::{Value, json};

use crate::tenant::{Tenant, condition, is};

const MODEL: &str = "anthropic/claude-sonnet-4-5";

async fn ready(tenant: &Tenant, name: &str) -> Value {
    tenant.apply_instance(name, json!({})).await;
    tenant.until_ready(name).await
}

fn with_model(model: impl Into<Value>) -> Value {
    let model = model.into();
    json!({"config": {"agents": {"defaults": {"model": {"primary": model}}}}})
}

pub(crate) async fn a_rejected_configuration_is_rolled_back(tenant: Tenant) {
    let ada = ready(&tenant, "ada").await;
    tenant.apply_instance("ada", with_model("openai/gpt-5")).await;
    tenant.until_ready("ada").await;
    assert_eq!(
        tenant.openclaw_config(&ada)["agents"]["defaults"]["model"]["primary"],
        "openai/gpt-5"
    );

    let mut wrong = with_model(42);
    wrong["config"]["session"] = json!({"dmScope": true});
    tenant.apply_instance("ada", wrong).await;
    let message = tenant.until_reason("ada", "ConfigApplied", "ConfigRejected").await;
    for point in [
        "spec.config.agents.defaults.model.primary: ",
        "quote it",
        "spec.config.session.dmScope: ",
        "unless they are quoted",
    ] {
        assert!(message.contains(point), "{message}");
    }
    assert_eq!(
        tenant.openclaw_config(&ada)["agents"]["defaults"]["model"]["primary"],
        "openai/gpt-5"
    );
    let (status, _) = tenant.visit(&format!("ada.{}", tenant.domain), "/", None).await;
    assert_eq!(status, 200, "OpenClaw is up with the last good configuration");

    tenant.apply_instance("ada", with_model(MODEL)).await;
    tenant.until_ready("ada").await;
}

pub(crate) async fn a_forbidden_key_is_refused_with_its_path(tenant: Tenant) {
    let key = "sk-ant-api03-this-key-is-in-the-clear-0123456789";
    let literal = json!({"config": {"models": {"providers": {"anthropic": {"apiKey": key}}}}});
    let refused = tenant.try_instance("ada", literal).await.unwrap_err();
    assert!(refused.contains("moorage seal") && !refused.contains(key), "{refused}");
    // What the API server does not see, the operator does.
    let hidden = "c2stYW50LWFwaTAzLXRoaXMta2V5LWlzLWluLXRoZS1jbGVhci0wMTIzNDU2Nzg5YWJjZGVm";
    tenant.apply_instance("ada", json!({"config": {"notes": {"encoded": hidden}}})).await;
    let message = tenant.until_reason("ada", "Ready", "LiteralSecret").await;
    assert!(message.contains("spec.config.notes.encoded"), "{message}");
    assert!(!message.contains(hidden) && !tenant.stage.operator_log().contains(hidden));
    assert!(is(&tenant.get("ada").await.unwrap(), "Stalled", "True"));
    tenant.apply_instance("bob", json!({"config": {"gateway": {"bind": "lan"}}})).await;
    tenant.until_reason("bob", "Ready", "ReservedConfigKey").await;
    let variable = json!({"channels": {"telegram": {"botToken": "${TELEGRAM_BOT_TOKEN}"}}});
    tenant.apply_instance("dora", json!({"config": variable})).await;
    let message = tenant.until_reason("dora", "Ready", "KeyReference").await;
    assert!(message.contains("write {credentialRef: NAME} here"), "{message}");
    // Others are not held up, and a correction is enough.
    ready(&tenant, "cleo").await;
    ready(&tenant, "ada").await;
}

pub(crate) async fn what_an_instance_cannot_have_is_refused_until_it_can(tenant: Tenant) {
    let refused = [
        ("a", json!({"hostname": "www"}), "HostnameReserved"),
        ("b", json!({"release": "none"}), "ReleaseNotFound"),
        ("c", json!({"server": {"serverTypes": ["cx99"]}}), "InvalidSpec"),
        ("d", json!({"integrations": [{"name": "unknown"}]}), "IntegrationNotApproved"),
        ("e", json!({"pool": "nowhere"}), "PoolNotFound"),
    ];
    for (name, spec, _) in &refused {
        tenant.apply_instance(name, spec.clone()).await;
    }
    for (name, _, reason) in &refused {
        tenant.until_reason(name, "Ready", reason).await;
    }
    let (servers, tunnels, records) = tenant.cloud_objects().await;
    assert_eq!((servers.len(), tunnels.len(), records.len()), (0, 0, 0));
    tenant.patch_pool(json!({"spec": {"allowedNamespaces": ["elsewhere"]}})).await;
    tenant.apply_instance("f", json!({})).await;
    tenant.until_reason("f", "Ready", "NamespaceNotAllowed").await;
    tenant.patch_pool(json!({"spec": {"allowedNamespaces": ["*"], "capacity": 0}})).await;
    tenant.until_reason("f", "Ready", "PoolFull").await;
    tenant.patch_pool(json!({"spec": {"capacity": 20}})).await;
    let whole = tenant.until_ready("f").await;
    // Of what was not allowed the operator kept little; of what is, it delivers everything.
    let model = &tenant.openclaw_config(&whole)["agents"]["defaults"]["model"]["primary"];
    assert_eq!(model, "anthropic/claude-sonnet-4-5");
}

pub(crate) async fn a_release_for_another_processor_reaches_no_server(tenant: Tenant) {
    let for_arm = |spec: &mut Value| {
        for artifact in spec["artifacts"].as_object_mut().unwrap().values_mut() {
            artifact["architecture"] = json!("arm");
        }
    };
    let name = tenant.apply_release("arm", for_arm).await;
    tenant.apply_instance("ada", json!({"release": name})).await;
    tenant.until_reason("ada", "Ready", "ArchitectureMismatch").await;
    let (servers, tunnels, records) = tenant.cloud_objects().await;
    assert_eq!((servers.len(), tunnels.len(), records.len()), (0, 0, 0));
    tenant.patch_instance("ada", json!({"spec": {"release": null}})).await;
    let ada = tenant.until_ready("ada").await;
    tenant.patch_instance("ada", json!({"spec": {"release": name}})).await;
    tenant.until_reason("ada", "ConfigApplied", "ArchitectureMismatch").await;
    // With a type that runs it, the server can be recreated.
    let types = json!({"spec": {"hetzner": {"serverTypes": ["cax91", "cx33", "cax21"]}}});
    tenant.patch_pool(types).await;
    let message = tenant.pool_until_reason("Ready", "NotOffered").await;
    assert!(message.contains("Hetzner does not have spec.hetzner.serverTypes: cax91"), "{message}");
    tenant.until_reason("ada", "UpToDate", "ArchitectureMismatch").await;
    let id = ada["status"]["server"]["id"].to_string();
    let rebuild = json!({"metadata": {"annotations": {"moorage.dev/rebuild": id}}});
    tenant.patch_instance("ada", rebuild).await;
    tenant.until("ada", "a cax21", |ada| ada["status"]["server"]["type"] == "cax21").await;
    tenant.until_ready("ada").await;
}

pub(crate) async fn the_older_instance_keeps_a_contested_host_name(tenant: Tenant) {
    ready(&tenant, "ada").await;
    tenant.apply_instance("eve", json!({"hostname": "ada"})).await;
    tenant.until_reason("eve", "Ready", "HostnameTaken").await;
    assert_eq!(tenant.cloud_objects().await.0.len(), 1);
    tenant.delete_instance("ada").await;
    tenant.until_gone("ada").await;
    tenant
        .patch_instance(
            "eve",
            json!({"metadata": {"annotations": {"moorage.dev/reconcile-at": "now"}}}),
        )
        .await;
    tenant.until_ready("eve").await;
}

pub(crate) async fn a_suspended_instance_is_written_to_by_nobody(tenant: Tenant) {
    let ada = ready(&tenant, "ada").await;
    tenant.patch_instance("ada", json!({"spec": {"suspend": true}})).await;
    tenant.until_reason("ada", "Ready", "Suspended").await;
    let id = ada["status"]["server"]["id"].as_u64().unwrap();
    tenant.stage.simulator.vanish_server(&tenant.name, id).await.unwrap();
    tenant.delete_instance("ada").await;
    tenant.sweep_passed().await;
    let (servers, tunnels, records) = tenant.cloud_objects().await;
    assert_eq!(
        (servers.len(), tunnels.len(), records.len()),
        (0, 1, 2),
        "nothing is deleted, nothing made"
    );
    tenant.patch_instance("ada", json!({"spec": {"suspend": false}})).await;
    tenant.until_gone("ada").await;
    let (servers, tunnels, records) = tenant.cloud_objects().await;
    assert_eq!((servers.len(), tunnels.len(), records.len()), (0, 0, 0));
}

pub(crate) async fn a_retained_server_outlives_its_instance(tenant: Tenant) {
    let spec = json!({"deletionPolicy": "Retain"});
    tenant.apply_instance("ada", spec).await;
    tenant.until_ready("ada").await;
    tenant.delete_instance("ada").await;
    tenant.until_gone("ada").await;
    let (servers, tunnels, records) = tenant.cloud_objects().await;
    assert_eq!((servers.len(), tunnels.len(), records.len()), (1, 1, 2));
    assert_eq!(servers[0]["labels"]["moorage.dev/retained"], "true");
    let (status, _) = tenant.visit(&format!("ada.{}", tenant.domain), "/", None).await;
    assert_eq!(status, 200);
}

pub(crate) async fn wishes_for_another_server_are_told_and_not_fulfilled(tenant: Tenant) {
    let ada = ready(&tenant, "ada").await;
    tenant.apply_instance("ada", json!({"server": {"serverTypes": ["cx43"]}})).await;
    let message = tenant.until_reason("ada", "UpToDate", "ServerMismatch").await;
    let id = ada["status"]["server"]["id"].as_u64().unwrap();
    assert!(message.contains(&format!("moorage.dev/rebuild={id}")), "{message}");
    let now = tenant.until_ready("ada").await;
    assert_eq!(now["status"]["server"]["id"], id);
    tenant
        .patch_instance(
            "ada",
            json!({"metadata": {"annotations": {"moorage.dev/rebuild": id.to_string()}}}),
        )
        .await;
    let rebuilt = tenant
        .until("ada", "a cx43", |ada| {
            ada["status"]["server"]["type"] == "cx43" && is(ada, "Ready", "True")
        })
        .await;
    assert_ne!(rebuilt["status"]["server"]["id"], id);
}

pub(crate) async fn the_dashboards_secret_opens_the_dashboard(tenant: Tenant) {
    tenant.apply_instance("ada", json!({"access": {"dashboardSecretName": "ada-dashboard"}})).await;
    tenant.until_ready("ada").await;
    let secret = tenant.secret("ada-dashboard").await.unwrap();
    let data = secret.data.unwrap();
    let text = |key: &str| String::from_utf8(data[key].0.clone()).unwrap();
    assert_eq!(text("url"), format!("https://ada.{}", tenant.domain));
    let host = format!("ada.{}", tenant.domain);
    assert_eq!(tenant.visit(&host, "/api/whoami", Some(&text("token"))).await.0, 200);
    assert_eq!(tenant.visit(&host, "/api/whoami", Some("wrong")).await.0, 401);

    tenant.apply_instance("ada", json!({"access": {"dashboardSecretName": "renamed"}})).await;
    tenant.until_secret_gone("ada-dashboard").await;
    let renamed = || async { tenant.secret("renamed").await.map(drop).ok_or("absent".to_owned()) };
    tenant.eventually("Secret renamed is there", renamed).await;
    tenant.apply_instance("ada", json!({})).await;
    tenant.until_secret_gone("renamed").await;
    tenant.until_ready("ada").await;

    tenant.make_secret("taken", "Opaque", "somebody", json!({"key": "value"})).await;
    tenant.apply_instance("bob", json!({"access": {"dashboardSecretName": "taken"}})).await;
    tenant.until_reason("bob", "Ready", "ForeignSecret").await;
    let kept = tenant.secret("taken").await.unwrap().data.unwrap();
    assert_eq!(kept["key"].0, b"value");
    assert_eq!(condition(&tenant.get("bob").await.unwrap(), "ServerReady")["status"], "True");
}
