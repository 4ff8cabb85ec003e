//! What every pass needs, built once when the operator starts.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use kube::{
    Client,
    runtime::{events::Reporter, reflector::Store},
};
use tokio::sync::{Notify, RwLock};

use super::{admissions::Admissions, events::EventSink};
use crate::{
    agent::AgentApi,
    api::{Guarded, OpenClawInstance},
    clock::Clock,
    controller::pool_runtime::Pools,
    credentials::key_ring::KeyRing,
    master_keys::{CurrentKeys, SealingKeyUse},
    metrics::Metrics,
    randomness::Randomness,
};

/// How often things are looked at.
#[derive(Debug, Clone)]
pub struct Intervals {
    /// Between two sweeps of a pool's clouds.
    pub sweep: Duration,
    /// Between two reports of an agent that is ready; jittered.
    pub report: Duration,
    /// Between two comparisons of a tunnel's ingress rules with the wanted ones; jittered.
    pub routes: Duration,
    /// How long something in the clouds has to belong to nobody before it may be deleted.
    pub orphan_age: Duration,
}

impl Default for Intervals {
    fn default() -> Self {
        Self {
            sweep: Duration::from_secs(60),
            report: Duration::from_mins(5),
            routes: Duration::from_hours(1),
            orphan_age: crate::orphans::DEFAULT_AGE,
        }
    }
}

/// What every pass needs.
pub struct Context {
    pub client: Client,
    /// The operator's own namespace.
    pub namespace: String,
    /// The roots of every derived key.
    pub master_keys: CurrentKeys,
    /// Which master key wraps how many sealing keys.
    pub sealing_key_use: SealingKeyUse,
    /// The keys that customers seal to.
    pub key_ring: RwLock<Arc<KeyRing>>,
    pub pools: Pools,
    /// Who is admitted to them.
    pub admissions: Admissions,
    pub agents: Arc<dyn AgentApi>,
    pub metrics: Arc<Metrics>,
    pub clock: Arc<dyn Clock>,
    /// Jitter, and the epochs of servers.
    pub randomness: Arc<dyn Randomness>,
    /// How often things are looked at.
    pub intervals: Intervals,
    /// The instances as the watch brings them; set once they are all there.
    pub instances: OnceLock<Store<Guarded<OpenClawInstance>>>,
    /// What the master keys are needed for may have changed.
    pub look_at_keys: Notify,
    /// The sealing keys are to be looked at now.
    pub look_at_sealing_keys: Notify,
    pub events: Box<dyn EventSink>,
}

/// Who Events are from.
pub fn reporter() -> Reporter {
    Reporter { controller: "moorage".into(), instance: std::env::var("POD_NAME").ok() }
}
