//! What somebody changes behind the operator's back: what is safe to mend is mended, what is not is
//! told, and what is not ours is left alone.

use std::time::Duration;

use futures::future::join_all;
use moorage::names;
use moorage_testbed::wait_until;
use serde_json::{Value, json};

use crate::{
    lifecycle::{make_ada, writes},
    tenant::{ANTHROPIC_KEY, Tenant, condition, is},
    trouble::server_id,
};

const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) async fn a_vanished_server_is_recreated_and_asks_for_its_keys(tenant: Tenant) {
    let ada = make_ada(&tenant).await;
    tenant.until_secret_gone("ada-keys").await;
    let bob = tenant.make("bob").await;
    tenant.vanish(&ada).await;
    tenant.vanish(&bob).await;

    let said = tenant.until_reason("ada", "CredentialsDelivered", "RedeliveryRequired").await;
    assert!(said.contains("anthropic") && said.contains("moorage seal"), "{said}");
    tenant.until_replaced("bob", &bob).await;
    let asked = format!("/servers/{}", server_id(&ada));
    assert!(tenant.count("hetzner", "GET", &asked).await > 0, "gone is confirmed by a look");
    assert_eq!(
        tenant.clouds_until("2 servers", |now| now.servers.len() == 2).await.counts(),
        (2, 2, 4)
    );

    let sealed = tenant.seal("ada-keys", ANTHROPIC_KEY).await;
    tenant.apply_secret("ada-keys", "ada", &[("anthropic", &sealed)]).await;
    let new = tenant.until_replaced("ada", &ada).await;
    assert_eq!(tenant.keys_on_disk(&new)["anthropic"], ANTHROPIC_KEY);
}

pub(crate) async fn dns_records_that_somebody_changes_are_set_again(tenant: Tenant) {
    let ada = tenant.make("ada").await;
    let target = format!("{}.cfargotunnel.com", ada["status"]["tunnel"]["id"].as_str().unwrap());
    let (_, _, records) = tenant.cloud_objects().await;
    let id = |name: &str| {
        let name = format!("{name}.{}", tenant.domain);
        let record = records.iter().find(|record| record["name"] == name).unwrap();
        format!("/zones/{}/dns_records/{}", tenant.zone, record["id"].as_str().unwrap())
    };
    tenant.cloudflare("DELETE", &id("ada"), None).await;
    let elsewhere = json!({"content": "elsewhere.example.net", "proxied": false});
    tenant.cloudflare("PATCH", &id("ada-mgmt"), Some(elsewhere)).await;
    let healed = |records: &[Value]| {
        records.len() == 2
            && records.iter().all(|record| record["content"] == target && record["proxied"] == true)
    };
    tenant.clouds_until("both records lead to the tunnel", |now| healed(&now.records)).await;
    let later = tenant.until_ready("ada").await;
    assert_eq!(server_id(&ada), server_id(&later));
}

pub(crate) async fn ingress_rules_that_somebody_changes_are_set_again(tenant: Tenant) {
    let ada = tenant.make("ada").await;
    let tunnel = ada["status"]["tunnel"]["id"].as_str().unwrap();
    let path = format!("/accounts/{}/cfd_tunnel/{tunnel}/configurations", tenant.account);
    let before = tenant.cloudflare("GET", &path, None).await["result"]["config"]["ingress"].clone();
    assert_eq!(before.as_array().unwrap().len(), 3, "{before}");
    let nothing = json!({"config": {"ingress": [{"service": "http_status:404"}]}});
    tenant.cloudflare("PUT", &path, Some(nothing)).await;
    let healed = wait_until("the ingress rules are back", PATIENCE, || async {
        let now =
            tenant.cloudflare("GET", &path, None).await["result"]["config"]["ingress"].clone();
        if now == before { Ok(()) } else { Err(now.to_string()) }
    });
    healed.await.unwrap_or_else(|late| panic!("{late}"));
    let host = format!("ada.{}", tenant.domain);
    let visited = wait_until("the dashboard answers", PATIENCE, || async {
        let (status, page) = tenant.visit(&host, "/", None).await;
        if status == 200 { Ok(()) } else { Err(format!("{status} {page}")) }
    });
    visited.await.unwrap_or_else(|late| panic!("{late}"));
}

