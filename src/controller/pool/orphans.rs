//! A pool's look at orphans: gathers what there is and who exists, has [`crate::orphans`] decide, and
//! deletes what that names, after one more look at both the cloud and the cluster.
//!
//! The watch of instances may lag behind a server that was made a second ago, and the sweep behind one
//! that has just gone. So something is listed as an orphan only if a sweep that began after it was
//! noticed still shows it, and a list of the instances that was made after that has no owner for it.

mod memory;
mod removal;

use std::{sync::Arc, time::Duration};

use kube::{Resource as _, ResourceExt as _};
use moorage_wire::InstallationId;
use tokio::time::Instant;

use super::{Controller, session::Session};
use crate::{
    api::{
        HostingPool,
        conditions::Reason,
        pool::{OrphanKind, OrphansStatus, RetainedStatus},
    },
    cloud::Priority,
    cloudflare::{RecordId, TunnelId},
    controller::pool_runtime::PoolState,
    controller::{
        events,
        references::{Name, Reference},
    },
    hetzner::ServerId,
    instance::observed::Disappearance,
    inventory::Inventory,
    metrics::{OrphanFigures, RetainedFigures},
    orphans::{
        self, Circumstances, Doubt, Found, Orphan,
        account::{Accounts, Claim, UNCLAIMED},
        find::{self, Place},
        retained,
    },
    ownership,
    pool::{Outcome, Unaccounted, spec::ParsedSpec, supply::SweepState},
};

pub(super) use memory::Orphans;
use removal::Living;

/// How long a list of what belongs to pools, and of prices, is good: they seldom change.
const SELDOM: Duration = Duration::from_hours(1);
/// An instance whose status says nothing yet has this many sweeps to take over what carries its id.
const SWEEPS_TO_CLAIM: u64 = 10;

/// What a look for a pool's orphans needs.
struct Inspection<'a> {
    name: &'a str,
    pool: &'a HostingPool,
    session: &'a Session,
    place: Place<'a>,
    before: Option<&'a OrphansStatus>,
}

impl Controller {
    /// What the status says of what no instance accounts for after this look. What cannot be seen now
    /// stays as it was.
    pub(super) async fn look_at_unaccounted(
        &self,
        name: &str,
        pool: &HostingPool,
        (session, parsed): (&Session, &ParsedSpec),
        outcome: &Outcome,
    ) -> Result<Unaccounted, kube::Error> {
        let mut told = Unaccounted::told(pool.status.as_ref());
        let before = pool.status.as_ref().and_then(|status| status.orphans.as_ref());
        let place = Place {
            hetzner: &*session.hetzner,
            cloudflare: &*session.cloudflare,
            zone: &parsed.zone,
            installation: self.ctx.master_keys.installation(),
        };
        let look = Inspection { name, pool, session, place, before };
        let elsewhere = outcome
            .problem
            .as_ref()
            .is_some_and(|problem| problem.reason == Reason::ProjectChanged);
        // Looks are cheap, but every change of an instance leads here.
        let often = self.ctx.intervals.sweep / 4;
        let recent = self
            .orphans
            .with(name, |memory| memory.looked.is_some_and(|looked| looked.elapsed() < often));
        if elsewhere || recent || session.sweep() != SweepState::Done {
            return Ok(told);
        }
        let Some(mut found) = self.found(&look).await else { return Ok(told) };
        told.retained = self.retained(&look, &mut found, told.retained.as_ref()).await;
        let accounts = self.accounts();
        let sees = |pool: &str, one: &Found| self.sees(pool, one);
        let candidates = accounts.orphans(&found, sees);
        let Some(mut orphans) = self.confirmed(&look, candidates).await? else {
            return Ok(told);
        };
        for orphan in &mut orphans {
            let known = orphans::known(&orphan.found, look.before);
            orphan.found.monthly_cost = known.and_then(|known| known.monthly_cost.clone());
        }
        self.price(&look, orphans.iter_mut().map(|orphan| &mut orphan.found).collect()).await;
        let remembered = self.orphans.with(name, |memory| std::mem::take(&mut memory.seen));
        let given = Circumstances {
            before,
            seen: &remembered,
            total: found.len(),
            policy: pool.spec.orphan_policy,
            age: self.ctx.intervals.orphan_age,
            doubt: self.doubt(&look, outcome),
            now: self.ctx.clock.now(),
        };
        let plan = orphans::plan(&orphans, &given);
        self.orphans.with(name, |memory| memory.seen = plan.seen);
        self.delete(&look, &plan.delete).await?;
        self.tell(&look, plan.status.as_ref()).await;
        told.orphans = plan.status;
        Ok(told)
    }

    /// What was left behind on purpose, with what it costs.
    async fn retained(
        &self,
        look: &Inspection<'_>,
        found: &mut [Found],
        before: Option<&RetainedStatus>,
    ) -> Option<RetainedStatus> {
        let mut all: Vec<_> = found.iter_mut().filter(|one| one.retained).collect();
        for one in &mut all {
            one.monthly_cost = retained::known_cost(one, before);
        }
        self.orphans.with(look.name, |memory| memory.retained = !all.is_empty());
        self.price(look, all).await;
        let status = retained::status(found);
        let figures = status.as_ref().map(RetainedFigures::of).unwrap_or_default();
        self.ctx.metrics.set_retained(look.name, figures);
        status
    }

