//! Keeps the ring of sealing keys: makes a new key in time, destroys old ones, and publishes the ring
//! in the context. What is due is decided by `credentials::lifetimes`; only the leader runs this.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt as _;
use moorage_wire::Sha256;
use tokio_util::sync::CancellationToken;

use super::{
    backoff::{Backoff, random},
    context::Context,
};
use crate::{
    api::OpenClawInstance,
    cluster::{ClusterApi, ClusterError, InstanceKey},
    controller::pool_runtime::PoolState,
    credentials::{
        bundle::InstanceRef,
        key_ring::KeyRing,
        key_ring_store::{KeyRingStore, KeyRingStoreError},
        lifetimes::{KeyRingStep, UndeliveredNeeds},
        secret_source::parse_entries,
        undelivered::{self, Read},
    },
    instance::refer,
    master_keys::MasterKeys,
};

/// At the latest after this the ring is looked at again: what was needed may not be any more.
const DAILY: Duration = Duration::from_hours(24);
/// The same while a key is old enough to go, and what needs it may be delivered any time.
const WHILE_DUE: Duration = Duration::from_mins(10);

/// Says which keys of the ring undelivered values still need, as of now.
#[async_trait]
pub trait Needs: Send + Sync {
    /// The needs. What cannot be looked at may need any key.
    async fn of(&self, ring: &KeyRing) -> UndeliveredNeeds;
}

/// What all instances wait for.
pub struct NeedsOfInstances {
    ctx: Arc<Context>,
    cluster: Arc<dyn ClusterApi>,
}

impl NeedsOfInstances {
    /// Over the instances that the controller of instances knows.
    pub fn new(ctx: Arc<Context>, cluster: Arc<dyn ClusterApi>) -> Self {
        Self { ctx, cluster }
    }

    async fn of_instance(
        &self,
        instance: &OpenClawInstance,
        ring: &KeyRing,
    ) -> Result<BTreeSet<Sha256>, ClusterError> {
        if instance.spec.credentials.is_empty() || !self.is_admitted(instance) {
            return Ok(BTreeSet::new());
        }
        let entries: Vec<_> = instance.spec.credentials.iter().map(refer::entry).collect();
        let (requests, _) = parse_entries(&entries);
        let namespace = instance.namespace().unwrap_or_default();
        let mut read = Read::new();
        for name in undelivered::secrets(&requests) {
            let view = self.cluster.secret(&namespace, &name).await?;
            read.insert(name, view);
        }
        let name = instance.name_any();
        let created = instance.creation_timestamp().map_or(Timestamp::MAX, |time| time.0);
        let of = InstanceRef { namespace: &namespace, name: &name, created };
        Ok(undelivered::keys_needed(of, instance.status.as_ref(), &requests, &read, ring))
    }

    /// The same for one of which only a part is known, and that is admitted by now.
    async fn of_part(
        &self,
        instance: &OpenClawInstance,
        ring: &KeyRing,
    ) -> Result<BTreeSet<Sha256>, ClusterError> {
        if !self.is_admitted(instance) {
            return Ok(BTreeSet::new());
        }
        let (namespace, name) = (instance.namespace().unwrap_or_default(), instance.name_any());
        let key = InstanceKey { namespace: &namespace, name: &name };
        match self.cluster.instance(key).await? {
            Some(whole) => self.of_instance(&whole, ring).await,
            None => Ok(BTreeSet::new()),
        }
    }

    /// Whether the instance is admitted: nothing is ever delivered to one that is not.
    fn is_admitted(&self, instance: &OpenClawInstance) -> bool {
        match self.ctx.pools.get(&instance.spec.pool) {
            PoolState::Running(_) => {
                let namespace = instance.namespace().unwrap_or_default();
                let pool = &instance.spec.pool;
                self.ctx.admissions.counts(pool, &namespace, &instance.name_any())
            }
            // One that cannot be used now, or was not looked at yet, may take it.
            PoolState::Blocked(_) | PoolState::Starting => true,
            PoolState::Absent => false,
        }
    }
}

