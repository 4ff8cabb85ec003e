//! Whose is whose: what a tenant can write changes nothing of that, what is lost is found again, and
//! what never had anything can always go.

use k8s_openapi::api::events::v1::Event;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use moorage::{
    api::OpenClawInstance,
    master_key_store::{MasterKeySource, MasterKeyStore},
    ownership,
};
use moorage_wire::{Epoch, InstallationId, InstanceId};
use serde_json::{Value, json};

use crate::{
    stage::SYSTEM,
    tenant::{ANTHROPIC_KEY, Tenant, condition},
    trouble::server_id,
};

impl Tenant {
    /// The installation's id, which stands beside the master key.
    pub(crate) async fn installation(&self) -> InstallationId {
        let store = MasterKeyStore::new(self.stage.client.clone(), SYSTEM, MasterKeySource::Secret);
        store.load().await.unwrap().unwrap().installation()
    }

    /// The id of an instance of this tenant.
    pub(crate) async fn id_of(&self, name: &str) -> InstanceId {
        ownership::instance_id(self.installation().await, &self.name, name)
    }

    /// Replaces an instance by its manifest, as `kubectl replace` does: annotations, labels and
    /// finalizers that are not in it go.
    async fn replace(&self, name: &str) {
        let api: kube::Api<OpenClawInstance> =
            kube::Api::namespaced(self.stage.client.clone(), &self.name);
        let old = api.get(name).await.unwrap();
        let mut new: OpenClawInstance =
            serde_json::from_value(self.instance(name, json!({}))).unwrap();
        new.metadata.resource_version = old.metadata.resource_version;
        // It may have been written to since.
        let mut replaced = api.replace(name, &PostParams::default(), &new).await;
        for _ in 0..5 {
            if replaced.is_ok() {
                break;
            }
            new.metadata.resource_version = api.get(name).await.unwrap().metadata.resource_version;
            replaced = api.replace(name, &PostParams::default(), &new).await;
        }
        replaced.unwrap();
    }

    /// The reasons of all Events about an instance.
    async fn events_about(&self, name: &str) -> Vec<String> {
        let events: kube::Api<Event> = kube::Api::namespaced(self.stage.client.clone(), &self.name);
        let all = events.list(&ListParams::default()).await.unwrap();
        let about = |event: &Event| {
            event.regarding.as_ref().and_then(|about| about.name.as_deref()) == Some(name)
        };
        all.items.into_iter().filter(about).filter_map(|event| event.reason).collect()
    }

    async fn empty_comments(&self) {
        let (_, _, records) = self.cloud_objects().await;
        for record in &records {
            let path =
                format!("/zones/{}/dns_records/{}", self.zone, record["id"].as_str().unwrap());
            self.cloudflare("PATCH", &path, Some(json!({"comment": ""}))).await;
        }
    }

    /// All that is in the clouds, without what moves by itself.
    async fn things(&self) -> Vec<Value> {
        let (servers, tunnels, records) = self.cloud_objects().await;
        let of = |kind: Vec<Value>, fields: &[&str]| {
            let cut = |one: &Value| fields.iter().map(|field| one[*field].clone()).collect();
            let mut cut: Vec<Value> = kind.iter().map(cut).collect();
            cut.sort_by_key(ToString::to_string);
            cut
        };
        [
            of(servers, &["id", "name", "labels"]),
            of(tunnels, &["id", "name"]),
            of(records, &["id", "name", "content", "comment"]),
        ]
        .concat()
    }
}

