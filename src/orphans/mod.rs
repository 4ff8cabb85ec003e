//! Orphans: what stands in a pool's clouds under this installation's id and belongs to no instance or
//! pool. A finalizer that was removed by force leaves some, and so does an etcd that was restored from
//! before they were made. They are listed with their age and cost, and deleted only where the pool says
//! so, slowly, and never in doubt. Pure, but for `find`.

pub mod account;
pub mod find;
#[cfg(test)]
mod find_tests;
pub mod retained;
#[cfg(test)]
mod tests;

use std::{collections::HashMap, time::Duration};

use jiff::Timestamp;
use moorage_wire::InstanceId;

use crate::api::pool::{OrphanKind, OrphanPolicy, OrphanStatus, OrphansStatus};

/// How long something has to be an orphan before it is deleted.
pub const DEFAULT_AGE: Duration = Duration::from_hours(24);
/// The most that is deleted in one round.
const MOST_AT_ONCE: usize = 5;
/// And no more than this part of all that is there.
const PART_AT_ONCE: usize = 10;
/// The most that the status names; the rest is counted.
const MOST_LISTED: usize = 20;
/// The note on what Hetzner does not let go.
pub const PROTECTED: &str = "It is protected from deletion at Hetzner. Switch its protection off in Hetzner's console to have it deleted.";

/// Something in a cloud that carries this installation's id.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    pub kind: OrphanKind,
    /// The cloud's id for it.
    pub id: String,
    pub name: String,
    pub owner: FoundOwner,
    /// Whether it was left behind on purpose by `deletionPolicy: Retain`.
    pub retained: bool,
    /// Whether the cloud refuses to delete it.
    pub protected: bool,
    /// The pool in a server's labels.
    pub pool: Option<String>,
    /// When the cloud made it, if it says so.
    pub created: Option<Timestamp>,
    /// `None` of anything but a server.
    pub server_type: Option<String>,
    /// Of a server, where it is.
    pub location: Option<String>,
    /// What it costs a month, as the catalogue has it.
    pub monthly_cost: Option<String>,
}

/// Kind and id: what tells things apart.
pub type Key = (OrphanKind, String);

impl Found {
    /// Something of which nothing else is known.
    pub fn bare(kind: OrphanKind, id: String, owner: FoundOwner) -> Self {
        Self {
            kind,
            id,
            name: String::new(),
            owner,
            retained: false,
            protected: false,
            pool: None,
            created: None,
            server_type: None,
            location: None,
            monthly_cost: None,
        }
    }

    /// The id of its instance, if it is of one.
    pub fn instance(&self) -> Option<InstanceId> {
        match self.owner {
            FoundOwner::Instance { id, .. } => Some(id),
            FoundOwner::Pool(_) => None,
        }
    }

    /// What tells it from all others.
    pub fn key(&self) -> Key {
        (self.kind, self.id.clone())
    }
}

/// Whose something is, by its labels, name or comment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FoundOwner {
    Instance {
        id: InstanceId,
        /// Its namespace and name, where both are said in full.
        place: Option<(String, String)>,
    },
    Pool(String),
}

impl FoundOwner {
    /// Whether an object still says what it said; a place may have been known from elsewhere.
    pub fn agrees(&self, now: &Self) -> bool {
        match (self, now) {
            (Self::Instance { id, .. }, Self::Instance { id: now, place: None }) => id == now,
            _ => self == now,
        }
    }

    /// In the words of a status.
    pub fn describe(&self) -> String {
        match self {
            Self::Instance { place: Some((namespace, name)), .. } => format!("{namespace}/{name}"),
            Self::Instance { id, .. } => id.to_string(),
            Self::Pool(pool) => format!("pool {pool}"),
        }
    }
}

/// Something that nobody accounts for.
#[derive(Debug, Clone, PartialEq)]
pub struct Orphan {
    pub found: Found,
    /// Why it is never deleted by itself, if that is so.
    pub kept: Option<&'static str>,
}

impl Orphan {
    /// Why it stays for now, if that is so.
    fn note(&self) -> Option<&'static str> {
        self.kept.or(self.found.protected.then_some(PROTECTED))
    }
}

/// Why nothing is deleted, though the pool says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doubt {
    /// Many servers vanished at once.
    MassDisappearance,
    /// The pool itself is not ready, such as for a refused token.
    PoolNotReady,
}

/// What is to be done about orphans now.
#[derive(Debug, Clone, PartialEq)]
pub struct OrphanPlan {
    /// What the status says.
    pub status: Option<OrphansStatus>,
    /// What to delete now, in this order. Each is checked once more before that.
    pub delete: Vec<Found>,
    /// Since when each is an orphan, also what the status has no room for.
    pub seen: HashMap<Key, Timestamp>,
}

/// What is known besides the orphans.
pub struct Circumstances<'a> {
    /// What the status said before, with the times.
    pub before: Option<&'a OrphansStatus>,
    /// The times that this process remembers, also of what the status had no room for.
    pub seen: &'a HashMap<Key, Timestamp>,
    /// How much there is in all, with what is accounted for.
    pub total: usize,
    /// What the pool says.
    pub policy: OrphanPolicy,
    /// The age from which on it is deleted.
    pub age: Duration,
    /// What speaks against any deletion.
    pub doubt: Option<Doubt>,
    pub now: Timestamp,
}

