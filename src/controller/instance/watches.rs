//! What makes the controller look at an instance: the instance itself, the Secrets bound to it, its
//! pool, its release, and what a sweep found changed.

use std::{
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::Arc,
    time::Duration,
};

use futures::{Stream, StreamExt as _, stream};
use k8s_openapi::{
    api::core::v1::Secret as KubeSecret, apimachinery::pkg::apis::meta::v1::Condition,
};
use kube::{
    Api, Resource, ResourceExt as _,
    core::PartialObjectMeta,
    runtime::{
        PredicateConfig, WatchStreamExt as _, predicates,
        reflector::{self, ObjectRef, Store},
        watcher,
    },
};
use moorage_wire::{InstallationId, InstanceId};
use serde::de::DeserializeOwned;

use super::{GuardedInstance, allowed::Allowed, sealed_secrets::SealedSecrets};
use crate::{
    api::{Guarded, HostingPool, OpenClawInstance, OpenClawRelease, label},
    controller::pool_runtime::PoolState,
    controller::{
        context::Context,
        queue::{self, Trigger},
        references::watch_config,
    },
    names, ownership,
};

/// How often the inventories are asked for what changed: a look at memory, not at a cloud.
const LOOK_AT_SWEEPS: Duration = Duration::from_secs(1);

pub(super) struct Watches {
    pub(super) instances: Store<GuardedInstance>,
    pub(super) releases: Store<Guarded<OpenClawRelease>>,
    pub(super) triggers: Vec<Trigger<GuardedInstance>>,
}

/// Starts all watches. In `namespaces`, or everywhere if there are none.
pub(super) fn start(
    ctx: &Context,
    namespaces: &[String],
    sealed: &Arc<SealedSecrets>,
    allowed: &Arc<Allowed>,
) -> Watches {
    let (instances, writer) = reflector::store::<GuardedInstance>();
    let (releases, release_writer) = reflector::store::<Guarded<OpenClawRelease>>();
    let client = &ctx.client;
    let config = watch_config;

    let instance_events = stream::select_all(
        apis::<GuardedInstance>(client, namespaces).into_iter().enumerate().map(|(number, api)| {
            let (sealed, namespace) = (Arc::clone(sealed), namespaces.get(number).cloned());
            let allowed = Arc::clone(allowed);
            watch(api, config())
                .modify(move |instance| allowed.cut_down(instance))
                .inspect(move |event| sealed.take_instance(namespace.as_deref(), event))
                .boxed()
        }),
    );
    let instance_objects = instance_events.reflect(writer).touched_objects();

    let bound = config().labels(label::INSTANCE);
    let secrets = stream::select_all(
        apis::<PartialObjectMeta<KubeSecret>>(client, namespaces).into_iter().enumerate().map(
            |(number, api)| {
                let (sealed, namespace) = (Arc::clone(sealed), namespaces.get(number).cloned());
                watch(api, bound.clone())
                    .inspect(move |event| sealed.take_secret(namespace.as_deref(), event))
                    .boxed()
            },
        ),
    );
    let by_pools = Arc::clone(allowed);
    let pools = watch(Api::<Guarded<HostingPool>>::all(client.clone()), config())
        .inspect(move |event| by_pools.take(event));
    let release_events = watch(Api::<Guarded<OpenClawRelease>>::all(client.clone()), config());
    let release_objects = release_events
        .reflect(release_writer)
        .touched_objects()
        .predicate_filter(predicates::generation, PredicateConfig::default());
    let pool_objects = pools.touched_objects().predicate_filter(
        |pool: &Guarded<HostingPool>| Some(what_matters_of_a_pool(pool)),
        PredicateConfig::default(),
    );

    let (by_pool, by_release) = (instances.clone(), instances.clone());
    let triggers = vec![
        queue::objects(instance_objects, |instance: &GuardedInstance| {
            vec![ObjectRef::from_obj(instance)]
        }),
        queue::objects(secrets.touched_objects(), |secret: &PartialObjectMeta<KubeSecret>| {
            instance_of_secret(secret).into_iter().collect()
        }),
        queue::objects(pool_objects, move |pool: &Guarded<HostingPool>| {
            let name = pool.meta().name.clone();
            matching(&by_pool, |instance| {
                name.as_ref().is_some_and(|name| instance.spec.pool == *name)
            })
        }),
        queue::objects(release_objects, move |release: &Guarded<OpenClawRelease>| {
            let name = release.meta().name.clone();
            matching(&by_release, |instance| {
                instance.spec.release.as_deref().is_none_or(|named| Some(named) == name.as_deref())
            })
        }),
    ];
    Watches { instances, releases, triggers }
}

/// The status of a pool changes with each of its instances, which is no reason to look at all the
/// others.
fn what_matters_of_a_pool(pool: &Guarded<HostingPool>) -> u64 {
    let meta = pool.meta();
    let mut hasher = DefaultHasher::new();
    (meta.generation, &meta.annotations, meta.deletion_timestamp.is_some()).hash(&mut hasher);
    if let Ok(pool) = &pool.0
        && let Some(status) = &pool.status
    {
        (status.instances >= pool.spec.capacity, status.firewall_id).hash(&mut hasher);
        for condition in &status.conditions {
            let Condition { type_, status, reason, message, .. } = condition;
            (type_, status, reason, message).hash(&mut hasher);
        }
    }
    hasher.finish()
}