pub(crate) async fn a_deleted_tunnel_is_reported_and_a_rebuild_heals_it(tenant: Tenant) {
    let ada = tenant.make("ada").await;
    let tunnel = ada["status"]["tunnel"]["id"].as_str().unwrap();
    let path = format!("/accounts/{}/cfd_tunnel/{tunnel}", tenant.account);
    // It comes back at once, so that it may take some tries to catch it unconnected.
    let deleted = wait_until("the tunnel is deleted", PATIENCE, || async {
        tenant.cloudflare("DELETE", &format!("{path}/connections"), None).await;
        let answer = tenant.cloudflare("DELETE", &path, None).await;
        if answer["success"] == true { Ok(()) } else { Err(answer.to_string()) }
    });
    deleted.await.unwrap_or_else(|late| panic!("{late}"));
    let said = tenant.until_reason("ada", "TunnelReady", "TunnelLost").await;
    let rebuild = format!("moorage.dev/rebuild={}", server_id(&ada));
    assert!(said.contains(&rebuild), "{said}");
    let stalled = tenant.get("ada").await.unwrap();
    assert_eq!(condition(&stalled, "Stalled")["reason"], "TunnelLost");
    tenant.sweeps(2).await;
    let (servers, tunnels, _) = tenant.cloud_objects().await;
    assert_eq!((servers.len(), tunnels.len()), (1, 0), "the server is left as it is");
    assert_eq!(servers[0]["id"], ada["status"]["server"]["id"]);

    tenant.annotate("ada", "moorage.dev/rebuild", &server_id(&ada).to_string()).await;
    tenant.until_replaced("ada", &ada).await;
    let healed = tenant.clouds_until("one of each", |now| now.counts() == (1, 1, 2)).await;
    assert_ne!(healed.tunnels[0]["id"], tunnel);
}

pub(crate) async fn a_token_of_another_project_stops_everything(tenant: Tenant) {
    let (ada, eve) = futures::join!(tenant.make("ada"), tenant.make("eve"));
    let other = format!("{}-other", tenant.name);
    let token = "x".repeat(64 - other.len()) + &other;
    let project = json!({"token": token, "serverQuota": 20});
    tenant.stage.simulator.put_project(&other, &project).await.unwrap();
    tenant.put_token("hetzner", &token).await;

    let said = tenant.pool_until_reason("Stalled", "ProjectChanged").await;
    assert!(said.contains("token is of the wrong project"), "{said}");
    let said = tenant.until_reason("ada", "Ready", "PoolNotReady").await;
    assert!(said.contains("Firewall"), "{said}");
    tenant.apply_instance("bob", json!({})).await;
    tenant.delete_instance("eve").await;
    tenant.until_reason("bob", "Ready", "PoolNotReady").await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let eve_now = tenant.get("eve").await.expect("what cannot be seen is not forgotten");
    assert!(!eve_now["metadata"]["finalizers"].as_array().unwrap().is_empty());
    let ada_now = tenant.get("ada").await.unwrap();
    assert_eq!(ada_now["status"]["server"], ada["status"]["server"]);
    let theirs = tenant.stage.simulator.journal("hetzner", &other).await.unwrap();
    assert!(!theirs.is_empty(), "the other project was looked into");
    assert_eq!(writes(&theirs), Vec::<String>::new());

    tenant.put_tokens().await;
    tenant.pool_until("the pool is ready", |pool| is(pool, "Ready", "True")).await;
    assert_eq!(server_id(&tenant.until_ready("ada").await), server_id(&ada));
    let bob = tenant.until_ready("bob").await;
    tenant.until_gone("eve").await;
    let left = tenant.clouds_until("eve's server is gone", |now| now.servers.len() == 2).await;
    let ids: Vec<_> = left.servers.iter().map(|server| server["id"].as_u64().unwrap()).collect();
    assert!(ids.contains(&server_id(&ada)) && ids.contains(&server_id(&bob)), "{ids:?}");
    assert!(!ids.contains(&server_id(&eve)));
}

