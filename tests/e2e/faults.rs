//! What the clouds refuse, lose or garble: a condition says what and what to do, nothing is made twice,
//! nothing spins, nobody else notices, and it heals without a restart.

use std::{sync::Arc, time::Duration};

use moorage_testbed::wait_until;
use serde_json::{Value, json};

use crate::{
    tenant::{Tenant, condition, is},
    trouble::server_id,
};

const PATIENCE: Duration = Duration::from_secs(60);

/// A refusal of `POST /servers`, the reason that it becomes, and a part of the remedy.
fn refusals() -> Vec<(Value, &'static str, &'static str)> {
    let status =
        |status: u16, code: &str| json!({"kind": "status", "status": status, "code": code});
    vec![
        (status(403, "resource_limit_exceeded"), "QuotaExceeded", "raise the account's limit"),
        (status(403, "forbidden"), "Forbidden", "missing permission"),
        (status(401, "unauthorized"), "Unauthorized", "token Secret"),
        (json!({"kind": "out-of-stock"}), "OutOfStock", "add server types or locations"),
        (status(422, "invalid_input"), "CloudRejected", "Correct the field"),
        (status(423, "locked"), "Locked", "retries automatically"),
        (status(403, "primary_ip_limit"), "QuotaExceeded", "primary_ip_limit"),
        (status(412, "server_location_disabled"), "OutOfStock", "server_location_disabled"),
        (status(500, "server_error"), "CloudUnavailable", "retries automatically"),
        (status(503, "unavailable"), "CloudUnavailable", "retries automatically"),
        (
            json!({"kind": "status", "status": 429, "code": "rate_limit_exceeded", "retryAfter": 3}),
            "RateLimited",
            "retries when calls are allowed",
        ),
    ]
}

pub(crate) async fn a_refused_server_is_reported_and_not_tried_in_a_loop(tenant: Tenant) {
    for (number, (mut fault, reason, remedy)) in refusals().into_iter().enumerate() {
        let name = format!("i{number}");
        fault["times"] = Value::Null;
        fault["method"] = json!("POST");
        fault["path"] = json!("/servers");
        let fault = tenant.fault("hetzner", fault).await;
        let before = tenant.count("hetzner", "POST", "/servers").await;
        tenant.apply_instance(&name, json!({})).await;
        let refused = tenant
            .until(&name, reason, |seen| condition(seen, "ServerReady")["reason"] == reason)
            .await;
        let said = condition(&refused, "ServerReady")["message"].as_str().unwrap();
        assert!(said.contains("create_server") && said.contains(remedy), "{said}");
        // Later it may be the pool's: its own calls wait for the same cloud.
        assert_eq!(condition(&refused, "Ready")["reason"], reason);
        tokio::time::sleep(Duration::from_secs(2)).await;
        // A try asks for each type in each location only where it is out of stock.
        let tries = tenant.count("hetzner", "POST", "/servers").await - before;
        let bound = if reason == "OutOfStock" { 16 } else { 6 };
        assert!((1..=bound).contains(&tries), "{reason}: {tries} tries in 2 s");

        tenant.lift(fault).await;
        // As a person does who has helped and does not want to wait.
        tenant.look_now(&name).await;
        tenant.until(&name, "a server", |instance| is(instance, "ServerReady", "True")).await;
        tenant.delete_instance(&name).await;
    }
    for number in 0..refusals().len() {
        tenant.until_gone(&format!("i{number}")).await;
    }
    tenant.clouds_until("nothing", |now| now.counts() == (0, 0, 0)).await;
}

pub(crate) async fn messages_that_differ_each_time_cause_no_hot_loop(tenant: Tenant) {
    for number in 0..40 {
        let message = format!("internal error, request {number}");
        let fault = json!({
            "kind": "status", "status": 500, "code": "server_error", "message": message,
            "method": "POST", "path": "/servers",
        });
        let _ = tenant.fault("hetzner", fault).await;
    }
    tenant.apply_instance("ada", json!({})).await;
    tenant.until_reason("ada", "ServerReady", "CloudUnavailable").await;
    let before = tenant.count("hetzner", "POST", "/servers").await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    let tries = tenant.count("hetzner", "POST", "/servers").await - before;
    assert!((1..=6).contains(&tries), "{tries} tries in 10 s");
}

