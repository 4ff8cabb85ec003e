//! The controller of `HostingPool`s: keeps each pool's firewall, SSH keys and Access objects, sweeps
//! its clouds, and hands instances the clients. One pass reads as steps in [`Controller::pass`]; what
//! it decides is in `plan` and in one file per managed thing.

pub mod access;
pub mod access_secret;
pub mod apply;
pub mod deletion;
#[cfg(test)]
mod fakes;
pub mod firewall;
pub mod observe;
pub mod plan;
mod session;
pub mod ssh_keys;

use std::{
    collections::{BTreeSet, HashSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::{Stream, StreamExt as _, stream};
use k8s_openapi::api::core::v1::Secret as KubeSecret;
use kube::{
    Api, Resource as _, ResourceExt as _,
    core::{DeserializeGuard, PartialObjectMeta},
    runtime::{
        WatchStreamExt as _,
        controller::Action,
        reflector::{self, ObjectRef, Store},
        watcher,
    },
};
use tokio::{sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;
use url::Url;

use super::{
    backoff::{Backoff, jittered, random},
    context::Context,
    events, guard, queue,
    references::{self, References, WATCH_TIMEOUT_SECONDS},
    status,
};
use crate::{
    api::{HostingPool, HostingPoolStatus, annotation, conditions::reason},
    cloud::{BudgetRegistry, CallObserver, CloudError},
    hetzner::FirewallId,
    pool::{Blocked, Facilities, PoolRuntime, PoolState},
};

use access_secret::{AccessSecret as _, KubeAccessSecret, StoredToken};
use apply::{Outcome, Pass, token_secret};
use deletion::Deletion;
use firewall::Marker;
use observe::Clouds;
use plan::{Again, Findings, ParsedSpec, PoolIdentity, SweepState, Trouble};
use session::{Inputs, Remembered, Session, Sessions};

/// A pass that takes longer is given up; the next one starts over.
const PASS_DEADLINE: Duration = Duration::from_secs(60);
/// Passes at the same time.
const CONCURRENCY: u16 = 4;
/// A pool is looked at again after this many sweeps.
const SWEEPS_PER_LOOK: u32 = 5;
/// Every so many looks one reads everything, also what only an administrator could have changed.
const LOOKS_PER_THOROUGH: u32 = 24;
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
    /// The call budgets.
    pub budgets: Arc<BudgetRegistry>,
    /// Told of every call to a cloud.
    pub observer: Arc<dyn CallObserver>,
    /// Only these pools; all if `None`.
    pub only: Option<BTreeSet<String>>,
}

type GuardedPool = DeserializeGuard<HostingPool>;

/// Keeps all pools until `shutdown`. Call it as the leader only.
pub async fn run(ctx: Arc<Context>, settings: PoolSettings, shutdown: CancellationToken) {
    let (wake, woken) = mpsc::unbounded_channel::<String>();
    let waker = Arc::new(move |pool: &str| {
        // Nobody listens any more at shutdown only.
        let _ = wake.send(pool.to_owned());
    });
    let (references, changes) = references::watch(ctx.client.clone());
    let installation = ctx.master_key.installation();
    let sessions = Sessions::new(installation, ctx.intervals.sweep, shutdown.clone(), waker);
    let controller =
        Arc::new(Controller { ctx, settings, references, sessions, backoff: Backoff::default() });
    let (store, writer) = reflector::store::<GuardedPool>();
    let pools = controller.clone().watch_pools().reflect(writer).applied_objects();
    let config = watcher::Config::default().timeout(WATCH_TIMEOUT_SECONDS);
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
    queue::run(store, triggers, CONCURRENCY, shutdown, controller, reconcile).await;
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
    sessions: Sessions,
    backoff: Backoff<String>,
}

async fn reconcile(pool: Arc<GuardedPool>, controller: Arc<Controller>) -> Action {
    let name = pool.meta().name.clone().unwrap_or_default();
    if controller.settings.only.as_ref().is_some_and(|only| !only.contains(&name)) {
        return Action::await_change();
    }
    let pass = tokio::time::timeout(PASS_DEADLINE, controller.guarded_pass(&name, &pool));
    match pass.await {
        Ok(Ok(action)) => action,
        Ok(Err(error)) => {
            tracing::warn!(pool = name, %error, "a call to the API server failed");
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
        let config = watcher::Config::default().timeout(WATCH_TIMEOUT_SECONDS);
        let known = Mutex::new((HashSet::new(), HashSet::new()));
        watcher(Api::<GuardedPool>::all(self.ctx.client.clone()), config)
            .default_backoff()
            .modify(|pool| pool.meta_mut().managed_fields = None)
            .inspect(move |event| {
                let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
                let (known, listed) = &mut *known;
                let name = |pool: &GuardedPool| pool.meta().name.clone().unwrap_or_default();
                match event {
                    Ok(watcher::Event::Init) => listed.clear(),
                    Ok(watcher::Event::InitApply(pool)) => drop(listed.insert(name(pool))),
                    Ok(watcher::Event::InitDone) => {
                        known.difference(listed).for_each(|gone: &String| self.forget(gone));
                        *known = std::mem::take(listed);
                    }
                    Ok(watcher::Event::Apply(pool)) => drop(known.insert(name(pool))),
                    Ok(watcher::Event::Delete(pool)) => {
                        known.remove(&name(pool));
                        self.forget(&name(pool));
                    }
                    Err(error) => tracing::warn!(%error, "watching pools failed; trying again"),
                }
            })
    }

    fn forget(&self, pool: &str) {
        self.sessions.remove(pool);
        self.ctx.pools.remove(pool);
        self.backoff.reset(&pool.to_owned());
    }

    async fn guarded_pass(&self, name: &str, pool: &GuardedPool) -> Result<Action, kube::Error> {
        match &pool.0 {
            Ok(pool) => self.pass(name, pool).await,
            Err(invalid) => {
                guard::report_malformed::<HostingPool>(&self.ctx, invalid).await?;
                Ok(Action::await_change())
            }
        }
    }

    /// One pass: finalizer → tokens → clients → cloud objects → what instances get → status.
    async fn pass(&self, name: &str, pool: &HostingPool) -> Result<Action, kube::Error> {
        let api: Api<HostingPool> = Api::all(self.ctx.client.clone());
        let deleting = pool.metadata.deletion_timestamp.is_some();
        if deleting && !pool.finalizers().iter().any(|held| held == crate::api::FINALIZER) {
            self.forget(name);
            return Ok(Action::await_change());
        }
        if !deleting && status::set_finalizer(&api, pool, true, &self.ctx.metrics).await? {
            // The watch brings the pool back with its finalizer; no cloud is called before.
            return Ok(Action::await_change());
        }
        self.references.complete().await;
        let instances = self.references.count(|reference| reference.pool == name);

        let outcome = match self.session(name, pool).await? {
            Ok((session, parsed)) => {
                let outcome = self.cloud_pass(name, pool, &session, &parsed, instances).await?;
                let gone = deleting && outcome.trouble.is_none();
                if gone {
                    status::set_finalizer(&api, pool, false, &self.ctx.metrics).await?;
                    self.forget(name);
                    return Ok(Action::await_change());
                }
                self.with_sweep(name, pool, &session, &parsed, outcome)
            }
            Err(trouble) => {
                self.sessions.remove(name);
                self.ctx.pools.set(name, PoolState::Blocked(trouble.blocked.clone()));
                Outcome { trouble: Some(trouble), ..Outcome::default() }
            }
        };
        self.write_status(&api, pool, &outcome, instances).await?;
        Ok(self.next_look(name, &outcome))
    }

    /// The clients, or why there are none.
    async fn session(
        &self,
        name: &str,
        pool: &HostingPool,
    ) -> Result<Result<(Arc<Session>, ParsedSpec), Trouble>, kube::Error> {
        let parsed = match plan::parse_spec(&pool.spec) {
            Ok(parsed) => parsed,
            Err(trouble) => return Ok(Err(trouble)),
        };
        let (client, namespace) = (&self.ctx.client, &self.ctx.namespace);
        let tokens = match session::read_tokens(client, namespace, &pool.spec).await? {
            Ok(tokens) => tokens,
            Err(trouble) => return Ok(Err(trouble)),
        };
        let uid = pool.uid().unwrap_or_default();
        let opened = self.sessions.open(name, &uid, &self.settings, &pool.spec, &parsed, tokens);
        Ok(opened.map(|session| (session, parsed)).map_err(|error| {
            let message = format!("{error}. Correct the operator's flags and restart it.");
            Trouble::terminal(Blocked { reason: reason::CLOUD_REJECTED, message })
        }))
    }

    /// Looks at the clouds if it is time or something changed; else what the last look came to.
    async fn cloud_pass(
        &self,
        name: &str,
        pool: &HostingPool,
        session: &Session,
        parsed: &ParsedSpec,
        instances: u32,
    ) -> Result<Outcome, kube::Error> {
        let identity = PoolIdentity::new(name, self.ctx.master_key.installation());
        let (client, namespace) = (self.ctx.client.clone(), &self.ctx.namespace);
        let secret = KubeAccessSecret::new(client, namespace, &identity, &self.ctx.metrics);
        let stored = secret.read().await?;
        let mut inputs = inputs(pool, instances, &stored);
        let last = session.remembered();
        if let Some(last) = last.as_ref().filter(|last| last.inputs == inputs)
            && last.until.is_none_or(|until| Instant::now() < until)
        {
            return Ok(last.outcome.clone());
        }
        let same =
            last.as_ref().filter(|last| last.inputs == inputs && last.outcome.trouble.is_none());
        let glances = same.map_or(0, |last| (last.glances + 1) % LOOKS_PER_THOROUGH);
        let clouds = Clouds { hetzner: &*session.hetzner, cloudflare: &*session.cloudflare };
        if last.is_some_and(|last| last.inputs.reconcile_at != inputs.reconcile_at) {
            session.sweep_now();
        }
        let outcome = if inputs.deleting {
            let place = |error: &CloudError| token_secret(&pool.spec, namespace, error.cloud);
            let (identity, token_secret) = (&identity, &place);
            let deletion = Deletion { clouds, secret: &secret, identity, token_secret };
            let done = match deletion::in_use(instances) {
                Some(trouble) => Err(trouble),
                None => deletion.run().await,
            };
            Outcome { trouble: done.err(), ..Outcome::default() }
        } else {
            let status = pool.status.as_ref();
            let pass = Pass {
                clouds,
                secret: &secret,
                identity: &identity,
                spec: &pool.spec,
                parsed,
                marker: Marker {
                    recorded: status.and_then(|status| status.firewall_id).map(FirewallId),
                    has_instances: instances > 0,
                    retry: inputs.retry.as_deref(),
                },
                recorded_access: status.and_then(|status| status.access.as_ref()),
                stored: &stored,
                thorough: glances == 0,
                now: self.ctx.clock.now(),
                namespace,
            };
            pass.run().await
        };
        inputs.token_stored |= outcome.headers.is_some();
        let until = self.until(name, &outcome);
        let remembered = Remembered { inputs, outcome: outcome.clone(), until, glances };
        session.remember(Some(remembered));
        Ok(outcome)
    }

    /// For how long the outcome of a look at the clouds is good.
    fn until(&self, name: &str, outcome: &Outcome) -> Option<Instant> {
        let look = jittered(self.ctx.intervals.sweep * SWEEPS_PER_LOOK, random());
        let pause = match outcome.trouble.as_ref().map(|trouble| trouble.again) {
            None => {
                self.backoff.reset(&name.to_owned());
                look
            }
            Some(Again::OnChange) => return None,
            Some(Again::Slowly) => SLOWLY,
            Some(Again::Backoff) => self.backoff.next(&name.to_owned(), random()),
            Some(Again::After(pause)) => pause.max(self.backoff.next(&name.to_owned(), random())),
        };
        Some(Instant::now() + pause)
    }

    /// Gives instances what they get, which takes a sweep besides the pool's objects.
    fn with_sweep(
        &self,
        name: &str,
        pool: &HostingPool,
        session: &Session,
        parsed: &ParsedSpec,
        mut outcome: Outcome,
    ) -> Outcome {
        let sweep = session.sweep();
        let place = |error: &CloudError| token_secret(&pool.spec, &self.ctx.namespace, error.cloud);
        let swept = plan::sweep_trouble(&sweep, place);
        // An old inventory serves on; none at all does not, and neither does a refused token.
        let unswept = match &sweep {
            SweepState::Done => None,
            SweepState::Failed { swept_before: true, .. } => {
                swept.as_ref().filter(|trouble| trouble.blocked.reason == reason::UNAUTHORIZED)
            }
            SweepState::Pending | SweepState::Failed { .. } => swept.as_ref(),
        };
        let refused = outcome.trouble.as_ref();
        let refused = refused.filter(|trouble| trouble.blocked.reason == reason::UNAUTHORIZED);
        let state = if let Some(trouble) = refused.or(unswept) {
            PoolState::Blocked(trouble.blocked.clone())
        } else {
            let facilities = facilities(pool, &outcome);
            PoolState::Running(Arc::new(runtime(name, pool, session, parsed, facilities)))
        };
        self.ctx.pools.set(name, state);
        outcome.trouble = outcome.trouble.or(swept);
        outcome
    }

    async fn write_status(
        &self,
        api: &Api<HostingPool>,
        pool: &HostingPool,
        outcome: &Outcome,
        instances: u32,
    ) -> Result<(), kube::Error> {
        let ring = self.ctx.key_ring.read().await.clone();
        let certificate = ring.certificate().map(moorage_wire::sealing::SealingCertificate::pem);
        let findings = Findings {
            generation: pool.metadata.generation,
            firewall: outcome.firewall,
            access: outcome.access.clone(),
            instances,
            certificate,
            deleting: pool.metadata.deletion_timestamp.is_some(),
            trouble: outcome.trouble.as_ref(),
        };
        let old = pool.status.as_ref();
        let now = self.ctx.clock.now();
        let wanted = plan::status(old.unwrap_or(&HostingPoolStatus::default()), &findings, now);
        if status::write(api, pool, old, &wanted, &self.ctx.metrics).await? {
            let old = old.map(|status| status.conditions.as_slice()).unwrap_or_default();
            events::publish(&self.ctx, &pool.object_ref(&()), old, &wanted.conditions).await;
        }
        Ok(())
    }

    /// When the pool is looked at again without anything changing.
    fn next_look(&self, name: &str, outcome: &Outcome) -> Action {
        let until = self.sessions.remembered(name).map(|remembered| remembered.until);
        match until {
            Some(Some(until)) => Action::requeue(until.saturating_duration_since(Instant::now())),
            Some(None) => Action::await_change(),
            None => match outcome.trouble.as_ref().map(|trouble| trouble.again) {
                Some(Again::OnChange) => Action::await_change(),
                _ => Action::requeue(self.ctx.intervals.sweep),
            },
        }
    }
}

fn inputs(pool: &HostingPool, instances: u32, stored: &StoredToken) -> Inputs {
    let annotation = |name| pool.annotations().get(name).cloned();
    Inputs {
        generation: pool.metadata.generation,
        retry: annotation(annotation::RETRY),
        reconcile_at: annotation(annotation::RECONCILE_AT),
        has_instances: instances > 0,
        token_stored: stored.headers().is_some(),
        deleting: pool.metadata.deletion_timestamp.is_some(),
    }
}

fn facilities(pool: &HostingPool, outcome: &Outcome) -> Result<Facilities, Blocked> {
    if pool.metadata.deletion_timestamp.is_some() {
        let message = "The pool is being deleted.".to_owned();
        return Err(Blocked { reason: reason::DELETING, message });
    }
    outcome.facilities()
}

fn runtime(
    name: &str,
    pool: &HostingPool,
    session: &Session,
    parsed: &ParsedSpec,
    facilities: Result<Facilities, Blocked>,
) -> PoolRuntime {
    PoolRuntime {
        name: name.to_owned(),
        spec: pool.spec.clone(),
        account: parsed.account.clone(),
        zone: parsed.zone.clone(),
        hetzner: Arc::clone(&session.hetzner),
        cloudflare: Arc::clone(&session.cloudflare),
        inventory: Arc::clone(&session.inventory),
        dns: Arc::clone(&session.dns),
        accepted_loss: pool
            .annotations()
            .get(annotation::ACCEPT_LOSS)
            .and_then(|count| count.parse().ok()),
        facilities,
    }
}
