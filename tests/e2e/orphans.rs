//! What is in the clouds under our name and belongs to nobody.

use k8s_openapi::api::events::v1::Event;
use kube::api::ListParams;
use serde_json::{Value, json};

use crate::{
    tenant::Tenant,
    trouble::{Clouds, server_id},
};

impl Tenant {
    /// What a tenant may do to an instance of his own: nothing else tells of its server then.
    async fn strip(&self, name: &str) {
        // Suspended, or the finalizer is put back.
        self.patch_instance(name, json!({"spec": {"suspend": true}})).await;
        self.until_reason(name, "Ready", "Suspended").await;
        self.patch_instance(name, json!({"metadata": {"finalizers": null}})).await;
        self.delete_instance(name).await;
        self.until_gone(name).await;
    }

    /// Waits for an Event about the pool. Those of what is in no namespace go to `default`.
    async fn until_event(&self, reason: &str) {
        let events: kube::Api<Event> = kube::Api::namespaced(self.stage.client.clone(), "default");
        let about = |event: &Event| {
            event.regarding.as_ref().and_then(|about| about.name.as_ref()) == Some(&self.name)
                && event.reason.as_deref() == Some(reason)
        };
        self.eventually(&format!("the Event {reason}"), || async {
            let all =
                events.list(&ListParams::default()).await.map_err(|error| error.to_string())?;
            all.iter().any(about).then_some(()).ok_or_else(|| format!("{} others", all.items.len()))
        })
        .await;
    }

    async fn metrics(&self) -> String {
        let url = self.stage.operator.lock().unwrap().operator.url().to_owned();
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        client.get(format!("{url}/metrics")).send().await.unwrap().text().await.unwrap()
    }

    async fn until_orphans(&self, count: u32) -> Value {
        let told = |pool: &Value| pool["status"]["orphans"]["count"] == json!(count);
        let pool = self.pool_until(&format!("{count} orphans are listed"), told).await;
        pool["status"]["orphans"].clone()
    }
}

pub(crate) async fn an_orphan_is_listed_and_goes_when_the_pool_says_so(tenant: Tenant) {
    let ada = tenant.make("ada").await;
    let bob = tenant.make("bob").await;
    // Kept on purpose, and somebody else's.
    let labels = tenant.hetzner("GET", &format!("/servers/{}", server_id(&ada)), None).await;
    let labels = labels["server"]["labels"].clone();
    let stranger = |name: &str, label: &str, value: &str| {
        let mut labels = labels.clone();
        labels["moorage.dev/instance"] = json!("00112233445566778899aabbccddeeff");
        labels["moorage.dev/name"] = json!(name);
        labels[label] = json!(value);
        json!({"name": name, "server_type": "cx33", "image": "debian-13", "location": "fsn1", "labels": labels})
    };
    for (name, label, value) in [
        ("kept", "moorage.dev/retained", "true"),
        ("foreign", "moorage.dev/installation", "0123456789abcdef"),
    ] {
        let made = tenant.hetzner("POST", "/servers", Some(stranger(name, label, value))).await;
        assert!(made["server"]["id"].is_u64(), "{made}");
    }

    tenant.strip("ada").await;
    let told = tenant.until_orphans(4).await;
    let first = told["first"].as_array().unwrap();
    let server = first.iter().find(|one| one["kind"] == "Server").unwrap();
    assert_eq!(server["id"], json!(server_id(&ada).to_string()));
    assert_eq!(server["owner"], json!(format!("{}/ada", tenant.name)));
    assert!(server["firstSeen"].is_string() && server["created"].is_string(), "{server}");
    assert_eq!(server["monthlyCost"], told["monthlyCost"], "{told}");
    let metrics = tenant.metrics().await;
    let counted = format!("moorage_orphans{{pool=\"{}\"}} 4", tenant.name);
    assert!(metrics.contains(&counted), "{metrics}");
    tenant.until_event("OrphansFound").await;
    // Older than the age from which on they might be deleted, and the pool says nothing of the kind.
    tenant
        .eventually("they are old enough", || async {
            let seen: jiff::Timestamp = server["firstSeen"].as_str().unwrap().parse().unwrap();
            let age = jiff::Timestamp::now().duration_since(seen).as_secs();
            if age > 12 { Ok(()) } else { Err(format!("{age} s")) }
        })
        .await;
    tenant.sweeps(2).await;
    let (servers, tunnels, records) = tenant.cloud_objects().await;
    assert_eq!((servers.len(), tunnels.len(), records.len()), (4, 2, 4), "they are only listed");
    assert_eq!(tenant.until_orphans(4).await, told, "what is known does not change by itself");

    tenant.patch_pool(json!({"spec": {"orphanPolicy": "Delete"}})).await;
    let left = tenant.clouds_until("the orphans are gone", |now| now.counts() == (3, 1, 2)).await;
    let ids: Vec<_> = left.servers.iter().map(|server| server["id"].clone()).collect();
    assert!(ids.contains(&json!(server_id(&bob))), "{ids:?}");
    tenant.pool_until("none are left", |pool| pool["status"]["orphans"].is_null()).await;
    tenant.until_event("OrphanDeleted").await;
    assert_eq!(server_id(&tenant.until_ready("bob").await), server_id(&bob));
}

