//! What somebody or something breaks behind the operator's back, and what the operator makes of it.

use serde_json::{Value, json};

use crate::tenant::{Tenant, condition};

async fn ready(tenant: &Tenant, name: &str) -> Value {
    tenant.apply_instance(name, json!({})).await;
    tenant.until_ready(name).await
}

fn server(instance: &Value) -> &Value {
    &instance["status"]["server"]
}

pub(crate) async fn a_server_that_somebody_deleted_is_made_anew(tenant: Tenant) {
    let ada = ready(&tenant, "ada").await;
    let old = server(&ada)["id"].as_u64().unwrap();
    tenant.stage.simulator.vanish_server(&tenant.name, old).await.unwrap();
    let ada = tenant
        .until("ada", "another server", |ada| {
            server(ada)["id"].as_u64().is_some_and(|id| id != old)
        })
        .await;
    assert_ne!(server(&ada)["epoch"], Value::Null);
    tenant.until_ready("ada").await;
    let (servers, tunnels, records) = tenant.cloud_objects().await;
    assert_eq!((servers.len(), tunnels.len(), records.len()), (1, 1, 2));
}

pub(crate) async fn a_deleted_or_bent_dns_record_is_put_right_by_the_sweep(tenant: Tenant) {
    ready(&tenant, "ada").await;
    let (_, _, records) = tenant.cloud_objects().await;
    let zone = &tenant.zone;
    let [first, second] = [&records[0], &records[1]].map(|record| record["id"].as_str().unwrap());
    tenant.cloudflare("DELETE", &format!("/zones/{zone}/dns_records/{first}"), None).await;
    let elsewhere = json!({"content": "elsewhere.example.net"});
    tenant
        .cloudflare("PATCH", &format!("/zones/{zone}/dns_records/{second}"), Some(elsewhere))
        .await;
    tenant
        .eventually("both records lead to the tunnel", || async {
            let (_, tunnels, records) = tenant.cloud_objects().await;
            let target = format!("{}.cfargotunnel.com", tunnels[0]["id"].as_str().unwrap());
            let right = records.iter().filter(|record| record["content"] == *target).count();
            if right == 2 { Ok(()) } else { Err(format!("{records:?}")) }
        })
        .await;
}

pub(crate) async fn edited_ingress_rules_are_put_right(tenant: Tenant) {
    let ada = ready(&tenant, "ada").await;
    let tunnel = ada["status"]["tunnel"]["id"].as_str().unwrap();
    let path = format!("/accounts/{}/cfd_tunnel/{tunnel}/configurations", tenant.account);
    let closed = json!({"config": {"ingress": [{"service": "http_status:404"}]}});
    tenant.cloudflare("PUT", &path, Some(closed)).await;
    tenant
        .eventually("the dashboard answers again", || async {
            let (status, _) = tenant.visit(&format!("ada.{}", tenant.domain), "/", None).await;
            if status == 200 { Ok(()) } else { Err(status.to_string()) }
        })
        .await;
}

pub(crate) async fn a_deleted_tunnel_leaves_the_server_alone_until_a_person_asks(tenant: Tenant) {
    let ada = ready(&tenant, "ada").await;
    let (tunnel, id) =
        (ada["status"]["tunnel"]["id"].as_str().unwrap(), server(&ada)["id"].as_u64().unwrap());
    let path = format!("/accounts/{}/cfd_tunnel/{tunnel}", tenant.account);
    tenant.cloudflare("DELETE", &format!("{path}/connections"), None).await;
    tenant.cloudflare("DELETE", &format!("{path}?cascade=true"), None).await;
    let message = tenant.until_reason("ada", "TunnelReady", "TunnelLost").await;
    assert!(message.contains(&format!("moorage.dev/rebuild={id}")), "{message}");
    let (servers, ..) = tenant.cloud_objects().await;
    assert_eq!(servers[0]["id"], id);

    let rebuild = json!({"metadata": {"annotations": {"moorage.dev/rebuild": id.to_string()}}});
    tenant.patch_instance("ada", rebuild).await;
    tenant
        .until("ada", "another server", |ada| {
            server(ada)["id"].as_u64().is_some_and(|now| now != id)
        })
        .await;
    tenant.until_ready("ada").await;
}