    /// Everything in the pool's clouds that is this pool's to tell; `None` if it cannot be listed.
    async fn found(&self, look: &Inspection<'_>) -> Option<Vec<Found>> {
        let (servers, tunnels, records) = look.session.inventory.everything()?;
        let mut found = look.place.instances(&servers, &tunnels, &records);
        found.retain(|one| self.is_teller(look.name, one));
        let fresh = |(at, _): &(Instant, Vec<Found>)| at.elapsed() < SELDOM;
        let known = self.orphans.with(look.name, |memory| memory.of_pools.clone());
        if !known.as_ref().is_some_and(fresh) {
            let listed = look.place.of_pools(Priority::Sweep).await.unwrap_or_else(|error| {
                tracing::debug!(pool = look.name, %error, "what belongs to pools cannot be listed");
                known.map(|(_, found)| found).unwrap_or_default()
            });
            let of_pools = Some((Instant::now(), listed));
            self.orphans.with(look.name, |memory| memory.of_pools = of_pools);
        }
        let memories = self.orphans.memories();
        let of = |pool: &str| {
            let memory = memories.get(pool)?;
            memory.of_pools.as_ref().map(|(_, found)| found)
        };
        // Of several pools with one project or account the first by name tells.
        let told_before = |one: &Found| {
            let mut others = memories.keys().filter(|pool| pool.as_str() < look.name);
            others.any(|pool| {
                of(pool).is_some_and(|all| all.iter().any(|its| its.key() == one.key()))
            })
        };
        let own = of(look.name).into_iter().flatten();
        found.extend(own.filter(|one| !told_before(one)).cloned());
        Some(found)
    }

    /// Whether it is this pool that tells of an object of instances: of several pools with one project
    /// or zone the one in its labels, else the first by name that sees it.
    fn is_teller(&self, name: &str, one: &Found) -> bool {
        if let Some(pool) = &one.pool
            && (pool == name || self.sees(pool, one) == Some(true))
        {
            return pool == name;
        }
        let pools = self.pools.state();
        let others = pools.iter().map(|pool| pool.name_any()).filter(|pool| pool.as_str() < name);
        !others.into_iter().any(|pool| self.sees(&pool, one) == Some(true))
    }

    /// Whether a pool has an object in its clouds; `None` if that is not known.
    fn sees(&self, pool: &str, one: &Found) -> Option<bool> {
        match self.ctx.pools.get(pool) {
            PoolState::Absent => Some(false),
            PoolState::Starting | PoolState::Blocked(_) => None,
            PoolState::Running(runtime) => has(&runtime.inventory, one.kind, &one.id),
        }
    }

    /// Everybody who exists, whatever can be read of them.
    fn accounts(&self) -> Accounts {
        let installation = self.ctx.master_keys.installation();
        let pools = self.pools.state().iter().map(|pool| pool.name_any()).collect();
        let watched = self.settings.watch_namespaces.clone();
        let mut accounts = Accounts::new(pools, watched);
        self.references.each(|place, reference| {
            let believed = self.believes_finalizer(&place.0, &reference.pool);
            accounts.add(claim(installation, place, reference, believed));
        });
        accounts
    }

    /// Of the candidates those that are orphans beyond doubt; `None` if nothing can be said yet.
    async fn confirmed(
        &self,
        look: &Inspection<'_>,
        candidates: Vec<Orphan>,
    ) -> Result<Option<Vec<Orphan>>, kube::Error> {
        let (begun, ended) = look.session.inventory.sweeps();
        let (due, first) = self.orphans.with(look.name, |memory| {
            let first = memory.looked.replace(Instant::now()).is_none();
            memory.follow(&candidates, look.before, begun);
            let ready = candidates.iter().filter(|one| {
                let key = one.found.key();
                let noticed = memory.noticed.get(&key).filter(|_| !memory.confirmed.contains(&key));
                let wait = if one.kept == Some(UNCLAIMED) { SWEEPS_TO_CLAIM } else { 0 };
                noticed.zip(ended).is_some_and(|(noticed, ended)| ended > noticed + wait)
            });
            (ready.cloned().collect::<Vec<_>>(), first)
        });
        if !due.is_empty() {
            let installation = self.ctx.master_keys.installation();
            let living = Living::list(&self.ctx.client, installation).await?;
            let orphans = due.iter().filter(|one| one.kept.is_some() || !living.has(&one.found));
            let keys: Vec<_> = orphans.map(|one| one.found.key()).collect();
            self.orphans.with(look.name, |memory| memory.confirmed.extend(keys));
        }
        let confirmed = self.orphans.with(look.name, |memory| memory.confirmed.clone());
        // A status with more than the list holds would shrink for a moment when the operator starts.
        if first && look.before.is_some() && confirmed.len() < candidates.len() {
            return Ok(None);
        }
        let is_confirmed = |one: &Orphan| confirmed.contains(&one.found.key());
        Ok(Some(candidates.into_iter().filter(is_confirmed).collect()))
    }