pub(crate) async fn nothing_a_tenant_writes_changes_whose_a_server_is(tenant: Tenant) {
    let ada = tenant.make("ada").await;
    let before = tenant.things().await;
    // A thief with the annotation that gave a server to whoever had it.
    let mut thief = tenant.instance("thief", json!({}));
    thief["metadata"]["annotations"] =
        json!({"moorage.dev/instance-id": tenant.id_of("ada").await.to_string()});
    tenant.apply::<OpenClawInstance>(Some(&tenant.name), thief).await;
    let thief = tenant.until_ready("thief").await;
    assert_ne!(server_id(&thief), server_id(&ada), "it gets a server of its own");
    tenant.delete_instance("thief").await;
    tenant.until_gone("thief").await;
    assert_eq!(tenant.things().await, before);

    tenant.replace("ada").await;
    tenant
        .until("ada", "it is held again", |ada| {
            ada["metadata"]["finalizers"].as_array().is_some_and(|held| !held.is_empty())
        })
        .await;
    assert_eq!(tenant.until_ready("ada").await["status"]["server"], ada["status"]["server"]);
    assert_eq!(tenant.things().await, before);

    tenant.empty_comments().await;
    tenant
        .clouds_until("the comments are back", |now| {
            let set =
                |record: &Value| record["comment"].as_str().is_some_and(|text| !text.is_empty());
            now.records.iter().all(set)
        })
        .await;
    assert_eq!(tenant.things().await, before);

    // The finalizer taken away by force, and the same manifest applied again: the same server.
    let api: kube::Api<OpenClawInstance> =
        kube::Api::namespaced(tenant.stage.client.clone(), &tenant.name);
    tenant.patch_instance("ada", json!({"spec": {"suspend": true}})).await;
    tenant.until_reason("ada", "Ready", "Suspended").await;
    let bare = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    api.patch("ada", &PatchParams::default(), &bare).await.unwrap();
    api.delete("ada", &DeleteParams::default()).await.unwrap();
    let found = tenant.make("ada").await;
    assert_eq!(found["status"]["server"], ada["status"]["server"]);
    assert_eq!(tenant.things().await, before);

    // Deleted with its comments emptied and its labels taken off, it leaves nothing.
    tenant.patch_instance("ada", json!({"spec": {"suspend": true}})).await;
    tenant.until_reason("ada", "Ready", "Suspended").await;
    tenant.empty_comments().await;
    let server = format!("/servers/{}", server_id(&found));
    tenant.hetzner("PUT", &server, Some(json!({"labels": {}}))).await;
    tenant.sweeps(1).await;
    tenant.patch_instance("ada", json!({"spec": {"suspend": false}})).await;
    tenant.delete_instance("ada").await;
    tenant.until_gone("ada").await;
    tenant.clouds_until("nothing", |now| now.counts() == (0, 0, 0)).await;
}

pub(crate) async fn an_instance_of_an_earlier_version_keeps_its_id_until_it_goes(tenant: Tenant) {
    let installation = tenant.installation().await;
    let drawn = InstanceId::from_bytes([0xd1; 16]);
    // Its server, as an operator that drew ids at random made it; there is nothing else left of it.
    let labels = json!({
        "moorage.dev/installation": installation.to_string(),
        "moorage.dev/instance": drawn.to_string(),
        "moorage.dev/epoch": Epoch::from_bytes([0xe1; 8]).to_string(),
        "moorage.dev/namespace": tenant.name, "moorage.dev/name": "ada",
        "moorage.dev/pool": tenant.name,
    });
    let server = json!({
        "name": "ada-d1d1d1d1", "server_type": "cx33", "image": "debian-13", "location": "fsn1",
        "labels": labels,
    });
    let made = tenant.hetzner("POST", "/servers", Some(server)).await;
    let id = made["server"]["id"].as_u64().unwrap_or_else(|| panic!("{made}"));
    tenant.sweeps(1).await;

    tenant.apply_instance("ada", json!({})).await;
    let ada =
        tenant.until("ada", "its server is found", |ada| ada["status"]["server"]["id"] == id).await;
    assert_eq!(ada["status"]["earlierIdentity"]["id"], drawn.to_string());
    tenant
        .eventually("the Event tells", || async {
            let told = tenant.events_about("ada").await;
            let migrated = told.iter().any(|reason| reason == "IdentityMigrated");
            if migrated { Ok(()) } else { Err(format!("{told:?}")) }
        })
        .await;

    // Its second life has the computed id, another epoch, and therefore no key of the first.
    tenant.delete_instance("ada").await;
    tenant.until_gone("ada").await;
    tenant.clouds_until("nothing", |now| now.counts() == (0, 0, 0)).await;
    let second = tenant.make("ada").await;
    assert_eq!(second["status"]["earlierIdentity"], Value::Null);
    let (servers, _, _) = tenant.cloud_objects().await;
    let label = |name: &str| servers[0]["labels"][format!("moorage.dev/{name}")].clone();
    assert_eq!(label("instance"), tenant.id_of("ada").await.to_string());
    assert_ne!(second["status"]["server"]["epoch"], ada["status"]["server"]["epoch"]);

    // A snapshot that somebody restores with its labels is told, and holds the deletion until it is gone.
    let copy = json!({
        "name": "restored", "server_type": "cx33", "image": "debian-13", "location": "fsn1",
        "labels": servers[0]["labels"],
    });
    let made = tenant.hetzner("POST", "/servers", Some(copy)).await;
    let copy = made["server"]["id"].as_u64().unwrap_or_else(|| panic!("{made}"));
    let said = tenant.until_reason("ada", "ServerReady", "DuplicateServer").await;
    assert!(said.contains(&copy.to_string()), "{said}");
    let protect = json!({"delete": true});
    let own = server_id(&second);
    let path = format!("/servers/{own}/actions/change_protection");
    tenant.hetzner("POST", &path, Some(protect)).await;
    tenant.delete_instance("ada").await;
    let said = tenant.until_reason("ada", "Ready", "DeleteProtected").await;
    assert!(said.contains(&own.to_string()) && said.contains("protection off"), "{said}");
    tenant.hetzner("POST", &path, Some(json!({"delete": false}))).await;
    let said = tenant.until_reason("ada", "Ready", "DuplicateServer").await;
    assert!(said.contains(&copy.to_string()), "{said}");
    let left = tenant.clouds_until("the copy alone", |now| now.counts() == (1, 0, 0)).await;
    assert_eq!(left.servers[0]["id"], copy);
    tenant.hetzner("DELETE", &format!("/servers/{copy}"), None).await;
    tenant.until_gone("ada").await;
}

