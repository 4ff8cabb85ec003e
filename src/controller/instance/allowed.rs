//! Which instances are kept whole: those that have something in a cloud, in a namespace that their pool
//! allows. Of the others only the essence is kept, or whoever may make them could fill the memory; one
//! that is admitted is read once more. Which pools allow which namespaces is known before any instance is.

use std::collections::HashMap;

use kube::{
    Api, Client, ResourceExt as _,
    api::ListParams,
    runtime::watcher::{self, Event},
};
use parking_lot::RwLock;

use super::GuardedInstance;
use crate::{
    admission::Rules,
    api::{Guarded, HostingPool, OpenClawInstance},
    api_server::Pages,
    instance::deletion::has_history,
};

/// The rules of each pool; none of one that cannot be read, which may allow any namespace.
#[derive(Debug, Default)]
pub(super) struct Allowed(RwLock<HashMap<String, Option<Rules>>>);

impl Allowed {
    pub(super) async fn read(&self, client: &Client) -> Result<(), kube::Error> {
        let pools = Api::<Guarded<HostingPool>>::all(client.clone());
        let mut pages = Pages::of(ListParams::default());
        while let Some(request) = pages.request() {
            let page = pools.list(request).await?;
            pages.turn(&page.metadata);
            page.items.iter().for_each(|pool| self.set(pool));
        }
        Ok(())
    }

    /// Takes in one event of the watch over the pools.
    pub(super) fn take(&self, event: &Result<Event<Guarded<HostingPool>>, watcher::Error>) {
        match event {
            Ok(Event::Apply(pool) | Event::InitApply(pool)) => self.set(pool),
            Ok(Event::Delete(pool)) => {
                let mut rules = self.0.write();
                rules.remove(&pool.name_any());
            }
            // Of a pool that went unseen the instances are kept whole: that costs memory only.
            Ok(Event::Init | Event::InitDone) | Err(_) => {}
        }
    }

    fn set(&self, pool: &Guarded<HostingPool>) {
        let of = pool.0.as_ref().ok().map(|pool| Rules::of(&pool.spec, false));
        self.0.write().insert(pool.name_any(), of);
    }

    /// Drops what is not needed of an instance that has nothing, or that its pool does not allow. How many
    /// are allowed, and have nothing, is bounded by no quota.
    pub(super) fn cut_down(&self, instance: &mut GuardedInstance) {
        if let Ok(instance) = &mut instance.0
            && !(has_something(instance) && self.allows(instance))
        {
            instance.keep_in_part();
        }
    }

    fn allows(&self, instance: &OpenClawInstance) -> bool {
        let rules = self.0.read();
        let of = rules.get(instance.spec.pool.as_str());
        let namespace = instance.metadata.namespace.as_deref().unwrap_or_default();
        of.is_some_and(|rules| rules.as_ref().is_none_or(|rules| rules.allows(namespace)))
    }
}

/// Whether its status names something. The operator alone writes it, for those that are admitted.
fn has_something(instance: &OpenClawInstance) -> bool {
    instance.status.as_ref().is_some_and(has_history)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pool(namespaces: &Value) -> Guarded<HostingPool> {
        let token = json!({"name": "token"});
        let object = json!({"metadata": {"name": "eu-1"}, "spec": {
            "hetzner": {"tokenSecretRef": token, "serverTypes": ["cx33"], "locations": ["fsn1"]},
            "cloudflare": {"tokenSecretRef": token, "accountId": "1".repeat(32), "zoneId": "2".repeat(32), "domain": "example.com"},
            "capacity": 3, "allowedNamespaces": namespaces,
        }});
        Guarded::read(&object.to_string())
    }

    fn is_whole(allowed: &Allowed) -> bool {
        is_whole_with(allowed, &json!({"server": {"id": 4711, "epoch": "0011223344556677"}}))
    }

    fn is_whole_with(allowed: &Allowed, status: &Value) -> bool {
        let object = json!({
            "metadata": {"name": "ada", "namespace": "team-x"},
            "spec": {"pool": "eu-1", "hostname": "ada", "suspend": true, "deletionPolicy": "Retain", "config": {"a": 1}},
            "status": status,
        });
        let mut instance = GuardedInstance::read(&object.to_string());
        allowed.cut_down(&mut instance);
        let instance = instance.0.unwrap();
        let (in_part, spec) = (instance.is_in_part(), instance.spec);
        assert_eq!((spec.hostname.as_str(), spec.suspend), ("ada", true));
        assert_eq!(spec.deletion_policy, crate::api::instance::DeletionPolicy::Retain);
        assert_eq!(in_part, spec.config.as_str() == "{}");
        !in_part
    }

    #[test]
    fn what_has_nothing_is_kept_in_part_though_it_is_allowed() {
        let allowed = Allowed::default();
        allowed.take(&Ok(Event::Apply(pool(&json!(["team-x"])))));
        assert!(is_whole(&allowed));
        let over_quota = json!({"conditions": [{
            "type": "Ready", "status": "False", "reason": "NamespaceQuotaExceeded", "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        }]});
        for status in [json!({}), over_quota, Value::Null] {
            assert!(!is_whole_with(&allowed, &status), "{status}");
        }
    }

    #[test]
    fn only_what_a_pool_allows_is_kept_whole() {
        let allowed = Allowed::default();
        assert!(!is_whole(&allowed), "there is no such pool");
        allowed.take(&Ok(Event::Apply(pool(&json!(["tenants"])))));
        assert!(!is_whole(&allowed));
        allowed.take(&Ok(Event::Apply(pool(&json!(["team-x"])))));
        assert!(is_whole(&allowed));
        let unreadable = pool(&json!(5));
        assert!(unreadable.0.is_err());
        allowed.take(&Ok(Event::Apply(unreadable)));
        assert!(is_whole(&allowed), "it may allow any");
        allowed.take(&Ok(Event::Delete(pool(&json!([])))));
        assert!(!is_whole(&allowed));
    }
}
