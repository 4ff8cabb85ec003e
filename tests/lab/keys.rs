//! Keys and configuration on a running OpenClaw.

use serde_json::json;

use crate::{
    lifecycle::make_ada,
    lockout::a_thousand_wrong_tokens_cost_the_owner_nothing,
    tenant::{ANTHROPIC_KEY, Tenant},
};

const OTHER_KEY: &str = "sk-ant-api03-another-key-of-a-test-that-opens-nothing-98765";
const SECRETS: &str = "/var/lib/openclaw/credentials/secrets.json";

pub(crate) async fn keys_rotate_live_while_openclaw_runs(tenant: Tenant) {
    let ada = make_ada(&tenant).await;
    tenant.until_secret_gone("ada-keys").await;
    let server = tenant.server(&ada);
    let keys = String::from_utf8(server.read(SECRETS).await.unwrap()).unwrap();
    assert!(keys.contains(ANTHROPIC_KEY));
    let started =
        async || server.unit("openclaw.service", &["MainPID"]).await.unwrap()["MainPID"].clone();
    let before = started().await;

    let new = tenant.seal("ada-keys", OTHER_KEY).await;
    tenant.apply_secret("ada-keys", "ada", &[("anthropic", &new)]).await;
    tenant.until_secret_gone("ada-keys").await;
    tenant.until_prints(&server, &["cat", SECRETS], OTHER_KEY).await;
    let keys = String::from_utf8(server.read(SECRETS).await.unwrap()).unwrap();
    assert!(!keys.contains(ANTHROPIC_KEY), "the old key is gone");
    tenant.until_ready("ada").await;
    assert_eq!(started().await, before, "no restart for a new key");

    let certificate = ada["status"]["agent"]["sealingCertificate"].as_str().unwrap();
    let wrong = tenant.seal_to(certificate, "ada", "not-a-telegram-token");
    let telegram = json!({"name": "telegram", "type": "TelegramBotToken", "sealed": wrong, "sealedTo": "Agent"});
    let anthropic = json!({"name": "anthropic", "type": "AnthropicApiKey", "secretRef": {"name": "ada-keys", "key": "anthropic"}});
    tenant.apply_instance("ada", json!({"credentials": [anthropic, telegram]})).await;
    let said = tenant.until_reason("ada", "CredentialsDelivered", "AgentRefused").await;
    assert!(!said.contains("not-a-telegram-token"), "{said}");

    let bad = json!({"agents": {"defaults": {"model": {"primary": 42}}}});
    tenant.apply_instance("ada", json!({"credentials": [anthropic], "config": bad})).await;
    let said = tenant.until_reason("ada", "ConfigApplied", "ConfigRejected").await;
    assert!(said.contains("agents.defaults.model"), "{said}");
    tenant.until_dashboard_answers("ada").await;
    assert_eq!(started().await, before, "OpenClaw was not disturbed");

    a_thousand_wrong_tokens_cost_the_owner_nothing(&tenant, &ada).await;
    tenant.apply_instance("ada", json!({"credentials": [anthropic]})).await;
    tenant.until_ready("ada").await;
}
