//! Keeps the ring of sealing keys: makes a new key in time, destroys old ones, and publishes the ring
//! in the context. What is due is decided by `credentials::lifetimes`; only the leader runs this.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use tokio_util::sync::CancellationToken;

use super::{
    backoff::{Backoff, random},
    context::Context,
};
use crate::{
    credentials::{
        key_ring::KeyRing,
        key_ring_store::{KeyRingStore, KeyRingStoreError},
        lifetimes::{KeyRingStep, UndeliveredNeeds},
    },
    master_keys::MasterKeys,
};

/// At the latest after this the ring is looked at again: what was needed may not be any more.
const DAILY: Duration = Duration::from_hours(24);

/// Says which keys undelivered values still need, as of now.
pub type Needs = Arc<dyn Fn() -> UndeliveredNeeds + Send + Sync>;

/// What the passes over instances leave in the context. Which key a value needs is not kept: while
/// anything is undelivered, every key may be needed.
pub fn needs(ctx: Arc<Context>) -> Needs {
    Arc::new(move || UndeliveredNeeds {
        unknown: ctx.undelivered.load(Ordering::Relaxed),
        ..UndeliveredNeeds::default()
    })
}

/// Keeps the ring until `shutdown`. Call it as the leader only.
pub async fn run(
    ctx: Arc<Context>,
    store: KeyRingStore,
    needs: Needs,
    shutdown: CancellationToken,
) {
    let backoff = Backoff::default();
    let keep = async {
        loop {
            let (now, keys) = (ctx.clock.now(), ctx.master_keys.get());
            let pause = match keep_once(&store, &keys, &needs, now).await {
                Ok((ring, wrapped)) => {
                    backoff.reset(&());
                    ctx.sealing_key_use.set(wrapped);
                    ctx.look_at_keys.notify_one();
                    let pause = pause(ring.next_change(now), now);
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
    needs: &Needs,
    now: Timestamp,
) -> Result<(KeyRing, BTreeMap<String, u32>), KeyRingStoreError> {
    let wrapping = keys.wrapping_keys();
    let mut ring = store.load(&wrapping).await?;
    let wrapped = store.rewrap(&wrapping, keys.newest().id().as_str()).await?;
    let ids = keys.all().map(|key| key.id().to_string());
    let wrapped = ids.zip(wrapped).filter(|(_, count)| *count > 0).collect();
    let wrapping = &wrapping[0];
    for step in ring.plan(now, &needs()) {
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