/// Decides what the status says, and what is deleted.
pub fn plan(orphans: &[Orphan], given: &Circumstances<'_>) -> OrphanPlan {
    let since = |orphan: &Orphan| first_seen(&orphan.found, given);
    let mut orphans: Vec<_> = orphans.iter().map(|orphan| (orphan, since(orphan))).collect();
    orphans.sort_by_key(|(orphan, since)| (*since, orphan.found.key()));
    let old = |since: &Timestamp| given.now.duration_since(*since).unsigned_abs() >= given.age;
    let most = (given.total / PART_AT_ONCE).clamp(1, MOST_AT_ONCE);
    let may = given.policy == OrphanPolicy::Delete && given.doubt.is_none();
    let due = orphans.iter().filter(|(orphan, since)| may && orphan.note().is_none() && old(since));
    let mut delete: Vec<_> = due.take(most).map(|(orphan, _)| orphan.found.clone()).collect();
    // A server before its tunnel, an application before its policy.
    delete.sort_by_key(|one| one.kind);
    let seen = orphans.iter().map(|(orphan, since)| (orphan.found.key(), *since)).collect();
    // What stays anyway takes no place from what is to be deleted. Of that the oldest is named, so that what
    // is named once stays so until it goes, however much comes after it: a restart forgets only the youngest.
    orphans.sort_by_key(|(orphan, _)| orphan.note().is_some());
    OrphanPlan { status: status(&orphans, given), delete, seen }
}

/// Since when it is an orphan: remembered in the status, so that a restart does not start the count again. What the
/// bounded list does not hold is remembered by the process only.
fn first_seen(one: &Found, given: &Circumstances<'_>) -> Timestamp {
    let told = known(one, given.before).and_then(|known| known.first_seen.parse().ok());
    let seen = told.or_else(|| given.seen.get(&one.key()).copied());
    // A clock that was wrong must not make anything older than it can be. Kubernetes shows whole seconds,
    // and a status must not change for less.
    let now = Timestamp::from_second(given.now.as_second()).unwrap_or(given.now);
    seen.filter(|seen: &Timestamp| *seen <= given.now).unwrap_or(now)
}

/// What a status says of something.
pub fn known<'a>(one: &Found, status: Option<&'a OrphansStatus>) -> Option<&'a OrphanStatus> {
    let mut all = status.into_iter().flat_map(|status| &status.first);
    all.find(|known| known.kind == one.kind && known.id == one.id)
}

fn status(orphans: &[(&Orphan, Timestamp)], given: &Circumstances<'_>) -> Option<OrphansStatus> {
    if orphans.is_empty() {
        return None;
    }
    let one = |(orphan, since): &(&Orphan, Timestamp)| {
        let found = &orphan.found;
        OrphanStatus {
            kind: found.kind,
            id: found.id.clone(),
            name: found.name.clone(),
            owner: found.owner.describe(),
            first_seen: since.to_string(),
            created: found.created.map(|created| created.to_string()),
            server_type: found.server_type.clone(),
            monthly_cost: found.monthly_cost.clone(),
            note: orphan.note().map(str::to_owned),
        }
    };
    let monthly_cost = monthly_cost(orphans.iter().map(|(orphan, _)| &orphan.found));
    let count = u32::try_from(orphans.len()).unwrap_or(u32::MAX);
    Some(OrphansStatus {
        count,
        message: message(count, given),
        monthly_cost: monthly_cost.map(|cost| format!("{cost:.2}")),
        first: orphans.iter().take(MOST_LISTED).map(one).collect(),
    })
}

/// What they cost a month; `None` if no price is known.
pub fn monthly_cost<'a>(found: impl Iterator<Item = &'a Found>) -> Option<f64> {
    let costs = found.filter_map(|one| one.monthly_cost.as_ref()?.parse::<f64>().ok());
    costs.reduce(|sum, cost| sum + cost)
}

fn message(count: u32, given: &Circumstances<'_>) -> String {
    let what = if count == 1 {
        "1 object in the clouds belongs to no instance or pool.".to_owned()
    } else {
        format!("{count} objects in the clouds belong to no instance or pool.")
    };
    let remedy = match (given.policy, given.doubt) {
        (OrphanPolicy::Report, _) => {
            "Look at status.orphans first: what has a note may still be in use. Delete the others at the providers, or set spec.orphanPolicy: Delete."
        }
        (OrphanPolicy::Delete, None) => {
            "Each without a note is deleted once it has been listed for as long as --orphan-age says (24h by default), a few at a time."
        }
        (OrphanPolicy::Delete, Some(Doubt::MassDisappearance)) => {
            "Nothing is deleted while many servers of the pool are missing: find out why."
        }
        (OrphanPolicy::Delete, Some(Doubt::PoolNotReady)) => {
            "Nothing is deleted while the pool is not ready: see its conditions."
        }
    };
    format!("{what} {remedy}")
}
