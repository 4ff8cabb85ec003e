//! Which instances depend on a master key, asked before there is one; and telling them that it is
//! missing, since no controller runs that could.

use std::collections::BTreeMap;

use async_trait::async_trait;
use kube::{Api, Client, Resource as _, ResourceExt as _, api::ListParams};

use crate::{
    admission::is_watched,
    api::{FINALIZER, Guarded, HostingPool, OpenClawInstance, conditions::Reason},
    api_server::Pages,
    clock::{Clock as _, SystemClock},
    controller::{guard, pool::may_have_admitted},
    master_key_store::InstanceCensus,
};

/// All instances of the cluster. Whoever may edit one can write our finalizer on it, but not its status.
pub(super) struct ClusterCensus {
    instances: Api<Guarded<OpenClawInstance>>,
    pools: Api<Guarded<HostingPool>>,
    client: Client,
    /// The namespaces that are looked after; all if there are none.
    watched: Vec<String>,
}

impl ClusterCensus {
    pub(super) fn new(client: Client, watched: Vec<String>) -> Self {
        let (instances, pools) = (Api::all(client.clone()), Api::all(client.clone()));
        Self { instances, pools, client, watched }
    }

    /// Writes `Stalled`/`MasterKeyMissing` onto all that were claimed. The controllers replace it as
    /// soon as they run.
    pub(super) async fn tell_that_the_key_is_missing(
        &self,
        message: &str,
    ) -> Result<(), kube::Error> {
        let (pools, mut pages) = (self.pools().await?, Pages::of(ListParams::default()));
        while let Some(claimed) = self.next_claimed(&pools, &mut pages).await? {
            let watched = |instance: &&Guarded<OpenClawInstance>| {
                is_watched(&self.watched, &instance.namespace().unwrap_or_default())
            };
            for instance in claimed.iter().filter(watched) {
                let (now, why) = (SystemClock.now(), (Reason::MasterKeyMissing, message));
                let conditions = match &instance.0 {
                    Ok(instance) => instance.status.as_ref().map(|status| &status.conditions),
                    Err(unreadable) => Some(&unreadable.conditions),
                };
                let old = conditions.map(Vec::as_slice).unwrap_or_default();
                guard::stall::<OpenClawInstance>(&self.client, instance.meta(), old, why, now)
                    .await?;
            }
        }
        Ok(())
    }

    /// The claimed instances of the next page; `None` after the last.
    async fn next_claimed(
        &self,
        pools: &PoolsByName,
        pages: &mut Pages,
    ) -> Result<Option<Vec<Guarded<OpenClawInstance>>>, kube::Error> {
        let Some(request) = pages.request() else { return Ok(None) };
        let mut list = self.instances.list(request).await?;
        pages.turn(&list.metadata);
        list.items.retain(|instance| {
            is_claimed(instance, |namespace, pool| {
                is_watched(&self.watched, namespace)
                    && pools.get(pool).is_some_and(|pool| may_have_admitted(pool, namespace))
            })
        });
        Ok(Some(list.items))
    }
}

/// The pools that an operator has looked after: those with its finalizer.
type PoolsByName = BTreeMap<String, Guarded<HostingPool>>;

impl ClusterCensus {
    async fn pools(&self) -> Result<PoolsByName, kube::Error> {
        let mut pages = Pages::of(ListParams::default());
        let mut pools = PoolsByName::new();
        while let Some(request) = pages.request() {
            let page = self.pools.list(request).await?;
            pages.turn(&page.metadata);
            let kept = page.items.into_iter().filter(has_finalizer);
            pools.extend(kept.map(|pool| (pool.name_any(), pool)));
        }
        Ok(pools)
    }
}

fn has_finalizer(object: &impl kube::ResourceExt) -> bool {
    object.finalizers().iter().any(|held| held == FINALIZER)
}

/// Whether something may have been made for an instance: its status says so, or it has our finalizer
/// where `believed` says of namespace and pool that this is a sign.
fn is_claimed(instance: &Guarded<OpenClawInstance>, believed: impl Fn(&str, &str) -> bool) -> bool {
    let (told, pool) = match &instance.0 {
        Ok(instance) => {
            let told = instance.status.as_ref().is_some_and(|status| status.server.is_some());
            (told, Some(instance.spec.pool.as_str()))
        }
        Err(unreadable) => {
            let pool = unreadable.salvage.as_ref().map(|salvage| salvage.spec.pool.as_str());
            (unreadable.in_cloud, pool)
        }
    };
    let namespace = instance.namespace().unwrap_or_default();
    told || has_finalizer(instance) && pool.is_some_and(|pool| believed(&namespace, pool))
}

#[async_trait]
impl InstanceCensus for ClusterCensus {
    async fn any_instance_is_claimed(&self) -> Result<bool, kube::Error> {
        let (pools, mut pages) = (self.pools().await?, Pages::of(ListParams::default()));
        while let Some(claimed) = self.next_claimed(&pools, &mut pages).await? {
            if !claimed.is_empty() {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::{Value, json};

    #[rstest]
    #[case::bare(json!({}), json!({}), false)]
    #[case::finalizer_alone(json!({"finalizers": [FINALIZER]}), json!({}), false)]
    #[case::where_it_is_believed(
        json!({"finalizers": [FINALIZER], "namespace": "tenants"}), json!({}), true)]
    #[case::server(json!({}), json!({"server": {"id": 1, "epoch": "0011223344556677"}}), true)]
    fn a_tenants_finalizer_is_no_claim(
        #[case] metadata: Value,
        #[case] status: Value,
        #[case] claimed: bool,
    ) {
        let object = json!({
            "metadata": metadata, "spec": {"pool": "eu-1", "hostname": "ada"}, "status": status,
        });
        let instance = Guarded::<OpenClawInstance>::read(&object.to_string());
        let believed = |namespace: &str, pool: &str| (namespace, pool) == ("tenants", "eu-1");
        assert_eq!(is_claimed(&instance, believed), claimed);
        // Nor does it matter more where the rest cannot be read.
        let object = json!({
            "metadata": object["metadata"], "spec": {"pool": "eu-1", "hostname": "ada", "suspend": 1},
            "status": object["status"],
        });
        let instance = Guarded::<OpenClawInstance>::read(&object.to_string());
        assert!(instance.0.is_err());
        assert_eq!(is_claimed(&instance, believed), claimed);
    }
}
