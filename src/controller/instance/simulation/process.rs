//! One process of the operator in the model world: the real controller of instances on the world's
//! ports, with the caches of its watches, which lag as far as the life wants them to.

use std::{
    collections::BTreeMap,
    sync::{Arc, LazyLock, OnceLock},
};

use kube::{
    ResourceExt as _,
    runtime::{
        reflector::{self, Store, store::Writer},
        watcher::Event,
    },
};
use moorage_wire::{Secret, Sha256, program::Program};
use serde_json::json;
use tokio::sync::{Notify, RwLock};
use tokio_util::sync::CancellationToken;

use super::{
    super::{
        Controller, GuardedInstance, census, keys,
        memory::{Memories, WriteRates},
    },
    broken::Defect,
    link::{EventCount, Link},
    stand_ins,
    world::{ACCOUNT, DOMAIN, INSTALLATION, Key, MASTER_KEYS, World},
};
use crate::{
    agent::AccessHeaders,
    api::{FINALIZER, Guarded, HostingPoolSpec, OpenClawRelease},
    cloudflare::{AccountId, ZoneId},
    controller::pool_runtime::{PoolRuntime, PoolState, Pools},
    controller::{
        admissions::Admissions,
        backoff::Backoff,
        context::{Context, Intervals},
        slots::Slots,
    },
    credentials::key_ring::KeyRing,
    dns::DnsQueue,
    hetzner::FirewallId,
    inventory::Inventory,
    master_keys::{CurrentKeys, SealingKeyUse},
    metrics::Metrics,
    pool::{Facilities, Offers},
};

pub(super) const POOL: &str = "eu-1";
const ZONE: &str = "fedcba9876543210fedcba9876543210";
const RELEASE: &str = "2026.9.6-1";

/// Nothing is asked of it: what would call the API server has a port.
static CLIENT: LazyLock<kube::Client> = LazyLock::new(|| {
    let nowhere = "http://127.0.0.1:9".parse().expect("it is an address");
    kube::Client::try_from(kube::Config::new(nowhere)).expect("no TLS is needed")
});
static METRICS: LazyLock<Arc<Metrics>> = LazyLock::new(Metrics::new);

static SPEC: LazyLock<HostingPoolSpec> = LazyLock::new(|| {
    let spec = json!({
        "hetzner": {
            "tokenSecretRef": {"name": "hetzner"}, "serverTypes": ["cx33"],
            "locations": ["fsn1", "nbg1"],
        },
        "cloudflare": {
            "tokenSecretRef": {"name": "cloudflare"},
            "accountId": ACCOUNT, "zoneId": ZONE, "domain": DOMAIN,
        },
        "capacity": 50,
        "allowedNamespaces": ["tenants", "others"],
        "defaultRelease": RELEASE,
    });
    serde_json::from_value(spec).expect("it is a pool's spec")
});

static RELEASE_OBJECT: LazyLock<OpenClawRelease> = LazyLock::new(|| {
    let artifact = |program: Program| {
        json!({
            "version": "1", "url": "https://artifacts.example.com/file",
            "sha256": artifact_sha256(program).to_string(), "size": 1,
        })
    };
    let artifacts: serde_json::Map<_, _> = Program::ALL
        .iter()
        .map(|program| (program.name().to_owned(), artifact(*program)))
        .collect();
    let spec = json!({"version": "2026.9.6", "artifacts": artifacts});
    OpenClawRelease::new(RELEASE, serde_json::from_value(spec).expect("it is a release's spec"))
});

/// The digest of the one version of a program that there is.
pub(super) fn artifact_sha256(program: Program) -> Sha256 {
    Sha256::of(program.name().as_bytes())
}

/// A process that leads, or believes that it does.
pub(super) struct Process {
    pub(super) link: Arc<Link>,
    controller: Controller,
    inventory: Arc<Inventory>,
    runtime: Arc<PoolRuntime>,
    store: Store<GuardedInstance>,
    writer: Writer<GuardedInstance>,
    /// The versions that the watch has brought.
    observed: BTreeMap<Key, Option<String>>,
}

impl Process {
    /// A process that just began: its caches are filled, its pool was not swept yet.
    pub(super) fn start(world: &Arc<World>, defect: Option<Defect>) -> Self {
        let link = Arc::new(Link::new(Arc::clone(world), defect));
        let (store, writer) = reflector::store();
        let (releases, mut release_writer) = reflector::store();
        release_writer.apply_watcher_event(&Event::Init);
        release_writer.apply_watcher_event(&Event::InitApply(Guarded(Ok(RELEASE_OBJECT.clone()))));
        release_writer.apply_watcher_event(&Event::InitDone);
        let zone = ZoneId::parse(ZONE).expect("it is a zone's id");
        let inventory =
            Inventory::new(link.clone(), link.clone(), zone.clone(), INSTALLATION, link.clone());
        let inventory = Arc::new(inventory);
        let ctx = Arc::new(context(&link));
        ctx.admissions.follow(Vec::new(), census::population(&ctx, store.clone()));
        ctx.admissions.set_pool(POOL, &SPEC, false);
        ctx.pools.exists(POOL);
        ctx.pools.listed();
        let runtime = Arc::new(runtime(&link, &inventory, zone));
        let controller = Controller {
            ctx,
            cluster: link.clone(),
            instances: store.clone(),
            releases,
            memories: Memories::default(),
            write_rates: WriteRates::default(),
            slots: Slots::new(1),
            shutdown: CancellationToken::new(),
            pace: keys::Pace::default(),
            backoff: Backoff::default(),
            decisions: defect.map(Defect::decisions).unwrap_or_default(),
            costly: stand_ins::costly(),
        };
        let observed = BTreeMap::new();
        let mut process = Self { link, controller, inventory, runtime, store, writer, observed };
        process.writer.apply_watcher_event(&Event::Init);
        process.writer.apply_watcher_event(&Event::InitDone);
        process.watch(|_| true);
        process
    }

