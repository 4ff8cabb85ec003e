//! What is remembered between the looks at orphans. The status remembers what has to outlive the process.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use parking_lot::{Mutex, MutexGuard};
use tokio::time::Instant;

use crate::{
    api::pool::OrphansStatus,
    hetzner::ServerType,
    orphans::{self, Found, Key, Orphan},
};

/// What is remembered of the looks at all pools' orphans.
#[derive(Default)]
pub(in crate::controller::pool) struct Orphans(Mutex<HashMap<String, Memory>>);

/// Those of one pool.
#[derive(Default)]
pub(super) struct Memory {
    pub(super) looked: Option<Instant>,
    /// What was seen that nobody accounted for, and how many sweeps had begun when that was noticed.
    pub(super) noticed: HashMap<Key, u64>,
    /// Of these, what the cluster itself has confirmed to be nobody's.
    pub(super) confirmed: HashSet<Key>,
    /// Whether anything was left behind on purpose.
    pub(super) retained: bool,
    /// What belongs to pools: firewalls, SSH keys, Access objects.
    pub(super) of_pools: Option<(Instant, Vec<Found>)>,
    pub(super) catalogue: Option<(Instant, Arc<Vec<ServerType>>)>,
    /// Since when each is an orphan, also what the status has no room for.
    pub(super) seen: HashMap<Key, Timestamp>,
    /// When the last round of deletions was.
    pub(super) deleted: Option<Instant>,
}

impl Orphans {
    pub(super) fn memories(&self) -> MutexGuard<'_, HashMap<String, Memory>> {
        self.0.lock()
    }

    pub(super) fn with<T>(&self, pool: &str, act: impl FnOnce(&mut Memory) -> T) -> T {
        act(self.memories().entry(pool.to_owned()).or_default())
    }

    /// A pool is gone.
    pub(in crate::controller::pool) fn forget(&self, pool: &str) {
        self.memories().remove(pool);
    }

    /// When to look again: at every sweep while there is something that no instance accounts for, or may
    /// be.
    pub(in crate::controller::pool) fn next_look(
        &self,
        pool: &str,
        sweep: Duration,
    ) -> Option<Duration> {
        let memories = self.memories();
        let something = |memory: &&Memory| !memory.noticed.is_empty() || memory.retained;
        memories.get(pool).filter(something).map(|_| sweep)
    }
}

impl Memory {
    /// Notes what is a candidate now. The status has only what was confirmed, by this process or by one
    /// before it.
    pub(super) fn follow(
        &mut self,
        candidates: &[Orphan],
        status: Option<&OrphansStatus>,
        begun: u64,
    ) {
        let keys: HashSet<Key> = candidates.iter().map(|one| one.found.key()).collect();
        self.noticed.retain(|key, _| keys.contains(key));
        self.confirmed.retain(|key| keys.contains(key));
        let known = candidates.iter().filter(|one| orphans::known(&one.found, status).is_some());
        self.confirmed.extend(known.map(|one| one.found.key()));
        for key in keys {
            self.noticed.entry(key).or_insert(begun);
        }
    }
}