pub(crate) async fn a_deleted_firewall_stops_the_pool_until_accepted(tenant: Tenant) {
    let ada = tenant.make("ada").await;
    let pool = tenant.pool_until("a firewall", |pool| pool["status"]["firewallId"].is_u64()).await;
    let firewall = pool["status"]["firewallId"].as_u64().unwrap();
    let path = format!("/firewalls/{firewall}");
    // Or it is put back before it can be deleted.
    tenant.patch_instance("ada", json!({"spec": {"suspend": true}})).await;
    tenant.until_reason("ada", "Ready", "Suspended").await;
    let server = json!({"remove_from": [{"type": "server", "server": {"id": server_id(&ada)}}]});
    tenant.hetzner("POST", &format!("{path}/actions/remove_from_resources"), Some(server)).await;
    let gone = wait_until("the firewall can be deleted", PATIENCE, || async {
        let answer = tenant.hetzner("DELETE", &path, None).await;
        if answer.is_null() { Ok(()) } else { Err(answer.to_string()) }
    });
    gone.await.unwrap_or_else(|late| panic!("{late}"));

    let said = tenant.pool_until_reason("Stalled", "ProjectChanged").await;
    assert!(said.contains(&format!("moorage.dev/retry={firewall}")), "{said}");
    tenant.patch_instance("ada", json!({"spec": {"suspend": false}})).await;
    tenant.until_reason("ada", "Ready", "PoolNotReady").await;
    tenant.annotate_pool("moorage.dev/retry", &firewall.to_string()).await;
    tenant.pool_until("the pool is ready", |pool| is(pool, "Ready", "True")).await;
    assert_eq!(server_id(&tenant.until_ready("ada").await), server_id(&ada));
    let protected = wait_until("the new firewall stands before the server", PATIENCE, || async {
        let server = tenant.hetzner("GET", &format!("/servers/{}", server_id(&ada)), None).await;
        let firewalls = &server["server"]["public_net"]["firewalls"];
        let some = firewalls.as_array().is_some_and(|list| !list.is_empty());
        if some { Ok(()) } else { Err(firewalls.to_string()) }
    });
    protected.await.unwrap_or_else(|late| panic!("{late}"));
}

pub(crate) async fn a_mass_loss_is_recreated_only_when_accepted(tenant: Tenant) {
    const NAMES: [&str; 5] = ["one", "two", "three", "four", "five"];
    let made = join_all(NAMES.map(|name| tenant.make(name))).await;
    let posts = tenant.count("hetzner", "POST", "/servers").await;
    // Or a list between the first and the fourth shows single losses.
    let list = json!({"kind": "hold", "method": "GET", "path": "/servers"});
    let list = tenant.fault("hetzner", list).await;
    join_all(made.iter().map(|instance| tenant.vanish(instance))).await;
    tenant.lift(list).await;

    let told = NAMES.map(|name| tenant.until_reason(name, "ServerReady", "MassDisappearance"));
    for said in join_all(told).await {
        assert!(said.contains("moorage.dev/accept-missing-servers=5"), "{said}");
    }
    tenant.sweeps(2).await;
    assert_eq!(tenant.count("hetzner", "POST", "/servers").await, posts, "nothing is made");
    for (name, before) in NAMES.iter().zip(&made) {
        let now = tenant.get(name).await.unwrap();
        assert_eq!(now["status"]["server"], before["status"]["server"], "nothing is forgotten");
    }

    tenant.annotate_pool("moorage.dev/accept-missing-servers", "5").await;
    join_all(NAMES.iter().zip(&made).map(|(name, before)| tenant.until_replaced(name, before)))
        .await;
    assert_eq!(
        tenant.clouds_until("5 servers", |now| now.servers.len() == 5).await.counts(),
        (5, 5, 10)
    );
}