pub(crate) async fn a_lost_status_is_found_again_without_a_new_object(tenant: Tenant) {
    let ada = ready(&tenant, "ada").await;
    let before = tenant.cloud_objects().await;
    tenant.forget_status("ada").await;
    let again = tenant.until_ready("ada").await;
    assert_eq!(server(&again), server(&ada));
    assert_eq!(again["status"]["agent"]["publicKey"], ada["status"]["agent"]["publicKey"]);
    let ids =
        |objects: &[Value]| objects.iter().map(|object| object["id"].clone()).collect::<Vec<_>>();
    let after = tenant.cloud_objects().await;
    assert_eq!(
        (ids(&after.0), ids(&after.1), ids(&after.2)),
        (ids(&before.0), ids(&before.1), ids(&before.2))
    );
}

pub(crate) async fn many_servers_that_vanish_at_once_are_not_made_anew_unasked(tenant: Tenant) {
    let names = ["ada", "bob", "cleo", "dan"];
    for name in names {
        tenant.apply_instance(name, json!({})).await;
    }
    for name in names {
        tenant.until_ready(name).await;
    }
    let (servers, ..) = tenant.cloud_objects().await;
    let mut vanish = Vec::new();
    for server in &servers {
        vanish.push(
            tenant.stage.simulator.vanish_server(&tenant.name, server["id"].as_u64().unwrap()),
        );
    }
    for gone in futures::future::join_all(vanish).await {
        gone.unwrap();
    }
    for name in names {
        tenant.until_reason(name, "ServerReady", "MassDisappearance").await;
    }
    assert_eq!(tenant.cloud_objects().await.0, Vec::<Value>::new());
    tenant
        .patch_pool(
            json!({"metadata": {"annotations": {"moorage.dev/accept-missing-servers": "4"}}}),
        )
        .await;
    for name in names {
        tenant.until_ready(name).await;
    }
}

pub(crate) async fn a_token_of_another_project_neither_makes_nor_forgets_servers(tenant: Tenant) {
    let ada = ready(&tenant, "ada").await;
    let other = format!("{}-other", tenant.name);
    let token = "o".repeat(64 - tenant.name.len()) + &tenant.name;
    tenant.stage.simulator.put_project(&other, &json!({"token": token})).await.unwrap();
    tenant.put_token("hetzner", &token).await;
    tenant
        .pool_until("the project has changed", |pool| {
            condition(pool, "Ready")["reason"] == "ProjectChanged"
        })
        .await;
    tenant.apply_instance("bob", json!({})).await;
    tenant.until_reason("bob", "Ready", "PoolNotReady").await;
    let servers = tenant.servers_of(&token).await;
    assert_eq!(servers, Vec::<Value>::new(), "nothing is made in the other project");

    tenant.put_tokens().await;
    let again = tenant.until_ready("ada").await;
    assert_eq!(server(&again), server(&ada));
    tenant.until_ready("bob").await;
}

pub(crate) async fn what_is_somebody_elses_is_left_untouched(tenant: Tenant) {
    let host = format!("ada.{}", tenant.domain);
    let record =
        json!({"type": "A", "name": host, "content": "192.0.2.1", "ttl": 1, "proxied": false});
    let made = tenant
        .cloudflare("POST", &format!("/zones/{}/dns_records", tenant.zone), Some(record))
        .await;
    // The next sweep has to see it before an instance can be told of it.
    let id = made["result"]["id"].as_str().unwrap().to_owned();
    tenant.sweep_passed().await;
    tenant.apply_instance("ada", json!({})).await;
    let message = tenant.until_reason("ada", "Ready", "ForeignDnsRecord").await;
    assert!(message.contains(&host), "{message}");
    let (servers, tunnels, records) = tenant.cloud_objects().await;
    assert_eq!((servers.len(), tunnels.len(), records.len()), (0, 0, 1));
    assert_eq!(records[0]["content"], "192.0.2.1");

    tenant.cloudflare("DELETE", &format!("/zones/{}/dns_records/{id}", tenant.zone), None).await;
    tenant.until_ready("ada").await;
}
