//! One pass over a pool: its steps in order, and when the next one is due.

use std::{sync::Arc, time::Duration};

use kube::{Api, Resource as _, ResourceExt as _, runtime::controller::Action};
use tokio::time::Instant;

use super::{
    Controller, SLOWLY,
    access_secret::{AccessSecret as _, KubeAccessSecret, StoredToken},
    apply::{Pass, token_secret},
    deletion::Deletion,
    observe::Clouds,
    session::{Inputs, Remembered, Session},
    tokens,
};
use crate::{
    api::{
        Guarded, HostingPool, HostingPoolStatus,
        annotation::{self, AcceptedLoss, Mark},
        conditions::Reason,
        pool::{MasterKeyStatus, UsageStatus},
    },
    api_server::told,
    cloud::CloudError,
    controller::pool_runtime::{PoolRuntime, PoolState},
    controller::{
        backoff::{jittered, random},
        events, guard, status,
    },
    hetzner::FirewallId,
    inventory::Inventory,
    pool::{
        Outcome, Unaccounted,
        firewall::Marker,
        identity::PoolIdentity,
        spec::{self, ParsedSpec},
        status::{Findings, of_pass},
        supply::{self, Supply, SweepState},
    },
    problem::{Problem, Retry},
};

/// A pool is looked at again after this many sweeps.
const SWEEPS_PER_LOOK: u32 = 5;
/// Every so many looks one reads everything, also what only an administrator could have changed.
const LOOKS_PER_THOROUGH: u32 = 24;

impl Controller {
    pub(super) async fn guarded_pass(
        &self,
        name: &str,
        pool: &Guarded<HostingPool>,
    ) -> Result<Action, kube::Error> {
        match &pool.0 {
            Ok(pool) => self.pass(name, pool).await,
            Err(unreadable) => {
                // Without a spec no cloud can be asked; where nothing was made, nothing needs to be.
                let going = unreadable.metadata.deletion_timestamp.is_some();
                if going && !unreadable.in_cloud {
                    guard::let_go::<HostingPool>(&self.ctx, &unreadable.metadata).await?;
                    self.forget(name);
                } else {
                    guard::report_malformed(&self.ctx, unreadable).await?;
                    // Whoever runs in it already runs on.
                    if matches!(self.ctx.pools.get(name), PoolState::Starting) {
                        let message = "this version of Moorage cannot read it".to_owned();
                        let blocked = Problem::whole(Reason::Malformed, message);
                        self.ctx.pools.set(name, PoolState::Blocked(blocked));
                    }
                }
                Ok(Action::await_change())
            }
        }
    }

    /// One pass: finalizer → tokens → clients → cloud objects → what instances get → status.
    async fn pass(&self, name: &str, pool: &HostingPool) -> Result<Action, kube::Error> {
        let api: Api<Guarded<HostingPool>> = Api::all(self.ctx.client.clone());
        let deleting = pool.metadata.deletion_timestamp.is_some();
        if deleting && !pool.finalizers().iter().any(|held| held == crate::api::FINALIZER) {
            self.forget(name);
            return Ok(Action::await_change());
        }
        let (version, metrics) = (pool.resource_version(), &self.ctx.metrics);
        let version = version.as_deref();
        if !deleting && status::set_finalizer(&api, pool, version, true, metrics).await? {
            // The watch brings the pool back with its finalizer; no cloud is called before.
            return Ok(Action::await_change());
        }
        self.references.complete().await;
        self.ctx.admissions.complete().await;
        self.ctx.admissions.set_pool(name, &pool.spec, deleting);
        let instances = self.references.count(|(namespace, instance), reference| {
            reference.pool == name
                && (reference.made.in_status
                    || self.ctx.admissions.counts(name, namespace, instance))
        });

        let mut unaccounted = Unaccounted::told(pool.status.as_ref());
        let mut used = None;
        let outcome = match self.session(name, pool).await? {
            Ok((session, parsed)) => {
                let outcome = self.cloud_pass(name, pool, &session, &parsed, instances).await?;
                let gone = deleting && instances == 0 && outcome.problem.is_none();
                if gone {
                    status::set_finalizer(&api, pool, version, false, metrics).await?;
                    self.forget(name);
                    return Ok(Action::await_change());
                }
                let outcome = self.with_sweep(name, pool, &session, &parsed, outcome);
                used = usage(&session.inventory, &outcome);
                let place = (&*session, &parsed);
                match self.look_at_unaccounted(name, pool, place, &outcome).await {
                    Ok(seen) => unaccounted = seen,
                    // The rest of the status does not depend on it.
                    Err(error) => {
                        let error = told(&error);
                        tracing::warn!(pool = name, error, "a look at orphans failed");
                    }
                }
                outcome
            }
            Err(problem) => {
                self.sessions.remove(name);
                self.ctx.pools.set(name, PoolState::Blocked(problem.clone()));
                Outcome { problem: Some(problem), ..Outcome::default() }
            }
        };
        self.write_status(&api, pool, (&outcome, unaccounted, used), instances).await?;
        Ok(self.next_look(name, &outcome))
    }