    /// The watch brings what has changed of the instances that `which` names.
    pub(super) fn watch(&mut self, which: impl Fn(&Key) -> bool) {
        let world = Arc::clone(&self.link.world);
        let there = &world.state().instances;
        let gone = self.observed.keys().filter(|key| which(key) && !there.contains_key(*key));
        for key in gone.cloned().collect::<Vec<_>>() {
            let found = self.find(&key);
            self.observed.remove(&key);
            if let Some(found) = found {
                self.writer.apply_watcher_event(&Event::Delete(found.as_ref().clone()));
            }
        }
        for (key, instance) in there.iter().filter(|(key, _)| which(key)) {
            let version = &instance.metadata.resource_version;
            if self.observed.get(key) == Some(version) {
                continue;
            }
            self.observed.insert(key.clone(), version.clone());
            let mut instance = instance.clone();
            if self.link.defect == Some(Defect::FinalizerLate)
                && instance.metadata.deletion_timestamp.is_none()
                && instance.finalizers().is_empty()
            {
                instance.finalizers_mut().push(FINALIZER.to_owned());
            }
            self.writer.apply_watcher_event(&Event::Apply(Guarded(Ok(instance))));
        }
    }

    fn find(&self, key: &Key) -> Option<Arc<GuardedInstance>> {
        self.store.find(|instance| {
            let meta = kube::Resource::meta(instance);
            meta.namespace.as_ref() == Some(&key.0) && meta.name.as_ref() == Some(&key.1)
        })
    }

    /// The watch has brought the essence of an instance only, as of one that has nothing yet.
    pub(super) fn know_in_part(&mut self, key: &Key) {
        let Some(mut instance) = self.link.world.state().instance(key).cloned() else { return };
        instance.keep_in_part();
        self.writer.apply_watcher_event(&Event::Apply(Guarded(Ok(instance))));
    }

    /// What all controllers share, which knows the instances that the watch has brought.
    pub(super) fn context(&self) -> Arc<Context> {
        let ctx = &self.controller.ctx;
        let _ = ctx.instances.set(self.store.clone());
        Arc::clone(ctx)
    }

    /// A sweep of the pool's clouds. One that fails is tried again later; the pool runs from the first
    /// one on that does not.
    pub(super) async fn sweep(&self) {
        self.link.act_for(None);
        if self.inventory.sweep().await.is_ok() {
            let running = PoolState::Running(Arc::clone(&self.runtime));
            self.controller.ctx.pools.set(POOL, running);
        }
    }

    /// One pass over an instance, as the watch knows it.
    pub(super) async fn pass(&self, key: &Key) {
        let Some(instance) = self.find(key) else { return };
        let Ok(instance) = &instance.0 else { return };
        self.link.act_for(Some(key.clone()));
        self.link.world.state().counts.passes += 1;
        // What fails is tried again by the next pass.
        let ended = self.controller.pass(instance).await;
        let state = &mut self.link.world.state();
        state.say(|| {
            format!("pass over {key:?} ended: {:?}", ended.map_err(|error| error.to_string()))
        });
    }
}

fn context(link: &Arc<Link>) -> Context {
    Context {
        client: CLIENT.clone(),
        namespace: "moorage-system".to_owned(),
        master_keys: CurrentKeys::new(MASTER_KEYS.clone()),
        sealing_key_use: SealingKeyUse::default(),
        key_ring: RwLock::new(Arc::new(KeyRing::new([], []))),
        pools: Pools::default(),
        admissions: Admissions::new(link.clone(), INSTALLATION),
        agents: link.clone(),
        metrics: Arc::clone(&METRICS),
        clock: link.clone(),
        randomness: link.clone(),
        intervals: Intervals::default(),
        instances: OnceLock::new(),
        look_at_keys: Notify::new(),
        look_at_sealing_keys: Notify::new(),
        events: Box::new(EventCount(Arc::clone(&link.world))),
    }
}

fn runtime(link: &Arc<Link>, inventory: &Arc<Inventory>, zone: ZoneId) -> PoolRuntime {
    let access = AccessHeaders {
        client_id: "operator".to_owned(),
        client_secret: Secret::from("secret".to_owned()),
    };
    let facilities = Facilities {
        firewall: FirewallId(5),
        ssh_keys: Vec::new(),
        access: Arc::new(access),
        offers: Arc::new(Offers::default()),
    };
    PoolRuntime {
        name: POOL.to_owned(),
        spec: SPEC.clone(),
        account: AccountId::parse(ACCOUNT).expect("it is an account's id"),
        zone: zone.clone(),
        hetzner: link.clone(),
        cloudflare: link.clone(),
        inventory: Arc::clone(inventory),
        dns: Arc::new(DnsQueue::new(link.clone(), zone, link.clone())),
        accepted_loss: None,
        facilities: Ok(facilities),
        intake: Ok(()),
    }
}