#[async_trait]
impl Needs for NeedsOfInstances {
    async fn of(&self, ring: &KeyRing) -> UndeliveredNeeds {
        let Some(instances) = self.ctx.instances.get() else { return UndeliveredNeeds::unknown() };
        let mut needs = UndeliveredNeeds::default();
        // What cannot be read is told, and nothing is delivered to it.
        for instance in instances.state().iter().filter_map(|instance| instance.0.as_ref().ok()) {
            let pool = self.ctx.pools.get(&instance.spec.pool);
            if instance.is_in_part() && matches!(pool, PoolState::Starting) {
                return UndeliveredNeeds::unknown();
            }
            // Of one that has nothing yet, what it needs is not here.
            let needed = if instance.is_in_part() {
                self.of_part(instance, ring).await
            } else {
                self.of_instance(instance, ring).await
            };
            match needed {
                Ok(keys) => needs.keys.extend(keys),
                Err(error) => {
                    tracing::warn!(%error, "what is undelivered cannot be read: no key is destroyed");
                    return UndeliveredNeeds::unknown();
                }
            }
        }
        needs
    }
}

/// Keeps the ring until `shutdown`. Call it as the leader only.
pub async fn run(
    ctx: Arc<Context>,
    store: KeyRingStore,
    needs: Arc<dyn Needs>,
    shutdown: CancellationToken,
) {
    let backoff = Backoff::default();
    let keep = async {
        loop {
            let (now, keys) = (ctx.clock.now(), ctx.master_keys.get());
            let pause = match keep_once(&store, &keys, needs.as_ref(), now).await {
                Ok((ring, wrapped)) => {
                    backoff.reset(&());
                    ctx.sealing_key_use.set(wrapped);
                    ctx.look_at_keys.notify_one();
                    let longest = if ring.asks_for_needs(now) { WHILE_DUE } else { DAILY };
                    let pause = pause(ring.next_change(now), now).min(longest);
                    *ctx.key_ring.write().await = Arc::new(ring);
                    pause
                }
                Err(error) => {
                    tracing::error!(%error, reason = error.reason(), "the sealing keys cannot be kept");
                    backoff.next(&(), random())
                }
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = ctx.look_at_sealing_keys.notified() => {}
            }
        }
    };
    let _ = shutdown.run_until_cancelled(keep).await;
}

/// Reads the ring and does what is due. A step that fails leaves the steps before it done. Also says
/// how many keys each master key wraps.
pub async fn keep_once(
    store: &KeyRingStore,
    keys: &MasterKeys,
    needs: &dyn Needs,
    now: Timestamp,
) -> Result<(KeyRing, BTreeMap<String, u32>), KeyRingStoreError> {
    let wrapping = keys.wrapping_keys();
    let mut ring = store.load(&wrapping).await?;
    let wrapped = store.rewrap(&wrapping, keys.newest().id().as_str()).await?;
    let ids = keys.all().map(|key| key.id().to_string());
    let wrapped = ids.zip(wrapped).filter(|(_, count)| *count > 0).collect();
    let wrapping = &wrapping[0];
    let needs =
        if ring.asks_for_needs(now) { needs.of(&ring).await } else { UndeliveredNeeds::default() };
    for step in ring.plan(now, &needs) {
        match step {
            KeyRingStep::Generate => {
                let key = store.generate(wrapping, now).await?;
                tracing::info!(fingerprint = %key.fingerprint(), "made a sealing key");
                ring = ring.with(key);
            }
            KeyRingStep::Destroy(fingerprint) => {
                // The plan names keys of this very ring.
                let Some(tombstone) = ring.tombstone(&fingerprint, now) else { continue };
                store.destroy(&tombstone).await?;
                tracing::info!(%fingerprint, "destroyed a sealing key");
                ring = ring.without(tombstone);
            }
        }
    }
    Ok((ring, wrapped))
}

/// Until the next change that is known in advance, a day at most.
fn pause(next_change: Option<Timestamp>, now: Timestamp) -> Duration {
    let until = next_change.map_or(SignedDuration::ZERO, |next| next.duration_since(now));
    // Not below a second: a clock that stands still must not make a hot loop.
    Duration::try_from(until).unwrap_or_default().clamp(Duration::from_secs(1), DAILY)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case::soon(Some(90), 90)]
    #[case::far(Some(30 * 86_400), 86_400)]
    #[case::over(Some(-5), 1)]
    #[case::empty_ring(None, 1)]
    fn the_ring_is_looked_at_when_it_changes_and_at_least_daily(
        #[case] next_change: Option<i64>,
        #[case] seconds: u64,
    ) {
        let next = next_change.map(|second| Timestamp::from_second(second).unwrap());
        assert_eq!(pause(next, Timestamp::UNIX_EPOCH), Duration::from_secs(seconds));
    }
}