    /// The clients, or why there are none.
    async fn session(
        &self,
        name: &str,
        pool: &HostingPool,
    ) -> Result<Result<(Arc<Session>, ParsedSpec), Problem>, kube::Error> {
        let parsed = match spec::parse_spec(&pool.spec) {
            Ok(parsed) => parsed,
            Err(problem) => return Ok(Err(problem)),
        };
        let (client, namespace) = (&self.ctx.client, &self.ctx.namespace);
        let tokens = match tokens::read_tokens(client, namespace, &pool.spec).await? {
            Ok(tokens) => tokens,
            Err(problem) => return Ok(Err(problem)),
        };
        let uid = pool.uid().unwrap_or_default();
        let opened = self.sessions.open(name, &uid, &self.settings, &pool.spec, &parsed, tokens);
        Ok(opened.map(|session| (session, parsed)).map_err(|error| {
            let message = format!("{error}. Correct the operator's flags and restart it.");
            Problem::whole(Reason::CloudRejected, message)
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
        let identity = PoolIdentity::new(name, self.ctx.master_keys.installation());
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
            last.as_ref().filter(|last| last.inputs == inputs && last.outcome.problem.is_none());
        let glances = same.map_or(0, |last| (last.glances + 1) % LOOKS_PER_THOROUGH);
        let clouds = Clouds { hetzner: &*session.hetzner, cloudflare: &*session.cloudflare };
        if last.as_ref().is_some_and(|last| last.inputs.reconcile_at != inputs.reconcile_at) {
            session.sweep_now();
        }
        let outcome = if inputs.deleting && instances == 0 {
            let place = |error: &CloudError| token_secret(&pool.spec, namespace, error.cloud);
            let (identity, token_secret) = (&identity, &place);
            let (zone, domain) = (&parsed.zone, &*pool.spec.cloudflare.domain);
            let deletion =
                Deletion { clouds, secret: &secret, identity, zone, domain, token_secret };
            Outcome { problem: deletion.run().await.err(), ..Outcome::default() }
        } else {
            // A pool that is being deleted is kept as it is for as long as instances need it.
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
                    retry: inputs.retry.as_ref(),
                },
                recorded_access: status.and_then(|status| status.access.as_ref()),
                stored: &stored,
                offers: same.and_then(|last| last.outcome.offers.as_ref()),
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
        let pause = match outcome.problem.as_ref().map(|problem| problem.retry) {
            None => {
                self.backoff.reset(&name.to_owned());
                look
            }
            Some(Retry::OnChange) => return None,
            Some(Retry::Slowly) => SLOWLY,
            Some(Retry::BackOff) => self.backoff.next(&name.to_owned(), random()),
            Some(Retry::After(pause)) => pause.max(self.backoff.next(&name.to_owned(), random())),
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
        let swept = supply::sweep_problem(&sweep, place);
        let deleting = pool.metadata.deletion_timestamp.is_some();
        let supply = supply::supply(&outcome, session.kept(), swept.as_ref(), deleting);
        session.keep(supply.facilities.as_ref().ok());
        outcome.serving = supply.facilities.is_ok();
        let state = match &sweep {
            // An old inventory serves on; where nothing was ever seen, everything would look gone.
            SweepState::Done | SweepState::Failed { swept_before: true, .. } => {
                Some(PoolState::Running(Arc::new(runtime(name, pool, session, parsed, supply))))
            }
            SweepState::Failed { error, .. } => {
                outcome.serving = false;
                Some(PoolState::Blocked(Problem::of_pool(error, &place(error))))
            }
            // Whoever has a former session's picture keeps it until this one has its own.
            SweepState::Pending => supply.project_changed().map(PoolState::Blocked),
        };
        if let Some(state) = state {
            self.ctx.pools.set(name, state);
        }
        outcome.problem = outcome.problem.or(swept);
        outcome
    }

    fn master_key_status(&self) -> MasterKeyStatus {
        self.key_use().status(&self.ctx.master_keys.get())
    }

    async fn write_status(
        &self,
        api: &Api<Guarded<HostingPool>>,
        pool: &HostingPool,
        (outcome, unaccounted, usage): (&Outcome, Unaccounted, Option<UsageStatus>),
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
            master_key: self.master_key_status(),
            unaccounted,
            deleting: pool.metadata.deletion_timestamp.is_some(),
            problem: outcome.problem.as_ref(),
            serving: outcome.serving,
            offers: outcome.offers.as_deref(),
            usage,
        };
        let old = pool.status.as_ref();
        let now = self.ctx.clock.now();
        let wanted = of_pass(old.unwrap_or(&HostingPoolStatus::default()), &findings, now);
        let (version, said) = (pool.resource_version(), (old, &wanted));
        let metrics = &self.ctx.metrics;
        if status::write(api, pool, version.as_deref(), said, metrics).await?.is_some() {
            let old = old.map(|status| status.conditions.as_slice()).unwrap_or_default();
            events::publish(&self.ctx, &pool.object_ref(&()), old, &wanted.conditions).await;
        }
        Ok(())
    }

    /// When the pool is looked at again without anything changing.
    fn next_look(&self, name: &str, outcome: &Outcome) -> Action {
        let until = self.sessions.remembered(name).map(|remembered| remembered.until);
        // Orphans are confirmed, or deleted, one sweep after the other.
        let soon = self.orphans.next_look(name, self.ctx.intervals.sweep);
        let wait = |until: Instant| until.saturating_duration_since(Instant::now());
        match until {
            Some(Some(until)) => Action::requeue(wait(until).min(soon.unwrap_or(Duration::MAX))),
            Some(None) => soon.map_or_else(Action::await_change, Action::requeue),
            None => match outcome.problem.as_ref().map(|problem| problem.retry) {
                Some(Retry::OnChange) => Action::await_change(),
                _ => Action::requeue(self.ctx.intervals.sweep),
            },
        }
    }
}

/// What the sweep and the pass counted anyway; nothing before the first sweep.
fn usage(inventory: &Inventory, outcome: &Outcome) -> Option<UsageStatus> {
    let (_, tunnels, records) = inventory.counts()?;
    let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    Some(UsageStatus {
        tunnels: count(tunnels),
        dns_records: count(records),
        access_applications: outcome.applications.map(count),
        service_tokens: outcome.tokens.map(count),
    })
}

fn inputs(pool: &HostingPool, instances: u32, stored: &StoredToken) -> Inputs {
    let annotations = pool.annotations();
    Inputs {
        generation: pool.metadata.generation,
        retry: Mark::of(annotations, annotation::RETRY),
        reconcile_at: Mark::of(annotations, annotation::RECONCILE_AT),
        has_instances: instances > 0,
        token_stored: stored.headers().is_some(),
        deleting: pool.metadata.deletion_timestamp.is_some(),
    }
}

fn runtime(
    name: &str,
    pool: &HostingPool,
    session: &Session,
    parsed: &ParsedSpec,
    Supply { facilities, intake }: Supply,
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
        accepted_loss: AcceptedLoss::of(pool.annotations()),
        facilities,
        intake,
    }
}
