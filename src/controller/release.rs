//! The controller of `OpenClawRelease`s: counts who uses a release and keeps it while someone does.
//! A release is data that never changes, so there is nothing else to do about it.

use std::{sync::Arc, time::Duration};

use futures::{StreamExt as _, stream};
use kube::{
    Api, Resource as _, ResourceExt as _,
    runtime::{
        WatchStreamExt as _,
        controller::Action,
        reflector::{self, ObjectRef, Store},
        watcher,
    },
};
use tokio_util::sync::CancellationToken;

use super::{
    backoff::{Backoff, random},
    context::Context,
    events, guard, queue,
    references::{self, Reference, References, watch_config},
    status,
};
use crate::{
    api::{
        Guarded, HostingPool, OpenClawRelease, OpenClawReleaseStatus,
        conditions::{ConditionType, Reason, Verdict, merge},
    },
    api_server::told,
};

const PASS_DEADLINE: Duration = Duration::from_secs(60);
const CONCURRENCY: u16 = 2;
const SOON: Duration = Duration::from_secs(1);

type GuardedRelease = Guarded<OpenClawRelease>;
type GuardedPool = Guarded<HostingPool>;

struct Controller {
    ctx: Arc<Context>,
    references: Arc<References>,
    pools: Store<GuardedPool>,
    backoff: Backoff<String>,
}

/// Keeps all releases until `shutdown`. Call it as the leader only.
pub async fn run(ctx: Arc<Context>, shutdown: CancellationToken) {
    let config = watch_config;
    let (references, changes) = references::watch(ctx.client.clone());
    let (releases, release_writer) = reflector::store::<GuardedRelease>();
    let (pools, pool_writer) = reflector::store::<GuardedPool>();
    let release_events = watcher(Api::<GuardedRelease>::all(ctx.client.clone()), config())
        .default_backoff()
        .modify(|release| release.meta_mut().managed_fields = None)
        .reflect(release_writer)
        .applied_objects();
    let pool_events = watcher(Api::<GuardedPool>::all(ctx.client.clone()), config())
        .default_backoff()
        .modify(|pool| pool.meta_mut().managed_fields = None)
        .reflect(pool_writer)
        .touched_objects();
    // A pool that changes its default moves instances from one release to another: all are looked
    // at, which costs no call where nothing changed.
    let of_pools = releases.clone();
    let (of_instances, known_pools) = (releases.clone(), pools.clone());
    let changes = changes.flat_map(move |reference| {
        stream::iter(
            release_of(&reference, &known_pools)
                .map_or_else(|| all(&of_instances), |release| vec![ObjectRef::new(&release)]),
        )
    });
    let controller = Arc::new(Controller { ctx, references, pools, backoff: Backoff::default() });
    let triggers = vec![
        queue::objects(release_events, |release| vec![ObjectRef::from_obj(release)]),
        queue::objects(pool_events, move |_| all(&of_pools)),
        changes.boxed(),
    ];
    queue::run(releases, triggers, CONCURRENCY, shutdown, controller, reconcile).await;
}

fn all(releases: &Store<GuardedRelease>) -> Vec<ObjectRef<GuardedRelease>> {
    releases.state().iter().map(|release| ObjectRef::from_obj(release.as_ref())).collect()
}

/// The release that an instance runs, by its own word or its pool's.
fn release_of(reference: &Reference, pools: &Store<GuardedPool>) -> Option<String> {
    reference.release.clone().or_else(|| {
        let pool = pools.get(&ObjectRef::new(&reference.pool))?;
        Some(pool.0.as_ref().ok()?.spec.default_release.as_ref()?.to_string())
    })
}

async fn reconcile(release: Arc<GuardedRelease>, controller: Arc<Controller>) -> Action {
    let name = release.meta().name.clone().unwrap_or_default();
    let pass = tokio::time::timeout(PASS_DEADLINE, controller.pass(&name, &release));
    match pass.await {
        Ok(Ok(())) => {
            controller.backoff.reset(&name);
            return Action::await_change();
        }
        // The watch brings it as it is now; this is for the case that it already has.
        Ok(Err(error)) if status::is_conflict(&error) => return Action::requeue(SOON),
        Ok(Err(error)) => {
            tracing::warn!(release = name, error = told(&error), "a call to the API server failed");
        }
        Err(_) => tracing::warn!(release = name, "the pass took longer than {PASS_DEADLINE:?}"),
    }
    Action::requeue(controller.backoff.next(&name, random()))
}