pub(crate) async fn what_never_had_anything_goes_at_once_with_its_secrets(tenant: Tenant) {
    let sealed = tenant.seal("keys", ANTHROPIC_KEY).await;
    let never = [
        ("typo", json!({"pool": "eu-l"})),
        ("asleep", json!({"suspend": true})),
        ("refused", json!({"hostname": "www"})),
    ];
    for (name, spec) in &never {
        tenant.apply_secret(&format!("keys-{name}"), name, &[("anthropic", &sealed)]).await;
        tenant.apply_instance(name, spec.clone()).await;
    }
    tenant.until_reason("typo", "Ready", "PoolNotFound").await;
    tenant.until_reason("asleep", "Ready", "Suspended").await;
    tenant.until_reason("refused", "Ready", "HostnameReserved").await;
    for (name, _) in &never {
        let now = tenant.get(name).await.unwrap();
        assert_eq!(now["metadata"]["finalizers"], Value::Null, "nothing holds {name}");
        tenant.delete_instance(name).await;
        assert_eq!(tenant.get(name).await, None, "{name} goes at once");
        tenant.until_secret_gone(&format!("keys-{name}")).await;
    }
    // As an operator of an earlier version would have claimed it.
    let mut held = tenant.instance("held", json!({"pool": "eu-l"}));
    held["metadata"]["finalizers"] = json!(["moorage.dev/finalizer"]);
    tenant.apply_secret("keys-held", "held", &[("anthropic", &sealed)]).await;
    tenant.apply::<OpenClawInstance>(Some(&tenant.name), held).await;
    tenant.until_reason("held", "Ready", "PoolNotFound").await;
    tenant.delete_instance("held").await;
    tenant.until_gone("held").await;
    tenant.until_secret_gone("keys-held").await;
    assert_eq!(tenant.cloud_objects().await, (vec![], vec![], vec![]));
}

pub(crate) async fn what_was_retained_is_not_taken_over_by_the_next_of_the_name(tenant: Tenant) {
    tenant.apply_instance("ada", json!({"deletionPolicy": "Retain"})).await;
    let first = tenant.until_ready("ada").await;
    tenant.delete_instance("ada").await;
    tenant.until_gone("ada").await;
    let kept = tenant.things().await;
    let (_, tunnels, records) = tenant.cloud_objects().await;
    assert!(tunnels[0]["name"].as_str().unwrap().contains("-retained-"), "{tunnels:?}");
    for record in &records {
        assert!(record["comment"].as_str().unwrap().starts_with("moorage-retained "), "{record}");
    }
    tenant.sweeps(1).await;

    tenant.apply_instance("ada", json!({})).await;
    let said = tenant.until_reason("ada", "Ready", "Retained").await;
    assert!(said.contains(&format!("{}/ada", tenant.name)), "{said}");
    assert_eq!(tenant.things().await, kept);
    let now = tenant.get("ada").await.unwrap();
    assert_eq!(condition(&now, "Stalled")["reason"], "Retained");
    // With the names free and the server's name changed, the next one is another's.
    for record in &records {
        let path = format!("/zones/{}/dns_records/{}", tenant.zone, record["id"].as_str().unwrap());
        tenant.cloudflare("DELETE", &path, None).await;
    }
    let server = format!("/servers/{}", server_id(&first));
    tenant.hetzner("PUT", &server, Some(json!({"name": "kept"}))).await;
    tenant.sweeps(1).await;
    let second = tenant.until_ready("ada").await;
    assert_ne!(server_id(&second), server_id(&first));
    tenant.clouds_until("both", |now| now.counts() == (2, 2, 2)).await;
}
