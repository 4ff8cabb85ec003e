//! Orphans: what stands in a pool's clouds under this installation's id and belongs to no instance or
//! pool that exists. A finalizer that was removed by force leaves some, and so does an etcd that was
//! restored from before they were made. They are told with their age and cost, and deleted only where
//! the pool says so, slowly, and never in doubt. Pure.

pub mod find;
#[cfg(test)]
mod tests;

use std::{collections::BTreeSet, time::Duration};

use jiff::Timestamp;
use moorage_wire::InstanceId;

use crate::api::pool::{OrphanKind, OrphanPolicy, OrphanStatus, OrphansStatus};

/// How long something has to be an orphan before it is deleted.
pub const DEFAULT_AGE: Duration = Duration::from_hours(24);
/// The most that is deleted in one look at the pool.
const MOST_AT_ONCE: usize = 5;
/// And no more than this part of all that is there.
const PART_AT_ONCE: usize = 10;
/// The most that the status names; the rest is counted.
const MOST_TOLD: usize = 20;

/// Something in a cloud that carries this installation's id.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// What it is.
    pub kind: OrphanKind,
    /// The cloud's id for it.
    pub id: String,
    /// Its name there.
    pub name: String,
    /// Whose it is.
    pub owner: FoundOwner,
    /// When the cloud made it, if it says so.
    pub created: Option<Timestamp>,
    /// Of a server, its type.
    pub server_type: Option<String>,
    /// What it costs a month, as the catalogue has it.
    pub monthly_cost: Option<String>,
}

/// Whose something is, by its labels, name or comment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FoundOwner {
    /// An instance's.
    Instance {
        /// Its id.
        id: InstanceId,
        /// Its namespace and name, where that is told.
        place: Option<(String, String)>,
    },
    /// A pool's.
    Pool(String),
    /// Left behind on purpose by `deletionPolicy: Retain`.
    Retained,
}

/// Who exists in the cluster, whatever state it is in.
#[derive(Debug, Clone, Default)]
pub struct Accounted {
    /// Ids of instances: those that are computed, and those that older versions drew.
    pub ids: BTreeSet<InstanceId>,
    /// Namespaces and names of instances.
    pub places: BTreeSet<(String, String)>,
    /// Tunnels that a status names.
    pub tunnels: BTreeSet<String>,
    /// Servers that a status names.
    pub servers: BTreeSet<String>,
    /// Names of pools.
    pub pools: BTreeSet<String>,
}

/// Why nothing is deleted, though the pool says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doubt {
    /// Not all instances are known.
    InstancesUnknown,
    /// Many servers vanished at once.
    MassDisappearance,
    /// The pool itself is not ready: another project, a refused token.
    PoolNotReady,
}

/// What is to be done about orphans now.
#[derive(Debug, Clone, PartialEq)]
pub struct OrphanPlan {
    /// What the status says.
    pub status: Option<OrphansStatus>,
    /// What to delete now, in this order. Ownership is checked once more before each.
    pub delete: Vec<Found>,
}

/// What is known besides what was found.
pub struct Circumstances<'a> {
    /// What the status said before, with the times.
    pub before: Option<&'a OrphansStatus>,
    /// What the pool says.
    pub policy: OrphanPolicy,
    /// The age from which on it is deleted.
    pub age: Duration,
    /// What speaks against any deletion.
    pub doubt: Option<Doubt>,
    /// Now.
    pub now: Timestamp,
}

/// Decides.
pub fn plan(found: &[Found], accounted: &Accounted, given: &Circumstances<'_>) -> OrphanPlan {
    let ids = accounted.with_ids_of(found);
    let mut orphans: Vec<(&Found, Timestamp)> = found
        .iter()
        .filter(|one| !accounted.accounts_for(one, &ids))
        .map(|one| (one, first_seen(one, given)))
        .collect();
    orphans.sort_by_key(|(one, since)| (*since, one.kind, one.id.clone()));
    let old = |since: &Timestamp| given.now.duration_since(*since).unsigned_abs() >= given.age;
    let most = (found.len() / PART_AT_ONCE).clamp(1, MOST_AT_ONCE);
    let may = given.policy == OrphanPolicy::Delete && given.doubt.is_none();
    let due = orphans.iter().filter(|(_, since)| may && old(since));
    let mut delete: Vec<_> = due.take(most).map(|(one, _)| (*one).clone()).collect();
    // A server before its tunnel, an application before its policy.
    delete.sort_by_key(|one| one.kind);
    OrphanPlan { status: told(&orphans, given), delete }
}

