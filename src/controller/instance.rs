//! The controller of `OpenClawInstance`s. One pass reads as steps in [`Controller::pass`]: refer →
//! observe → plan → apply → status. What it decides is in [`crate::instance`]; here are the reads,
//! the writes, and when to look again.

mod allowed;
mod apply;
mod census;
mod costly;
mod deletion;
mod keys;
mod memory;
mod observe;
mod pass_error;
mod reconcile;
mod refer;
mod sealed_secrets;
#[cfg(test)]
pub(crate) mod simulation;
mod status;
mod watches;
mod work;

use std::{sync::Arc, time::Duration};

use futures::StreamExt as _;
use jiff::{SignedDuration, Timestamp};
use kube::{
    ResourceExt as _,
    runtime::reflector::{ObjectRef, Store},
};
use moorage_wire::{InstallationId, InstanceId};
use tokio_util::sync::CancellationToken;

use super::{
    backoff::{Backoff, jittered},
    context::Context,
    guard, queue,
    slots::Slots,
};
use crate::{
    api::{
        Guarded, OpenClawInstance, OpenClawRelease,
        conditions::{ConditionType, Reason},
        guarded::Unreadable,
    },
    api_server::told,
    cluster::{ClusterApi, ClusterError, InstanceKey, KubeCluster},
    controller::pool_runtime::PoolState,
    instance::{
        Observed, Wanted,
        deletion::has_history,
        plan::{self, Plan, SOON, Timing},
    },
    ownership,
    problem::Problem,
};

use allowed::Allowed;
use costly::Costly;
use memory::{Memories, WriteRates};
use reconcile::Requeue;
use refer::{Referred, Unfit};
use sealed_secrets::SealedSecrets;
use status::Written;

/// Passes at the same time: each waits for the clouds most of its time.
const CONCURRENCY: u32 = 64;

/// How long what an instance names may be gone before one that is well says so: as long as it takes to
/// recreate a pool that was deleted by mistake.
const GRACE: SignedDuration = SignedDuration::from_mins(2);
/// How often an instance looks whether its surroundings are back, besides being told.
const SURROUNDINGS_RETRY: Duration = Duration::from_secs(30);

/// An instance as the watch brings it: perhaps one that this version cannot read.
pub(super) type GuardedInstance = Guarded<OpenClawInstance>;

/// Keeps all instances until `shutdown`. Call it as the leader only. `synced` is called when the
/// caches are filled. `since` is the version of the cluster up to which another process kept them.
pub async fn run(
    ctx: Arc<Context>,
    namespaces: Vec<String>,
    since: Option<String>,
    synced: impl FnOnce() + Send + 'static,
    shutdown: CancellationToken,
) {
    let secrets = Arc::<SealedSecrets>::default();
    let allowed = Arc::<Allowed>::default();
    if shutdown.run_until_cancelled(read_pools(&ctx, &allowed)).await.is_none() {
        return;
    }
    let watches = watches::start(&ctx, &namespaces, &secrets, &allowed);
    let (counted, stop) = (watches.instances.clone(), shutdown.clone());
    let cluster = Arc::new(KubeCluster::new(ctx.client.clone(), Arc::clone(&ctx.metrics)));
    let known: Arc<dyn ClusterApi> = cluster;
    let secrets = sealed_secrets::keep(
        Arc::clone(&ctx),
        Arc::clone(&known),
        secrets,
        namespaces.clone(),
        since,
        shutdown.clone(),
    );
    let controller = Arc::new(Controller {
        ctx: Arc::clone(&ctx),
        cluster: Arc::clone(&known),
        instances: watches.instances.clone(),
        releases: watches.releases.clone(),
        memories: Memories::default(),
        write_rates: WriteRates::default(),
        slots: Slots::new(CONCURRENCY),
        shutdown: shutdown.clone(),
        pace: keys::Pace::default(),
        backoff: Backoff::default(),
        decisions: Decisions::default(),
        costly: Costly::default(),
    });
    let ready = {
        let (instances, releases) = (watches.instances.clone(), watches.releases.clone());
        let ctx = Arc::clone(&ctx);
        async move {
            // The writers live as long as the triggers, so there is no error to handle.
            let _ = tokio::join!(instances.wait_until_ready(), releases.wait_until_ready());
            ctx.admissions.follow(namespaces, census::population(&ctx, instances));
            synced();
        }
    };
    let sweeps = watches::sweeps(Arc::clone(&controller.ctx), watches.instances.clone());
    let mut triggers = watches.triggers;
    triggers.push(sweeps.boxed());
    let queue = queue::run(
        watches.instances,
        triggers,
        queue::NO_LIMIT,
        shutdown,
        controller,
        reconcile::reconcile,
    );
    let census = census::keep(ctx, known, counted, stop);
    tokio::join!(queue, ready, census, secrets);
}

