//! Refer: everything that an instance names is looked up, and it is asked whether it is admitted. What
//! the objects say is checked by the pure half, `crate::instance::refer`.

use std::sync::Arc;

use kube::ResourceExt as _;

use super::{Controller, InClouds};
use crate::{
    admission::Denied,
    api::{OpenClawInstance, OpenClawRelease, annotation::Rebuild, conditions::Reason},
    controller::pool_runtime::{PoolRuntime, PoolState},
    hetzner::ServerId,
    instance::{
        Wanted,
        deletion::has_history,
        records,
        refer::{self, Pool},
        wanted::Subject,
    },
    ownership,
    problem::Problem,
};

/// Why an instance cannot be worked on now.
pub(super) enum Unfit {
    /// Because of what all instances of its pool need, or because what it names is not there.
    Surroundings(Problem),
    /// The same, but what was seen of it is not to be believed any more.
    Doubt(Problem),
    Instance(Problem),
    /// It is admitted, but only as much of it is here as a refusal needs.
    InPart,
    /// Whether it is admitted is not known yet.
    Unknown,
}

impl From<Problem> for Unfit {
    fn from(refused: Problem) -> Self {
        Self::Instance(refused)
    }
}

/// A checked instance and the pool that it lives in.
pub(super) struct Referred {
    pub(super) wanted: Wanted,
    pub(super) pool: Arc<PoolRuntime>,
}

impl Controller {
    /// The running pool of an instance.
    pub(super) fn pool(&self, name: &str) -> Result<Arc<PoolRuntime>, Problem> {
        let unready = |why: &str| {
            let message = format!("HostingPool {name} cannot be used: {why}");
            Problem::whole(Reason::PoolNotReady, message)
        };
        match self.ctx.pools.get(name) {
            PoolState::Running(pool) => Ok(pool),
            PoolState::Blocked(blocked) => Err(unready(&blocked.message)),
            PoolState::Starting => Err(unready("it is being looked at")),
            PoolState::Absent => Err(Problem::whole(
                Reason::PoolNotFound,
                format!(
                    "spec.pool: there is no HostingPool {name} that this operator looks after; make it, or correct the name in a new instance"
                ),
            )),
        }
    }

    /// Who an instance is. Call it only when the pool has been swept.
    pub(super) fn subject(&self, instance: &OpenClawInstance, pool: &PoolRuntime) -> Subject {
        let (namespace, name) = (instance.namespace().unwrap_or_default(), instance.name_any());
        let computed = (self.decisions.identify)(self.installation(), instance);
        let named = pool.inventory.named(&namespace, &name);
        let status = instance.status.as_ref();
        let earlier = status.and_then(|status| status.earlier_identity.as_ref());
        let earlier = earlier.and_then(|earlier| earlier.of(&namespace, &name));
        let server = status.and_then(|status| status.server.as_ref()?.id).map(ServerId);
        let id = ownership::effective_id(computed, &named, earlier, server);
        refer::subject(instance, id, self.installation(), of(pool))
    }

    /// Looks up and checks all that the instance names.
    pub(super) fn refer(&self, instance: &OpenClawInstance) -> Result<Referred, Unfit> {
        let pool = self.pool(&instance.spec.pool).map_err(|refused| {
            match self.ctx.pools.get(&instance.spec.pool) {
                PoolState::Blocked(why) if why.reason == Reason::ProjectChanged => {
                    Unfit::Doubt(refused)
                }
                _ => Unfit::Surroundings(refused),
            }
        })?;
        let subject = self.subject(instance, &pool);
        self.check_admission(instance, &subject, &pool)?;
        let unready = |blocked: &Problem| {
            let message =
                format!("HostingPool {} cannot take instances: {}", pool.name, blocked.message);
            let refused = Problem::whole(Reason::PoolNotReady, message);
            let doubt = blocked.reason == Reason::ProjectChanged;
            if doubt { Unfit::Doubt(refused) } else { Unfit::Surroundings(refused) }
        };
        if !self.has_things(instance) {
            pool.intake.as_ref().map_err(unready)?;
        }
        let facilities = pool.facilities.as_ref().map_err(unready)?;
        let given = (facilities.firewall, &*facilities.offers);
        let name = refer::release_name(instance, of(&pool))?;
        let named = |release: &OpenClawRelease| release.name_any() == name;
        let found = self.releases.find(|release| release.0.as_ref().is_ok_and(named));
        let release =
            found.as_ref().and_then(|release| release.0.as_ref().ok()).ok_or_else(|| {
                let message = format!(
                    "spec.release: there is no OpenClawRelease {name}; make it, or name another"
                );
                Unfit::Surroundings(Problem::whole(Reason::ReleaseNotFound, message))
            })?;
        if instance.is_in_part() {
            // An empty configuration and no credentials are not what it asks for.
            return Err(Unfit::InPart);
        }
        let wanted = refer::wanted(instance, subject, of(&pool), given, (name, &release.spec))?;
        let owner = wanted.subject.owner(&instance.status.clone().unwrap_or_default());
        if let Some(refused) = records::taken(&owner, &pool.inventory.view(&owner)) {
            return Err(refused.into());
        }
        self.check_master_key(instance)?;
        Ok(Referred { wanted, pool })
    }

    /// Whether it is admitted: what its pool and the other instances have a say in.
    fn check_admission(
        &self,
        instance: &OpenClawInstance,
        subject: &Subject,
        pool: &PoolRuntime,
    ) -> Result<(), Unfit> {
        let status = instance.status.as_ref();
        // To look through the whole sweep is dear, and the status of almost all says enough.
        let known = status.is_some_and(|status| status.server.is_some());
        let seen = if known { InClouds::default() } else { self.in_clouds(instance) };
        if seen.anything || status.is_some_and(has_history) {
            self.ctx.admissions.grant(instance, seen.server);
        }
        let verdict = self.ctx.admissions.admit(instance).ok_or(Unfit::Unknown)?;
        verdict.map_err(|why| {
            let refused = refer::denied(why, subject, of(pool));
            match why {
                Denied::NoPool | Denied::PoolClosed => Unfit::Surroundings(refused),
                _ => Unfit::Instance(refused),
            }
        })
    }

    /// A server obeys only the master key that it was made under. Replacing it on purpose is the way out.
    fn check_master_key(&self, instance: &OpenClawInstance) -> Result<(), Problem> {
        let server = instance.status.as_ref().and_then(|status| status.server.as_ref());
        let made_under = server.and_then(|server| server.master_key_id.as_deref());
        let (Some(made_under), Some(id)) = (made_under, server.and_then(|server| server.id)) else {
            return Ok(());
        };
        let keys = self.ctx.master_keys.get();
        let current = keys.newest().id();
        let replaced = Rebuild::of(instance.annotations()).asks_for(id);
        if replaced || keys.named(made_under).is_some() {
            return Ok(());
        }
        let message = format!(
            "The server was made under master key {made_under}, but the key is {current} now. Restore the old key from your backup; if it is lost, the annotation moorage.dev/rebuild={id} replaces the server, and all its data is lost"
        );
        Err(Problem::whole(Reason::MasterKeyChanged, message))
    }
}

fn of(pool: &PoolRuntime) -> Pool<'_> {
    Pool { name: &pool.name, spec: &pool.spec }
}
