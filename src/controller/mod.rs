//! The controllers: what turns a change in the cluster into a pass of observe → plan → apply → status.

pub mod admissions;
pub mod backoff;
pub mod context;
pub mod events;
pub mod guard;
pub mod instance;
pub mod latest;
pub mod master_keys;
pub mod pool;
pub mod pool_runtime;
pub mod queue;
pub mod references;
pub mod release;
pub mod sealing_certificate;
pub mod sealing_keys;
pub mod slots;
pub mod status;
pub mod turns;

use std::{collections::BTreeSet, sync::Arc};

use tokio_util::sync::CancellationToken;
use url::Url;

use self::{context::Context, pool::PoolSettings};
use crate::{
    cloud::BudgetRegistry, cluster::KubeCluster, credentials::key_ring_store::KeyRingStore,
    http::Readiness, master_key_store::MasterKeyStore,
};

/// What the controllers are told on the command line.
pub struct ControllerSettings {
    /// Root of Hetzner's API.
    pub hetzner_endpoint: Url,
    /// Root of Cloudflare's API.
    pub cloudflare_endpoint: Url,
    /// PEM certificates to trust in calls to the clouds, beside the system's.
    pub extra_roots: Option<Vec<u8>>,
    /// The call budgets of all groups.
    pub budgets: Arc<BudgetRegistry>,
    /// The pools to look after; `None` for all.
    pub pools: Option<BTreeSet<String>>,
    /// The namespaces to look for instances in; none for all.
    pub watch_namespaces: Vec<String>,
}

/// Runs all controllers until `shutdown`. They say through `readiness` when their caches are filled.
/// `since` is the version of the cluster up to which another process ran them.
pub async fn run(
    context: Arc<Context>,
    settings: ControllerSettings,
    master_keys: MasterKeyStore,
    readiness: Readiness,
    since: Option<String>,
    shutdown: CancellationToken,
) {
    context.metrics.watch_budgets(Arc::clone(&settings.budgets));
    let pools = PoolSettings {
        hetzner_endpoint: settings.hetzner_endpoint,
        cloudflare_endpoint: settings.cloudflare_endpoint,
        extra_roots: settings.extra_roots,
        budgets: settings.budgets,
        observer: Arc::clone(&context.metrics) as _,
        only: settings.pools,
        watch_namespaces: settings.watch_namespaces.clone(),
    };
    let keys = KeyRingStore::new(context.client.clone(), &context.namespace);
    let cluster = KubeCluster::new(context.client.clone(), Arc::clone(&context.metrics));
    let needs = sealing_keys::NeedsOfInstances::new(Arc::clone(&context), Arc::new(cluster));
    let needs = Arc::new(needs);
    let (ctx, namespaces) = (Arc::clone(&context), settings.watch_namespaces);
    tokio::join!(
        pool::run(Arc::clone(&context), pools, master_keys, shutdown.clone()),
        release::run(Arc::clone(&context), shutdown.clone()),
        sealing_keys::run(Arc::clone(&context), keys, needs, shutdown.clone()),
        sealing_certificate::run(Arc::clone(&context), shutdown.clone()),
        instance::run(ctx, namespaces, since, move || readiness.ready(), shutdown.clone()),
    );
}