impl Accounted {
    /// The ids of existing instances, and those under which something of them stands.
    fn with_ids_of(&self, found: &[Found]) -> BTreeSet<InstanceId> {
        let mut ids = self.ids.clone();
        for one in found {
            if let FoundOwner::Instance { id, place } = &one.owner
                && (place.as_ref().is_some_and(|place| self.places.contains(place))
                    || self.names(one))
            {
                ids.insert(*id);
            }
        }
        ids
    }

    /// Whether the status of an instance names it.
    fn names(&self, one: &Found) -> bool {
        match one.kind {
            OrphanKind::Server => self.servers.contains(&one.id),
            OrphanKind::Tunnel => self.tunnels.contains(&one.id),
            _ => false,
        }
    }

    fn accounts_for(&self, one: &Found, ids: &BTreeSet<InstanceId>) -> bool {
        match &one.owner {
            FoundOwner::Retained => true,
            FoundOwner::Pool(pool) => self.pools.contains(pool),
            FoundOwner::Instance { id, place } => {
                ids.contains(id)
                    || place.as_ref().is_some_and(|place| self.places.contains(place))
                    || self.names(one)
            }
        }
    }
}

/// Since when it is an orphan: remembered in the status, so that a restart does not begin anew. What the
/// bounded list does not hold begins when it comes into it.
fn first_seen(one: &Found, given: &Circumstances<'_>) -> Timestamp {
    let known = given.before.into_iter().flat_map(|before| &before.first);
    let mut known = known.filter(|known| known.kind == one.kind && known.id == one.id);
    let seen = known.next().and_then(|known| known.first_seen.parse::<Timestamp>().ok());
    // A clock that was wrong must not make anything older than it can be.
    seen.filter(|seen| *seen <= given.now).unwrap_or(given.now)
}

fn told(orphans: &[(&Found, Timestamp)], given: &Circumstances<'_>) -> Option<OrphansStatus> {
    if orphans.is_empty() {
        return None;
    }
    let one = |(one, since): &(&Found, Timestamp)| OrphanStatus {
        kind: one.kind,
        id: one.id.clone(),
        name: one.name.clone(),
        owner: match &one.owner {
            FoundOwner::Instance { place: Some((namespace, name)), .. } => {
                format!("{namespace}/{name}")
            }
            FoundOwner::Instance { id, .. } => id.to_string(),
            FoundOwner::Pool(pool) => format!("pool {pool}"),
            FoundOwner::Retained => String::new(),
        },
        first_seen: to_the_second(*since).to_string(),
        created: one.created.map(|created| created.to_string()),
        server_type: one.server_type.clone(),
        monthly_cost: one.monthly_cost.clone(),
    };
    let held_up = match given.doubt.filter(|_| given.policy == OrphanPolicy::Delete) {
        None => String::new(),
        Some(Doubt::InstancesUnknown) => {
            " Nothing is deleted while not all instances are known.".to_owned()
        }
        Some(Doubt::MassDisappearance) => {
            " Nothing is deleted while many servers are missing.".to_owned()
        }
        Some(Doubt::PoolNotReady) => {
            " Nothing is deleted while the pool is not ready.".to_owned()
        }
    };
    let remedy = match given.policy {
        OrphanPolicy::Report => {
            "Delete them at the providers, or set spec.orphanPolicy: Delete."
        }
        OrphanPolicy::Delete => "They are deleted when they are a day old, a few at a time.",
    };
    let count = u32::try_from(orphans.len()).unwrap_or(u32::MAX);
    Some(OrphansStatus {
        count,
        message: format!("{count} things in the clouds belong to no instance or pool. {remedy}{held_up}"),
        first: orphans.iter().take(MOST_TOLD).map(one).collect(),
    })
}

/// Kubernetes shows whole seconds, and a status must not change for less.
fn to_the_second(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}