pub(crate) async fn an_instance_takes_over_what_was_an_orphan_of_its_name(tenant: Tenant) {
    tenant.patch_pool(json!({"spec": {"orphanPolicy": "Delete"}})).await;
    let ada = tenant.make("ada").await;
    tenant.strip("ada").await;
    tenant.until_orphans(4).await;
    tenant.apply_instance("ada", json!({})).await;
    assert_eq!(server_id(&tenant.until_ready("ada").await), server_id(&ada));
    tenant.pool_until("it is nobody's orphan", |pool| pool["status"]["orphans"].is_null()).await;
    tenant.sweeps(8).await;
    let (servers, tunnels, records) = tenant.cloud_objects().await;
    assert_eq!((servers.len(), tunnels.len(), records.len()), (1, 1, 2));
}

pub(crate) async fn whoever_strips_finalizers_has_no_room_for_another_server(tenant: Tenant) {
    tenant.patch_pool(json!({"spec": {"maxInstancesPerNamespace": 1}})).await;
    let ada = tenant.make("ada").await;
    tenant.strip("ada").await;
    tenant.apply_instance("bob", json!({})).await;
    let said = tenant.until_reason("bob", "Ready", "NamespaceQuotaExceeded").await;
    assert!(said.contains("1 of these places"), "{said}");
    // A name that is only held, and looks after nothing, changes nothing.
    tenant.apply_instance("ada", json!({"suspend": true})).await;
    tenant.until_reason("ada", "Ready", "Suspended").await;
    let told = tenant.pool_until("the server is listed with a note", |pool| {
        let first = pool["status"]["orphans"]["first"].as_array();
        first.into_iter().flatten().any(|one| one["kind"] == "Server" && one["note"].is_string())
    });
    told.await;
    tenant.look_now("bob").await;
    tenant.until_reason("bob", "Ready", "NamespaceQuotaExceeded").await;

    // The way out that the message names.
    tenant.patch_instance("ada", json!({"spec": {"suspend": false}})).await;
    assert_eq!(server_id(&tenant.until_ready("ada").await), server_id(&ada));
    tenant.delete_instance("ada").await;
    tenant.until_gone("ada").await;
    tenant.until_ready("bob").await;
    // What was kept on purpose is billed as well.
    tenant.patch_instance("bob", json!({"spec": {"deletionPolicy": "Retain"}})).await;
    tenant.delete_instance("bob").await;
    tenant.until_gone("bob").await;
    tenant.apply_instance("carol", json!({})).await;
    tenant.until_reason("carol", "Ready", "NamespaceQuotaExceeded").await;
    let (servers, ..) = tenant.cloud_objects().await;
    let server = &servers[0];
    let mut labels = server["labels"].clone();
    labels.as_object_mut().unwrap().remove("moorage.dev/pool");
    let path = format!("/servers/{}", server["id"]);
    tenant.hetzner("PUT", &path, Some(json!({"labels": labels}))).await;
    tenant.until_ready("carol").await;
}