pub(crate) async fn what_is_out_of_stock_falls_back_to_the_next_place_and_type(tenant: Tenant) {
    let sold_out = |more: Value| {
        let mut fault = json!({"kind": "out-of-stock", "times": null});
        fault.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        fault
    };
    let here = sold_out(json!({"serverType": "cx33", "location": "fsn1"}));
    let here = tenant.fault("hetzner", here).await;
    let ada = tenant.make("ada").await;
    assert_eq!(ada["status"]["server"]["type"], "cx33");
    assert_eq!(ada["status"]["server"]["location"], "nbg1");
    assert!(is(&ada, "UpToDate", "True"));

    let everywhere = tenant.fault("hetzner", sold_out(json!({"serverType": "cx33"}))).await;
    let bob = tenant.make("bob").await;
    assert_eq!(bob["status"]["server"]["type"], "cx43");
    assert_eq!(bob["status"]["server"]["location"], "fsn1");
    tenant.lift(here).await;
    tenant.lift(everywhere).await;

    // A type that is sold no more, and one that is not offered there.
    let offer = async |types: Value, locations: Value| {
        let hetzner = json!({"serverTypes": types, "locations": locations});
        tenant.patch_pool(json!({"spec": {"hetzner": hetzner}})).await;
        let seen =
            |pool: &Value| pool["status"]["observedGeneration"] == pool["metadata"]["generation"];
        tenant.pool_until("the change is seen", seen).await;
    };
    offer(json!(["cpx11", "cx33"]), json!(["ash", "nbg1"])).await;
    let before = tenant.count("hetzner", "POST", "/servers").await;
    let eve = tenant.make("eve").await;
    // What the catalogue does not offer is not even asked for.
    assert_eq!(tenant.count("hetzner", "POST", "/servers").await - before, 1);
    assert_eq!(eve["status"]["server"]["type"], "cx33");
    assert_eq!(eve["status"]["server"]["location"], "nbg1");
    // Nothing at all is offered: that is told, and a corrected pool is acted upon at once.
    offer(json!(["cx33"]), json!(["ash"])).await;
    tenant.apply_instance("dan", json!({})).await;
    let said = tenant.until_reason("dan", "Ready", "CloudRejected").await;
    assert!(said.contains("cx33 in ash") && said.contains(&tenant.name), "{said}");
    offer(json!(["cx33", "cpx32"]), json!(["ash"])).await;
    let dan = tenant.until_ready("dan").await;
    assert_eq!(dan["status"]["server"]["type"], "cpx32");
}

/// Strikes the three calls that make something, once each.
async fn strike_all_makers(tenant: &Tenant, kind: &str) {
    let fault = |path: &str| json!({"kind": kind, "method": "POST", "path": path});
    let _ = tenant.fault("hetzner", fault("/servers")).await;
    let _ = tenant.fault("cloudflare", fault("/accounts/*/cfd_tunnel")).await;
    let _ = tenant.fault("cloudflare", fault("/zones/*/dns_records/batch")).await;
}

async fn exactly_one_of_each(tenant: &Tenant) {
    let ada = tenant.make("ada").await;
    let clouds = tenant.clouds_until("one of each", |now| now.counts() == (1, 1, 2)).await;
    assert_eq!(clouds.servers[0]["id"], ada["status"]["server"]["id"]);
    assert_eq!(clouds.tunnels[0]["id"], ada["status"]["tunnel"]["id"]);
}

pub(crate) async fn answers_that_are_lost_lead_to_exactly_one_of_each(tenant: Tenant) {
    strike_all_makers(&tenant, "response-lost").await;
    exactly_one_of_each(&tenant).await;
}

pub(crate) async fn answers_that_cannot_be_read_lead_to_exactly_one_of_each(tenant: Tenant) {
    strike_all_makers(&tenant, "malformed-body").await;
    let list = json!({"kind": "malformed-body", "method": "GET", "path": "/servers", "times": 2});
    let _ = tenant.fault("hetzner", list).await;
    exactly_one_of_each(&tenant).await;
}

pub(crate) async fn a_cloud_that_hangs_leads_to_exactly_one_server(tenant: Tenant) {
    let hang = json!({"kind": "hang", "method": "POST", "path": "/servers"});
    let _ = tenant.fault("hetzner", hang).await;
    exactly_one_of_each(&tenant).await;
}