/// Reads which namespaces the pools allow, until that works.
async fn read_pools(ctx: &Context, allowed: &Allowed) {
    let backoff = Backoff::default();
    while let Err(error) = allowed.read(&ctx.client).await {
        tracing::warn!(error = told(&error), "the pools cannot be listed; trying again");
        ctx.clock.sleep(backoff.next(&(), ctx.randomness.fraction())).await;
    }
}

/// What the passes share.
struct Controller {
    ctx: Arc<Context>,
    cluster: Arc<dyn ClusterApi>,
    instances: Store<GuardedInstance>,
    releases: Store<Guarded<OpenClawRelease>>,
    memories: Memories,
    write_rates: WriteRates,
    slots: Arc<Slots>,
    shutdown: CancellationToken,
    pace: keys::Pace,
    backoff: Backoff<ObjectRef<GuardedInstance>>,
    decisions: Decisions,
    costly: Costly,
}

/// What is in the clouds of an instance.
#[derive(Debug, Clone, Copy, Default)]
struct InClouds {
    server: bool,
    /// A server, a tunnel or a DNS record.
    anything: bool,
}

/// What the passes leave to pure functions. The simulation puts broken ones in their place.
struct Decisions {
    /// What is to be done.
    plan: fn(&Wanted, &Observed, Timing) -> Plan,
    /// Who an instance is.
    identify: fn(InstallationId, &OpenClawInstance) -> InstanceId,
}

impl Default for Decisions {
    fn default() -> Self {
        Self { plan: plan::plan, identify: identity }
    }
}

/// The id of an instance, in which nothing but its place in the cluster has a say.
fn identity(installation: InstallationId, instance: &OpenClawInstance) -> InstanceId {
    let namespace = instance.namespace().unwrap_or_default();
    ownership::instance_id(installation, &namespace, &instance.name_any())
}

impl Controller {
    async fn pass(&self, instance: &OpenClawInstance) -> Result<Requeue, ClusterError> {
        // The watch lags behind our own writes.
        let newer = self.cluster.newer(instance);
        let instance = newer.as_deref().unwrap_or(instance);
        let deleting = instance.metadata.deletion_timestamp.is_some();
        // Somebody else's finalizer may hold what ours was taken from before the clouds were cleared.
        if deleting
            && !is_claimed(instance)
            && !(self.has_things(instance) && self.cluster.is_there(instance).await?)
        {
            self.forget(instance);
            return Ok(Requeue::OnChange);
        }
        if instance.spec.suspend && !deleting {
            return self.suspend(instance).await;
        }
        if matches!(self.ctx.pools.get(&instance.spec.pool), PoolState::Starting) {
            // Told when it has been looked at.
            return Ok(Requeue::After(self.jittered(SURROUNDINGS_RETRY)));
        }
        if deleting {
            return self.deletion_pass(instance).await;
        }
        // Before all releases were read none is missing. Their watch lives as long as we do.
        let _ = self.releases.wait_until_ready().await;
        let referred = self.refer(instance);
        if !is_claimed(instance) && (referred.is_ok() || self.has_things(instance)) {
            // No cloud is called before the finalizer is written; the watch brings it. What was never
            // admitted needs none: it can go without anybody's help.
            self.cluster.claim(instance).await?;
            return Ok(Requeue::OnChange);
        }
        match referred {
            Ok(Referred { wanted, pool }) => self.work(instance, &wanted, &pool).await,
            // It is admitted, and of what has nothing yet the watch brings the essence only.
            Err(Unfit::InPart) => match self.cluster.instance(InstanceKey::of(instance)).await? {
                Some(whole) if !whole.is_in_part() => Box::pin(self.pass(&whole)).await,
                Some(_) | None => Ok(Requeue::After(SOON)),
            },
            // It has come just now.
            Err(Unfit::Unknown) => Ok(Requeue::After(SOON)),
            Err(Unfit::Surroundings(refused)) if self.is_borne(instance, &refused) => {
                Ok(Requeue::After(self.jittered(SURROUNDINGS_RETRY)))
            }
            Err(
                Unfit::Surroundings(refused) | Unfit::Doubt(refused) | Unfit::Instance(refused),
            ) => self.refuse(instance, &refused).await,
        }
    }

