//! From nothing to Ready, what that costs, and what a quiet instance costs: nothing.

use std::time::Duration;

use serde_json::{Value, json};

use crate::tenant::{ANTHROPIC_KEY, Tenant};

pub(crate) fn writes(requests: &[Value]) -> Vec<String> {
    let line = |request: &Value| {
        let (method, path) = (request["method"].as_str()?, request["path"].as_str()?);
        (method != "GET").then(|| format!("{method} {path}"))
    };
    requests.iter().filter_map(line).collect()
}

pub(crate) async fn make_ada(tenant: &Tenant) -> Value {
    let sealed = tenant.seal("ada-keys", ANTHROPIC_KEY).await;
    tenant.apply_secret("ada-keys", "ada", &[("anthropic", &sealed)]).await;
    let reference = json!({"name": "ada-keys", "key": "anthropic"});
    let credential =
        json!({"name": "anthropic", "type": "AnthropicApiKey", "secretRef": reference});
    tenant.apply_instance("ada", json!({"credentials": [credential]})).await;
    tenant.until_ready("ada").await
}

pub(crate) async fn an_instance_becomes_ready_with_few_calls_and_writes(tenant: Tenant) {
    let before =
        (tenant.requests("hetzner").await.len(), tenant.requests("cloudflare").await.len());
    let ada = make_ada(&tenant).await;
    let hetzner = writes(&tenant.requests("hetzner").await[before.0..]);
    let cloudflare = writes(&tenant.requests("cloudflare").await[before.1..]);
    assert_eq!(hetzner.len(), 1, "{hetzner:?}");
    assert_eq!(cloudflare.len(), 5, "{cloudflare:?}");

    tenant.until_secret_gone("ada-keys").await;
    assert_eq!(tenant.keys_on_disk(&ada)["anthropic"], ANTHROPIC_KEY);
    let host = format!("ada.{}", tenant.domain);
    let (status, page) = tenant.visit(&host, "/", None).await;
    assert_eq!(status, 200, "{page}");
    let (status, _) =
        tenant.visit(&format!("ada-mgmt.{}", tenant.domain), "/v1/report", None).await;
    assert_eq!(status, 403, "the management API is closed without the operator's service token");
    assert!(!tenant.stage.operator_log().contains(ANTHROPIC_KEY));

    tenant.delete_instance("ada").await;
    tenant.until_gone("ada").await;
    let (servers, tunnels, records) = tenant.cloud_objects().await;
    assert_eq!((servers, tunnels, records), (vec![], vec![], vec![]));
}

pub(crate) async fn a_quiet_instance_causes_no_writes(tenant: Tenant) {
    make_ada(&tenant).await;
    tenant.until_secret_gone("ada-keys").await;
    let settled = tenant.until_ready("ada").await;
    let writes = async || {
        let cloudflare = writes(&tenant.requests("cloudflare").await);
        (writes(&tenant.requests("hetzner").await), cloudflare)
    };
    let requests = writes().await;
    let mut before = settled;
    // A busy machine may keep the agent from answering in time once, which is reported and withdrawn.
    for window in 1.. {
        // Several sweeps, two reports and some comparisons of the routes.
        tokio::time::sleep(Duration::from_secs(22)).await;
        assert_eq!(writes().await, requests);
        let later = tenant.get("ada").await.unwrap();
        if before["metadata"]["resourceVersion"] == later["metadata"]["resourceVersion"] {
            break;
        }
        let statuses = format!("{}\n{}", before["status"], later["status"]);
        assert!(window < 3, "the object is written to again and again:\n{statuses}");
        eprintln!("{}: not quiet, looked at again:\n{statuses}", tenant.name);
        before = tenant.until_ready("ada").await;
    }
}
