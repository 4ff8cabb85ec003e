//! The controller of `HostingPool`s: keeps each pool's firewall, SSH keys and Access objects, sweeps
//! its clouds, and hands instances the clients. When a pool is looked
//! at is said here; a pass is in `pass`, and what it decides is in `plan` and in one file per managed
//! thing.

pub mod access_secret;
pub mod apply;
pub mod deletion;
#[cfg(test)]
pub(crate) mod fakes;
pub mod observe;
mod orphans;
mod pass;
mod session;
mod sweeper;
mod tokens;

use std::{
    collections::{BTreeSet, HashSet},
    sync::Arc,
    time::Duration,
};

use futures::{Stream, StreamExt as _, stream};
use k8s_openapi::api::core::v1::Secret as KubeSecret;
use kube::{
    Api, Resource as _, ResourceExt as _,
    core::PartialObjectMeta,
    runtime::{
        WatchStreamExt as _,
        controller::Action,
        reflector::{self, ObjectRef, Store},
        watcher,
    },
};
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use url::Url;

use super::{
    backoff::{Backoff, random},
    context::Context,
    queue,
    references::{self, Reference, References, watch_config},
    status,
};
use crate::{
    admission::Rules,
    api::{Guarded, HostingPool},
    api_server::told,
    cloud::{BudgetRegistry, CallObserver},
    master_key_store::MasterKeyStore,
    master_keys::KeyUse,
};

use session::Sessions;

/// A pass that takes longer is given up; the next one starts over.
const PASS_DEADLINE: Duration = Duration::from_secs(60);
/// Passes at the same time.
const CONCURRENCY: u16 = 4;
/// Before a pass is repeated that met a change by somebody else.
const SOON: Duration = Duration::from_secs(1);
/// Between two tries where nothing in the cluster tells that a person has helped.
pub(super) const SLOWLY: Duration = Duration::from_mins(5);

/// What the controller is started with.
pub struct PoolSettings {
    /// The root of Hetzner's API.
    pub hetzner_endpoint: Url,
    /// The root of Cloudflare's API.
    pub cloudflare_endpoint: Url,
    /// PEM certificates to trust beside the system's.
    pub extra_roots: Option<Vec<u8>>,
    pub budgets: Arc<BudgetRegistry>,
    /// Told of every call to a cloud.
    pub observer: Arc<dyn CallObserver>,
    /// Only these pools; all if `None`.
    pub only: Option<BTreeSet<String>>,
    /// The namespaces whose instances are looked after; all if empty.
    pub watch_namespaces: Vec<String>,
}

type GuardedPool = Guarded<HostingPool>;

/// Keeps all pools until `shutdown`. Call it as the leader only.
pub async fn run(
    ctx: Arc<Context>,
    settings: PoolSettings,
    master_keys: MasterKeyStore,
    shutdown: CancellationToken,
) {
    let (wake, woken) = mpsc::unbounded_channel::<String>();
    let waker = Arc::new(move |pool: &str| {
        // Nobody listens any more at shutdown only.
        let _ = wake.send(pool.to_owned());
    });
    let (references, changes) = references::watch(ctx.client.clone());
    let installation = ctx.master_keys.installation();
    let wake = Arc::clone(&waker);
    let sessions = Sessions::new(installation, &ctx, shutdown.clone(), waker);
    let (store, writer) = reflector::store::<GuardedPool>();
    let (backoff, pools) = (Backoff::default(), store.clone());
    let orphans = orphans::Orphans::default();
    let controller = Controller { ctx, settings, references, pools, orphans, sessions, backoff };
    let controller = Arc::new(controller);
    let pools = controller.clone().watch_pools().reflect(writer).applied_objects();
    let config = watch_config();
    let secrets: Api<PartialObjectMeta<KubeSecret>> =
        Api::namespaced(controller.ctx.client.clone(), &controller.ctx.namespace);
    let secrets = watcher(secrets, config).default_backoff().touched_objects();
    let by_secret = store.clone();
    let woken = stream::unfold(woken, |mut woken| async { Some((woken.recv().await?, woken)) });
    let triggers = vec![
        queue::objects(pools, |pool| vec![ObjectRef::from_obj(pool)]),
        queue::objects(secrets, move |secret: &PartialObjectMeta<KubeSecret>| {
            pools_of_secret(&by_secret, &secret.name_any())
        }),
        changes.map(|reference| ObjectRef::new(&reference.pool)).boxed(),
        woken.map(|pool| ObjectRef::new(&pool)).boxed(),
    ];
    let (keeper, stop) = (Arc::clone(&controller), shutdown.clone());
    let keys = async move {
        // The writer lives as long as the triggers, so there is no error to handle.
        let _ = keeper.pools.wait_until_ready().await;
        let wake_all = || keeper.pools.state().iter().for_each(|pool| wake(&pool.name_any()));
        let ctx = Arc::clone(&keeper.ctx);
        ctx.admissions.complete().await;
        keeper.references.complete().await;
        let count = || keeper.key_use();
        super::master_keys::run(ctx, master_keys, count, wake_all, stop).await;
    };
    let queue = queue::run(store, triggers, CONCURRENCY, shutdown, controller, reconcile);
    tokio::join!(queue, keys);
}

impl Controller {
    /// What needs which master key.
    fn key_use(&self) -> KeyUse {
        let believed = |(namespace, _): &references::Name, reference: &Reference| {
            self.believes_finalizer(namespace, &reference.pool)
        };
        super::master_keys::count(&self.ctx, &self.references, self.pools(), believed)
    }