    /// An instance that cannot be read is told so. It can be deleted all the same.
    async fn malformed(
        &self,
        unreadable: &Unreadable<OpenClawInstance>,
    ) -> Result<Requeue, ClusterError> {
        if unreadable.metadata.deletion_timestamp.is_some() {
            // Where the status names things that cannot be read, only a sweep can tell of them.
            let told = |salvaged: &OpenClawInstance| {
                salvaged.status.is_some()
                    || !unreadable.in_cloud
                    || self.pool(&salvaged.spec.pool).is_ok()
            };
            if let Some(salvaged) = unreadable.salvage.as_ref().filter(|salvaged| told(salvaged)) {
                return self.pass(salvaged).await;
            }
            if !unreadable.in_cloud {
                guard::let_go::<OpenClawInstance>(&self.ctx, &unreadable.metadata).await?;
                return Ok(Requeue::OnChange);
            }
        }
        guard::report_malformed(&self.ctx, unreadable).await?;
        Ok(Requeue::OnChange)
    }

    /// Whether something of an instance is in a cloud, though its finalizer may have been taken away.
    fn has_things(&self, instance: &OpenClawInstance) -> bool {
        instance.status.as_ref().is_some_and(has_history) || self.in_clouds(instance).anything
    }

    /// What the sweep shows of an instance.
    fn in_clouds(&self, instance: &OpenClawInstance) -> InClouds {
        let Ok(pool) = self.pool(&instance.spec.pool) else { return InClouds::default() };
        let status = instance.status.clone().unwrap_or_default();
        let owner = self.subject(instance, &pool).owner(&status);
        let view = pool.inventory.view(&owner);
        let tunnels: Vec<_> = view.tunnels.iter().map(|tunnel| tunnel.id.clone()).collect();
        let mut records = view.records.iter();
        let server = !view.servers.is_empty();
        let routes =
            !tunnels.is_empty() || records.any(|record| owner.record(record, &tunnels).is_ours());
        InClouds { server, anything: server || routes }
    }

    /// Whether an instance that is well goes on without a word although something around it is not: its
    /// server works, and the pool says what is wrong. What it names may be gone for a while only.
    fn is_borne(&self, instance: &OpenClawInstance, refused: &Problem) -> bool {
        if !is_well(instance) {
            return false;
        }
        if ![Reason::PoolNotFound, Reason::ReleaseNotFound].contains(&refused.reason) {
            return true;
        }
        let key = ObjectRef::from_obj(instance);
        let mut memory = self.memories.take(&key);
        let since = *memory.waiting_since.get_or_insert_with(|| self.now());
        self.memories.put(&key, memory);
        self.now().duration_since(since) < GRACE
    }

    fn forget(&self, instance: &OpenClawInstance) {
        let key = ObjectRef::from_obj(instance);
        drop(self.memories.take(&key));
        self.write_rates.forget(&key);
    }

    fn installation(&self) -> InstallationId {
        self.ctx.master_keys.installation()
    }

    fn now(&self) -> Timestamp {
        self.ctx.clock.now()
    }

    fn random(&self) -> f64 {
        self.ctx.randomness.fraction()
    }

    fn jittered(&self, interval: Duration) -> Duration {
        jittered(interval, self.random())
    }
}

/// Whether our finalizer is there: it is written when the instance is admitted.
fn is_claimed(instance: &OpenClawInstance) -> bool {
    instance.finalizers().iter().any(|held| held == crate::api::FINALIZER)
}

/// Whether its status says that it is as its spec of now says.
fn is_well(instance: &OpenClawInstance) -> bool {
    let ready = ConditionType::Ready.as_str();
    instance.status.iter().flat_map(|status| &status.conditions).any(|condition| {
        condition.type_ == ready
            && condition.status == "True"
            && condition.observed_generation == instance.metadata.generation
    })
}