pub(super) fn apis<K>(client: &kube::Client, namespaces: &[String]) -> Vec<Api<K>>
where
    K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
{
    if namespaces.is_empty() {
        return vec![Api::all(client.clone())];
    }
    namespaces.iter().map(|namespace| Api::namespaced(client.clone(), namespace)).collect()
}

fn watch<K>(
    api: Api<K>,
    config: watcher::Config,
) -> impl Stream<Item = Result<watcher::Event<K>, watcher::Error>> + Send
where
    K: Resource + Clone + DeserializeOwned + std::fmt::Debug + Send + 'static,
{
    // What others manage of an object is of no interest and a good part of its size.
    watcher(api, config).default_backoff().modify(|object| object.meta_mut().managed_fields = None)
}

fn instance_of_secret(
    secret: &PartialObjectMeta<KubeSecret>,
) -> Option<ObjectRef<GuardedInstance>> {
    let name = secret.labels().get(label::INSTANCE)?;
    Some(ObjectRef::new(name).within(&secret.namespace()?))
}

fn matching(
    store: &Store<GuardedInstance>,
    wanted: impl Fn(&OpenClawInstance) -> bool,
) -> Vec<ObjectRef<GuardedInstance>> {
    let state = store.state();
    let found = state.iter().filter(|instance| instance.0.as_ref().is_ok_and(&wanted));
    found.map(|instance| ObjectRef::from_obj(instance.as_ref())).collect()
}

/// The instances of which a sweep found something changed, those of pools that can be used now, or cannot
/// any more, and those that are admitted now, or not any more.
pub(super) fn sweeps(
    ctx: Arc<Context>,
    instances: Store<GuardedInstance>,
) -> impl Stream<Item = ObjectRef<GuardedInstance>> + Send {
    let ticks = stream::unfold(tokio::time::interval(LOOK_AT_SWEEPS), |mut interval| async {
        interval.tick().await;
        Some(((), interval))
    });
    ticks.flat_map(move |()| stream::iter(changed(&ctx, &instances)))
}

fn changed(ctx: &Context, instances: &Store<GuardedInstance>) -> Vec<ObjectRef<GuardedInstance>> {
    let running = ctx.pools.all().into_iter().filter_map(|state| match state {
        PoolState::Running(pool) => Some(pool),
        PoolState::Starting | PoolState::Absent | PoolState::Blocked(_) => None,
    });
    let pools = ctx.pools.take_changed();
    let of_pools = if pools.is_empty() {
        Vec::new()
    } else {
        matching(instances, |instance| pools.contains(instance.spec.pool.as_str()))
    };
    let concerned = running.flat_map(|pool| {
        let changed = pool.inventory.take_changed();
        if changed.is_empty() {
            return Vec::new();
        }
        let domain = &pool.spec.cloudflare.domain;
        matching(instances, |instance| {
            ids(ctx.master_keys.installation(), instance)
                .iter()
                .any(|id| changed.instances.contains(id))
                || instance.spec.pool == pool.name
                    && names::hosts(&instance.spec.hostname, domain)
                        .iter()
                        .any(|host| changed.foreign_hosts.contains(host))
        })
    });
    let judged = ctx.admissions.take_changed();
    let judged = judged.iter().map(|(namespace, name)| ObjectRef::new(name).within(namespace));
    of_pools.into_iter().chain(judged).chain(concerned).collect()
}

/// The ids under which things of an instance may be.
fn ids(installation: InstallationId, instance: &OpenClawInstance) -> Vec<InstanceId> {
    let (namespace, name) = (instance.namespace().unwrap_or_default(), instance.name_any());
    let earlier = instance.status.as_ref().and_then(|status| status.earlier_identity.as_ref());
    let earlier = earlier.and_then(|earlier| earlier.of(&namespace, &name));
    earlier.into_iter().chain([ownership::instance_id(installation, &namespace, &name)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn one_instance_more_does_not_wake_the_others() {
        let pool = |instances: u32, reason: &str| -> Guarded<HostingPool> {
            let token = json!({"name": "token"});
            serde_json::from_value(json!({
                "metadata": {"name": "eu-1", "generation": 1},
                "spec": {
                    "hetzner": {"tokenSecretRef": token, "serverTypes": ["cx33"], "locations": ["fsn1"]},
                    "cloudflare": {"tokenSecretRef": token, "accountId": "a".repeat(32), "zoneId": "b".repeat(32), "domain": "example.com"},
                    "capacity": 3,
                },
                "status": {"instances": instances, "conditions": [{
                    "type": "Ready", "status": "True", "reason": reason, "message": "",
                    "lastTransitionTime": "2026-01-01T00:00:00Z",
                }]},
            }))
            .unwrap()
        };
        assert!(pool(1, "Ready").0.is_ok());
        let of = |instances, reason| what_matters_of_a_pool(&pool(instances, reason));
        assert_eq!(of(1, "Ready"), of(2, "Ready"));
        assert_ne!(of(2, "Ready"), of(3, "Ready"), "it is full");
        assert_ne!(of(1, "Ready"), of(1, "ProjectChanged"));
    }
}