pub(crate) async fn a_lost_status_is_rebuilt_without_touching_the_clouds(tenant: Tenant) {
    let ada = make_ada(&tenant).await;
    tenant.until_secret_gone("ada-keys").await;
    let ada_then = tenant.until_ready("ada").await;
    let all = async || {
        let cloudflare = writes(&tenant.requests("cloudflare").await);
        (writes(&tenant.requests("hetzner").await), cloudflare)
    };
    let before = all().await;
    tenant.forget_status("ada").await;

    let now = tenant.until_ready("ada").await;
    assert_eq!(now["status"]["server"], ada["status"]["server"]);
    assert_eq!(now["status"]["tunnel"], ada["status"]["tunnel"]);
    assert_eq!(now["status"]["agent"]["publicKey"], ada["status"]["agent"]["publicKey"]);
    let digest = |ada: &Value| ada["status"]["credentials"][0]["ciphertextSHA256"].clone();
    assert_eq!(digest(&now), digest(&ada_then));
    assert!(digest(&now).is_string(), "{}", now["status"]);
    assert_eq!(all().await, before);
}

pub(crate) async fn a_foreign_dns_record_is_left_alone_and_its_removal_heals(tenant: Tenant) {
    let host = format!("ada.{}", tenant.domain);
    let records = format!("/zones/{}/dns_records", tenant.zone);
    let theirs =
        json!({"type": "A", "name": host, "content": "192.0.2.1", "proxied": false, "ttl": 1});
    let made = tenant.cloudflare("POST", &records, Some(theirs)).await;
    let id = made["result"]["id"].as_str().unwrap_or_else(|| panic!("{made}"));
    tenant.sweeps(1).await;

    tenant.apply_instance("ada", json!({})).await;
    let said = tenant.until_reason("ada", "Ready", "ForeignDnsRecord").await;
    assert!(said.contains(&host) && said.contains("remove it"), "{said}");
    tenant.sweeps(1).await;
    let (servers, tunnels, now) = tenant.cloud_objects().await;
    assert_eq!((servers, tunnels), (vec![], vec![]));
    assert_eq!((now.len(), &now[0]["content"]), (1, &json!("192.0.2.1")));

    tenant.cloudflare("DELETE", &format!("{records}/{id}"), None).await;
    tenant.until_ready("ada").await;
}

pub(crate) async fn a_foreign_server_of_the_same_name_is_left_alone(tenant: Tenant) {
    let name = names::server("ada", tenant.id_of("ada").await);
    let theirs =
        json!({"name": name, "server_type": "cx33", "image": "debian-13", "location": "fsn1"});
    let made = tenant.hetzner("POST", "/servers", Some(theirs)).await;
    let theirs = made["server"]["id"].as_u64().unwrap_or_else(|| panic!("{made}"));

    tenant.apply_instance("ada", json!({})).await;
    let said = tenant.until_reason("ada", "ServerReady", "ForeignServer").await;
    assert!(said.contains(&name) && said.contains("delete it"), "{said}");
    tenant.sweeps(2).await;
    let (servers, _, _) = tenant.cloud_objects().await;
    assert_eq!(servers.len(), 1);
    assert_eq!(servers[0]["labels"], json!({}), "it is left untouched");

    tenant.hetzner("DELETE", &format!("/servers/{theirs}"), None).await;
    let theirs_is_there = |server: &Value| server["id"] == theirs;
    tenant.clouds_until("theirs is gone", |now| !now.servers.iter().any(theirs_is_there)).await;
    tenant.look_now("ada").await;
    assert_ne!(server_id(&tenant.until_ready("ada").await), theirs);
}
