//! What happens around an instance that is well, and changes nothing of it: a restart, a refused token,
//! the deletion of its pool; and what a neighbour does.

use std::sync::{Arc, Mutex};

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Api,
    api::{ApiResource, DeleteParams, DynamicObject, ObjectMeta, PostParams},
    runtime::{WatchStreamExt as _, watcher},
};
use moorage::{
    api::{HostingPool, OpenClawInstance, OpenClawInstanceStatus},
    cluster::{ClusterApi as _, ClusterError, KubeCluster},
    metrics::Metrics,
};
use moorage_testbed::wait_until;
use serde_json::{Value, json};

use crate::{
    stage::{Kept, Servers, Stage},
    tenant::{Tenant, condition, is},
    trouble::server_id,
};

/// Sees every version of a tenant's instances.
struct Witness {
    seen: Arc<Mutex<Vec<Value>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Witness {
    async fn start(tenant: &Tenant) -> Self {
        let resource = ApiResource::erase::<OpenClawInstance>(&());
        let api: Api<DynamicObject> =
            Api::namespaced_with(tenant.stage.client.clone(), &tenant.name, &resource);
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (notes, (begun, ready)) = (Arc::clone(&seen), tokio::sync::oneshot::channel());
        let mut begun = Some(begun);
        let task = tokio::spawn(async move {
            let mut events = watcher(api, watcher::Config::default()).default_backoff().boxed();
            while let Some(event) = events.next().await {
                match event {
                    Ok(watcher::Event::InitDone) => drop(begun.take().map(|begun| begun.send(()))),
                    Ok(watcher::Event::InitApply(object) | watcher::Event::Apply(object)) => {
                        notes.lock().unwrap().push(serde_json::to_value(object).unwrap());
                    }
                    _ => {}
                }
            }
        });
        ready.await.unwrap();
        Self { seen, task }
    }

    /// All versions of one instance.
    fn versions(&self, name: &str) -> Vec<Value> {
        let seen = self.seen.lock().unwrap();
        seen.iter().filter(|version| version["metadata"]["name"] == name).cloned().collect()
    }

    /// That no condition of an instance was ever another than now.
    fn nothing_moved(&self, name: &str, when: &str) {
        let versions = self.versions(name);
        let first = &versions[0]["status"]["conditions"];
        for version in &versions {
            assert_eq!(&version["status"]["conditions"], first, "{when}: {name} was changed");
        }
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Tenant {
    async fn restart_operator(&self) {
        {
            let mut kept = self.stage.operator.lock().unwrap();
            kept.wanted = false;
            kept.operator.process().stop();
        }
        let new = Kept::start(&self.stage.options, self.stage.simulator.endpoints()).await;
        *self.stage.operator.lock().unwrap() = new;
    }

    fn pools(&self) -> Api<HostingPool> {
        Api::all(self.stage.client.clone())
    }

    async fn delete_pool(&self) {
        self.pools().delete(&self.name, &DeleteParams::default()).await.unwrap();
    }

    async fn make_namespace_called(&self, name: &str) {
        let metadata = ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() };
        let namespace = Namespace { metadata, ..Namespace::default() };
        let api = Api::all(self.stage.client.clone());
        api.create(&PostParams::default(), &namespace).await.unwrap();
    }
}

/// A stage of its own: what a restart does to scenarios that run meanwhile is no concern of theirs.
async fn alone(scenario: &str) -> Tenant {
    let stage = Stage::start(Servers::processes()).await.unwrap();
    Tenant::new(Arc::new(stage), scenario).await
}

pub(crate) async fn a_restart_changes_nothing_of_an_instance_that_is_well(_: Tenant) {
    let tenant = alone("restart").await;
    futures::join!(tenant.make("ada"), tenant.make("bob"));
    tenant.sweep_passed().await;
    let witness = Witness::start(&tenant).await;
    tenant.restart_operator().await;
    // When a new instance is Ready, those that were there have been looked at as well.
    tenant.make("carol").await;
    for name in ["ada", "bob"] {
        witness.nothing_moved(name, "a restart");
    }

    let refuses = json!({"kind": "status", "status": 401, "code": 10000, "times": null});
    let refuses = tenant.fault("cloudflare", refuses).await;
    tenant.pool_until_reason("Stalled", "Unauthorized").await;
    tenant.apply_instance("dan", json!({})).await;
    tenant.until_reason("dan", "Ready", "PoolNotReady").await;
    tenant.restart_operator().await;
    tenant.apply_instance("eve", json!({})).await;
    tenant.until_reason("eve", "Ready", "PoolNotReady").await;
    for name in ["ada", "bob"] {
        witness.nothing_moved(name, "a refused token, and a restart with it");
    }
    tenant.lift(refuses).await;
    tenant.annotate_pool("moorage.dev/reconcile-at", "now").await;
    futures::join!(tenant.until_ready("dan"), tenant.until_ready("eve"));
    witness.nothing_moved("ada", "the token is accepted again");
}

pub(crate) async fn a_pool_deleted_by_mistake_serves_on_and_can_be_had_back(tenant: Tenant) {
    let ada = tenant.make("ada").await;
    tenant.sweep_passed().await;
    let pool = tenant.pool_until("the pool", |pool| is(pool, "Ready", "True")).await;
    let witness = Witness::start(&tenant).await;
    tenant.delete_pool().await;
    let said = tenant.pool_until_reason("Ready", "Deleting").await;
    assert!(said.contains("1 instances use it") && said.contains("remove its finalizer"), "{said}");
    tenant.apply_instance("bob", json!({})).await;
    let said = tenant.until_reason("bob", "Ready", "PoolNotReady").await;
    assert!(said.contains("being deleted"), "{said}");
    tenant.sweep_passed().await;
    witness.nothing_moved("ada", "the pool is being deleted");

    // It is looked after as before.
    let model = json!({"config": {"agents": {"defaults": {"model": {"primary": "openai/gpt-5"}}}}});
    tenant.apply_instance("ada", model).await;
    tenant.until_ready("ada").await;
    let config = tenant.openclaw_config(&ada);
    assert_eq!(config["agents"]["defaults"]["model"]["primary"], "openai/gpt-5");

    let witness = Witness::start(&tenant).await;
    let requests = tenant.requests("hetzner").await.len();
    tenant.patch_pool(json!({"metadata": {"finalizers": null}})).await;
    tenant
        .eventually("the pool is gone", || async {
            let gone = tenant.pools().get_opt(&tenant.name).await.unwrap().is_none();
            if gone { Ok(()) } else { Err("it is there".to_owned()) }
        })
        .await;
    tenant.apply::<HostingPool>(None, tenant.pool()).await;
    let again = tenant.pool_until("the pool is back", |pool| is(pool, "Ready", "True")).await;
    for what in ["firewallId", "access"] {
        assert_eq!(again["status"][what], pool["status"][what], "{what} is the same");
    }
    let bob = tenant.until_ready("bob").await;
    witness.nothing_moved("ada", "the pool was made again");
    assert_eq!(server_id(&tenant.get("ada").await.unwrap()), server_id(&ada));
    let written = tenant.requests("hetzner").await[requests..].to_vec();
    let written: Vec<_> = written.iter().filter(|entry| entry["method"] != "GET").collect();
    assert_eq!(written.len(), 1, "only bob's server was made ({bob}): {written:?}");
}

pub(crate) async fn whoever_is_not_admitted_takes_nothing_from_others(tenant: Tenant) {
    tenant.patch_pool(json!({"spec": {"capacity": 1}})).await;
    let outside = format!("{}-x", tenant.name);
    tenant.make_namespace_called(&outside).await;
    let mut squat = tenant.instance("squat", json!({"hostname": "victim"}));
    squat["metadata"]["namespace"] = json!(outside);
    tenant.apply::<OpenClawInstance>(Some(&outside), squat).await;
    let squatter: Api<OpenClawInstance> = Api::namespaced(tenant.stage.client.clone(), &outside);
    tenant
        .eventually("the squatter is refused", || async {
            let squat = serde_json::to_value(squatter.get("squat").await.unwrap()).unwrap();
            let refused = condition(&squat, "Ready")["reason"] == "NamespaceNotAllowed";
            if refused { Ok(()) } else { Err(squat["status"].to_string()) }
        })
        .await;
    // Neither the host name nor the only place is taken.
    tenant.next_second().await;
    let victim = tenant.make("victim").await;
    tenant.pool_until("one instance", |pool| pool["status"]["instances"] == 1).await;

    // Nor do they get what was granted when they are let in.
    let allowed = json!([tenant.name, outside]);
    tenant.patch_pool(json!({"spec": {"capacity": 2, "allowedNamespaces": allowed}})).await;
    tenant
        .eventually("the name is taken", || async {
            let squat = serde_json::to_value(squatter.get("squat").await.unwrap()).unwrap();
            let refused = condition(&squat, "Ready")["reason"] == "HostnameTaken";
            if refused { Ok(()) } else { Err(squat["status"].to_string()) }
        })
        .await;
    assert!(is(&tenant.get("victim").await.unwrap(), "Ready", "True"));
    assert_eq!(server_id(&tenant.get("victim").await.unwrap()), server_id(&victim));

    // Nor do they hold the pool.
    tenant.delete_instance("victim").await;
    tenant.patch_pool(json!({"spec": {"allowedNamespaces": [tenant.name]}})).await;
    tenant.until_gone("victim").await;
    tenant.delete_pool().await;
    tenant
        .eventually("the pool is gone", || async {
            let pool = tenant.pools().get_opt(&tenant.name).await.unwrap();
            pool.map_or(Ok(()), |pool| Err(format!("{:?}", pool.status)))
        })
        .await;
}

pub(crate) async fn a_status_of_an_older_object_never_lies_over_a_newer_one(tenant: Tenant) {
    // Suspended, so that the operator itself writes nothing more.
    tenant.apply_instance("ada", json!({"suspend": true})).await;
    tenant.until_reason("ada", "Ready", "Suspended").await;
    let client = tenant.stage.client.clone();
    let api: Api<OpenClawInstance> = Api::namespaced(client.clone(), &tenant.name);
    let old = api.get("ada").await.unwrap();
    let with = |release: &str| {
        let release = Some(release.to_owned());
        OpenClawInstanceStatus { release, ..old.status.clone().unwrap_or_default() }
    };
    let writer = || KubeCluster::new(client.clone(), Metrics::new());
    let (first, second) = (writer(), writer());
    assert!(first.write_status(&old, old.status.as_ref(), &with("newer")).await.unwrap());
    let late = second.write_status(&old, old.status.as_ref(), &with("older")).await;
    assert!(matches!(late, Err(ClusterError::Changed)), "{late:?}");
    let now = api.get("ada").await.unwrap();
    assert_eq!(now.status.unwrap().release.as_deref(), Some("newer"));
    // Whoever wrote it goes on, though the watch has not brought it back.
    assert!(first.write_status(&old, Some(&with("newer")), &with("newest")).await.unwrap());
    let base = first.newer(&old).expect("our own write is newer");
    assert_eq!(base.status.as_ref().unwrap().release.as_deref(), Some("newest"));
}

/// Waits until another pool than the tenant's own is as asked, or gone if nothing is asked.
async fn pool_until(tenant: &Tenant, name: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let pools: Api<HostingPool> = Api::all(tenant.stage.client.clone());
    let seen = wait_until(format!("pool {name}"), tenant.stage.patience, || async {
        let pool = pools.get_opt(name).await.map_err(|error| error.to_string())?;
        let pool = serde_json::to_value(pool).unwrap();
        if wanted(&pool) { Ok(pool) } else { Err(pool["status"].to_string()) }
    });
    seen.await.unwrap_or_else(|late| panic!("{late}"))
}

pub(crate) async fn two_pools_share_a_project_and_never_a_zone(tenant: Tenant) {
    let ada = tenant.make("ada").await;
    let pools: Api<HostingPool> = Api::all(tenant.stage.client.clone());
    let second = format!("{}-b", tenant.name);
    let mut pool = tenant.pool();
    pool["metadata"]["name"] = json!(second);
    tenant.apply::<HostingPool>(None, pool.clone()).await;
    let is_taken = |pool: &Value| condition(pool, "Ready")["reason"] == "ZoneTaken";
    let refused = pool_until(&tenant, &second, is_taken).await;
    let said = condition(&refused, "Ready")["message"].as_str().unwrap();
    assert!(said.contains(&format!("moorage-{}-", tenant.name)), "{said}");
    assert!(is(&refused, "Stalled", "True"));
    pools.delete(&second, &DeleteParams::default()).await.unwrap();
    pool_until(&tenant, &second, Value::is_null).await;

    let domain = format!("second-{}", tenant.domain);
    let zone = format!("{:032x}", u128::from_str_radix(&tenant.zone, 16).unwrap() + (1 << 40));
    let of = |id: &str, name: &str| json!({"id": id, "name": name, "plan": "free"});
    let account = json!({
        "token": tenant.cloudflare_token, "user": tenant.name,
        "zones": [of(&tenant.zone, &tenant.domain), of(&zone, &domain)],
    });
    tenant.stage.simulator.put_account(&tenant.account, &account).await.unwrap();
    pool["spec"]["cloudflare"]["zoneId"] = json!(zone);
    pool["spec"]["cloudflare"]["domain"] = json!(domain);
    tenant.apply::<HostingPool>(None, pool).await;
    tenant.apply_instance("bob", json!({"pool": second})).await;
    tenant.until_ready("bob").await;
    // Each counts what its account and its zone have: two records of bob, and the pool's own.
    let counted = |pool: &Value| {
        let usage = &pool["status"]["usage"];
        (usage["dnsRecords"] == 3, usage["accessApplications"] == 2) == (true, true)
    };
    tenant.annotate_pool("moorage.dev/reconcile-at", "now").await;
    let patch = json!({"metadata": {"annotations": {"moorage.dev/reconcile-at": "now"}}});
    let merge = kube::api::Patch::Merge(patch);
    pools.patch(&second, &kube::api::PatchParams::default(), &merge).await.unwrap();
    pool_until(&tenant, &second, counted).await;

    tenant.delete_instance("bob").await;
    tenant.until_gone("bob").await;
    pools.delete(&second, &DeleteParams::default()).await.unwrap();
    pool_until(&tenant, &second, Value::is_null).await;
    let left = tenant.cloudflare("GET", &format!("/zones/{zone}/dns_records"), None).await;
    assert_eq!(left["result"], json!([]), "the pool's own record is gone with it");
    let firewalls = tenant.hetzner("GET", "/firewalls", None).await;
    assert_eq!(firewalls["firewalls"].as_array().map(Vec::len), Some(1), "{firewalls}");
    assert_eq!(server_id(&tenant.until_ready("ada").await), server_id(&ada));
}