pub(crate) async fn a_token_that_cloudflare_refuses_stops_one_pool_and_no_other(tenant: Tenant) {
    let other = Tenant::new(Arc::clone(&tenant.stage), "its neighbour").await;
    let ada = tenant.make("ada").await;
    let refuses = json!({"kind": "status", "status": 401, "code": 10000, "times": null});
    let refuses = tenant.fault("cloudflare", refuses).await;
    let said = tenant.pool_until_reason("Stalled", "Unauthorized").await;
    let secret = format!("moorage-system/{}-cloudflare", tenant.name);
    assert!(said.contains("cloudflare") && said.contains(&secret), "{said}");
    tenant.apply_instance("bob", json!({})).await;
    let said = tenant.until_reason("bob", "Ready", "PoolNotReady").await;
    assert!(said.contains(&secret), "{said}");
    other.make("ada").await;

    let calls = tenant.requests("cloudflare").await.len();
    tokio::time::sleep(Duration::from_secs(5)).await;
    let calls = tenant.requests("cloudflare").await.len() - calls;
    assert!(calls <= 2, "{calls} calls with a refused token in 5 s");

    // Somebody mended it at Cloudflare, so that nothing changes here.
    tenant.lift(refuses).await;
    tenant.annotate_pool("moorage.dev/reconcile-at", "now").await;
    tenant.pool_until("the pool is ready", |pool| is(pool, "Ready", "True")).await;
    assert_eq!(server_id(&tenant.until_ready("ada").await), server_id(&ada));
    tenant.until_ready("bob").await;
}

pub(crate) async fn an_expired_token_heals_when_its_secret_is_replaced(tenant: Tenant) {
    let ada = tenant.make("ada").await;
    tenant.put_token("hetzner", &"e".repeat(64)).await;
    let said = tenant.pool_until_reason("Stalled", "Unauthorized").await;
    assert!(said.contains(&format!("moorage-system/{}-hetzner", tenant.name)), "{said}");
    tenant.apply_instance("bob", json!({})).await;
    tenant.until_reason("bob", "Ready", "PoolNotReady").await;
    tenant.put_tokens().await;
    tenant.until_ready("bob").await;
    assert_eq!(server_id(&tenant.until_ready("ada").await), server_id(&ada));
}

pub(crate) async fn a_missing_token_secret_is_named_and_heals(tenant: Tenant) {
    tenant.delete_token("cloudflare").await;
    let said = tenant.pool_until_reason("Stalled", "TokenSecretMissing").await;
    let secret = format!("moorage-system/{}-cloudflare", tenant.name);
    assert!(said.contains(&secret) && said.contains("key token"), "{said}");
    tenant.apply_instance("ada", json!({})).await;
    let said = tenant.until_reason("ada", "Ready", "PoolNotReady").await;
    assert!(said.contains(&secret), "{said}");
    tenant.put_tokens().await;
    tenant.until_ready("ada").await;
}

pub(crate) async fn an_instance_goes_while_somebody_deletes_its_server(tenant: Tenant) {
    let ada = tenant.make("ada").await;
    tenant.hetzner("DELETE", &format!("/servers/{}", server_id(&ada)), None).await;
    tenant.delete_instance("ada").await;
    tenant.until_gone("ada").await;
    let (servers, tunnels, records) = tenant.cloud_objects().await;
    assert_eq!((servers, tunnels, records), (vec![], vec![], vec![]));
}

pub(crate) async fn words_that_nobody_knows_are_tolerated(tenant: Tenant) {
    for field in ["status", "type", "command"] {
        let fault = json!({
            "kind": "unknown-enum", "field": field, "pathPrefix": "/servers", "times": null,
        });
        let _ = tenant.fault("hetzner", fault).await;
    }
    let fault = json!({"kind": "unknown-enum", "pathPrefix": "/accounts", "times": null});
    let _ = tenant.fault("cloudflare", fault).await;
    tenant.make("ada").await;
    tenant.delete_instance("ada").await;
    let gone = wait_until("ada is gone", PATIENCE, || async {
        tenant.get("ada").await.map_or(Ok(()), |ada| Err(ada["status"].to_string()))
    });
    gone.await.unwrap_or_else(|late| panic!("{late}"));
}
