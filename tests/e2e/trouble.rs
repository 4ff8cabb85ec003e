//! What a scenario does behind the operator's back: the things that go wrong, and how it looks at them.

use std::time::Duration;

use kube::api::{DeleteParams, Patch, PatchParams};
use moorage::api::HostingPool;
use moorage_testbed::wait_until;
use serde_json::{Value, json};

use crate::{
    stage::SYSTEM,
    tenant::{Tenant, condition},
};

const PATIENCE: Duration = Duration::from_secs(90);

/// A fault in force; it is taken away by [`Tenant::lift`].
#[must_use]
pub(crate) struct InForce(u64);

impl Tenant {
    /// Applies an instance without credentials and waits until it is Ready.
    pub(crate) async fn make(&self, name: &str) -> Value {
        self.apply_instance(name, json!({})).await;
        self.until_ready(name).await
    }

    /// Annotates an instance.
    pub(crate) async fn annotate(&self, name: &str, annotation: &str, value: &str) {
        self.patch_instance(name, json!({"metadata": {"annotations": {annotation: value}}})).await;
    }

    /// Asks for a look at once. Each call needs a value of its own, as a person's clock would give.
    pub(crate) async fn look_now(&self, name: &str) {
        let now = jiff::Timestamp::now().to_string();
        self.annotate(name, "moorage.dev/reconcile-at", &now).await;
    }

    /// Annotates the pool.
    pub(crate) async fn annotate_pool(&self, annotation: &str, value: &str) {
        let patch = json!({"metadata": {"annotations": {annotation: value}}});
        let pools: kube::Api<HostingPool> = kube::Api::all(self.stage.client.clone());
        pools.patch(&self.name, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    }

    /// Waits until the pool's condition has this reason, and gives its message.
    pub(crate) async fn pool_until_reason(&self, kind: &str, reason: &str) -> String {
        let what = format!("the pool's {kind} says {reason}");
        let pool = self.pool_until(&what, |pool| condition(pool, kind)["reason"] == reason).await;
        condition(&pool, kind)["message"].as_str().unwrap_or_default().to_owned()
    }

    /// Deletes one of the pool's token Secrets.
    pub(crate) async fn delete_token(&self, cloud: &str) {
        let name = format!("{}-{cloud}", self.name);
        let secrets: kube::Api<k8s_openapi::api::core::v1::Secret> =
            kube::Api::namespaced(self.stage.client.clone(), SYSTEM);
        secrets.delete(&name, &DeleteParams::default()).await.unwrap();
    }

    /// Somebody takes an instance's server away.
    pub(crate) async fn vanish(&self, instance: &Value) {
        self.stage.simulator.vanish_server(&self.name, server_id(instance)).await.unwrap();
    }

    /// A fault that strikes this tenant alone: `kind` with its fields, and which requests it meets.
    pub(crate) async fn fault(&self, cloud: &str, fault: Value) -> InForce {
        let tenant = if cloud == "hetzner" { &self.name } else { &self.account };
        let mut spec = json!({"cloud": cloud, "tenant": tenant});
        spec.as_object_mut().unwrap().extend(fault.as_object().unwrap().clone());
        InForce(self.stage.simulator.add_fault(&spec).await.unwrap())
    }

    /// Takes a fault away.
    pub(crate) async fn lift(&self, fault: InForce) {
        self.stage.simulator.remove_fault(fault.0).await.unwrap();
    }

    /// How often the tenant was asked for this; `path` as in the journal, up to its end or a slash.
    pub(crate) async fn count(&self, cloud: &str, method: &str, path: &str) -> usize {
        let requests = self.requests(cloud).await;
        let meant = |request: &&Value| request["method"] == method && request["path"] == path;
        requests.iter().filter(meant).count()
    }

    /// Waits until both clouds were listed this often from now on.
    pub(crate) async fn sweeps(&self, times: usize) {
        let records = format!("/zones/{}/dns_records", self.zone);
        let before = (
            self.count("hetzner", "GET", "/servers").await,
            self.count("cloudflare", "GET", &records).await,
        );
        let swept = wait_until(format!("{times} sweeps"), PATIENCE, || async {
            let servers = self.count("hetzner", "GET", "/servers").await - before.0;
            let records = self.count("cloudflare", "GET", &records).await - before.1;
            // The first list may have been on its way before.
            let enough = servers > times && records > times;
            if enough { Ok(()) } else { Err(format!("{servers} and {records}")) }
        });
        swept.await.unwrap_or_else(|late| panic!("{late}"));
    }

    /// Waits until the clouds are as asked.
    pub(crate) async fn clouds_until(
        &self,
        what: &str,
        wanted: impl Fn(&Clouds) -> bool,
    ) -> Clouds {
        let seen = wait_until(what, PATIENCE, || async {
            let (servers, tunnels, records) = self.cloud_objects().await;
            let clouds = Clouds { servers, tunnels, records };
            if wanted(&clouds) { Ok(clouds) } else { Err(format!("{clouds:?}")) }
        });
        seen.await.unwrap_or_else(|late| panic!("{late}"))
    }

    /// Waits until an instance that was Ready has another server, and is Ready with it.
    pub(crate) async fn until_replaced(&self, name: &str, old: &Value) -> Value {
        self.until(name, "another server", |instance| {
            instance["status"]["server"]["id"].is_u64()
                && instance["status"]["server"]["id"] != old["status"]["server"]["id"]
        })
        .await;
        let new = self.until_ready(name).await;
        assert_ne!(new["status"]["server"]["epoch"], old["status"]["server"]["epoch"]);
        new
    }
}

/// What the clouds hold of a tenant.
#[derive(Debug)]
pub(crate) struct Clouds {
    pub(crate) servers: Vec<Value>,
    pub(crate) tunnels: Vec<Value>,
    pub(crate) records: Vec<Value>,
}

impl Clouds {
    /// How many of each.
    pub(crate) fn counts(&self) -> (usize, usize, usize) {
        (self.servers.len(), self.tunnels.len(), self.records.len())
    }
}

/// The id of an instance's server.
pub(crate) fn server_id(instance: &Value) -> u64 {
    instance["status"]["server"]["id"].as_u64().unwrap()
}
