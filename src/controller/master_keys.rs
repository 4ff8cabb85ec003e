//! Keeps the master keys: sees that one was added or taken away, counts what still needs which, and
//! protects the Secrets of those that something needs. Only the leader runs this.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use super::{
    context::Context,
    references::{Name, Reference, References},
};
use crate::{
    master_key_store::{MasterKeyStore, MasterKeyStoreError},
    master_keys::{KeyUse, MasterKeys},
};

/// Between two looks, where nothing tells of a change.
const INTERVAL: Duration = Duration::from_secs(30);

/// Keeps them until `shutdown`. `count` says what needs which key, and `news` is called when what the
/// pools' status says of the keys has changed.
pub async fn run(
    ctx: Arc<Context>,
    store: MasterKeyStore,
    count: impl Fn() -> KeyUse,
    news: impl Fn(),
    shutdown: CancellationToken,
) {
    let keep = async {
        let mut told = None;
        loop {
            let counted = count();
            if let Err(error) = keep_once(&ctx, &store, &counted).await {
                tracing::error!(%error, reason = error.reason(), "the master keys cannot be kept");
            }
            let now = Some(counted.status(&ctx.master_keys.get()));
            if told != now {
                told = now;
                news();
            }
            tokio::select! {
                () = tokio::time::sleep(INTERVAL.min(ctx.intervals.sweep)) => {}
                () = ctx.look_at_keys.notified() => {}
            }
        }
    };
    let _ = shutdown.run_until_cancelled(keep).await;
}

/// Reads the keys again, and protects those that are needed.
async fn keep_once(
    ctx: &Context,
    store: &MasterKeyStore,
    counted: &KeyUse,
) -> Result<(), MasterKeyStoreError> {
    // A key that is missing now is what the start of the operator is for; here the ones in memory
    // serve on, and only a person's change of what is there is taken over.
    if let Some(keys) = store.load().await? {
        store.keep_installation(&keys).await?;
        if ids(&keys) != ids(&ctx.master_keys.get()) {
            tracing::info!(newest = %keys.newest().id(), older = keys.older().len(), "the master keys have changed");
            ctx.master_keys.set(Arc::new(keys));
            ctx.look_at_sealing_keys.notify_one();
        }
    }
    let needed = counted.needed(&ctx.master_keys.get());
    ctx.metrics.set_master_keys(&ctx.master_keys.get(), counted);
    store.protect(&needed).await
}

fn ids(keys: &MasterKeys) -> Vec<&str> {
    keys.all().map(|key| key.id().as_str()).collect()
}

/// What needs which key now. The finalizer alone counts where `believed` says so.
pub(super) fn count(
    ctx: &Context,
    references: &References,
    pools: u32,
    believed: impl Fn(&Name, &Reference) -> bool,
) -> KeyUse {
    let mut servers = BTreeMap::new();
    let (mut unrecorded, mut claimed) = (0, 0);
    references.each(|name, reference| {
        let made = &reference.made;
        let held = made.held && believed(name, reference);
        claimed += u32::from(made.in_status || held);
        match &made.master_key {
            Some(id) => *servers.entry(id.clone()).or_insert(0) += 1,
            None => unrecorded += u32::from(made.in_status || held && made.untold),
        }
    });
    let sealing_keys = ctx.sealing_key_use.get();
    KeyUse { servers, unrecorded, sealing_keys, dependants: pools + claimed }
}
