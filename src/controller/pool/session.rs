//! What is kept of a pool between passes: its clients, inventory and DNS queue for as long as its
//! tokens stay the same, and what the last pass came to. The task that sweeps is in `sweeper`.

use std::{collections::HashMap, sync::Arc, time::Duration};

use moorage_wire::InstallationId;
use parking_lot::{Mutex, MutexGuard};
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{
    api::{HostingPoolSpec, annotation::Mark, names::BudgetGroup},
    clock::Clock,
    cloud::{ClientConfig, Cloud, ConfigError},
    cloudflare::{AccountId, CloudflareApi, CloudflareClient, ZoneId},
    controller::context::Context,
    dns::DnsQueue,
    hetzner::{HetznerApi, HetznerClient},
    inventory::Inventory,
    pool::{Facilities, Outcome, spec::ParsedSpec, supply::SweepState},
};

use super::{PoolSettings, sweeper::Sweeper, tokens::ReadToken};

/// What a session was built from. Another one needs other clients.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Origin {
    uid: String,
    tokens: [String; 2],
    groups: [String; 2],
    account: AccountId,
    zone: ZoneId,
}

/// What a pass depended on. While it is the same, the pass need not be repeated before its time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Inputs {
    pub(super) generation: Option<i64>,
    pub(super) retry: Option<Mark>,
    pub(super) reconcile_at: Option<Mark>,
    pub(super) has_instances: bool,
    pub(super) token_stored: bool,
    pub(super) deleting: bool,
}

/// What the last pass came to.
#[derive(Clone)]
pub(super) struct Remembered {
    pub(super) inputs: Inputs,
    pub(super) outcome: Outcome,
    /// `None`: until the inputs change.
    pub(super) until: Option<Instant>,
    /// Passes since the last thorough one.
    pub(super) glances: u32,
}

/// A pool whose tokens could be read.
pub(super) struct Session {
    origin: Origin,
    pub(super) hetzner: Arc<dyn HetznerApi>,
    pub(super) cloudflare: Arc<dyn CloudflareApi>,
    pub(super) inventory: Arc<Inventory>,
    pub(super) dns: Arc<DnsQueue>,
    sweep: watch::Receiver<SweepState>,
    now: Arc<Notify>,
    remembered: Mutex<Option<Remembered>>,
    kept: Mutex<Option<Facilities>>,
    /// Ends the sweeping task.
    _sweeping: DropGuard,
}

impl Session {
    pub(super) fn sweep(&self) -> SweepState {
        self.sweep.borrow().clone()
    }

    /// Sweeps without waiting for the end of a pause.
    pub(super) fn sweep_now(&self) {
        self.now.notify_one();
    }

    /// What instances got last.
    pub(super) fn kept(&self) -> Option<Facilities> {
        self.kept.lock().clone()
    }

    /// Keeps what instances get.
    pub(super) fn keep(&self, facilities: Option<&Facilities>) {
        *self.kept.lock() = facilities.cloned();
    }

    pub(super) fn remembered(&self) -> Option<Remembered> {
        self.remembered.lock().clone()
    }

    pub(super) fn remember(&self, remembered: Option<Remembered>) {
        *self.remembered.lock() = remembered;
    }
}

/// The sessions of all pools.
pub(super) struct Sessions {
    by_pool: Mutex<HashMap<String, Arc<Session>>>,
    installation: InstallationId,
    sweep_interval: Duration,
    clock: Arc<dyn Clock>,
    shutdown: CancellationToken,
    wake: Arc<dyn Fn(&str) + Send + Sync>,
}

impl Sessions {
    /// No session yet. `wake` makes a pool be looked at, when a sweep brought news.
    pub(super) fn new(
        installation: InstallationId,
        ctx: &Context,
        shutdown: CancellationToken,
        wake: Arc<dyn Fn(&str) + Send + Sync>,
    ) -> Self {
        let (sweep_interval, clock) = (ctx.intervals.sweep, Arc::clone(&ctx.clock));
        Self { by_pool: Mutex::default(), installation, sweep_interval, clock, shutdown, wake }
    }