pub(crate) async fn tunnels_that_no_instance_has_take_a_place(tenant: Tenant) {
    tenant.patch_pool(json!({"spec": {"maxInstancesPerNamespace": 1}})).await;
    let sold_out = json!({"kind": "out-of-stock", "times": null});
    let _sold_out = tenant.fault("hetzner", sold_out).await;
    let made = |now: &Clouds, host: &str| {
        let leads = |record: &Value| {
            record["name"].as_str().is_some_and(|name| name.split('.').next() == Some(host))
        };
        now.counts() == (0, 1, 2) && now.records.iter().any(leads)
    };
    tenant.apply_instance("ada", json!({})).await;
    tenant.clouds_until("a tunnel and its records", |now| made(now, "ada")).await;
    tenant.strip("ada").await;

    // Another name. The comments on its records would have no room for it.
    let bob = "b".repeat(55);
    tenant.apply_instance(&bob, json!({})).await;
    let said = tenant.until_reason(&bob, "Ready", "NamespaceQuotaExceeded").await;
    assert!(said.contains("1 of these places"), "{said}");

    // The same name takes its own tunnel over, and what it had at other host names goes. It begins
    // a life each time, and a quota of one allows six of them in an hour.
    for number in 2..=6 {
        let host = format!("ada-{number}");
        tenant.apply_instance("ada", json!({"hostname": host})).await;
        tenant.clouds_until("its records move", |now| made(now, &host)).await;
        tenant.strip("ada").await;
    }
    tenant.apply_instance("ada", json!({"hostname": "ada-7"})).await;
    tenant.until_reason("ada", "Ready", "ServerRateExceeded").await;
    tenant.sweeps(1).await;
    tenant.clouds_until("nothing is made", |now| made(now, "ada-6")).await;

    // The way out that the message names.
    tenant.delete_instance("ada").await;
    tenant.until_gone("ada").await;
    tenant.clouds_until("nothing is left", |now| now.counts() == (0, 0, 0)).await;
    tenant.look_now(&bob).await;
    tenant.until_reason(&bob, "Ready", "ServerRateExceeded").await;
}

/// Each was let in while it named no release, and then suspended.
pub(crate) async fn prepared_instances_do_not_begin_past_the_hourly_rate(tenant: Tenant) {
    tenant.patch_pool(json!({"spec": {"maxInstancesPerNamespace": 1}})).await;
    let names: Vec<_> = (1..=7).map(|number| format!("r{number}")).collect();
    for name in &names {
        tenant.apply_instance(name, json!({"release": "nope"})).await;
        tenant.until_reason(name, "Ready", "ReleaseNotFound").await;
        tenant.patch_instance(name, json!({"spec": {"suspend": true}})).await;
        tenant.until_reason(name, "Ready", "Suspended").await;
    }
    // A quota of one allows six lives in an hour.
    let (last, others) = names.split_last().unwrap();
    for name in others {
        tenant.patch_instance(name, json!({"spec": {"suspend": false, "release": null}})).await;
        let made = |instance: &Value| instance["status"]["server"]["id"].is_u64();
        tenant.until(name, "a server", made).await;
        tenant.delete_instance(name).await;
        tenant.until_gone(name).await;
    }
    tenant.patch_instance(last, json!({"spec": {"suspend": false, "release": null}})).await;
    tenant.until_reason(last, "Ready", "ServerRateExceeded").await;
}

/// It has the name of what is left behind, was let in, and rests.
pub(crate) async fn one_that_was_let_in_and_rests_hides_nothing(tenant: Tenant) {
    tenant.patch_pool(json!({"spec": {"maxInstancesPerNamespace": 1}})).await;
    tenant.make("ada").await;
    tenant.strip("ada").await;
    tenant.apply_instance("ada", json!({"release": "nope"})).await;
    tenant.until_reason("ada", "Ready", "ReleaseNotFound").await;
    tenant.patch_instance("ada", json!({"spec": {"suspend": true}})).await;
    tenant.until_reason("ada", "Ready", "Suspended").await;
    tenant.apply_instance("bob", json!({})).await;
    tenant.until_reason("bob", "Ready", "NamespaceQuotaExceeded").await;
    tenant.sweeps(2).await;
    tenant.look_now("bob").await;
    tenant.until_reason("bob", "Ready", "NamespaceQuotaExceeded").await;
}