impl Controller {
    async fn pass(&self, name: &str, release: &GuardedRelease) -> Result<(), kube::Error> {
        let (client, metrics, now) = (&self.ctx.client, &self.ctx.metrics, self.ctx.clock.now());
        let release = match &release.0 {
            Ok(release) => release,
            Err(unreadable) => {
                let going = unreadable.metadata.deletion_timestamp.is_some();
                if going && !self.is_used(name).await {
                    return guard::let_go::<OpenClawRelease>(&self.ctx, &unreadable.metadata).await;
                }
                return guard::report_malformed(&self.ctx, unreadable).await;
            }
        };
        self.references.complete().await;
        self.ctx.admissions.complete().await;
        // Without all pools a release could look unused. The store's writer lives as long as the
        // controller, so waiting ends.
        let _ = self.pools.wait_until_ready().await;
        let usage = self.usage(name);
        let api: Api<Guarded<OpenClawRelease>> = Api::all(client.clone());
        let deleting = release.metadata.deletion_timestamp.is_some();
        // A finalizer cannot be added to an object that is being deleted.
        let held = usage.is_used() && (!deleting || has_finalizer(release));
        let version = release.resource_version();
        if status::set_finalizer(&api, release, version.as_deref(), held, metrics).await? {
            // The watch brings it back as it is now, if it still is.
            return Ok(());
        }
        let old = release.status.clone().unwrap_or_default();
        let verdicts = verdicts(&usage, deleting);
        let wanted = OpenClawReleaseStatus {
            observed_generation: release.metadata.generation,
            conditions: merge(&old.conditions, &verdicts, release.metadata.generation, now),
            instances: usage.instances,
        };
        let said = (release.status.as_ref(), &wanted);
        if status::write(&api, release, version.as_deref(), said, metrics).await?.is_some() {
            let about = release.object_ref(&());
            events::publish(&self.ctx, &about, &old.conditions, &wanted.conditions).await;
        }
        Ok(())
    }

    async fn is_used(&self, name: &str) -> bool {
        self.references.complete().await;
        let _ = self.pools.wait_until_ready().await;
        self.usage(name).is_used()
    }

    fn usage(&self, name: &str) -> Usage {
        let instances = self.references.count(|(namespace, instance), reference| {
            release_of(reference, &self.pools).as_deref() == Some(name)
                && (reference.made.in_status
                    || self.ctx.admissions.counts(&reference.pool, namespace, instance))
        });
        let pools = self.pools.state();
        let pools = pools.iter().filter_map(|pool| pool.0.as_ref().ok());
        let default_of = pools.filter(|pool| pool.spec.default_release.as_deref() == Some(name));
        let mut default_of: Vec<_> = default_of.map(kube::ResourceExt::name_any).collect();
        default_of.sort_unstable();
        Usage { instances, default_of }
    }
}

fn has_finalizer(release: &OpenClawRelease) -> bool {
    release.finalizers().iter().any(|held| held == crate::api::FINALIZER)
}

/// Who uses a release.
#[derive(Debug, Default)]
struct Usage {
    instances: u32,
    /// Pools whose default it is.
    default_of: Vec<String>,
}

impl Usage {
    fn is_used(&self) -> bool {
        self.instances > 0 || !self.default_of.is_empty()
    }
}

fn verdicts(usage: &Usage, deleting: bool) -> Vec<Verdict> {
    if !deleting {
        let message = "Instances can name this release.";
        return vec![Verdict::yes(ConditionType::Ready, Reason::Ready, message)];
    }
    let mut users = Vec::new();
    if usage.instances > 0 {
        users.push(format!("{} instances run it", usage.instances));
    }
    if !usage.default_of.is_empty() {
        users.push(format!("it is the default of {}", usage.default_of.join(", ")));
    }
    let message = format!(
        "The release stays while it is used: {}. Move them to another release.",
        users.join(", and ")
    );
    vec![
        Verdict::no(ConditionType::Ready, Reason::Deleting, message.clone()),
        Verdict::yes(ConditionType::Reconciling, Reason::Deleting, message),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_that_is_deleted_while_used_says_by_whom() {
        let usage = Usage { instances: 2, default_of: vec!["eu-1".to_owned()] };
        assert!(usage.is_used());
        let verdicts = verdicts(&usage, true);
        assert_eq!(verdicts[0].reason, Reason::Deleting);
        for part in ["2 instances", "eu-1"] {
            assert!(verdicts[0].message.contains(part), "{}", verdicts[0].message);
        }
    }

    #[test]
    fn a_default_without_instances_is_a_use() {
        assert!(Usage { instances: 0, default_of: vec!["eu-1".to_owned()] }.is_used());
        assert!(!Usage::default().is_used());
    }
}
