//! What happens around an instance that is well, and changes nothing of it: a restart, a refused token,
//! the deletion of its pool; and what a neighbour does.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
};

use futures::StreamExt as _;
use kube::{
    Api,
    api::{ApiResource, DeleteParams, DynamicObject},
    runtime::{WatchStreamExt as _, watcher},
};
use moorage::api::{HostingPool, OpenClawInstance};
use serde_json::{Value, json};

use crate::{
    stage::{Kept, Servers, Stage},
    tenant::{Tenant, is},
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
}

/// A stage of its own: what a restart does to scenarios that run meanwhile is no concern of theirs.
async fn alone(scenario: &str) -> Tenant {
    let stage = Stage::start(Servers::processes()).await.unwrap();
    Tenant::new(Arc::new(stage), scenario).await
}

pub(crate) async fn a_restart_and_a_refused_token_change_nothing_of_an_instance_that_is_well(
    _: Tenant,
) {
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

pub(crate) async fn no_instance_loses_what_was_known_of_it_while_others_come(tenant: Tenant) {
    let witness = Witness::start(&tenant).await;
    let names: Vec<String> = (0..8).map(|number| format!("many-{number}")).collect();
    futures::future::join_all(names.iter().map(|name| tenant.make(name))).await;
    for name in &names {
        let versions = witness.versions(name);
        let mut known = BTreeSet::new();
        for version in &versions {
            for what in ["server", "tunnel", "agent"] {
                let there = version["status"][what].is_object();
                assert!(
                    there || !known.contains(what),
                    "{name} lost {what}: {}",
                    version["status"]
                );
                if there {
                    known.insert(what);
                }
            }
        }
        assert!(known.contains("agent"), "{name}: {versions:?}");
    }
}