pub(crate) async fn what_is_retained_is_told_and_hides_no_later_life(tenant: Tenant) {
    tenant.apply_instance("ada", json!({"deletionPolicy": "Retain"})).await;
    let ada = tenant.until_ready("ada").await;
    tenant.delete_instance("ada").await;
    tenant.until_gone("ada").await;
    let all = |pool: &Value| {
        let retained = &pool["status"]["retained"];
        let of = |kind: &str| retained[kind].as_u64();
        // A sweep may have seen the tunnel just before it got the name of a retained one.
        let named = |one: &Value| {
            one["kind"] != "Tunnel"
                || one["name"].as_str().is_some_and(|name| name.contains("-retained-"))
        };
        let first = retained["first"].as_array();
        (of("servers"), of("tunnels"), of("dnsRecords")) == (Some(1), Some(1), Some(2))
            && first.is_some_and(|first| first.iter().all(named))
    };
    let pool = tenant.pool_until("what was retained is told", all).await;
    let told = pool["status"]["retained"].clone();
    let first = told["first"].as_array().unwrap();
    let server = first.iter().find(|one| one["kind"] == "Server").unwrap();
    assert_eq!(server["id"], json!(server_id(&ada).to_string()));
    assert_eq!(server["owner"], json!(format!("{}/ada", tenant.name)));
    assert!(told["monthlyCost"].is_string() && told["monthlyCost"] == server["monthlyCost"]);
    let counted = format!("moorage_retained{{pool=\"{}\"}} 4", tenant.name);
    assert!(tenant.metrics().await.contains(&counted));
    let quiet = |pool: &Value| all(pool) && pool["status"]["instances"] == 0;
    let pool = tenant.pool_until("no instance is counted any more", quiet).await;
    tenant.sweeps(2).await;
    let now = tenant.pool_until("the same", all).await;
    assert_eq!(now["status"], pool["status"]);
    assert_eq!(now["metadata"]["resourceVersion"], pool["metadata"]["resourceVersion"]);

    // The next of the name gets a tunnel and no server, and is removed by force.
    let sold_out = json!({"kind": "out-of-stock", "times": null});
    let _sold_out = tenant.fault("hetzner", sold_out).await;
    tenant.apply_instance("ada", json!({"hostname": "eve"})).await;
    tenant.clouds_until("a second tunnel", |now| now.counts() == (1, 2, 4)).await;
    tenant.strip("ada").await;
    tenant.until_orphans(3).await;
    tenant.patch_pool(json!({"spec": {"orphanPolicy": "Delete"}})).await;
    tenant.clouds_until("what is retained stays", |now| now.counts() == (1, 1, 2)).await;
    let gone = |pool: &Value| pool["status"]["orphans"].is_null();
    let pool = tenant.pool_until("no orphan is left", gone).await;
    assert_eq!(pool["status"]["retained"], told);
}

/// An installation whose cluster and master key are lost.
const LOST: &str = "00c0ffee00c0ffee";

impl Tenant {
    /// Makes what a lost installation left in the same project, account and zone.
    async fn lose_an_installation(&self) {
        let instance = "00112233445566778899aabbccddeeff";
        let retained = "ffeeddccbbaa99887766554433221100";
        let labels = |id: &str| {
            json!({
                "moorage.dev/installation": LOST, "moorage.dev/instance": id, "moorage.dev/pool": "old",
                "moorage.dev/namespace": "tenants", "moorage.dev/name": "eve",
            })
        };
        let firewall = json!({
            "name": format!("moorage-old-{LOST}"), "rules": [],
            "labels": {"moorage.dev/installation": LOST, "moorage.dev/pool": "old"},
        });
        let made = self.hetzner("POST", "/firewalls", Some(firewall)).await;
        let firewall = made["firewall"]["id"].clone();
        assert!(firewall.is_u64(), "{made}");
        let mut kept = labels(retained);
        kept["moorage.dev/retained"] = json!("true");
        for (name, labels) in [("eve-00112233", labels(instance)), ("eve-ffeeddcc", kept)] {
            let server = json!({
                "name": name, "server_type": "cx33", "image": "debian-13", "location": "fsn1",
                "labels": labels, "firewalls": [{"firewall": firewall}],
            });
            let made = self.hetzner("POST", "/servers", Some(server)).await;
            assert!(made["server"]["id"].is_u64(), "{made}");
        }
        let account = format!("/accounts/{}", self.account);
        let tunnel =
            json!({"name": format!("moorage-{LOST}-{instance}"), "config_src": "cloudflare"});
        let made = self.cloudflare("POST", &format!("{account}/cfd_tunnel"), Some(tunnel)).await;
        let target = format!("{}.cfargotunnel.com", made["result"]["id"].as_str().unwrap());
        // The comment of the second was lost: it is known by where it leads.
        let comment = format!("moorage {LOST} {instance} tenants/eve");
        for (host, comment) in [("eve", comment.as_str()), ("eve-mgmt", "")] {
            let record = json!({
                "type": "CNAME", "name": format!("{host}.{}", self.domain), "content": target,
                "proxied": true, "ttl": 1, "comment": comment,
            });
            let records = format!("/zones/{}/dns_records", self.zone);
            let made = self.cloudflare("POST", &records, Some(record)).await;
            assert_eq!(made["success"], json!(true), "{made}");
        }
        let token = json!({"name": format!("moorage-old-{LOST}"), "duration": "8760h"});
        let path = format!("{account}/access/service_tokens");
        let made = self.cloudflare("POST", &path, Some(token)).await;
        assert_eq!(made["success"], json!(true), "{made}");
    }