    /// Whether our finalizer on an instance of a namespace is a sign that the operator wrote it: whoever may
    /// edit the instance can write it as well.
    fn believes_finalizer(&self, namespace: &str, pool: &str) -> bool {
        let pool = self.pools.get(&ObjectRef::new(pool));
        self.ctx.admissions.watches(namespace)
            && pool.is_some_and(|pool| may_have_admitted(&pool, namespace))
    }
}

/// Whether a pool may have admitted instances of a namespace. One that cannot be read may have.
pub(crate) fn may_have_admitted(pool: &Guarded<HostingPool>, namespace: &str) -> bool {
    pool.0.as_ref().map_or(true, |pool| Rules::of(&pool.spec, false).allows(namespace))
}

/// The pools that keep a token in this Secret, or their service token.
fn pools_of_secret(store: &Store<GuardedPool>, secret: &str) -> Vec<ObjectRef<GuardedPool>> {
    let uses = |pool: &HostingPool| {
        pool.spec.hetzner.token_secret_ref.name == secret
            || pool.spec.cloudflare.token_secret_ref.name == secret
            || access_secret::secret_name(&pool.name_any()) == secret
    };
    let pools = store.state();
    let using = pools.iter().filter(|pool| pool.0.as_ref().is_ok_and(uses));
    using.map(|pool| ObjectRef::from_obj(pool.as_ref())).collect()
}

struct Controller {
    ctx: Arc<Context>,
    settings: PoolSettings,
    references: Arc<References>,
    pools: Store<GuardedPool>,
    orphans: orphans::Orphans,
    sessions: Sessions,
    backoff: Backoff<String>,
}

async fn reconcile(pool: Arc<GuardedPool>, controller: Arc<Controller>) -> Action {
    let name = pool.meta().name.clone().unwrap_or_default();
    if !controller.is_mine(&name) {
        return Action::await_change();
    }
    let pass = tokio::time::timeout(PASS_DEADLINE, controller.guarded_pass(&name, &pool));
    match pass.await {
        Ok(Ok(action)) => action,
        // The watch brings it as it is now; this is for the case that it already has.
        Ok(Err(error)) if status::is_conflict(&error) => Action::requeue(SOON),
        Ok(Err(error)) => {
            tracing::warn!(pool = name, error = told(&error), "a call to the API server failed");
            Action::requeue(controller.backoff.next(&name, random()))
        }
        Err(_) => {
            tracing::warn!(pool = name, "the pass took longer than {PASS_DEADLINE:?}");
            Action::requeue(controller.backoff.next(&name, random()))
        }
    }
}

impl Controller {
    /// The stream of pools. What belongs to a pool that is gone ends here, also where its finalizer
    /// was taken away by force.
    fn watch_pools(
        self: Arc<Self>,
    ) -> impl Stream<Item = Result<watcher::Event<GuardedPool>, watcher::Error>> + Send {
        let config = watch_config();
        let known = Mutex::new((HashSet::new(), HashSet::new()));
        watcher(Api::<GuardedPool>::all(self.ctx.client.clone()), config)
            .default_backoff()
            .modify(|pool| pool.meta_mut().managed_fields = None)
            .inspect(move |event| {
                let mut known = known.lock();
                let (known, listed) = &mut *known;
                let name = |pool: &GuardedPool| pool.meta().name.clone().unwrap_or_default();
                match event {
                    Ok(watcher::Event::Init) => listed.clear(),
                    Ok(watcher::Event::InitApply(pool)) => {
                        self.expect(&name(pool), pool);
                        listed.insert(name(pool));
                    }
                    Ok(watcher::Event::InitDone) => {
                        known.difference(listed).for_each(|gone: &String| self.forget(gone));
                        *known = std::mem::take(listed);
                        self.ctx.pools.listed();
                    }
                    Ok(watcher::Event::Apply(pool)) => {
                        self.expect(&name(pool), pool);
                        known.insert(name(pool));
                    }
                    Ok(watcher::Event::Delete(pool)) => {
                        known.remove(&name(pool));
                        self.forget(&name(pool));
                    }
                    Err(error) => {
                        tracing::warn!(error = told(error), "watching pools failed; trying again");
                    }
                }
            })
    }

    fn is_mine(&self, pool: &str) -> bool {
        self.settings.only.as_ref().is_none_or(|only| only.contains(pool))
    }

    /// Until its first look is over, the instances of a pool wait for it.
    fn expect(&self, name: &str, pool: &GuardedPool) {
        if let Ok(pool) = &pool.0 {
            let closed = pool.metadata.deletion_timestamp.is_some();
            self.ctx.admissions.set_pool(name, &pool.spec, closed);
        }
        if self.is_mine(name) {
            self.ctx.pools.exists(name);
        }
    }

    /// How many pools there are.
    fn pools(&self) -> u32 {
        u32::try_from(self.pools.len()).unwrap_or(u32::MAX)
    }

    fn forget(&self, pool: &str) {
        self.sessions.remove(pool);
        self.orphans.forget(pool);
        self.ctx.metrics.forget_pool(pool);
        self.ctx.pools.remove(pool);
        self.ctx.admissions.remove_pool(pool);
        self.backoff.reset(&pool.to_owned());
        self.ctx.look_at_keys.notify_one();
    }
}