    fn doubt(&self, look: &Inspection<'_>, outcome: &Outcome) -> Option<Doubt> {
        let mut ids = Vec::new();
        self.references.each(|_, reference| {
            if reference.pool == look.name {
                ids.extend(reference.made.expected_server.map(ServerId));
            }
        });
        let missing = look.session.inventory.missing_servers(ids.iter());
        if (Disappearance { missing, total: ids.len() }).is_mass() {
            return Some(Doubt::MassDisappearance);
        }
        outcome.problem.as_ref().map(|_| Doubt::PoolNotReady)
    }

    /// Adds the catalogue's prices where none was told before: what was told stays as it is.
    async fn price(&self, look: &Inspection<'_>, found: Vec<&mut Found>) {
        let lacks = |one: &Found| one.kind == OrphanKind::Server && one.monthly_cost.is_none();
        let lacking: Vec<_> = found.into_iter().filter(|one| lacks(one)).collect();
        if lacking.is_empty() {
            return;
        }
        let known = self.orphans.with(look.name, |memory| memory.catalogue.clone());
        let catalogue = match known.filter(|(at, _)| at.elapsed() < SELDOM) {
            Some((_, catalogue)) => catalogue,
            None => match look.session.hetzner.server_types(Priority::Sweep).await {
                Ok(catalogue) => {
                    let catalogue = Arc::new(catalogue);
                    let known = Some((Instant::now(), Arc::clone(&catalogue)));
                    self.orphans.with(look.name, |memory| memory.catalogue = known);
                    catalogue
                }
                Err(error) => {
                    tracing::debug!(pool = look.name, %error, "no prices of servers");
                    return;
                }
            },
        };
        find::price(lacking.into_iter(), &catalogue);
    }

    /// Metrics, and an Event when the first orphan appears.
    async fn tell(&self, look: &Inspection<'_>, status: Option<&OrphansStatus>) {
        let oldest = |status: &OrphansStatus| {
            status.first.iter().filter_map(|one| one.first_seen.parse().ok()).min()
        };
        let figures = status.map(|status| OrphanFigures {
            count: status.count,
            oldest: oldest(status),
            monthly_cost: status.monthly_cost.as_ref().and_then(|cost| cost.parse().ok()),
        });
        self.ctx.metrics.set_orphans(look.name, figures.unwrap_or_default());
        if let (None, Some(status)) = (look.before, status) {
            let about = look.pool.object_ref(&());
            events::warn(&self.ctx, &about, Reason::OrphansFound, &status.message).await;
        }
    }
}

/// What an instance accounts for. `believed` says whether our finalizer on it is a sign.
fn claim(
    installation: InstallationId,
    place: &Name,
    reference: &Reference,
    believed: bool,
) -> Claim {
    let made = &reference.made;
    let computed = ownership::instance_id(installation, &place.0, &place.1);
    Claim {
        place: place.clone(),
        pool: reference.pool.clone(),
        ids: made.earlier_id.into_iter().chain([computed]).collect(),
        started: made.in_status || made.tunnel.is_some() || (believed && made.untold),
        server: made.server.map(|id| id.to_string()),
        tunnel: made.tunnel.clone(),
    }
}

fn has(inventory: &Inventory, kind: OrphanKind, id: &str) -> Option<bool> {
    match kind {
        OrphanKind::Server => Some(inventory.has_server(ServerId(id.parse().ok()?))),
        OrphanKind::Tunnel => Some(inventory.has_tunnel(&TunnelId::parse(id).ok()?)),
        OrphanKind::DnsRecord => Some(inventory.has_record(&RecordId::parse(id).ok()?)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::references::Made;

    /// Whoever may edit an instance can write our finalizer on it, and no operator takes it off where none
    /// looks.
    #[test]
    fn a_forged_finalizer_hides_no_orphan() {
        let installation = InstallationId::from_bytes([7; 8]);
        let place = ("team-x".to_owned(), "ada".to_owned());
        let id = ownership::instance_id(installation, &place.0, &place.1);
        let owner = orphans::FoundOwner::Instance { id, place: Some(place.clone()) };
        let server = Found::bare(OrphanKind::Server, "1".to_owned(), owner);
        let forged = Made { held: true, untold: true, ..Made::default() };
        let reference = Reference { pool: "eu-1".to_owned(), release: None, made: forged };
        let noted = |believed| {
            let mut accounts =
                Accounts::new(["eu-1".to_owned()].into(), ["tenants".to_owned()].into());
            accounts.add(claim(installation, &place, &reference, believed));
            let orphans = accounts.orphans(std::slice::from_ref(&server), |_, _| Some(true));
            orphans.first().map(|orphan| orphan.kept)
        };
        assert_eq!(noted(true), None, "where an operator looks, a lost status is written again");
        assert_eq!(noted(false), Some(Some(UNCLAIMED)));
    }
}