    /// Runs `moorage cleanup` for the lost installation; gives its exit code and what it says.
    async fn cleanup(&self, further: &[&str], typed: &str) -> (i32, String, String) {
        let folder = tempfile::tempdir().unwrap();
        let (hetzner, cloudflare) =
            (folder.path().join("hetzner"), folder.path().join("cloudflare"));
        std::fs::write(&hetzner, &self.hetzner_token).unwrap();
        std::fs::write(&cloudflare, format!("{}\n", self.cloudflare_token)).unwrap();
        let clouds = self.stage.simulator.endpoints();
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_moorage"));
        command.args(["cleanup", "--installation", LOST, "--account", &self.account]);
        command.args(["--zone", &self.zone]).arg("--hetzner-token-file").arg(&hetzner);
        command.arg("--cloudflare-token-file").arg(&cloudflare);
        command.arg("--hetzner-endpoint").arg(&clouds.hetzner);
        command.arg("--cloudflare-endpoint").arg(&clouds.cloudflare).args(further);
        let piped = std::process::Stdio::piped;
        command.stdin(piped()).stdout(piped()).stderr(piped());
        let mut running = command.spawn().unwrap();
        let mut input = running.stdin.take().unwrap();
        // Whoever asks nothing may be gone already.
        let _ = tokio::io::AsyncWriteExt::write_all(&mut input, typed.as_bytes()).await;
        drop(input);
        let ended = running.wait_with_output().await.unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (ended.status.code().unwrap(), text(ended.stdout), text(ended.stderr))
    }
}

pub(crate) async fn a_lost_installation_is_found_and_removed_without_its_cluster(tenant: Tenant) {
    let ada = tenant.make("ada").await;
    let own = tenant.cloud_objects().await;
    tenant.lose_an_installation().await;

    let (code, listed, _) = tenant.cleanup(&["--dry-run"], "").await;
    assert_eq!(code, 3, "{listed}");
    assert!(listed.contains("eve-00112233") && listed.contains("tenants/eve"), "{listed}");
    assert!(listed.contains("7 found, 3 of them kept."), "{listed}");
    let (code, _, said) = tenant.cleanup(&["--delete"], "yes\n").await;
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("nothing was deleted"), "{said}");

    // What was retained stays, and what it needs.
    let (code, document, said) = tenant.cleanup(&["--delete", "-o", "json"], LOST).await;
    assert_eq!(code, 0, "{document}{said}");
    assert!(said.contains("4/4 deleted"), "{said}");
    let document: Value = serde_json::from_str(&document).unwrap();
    let of = |outcome: &str| {
        let objects = document["objects"].as_array().unwrap();
        objects.iter().filter(|one| one["outcome"] == outcome).count()
    };
    assert_eq!((of("Deleted"), of("Kept")), (4, 3), "{document}");
    let left = tenant.clouds_until("all but the retained", |now| now.counts() == (2, 1, 2)).await;
    assert!(left.servers.iter().any(|server| server["name"] == "eve-ffeeddcc"), "{left:?}");

    let (code, text, said) = tenant.cleanup(&["--delete", "--yes", "--retained"], "").await;
    assert_eq!(code, 0, "{text}{said}");
    assert!(text.contains("3 deleted, 0 left"), "{text}");
    let (code, text, _) = tenant.cleanup(&["--retained"], "").await;
    assert_eq!((code, text.as_str()), (0, "0 found, 0 of them kept.\n"));
    // Nothing of ours was touched.
    let now = tenant.cloud_objects().await;
    let names = |(servers, tunnels, records): &(Vec<Value>, Vec<Value>, Vec<Value>)| {
        let all = servers.iter().chain(tunnels).chain(records);
        all.map(|one| (one["id"].clone(), one["name"].clone())).collect::<Vec<_>>()
    };
    assert_eq!(names(&now), names(&own));
    let firewalls = tenant.hetzner("GET", "/firewalls", None).await;
    assert_eq!(firewalls["firewalls"].as_array().unwrap().len(), 1, "{firewalls}");
    tenant.sweep_passed().await;
    assert_eq!(server_id(&tenant.until_ready("ada").await), server_id(&ada));
}
