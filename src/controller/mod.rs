//! The controllers: what turns a change in the cluster into a pass of observe → plan → apply → status.

pub mod context;

use std::{collections::BTreeSet, sync::Arc};

use tokio_util::sync::CancellationToken;
use url::Url;

use self::context::Context;
use crate::{cloud::BudgetRegistry, http::Readiness};

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
pub async fn run(
    context: Arc<Context>,
    settings: ControllerSettings,
    readiness: Readiness,
    shutdown: CancellationToken,
) {
    context.metrics.watch_budgets(Arc::clone(&settings.budgets));
    readiness.ready();
    shutdown.cancelled().await;
}