    fn by_pool(&self) -> MutexGuard<'_, HashMap<String, Arc<Session>>> {
        self.by_pool.lock()
    }

    /// What the last pass over a pool came to.
    pub(super) fn remembered(&self, pool: &str) -> Option<Remembered> {
        self.by_pool().get(pool).and_then(|session| session.remembered())
    }

    /// Ends the session of a pool.
    pub(super) fn remove(&self, pool: &str) {
        self.by_pool().remove(pool);
    }

    /// The session of a pool, a new one if there is none or its tokens or accounts changed.
    pub(super) fn open(
        &self,
        pool: &str,
        uid: &str,
        settings: &PoolSettings,
        spec: &HostingPoolSpec,
        parsed: &ParsedSpec,
        tokens: [ReadToken; 2],
    ) -> Result<Arc<Session>, ConfigError> {
        let group = |group: &Option<BudgetGroup>| {
            group.as_ref().map_or_else(|| pool.to_owned(), ToString::to_string)
        };
        let [hetzner, cloudflare] = tokens;
        let origin = Origin {
            uid: uid.to_owned(),
            tokens: [hetzner.version, cloudflare.version],
            groups: [group(&spec.hetzner.budget_group), group(&spec.cloudflare.budget_group)],
            account: parsed.account.clone(),
            zone: parsed.zone.clone(),
        };
        let known = self.by_pool().get(pool).cloned();
        if let Some(known) = known.filter(|known| known.origin == origin) {
            return Ok(known);
        }
        let config = |cloud, group: &str, url: &url::Url, token| ClientConfig {
            extra_root_certificates: settings.extra_roots.clone(),
            observer: Arc::clone(&settings.observer),
            ..ClientConfig::new(url.clone(), token, settings.budgets.budget(cloud, group))
        };
        let [hetzner_group, cloudflare_group] = &origin.groups;
        let hetzner: Arc<dyn HetznerApi> = Arc::new(HetznerClient::new(config(
            Cloud::Hetzner,
            hetzner_group,
            &settings.hetzner_endpoint,
            hetzner.token,
        ))?);
        let cloudflare: Arc<dyn CloudflareApi> = Arc::new(CloudflareClient::new(
            config(
                Cloud::Cloudflare,
                cloudflare_group,
                &settings.cloudflare_endpoint,
                cloudflare.token,
            ),
            parsed.account.clone(),
        )?);
        let session = Arc::new(self.start(pool, origin, hetzner, cloudflare));
        self.by_pool().insert(pool.to_owned(), Arc::clone(&session));
        Ok(session)
    }

    fn start(
        &self,
        pool: &str,
        origin: Origin,
        hetzner: Arc<dyn HetznerApi>,
        cloudflare: Arc<dyn CloudflareApi>,
    ) -> Session {
        let zone = origin.zone.clone();
        let inventory = Arc::new(Inventory::new(
            Arc::clone(&hetzner),
            Arc::clone(&cloudflare),
            zone.clone(),
            self.installation,
            Arc::clone(&self.clock),
        ));
        let clock = Arc::clone(&self.clock);
        let dns = Arc::new(DnsQueue::new(Arc::clone(&cloudflare), zone, clock));
        let (news, sweep) = watch::channel(SweepState::Pending);
        let stop = self.shutdown.child_token();
        let now = Arc::new(Notify::new());
        let sweeper = Sweeper {
            pool: pool.to_owned(),
            inventory: Arc::clone(&inventory),
            interval: self.sweep_interval,
            news,
            wake: Arc::clone(&self.wake),
            now: Arc::clone(&now),
        };
        let stopped = stop.clone();
        tokio::spawn(async move { stopped.run_until_cancelled(sweeper.run()).await });
        Session {
            origin,
            hetzner,
            cloudflare,
            inventory,
            dns,
            sweep,
            now,
            remembered: Mutex::default(),
            kept: Mutex::default(),
            _sweeping: stop.drop_guard(),
        }
    }
}
