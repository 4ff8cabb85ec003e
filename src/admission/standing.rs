//! What stands in the clouds under the ids of instances, and how many places of a namespace and a pool
//! it takes that no instance accounts for: what was retained, and what is left of an instance that was
//! removed by force. It costs money and room in an account all the same. Pure.
//!
//! Places are counted, not objects: a server, its tunnel and its two records are one.

use std::{
    cell::OnceCell,
    collections::{HashMap, HashSet},
    sync::Arc,
};

use moorage_wire::{InstallationId, InstanceId};

use super::{Applicant, Population, Rules};
use crate::ownership;

/// Records of one instance.
const RECORDS: u32 = 2;

/// What a sweep of one pool's clouds shows under one id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    pub instance: InstanceId,
    /// The namespace of its instance, if anything of it says so.
    pub namespace: Option<Box<str>>,
    /// The name of its instance, if anything of it says so.
    pub name: Option<Box<str>>,
    /// Its servers, but for those that are being deleted.
    pub servers: Vec<StandingServer>,
    /// Its tunnels and records.
    pub live: Routes,
    /// Those that were left behind on purpose.
    pub retained: Routes,
}

/// A server, by its labels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StandingServer {
    /// Its pool. Whoever keeps a retained server for good takes this label off, and it counts no more.
    pub pool: Option<Box<str>>,
    /// Whether it was left behind on purpose.
    pub retained: bool,
}

/// How many there are of what leads to servers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Routes {
    pub tunnels: u32,
    pub records: u32,
}

impl Standing {
    /// Begins without any object.
    pub fn new(instance: InstanceId) -> Self {
        let (namespace, name) = (None, None);
        let (servers, live, retained) = Default::default();
        Self { instance, namespace, name, servers, live, retained }
    }

    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        let nothing = Routes::default();
        self.servers.is_empty() && self.live == nothing && self.retained == nothing
    }

    fn is_labelled(&self, pool: &str) -> bool {
        self.servers.iter().any(|server| server.pool.as_deref() == Some(pool))
    }

    /// The places of a pool that it takes, besides the one that its instance has.
    fn places(&self, pool: &str, account: Account) -> u32 {
        let retained_only = account == Account::Lives;
        let elsewhere = account == Account::Elsewhere;
        let live = if retained_only || elsewhere { Routes::default() } else { self.live };
        let mut servers = Tally::default();
        for server in self.servers.iter().filter(|server| server.retained || !retained_only) {
            if server.pool.as_deref() == Some(pool) {
                servers.here += 1;
            } else {
                servers.elsewhere += 1;
            }
        }
        let tunnels = live.tunnels.saturating_add(self.retained.tunnels);
        let records = live.records.saturating_add(self.retained.records).div_ceil(RECORDS);
        let lives = servers.here.saturating_add(servers.elsewhere).max(tunnels).max(records);
        // Of one that is on its way out with everything retained the place is still its own.
        let own = u32::from(account == Account::Leaves);
        lives.saturating_sub(servers.elsewhere).saturating_sub(own)
    }
}

#[derive(Default)]
struct Tally {
    here: u32,
    elsewhere: u32,
}

/// Who accounts for an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Account {
    /// An instance, for all that was not retained.
    Lives,
    /// An instance that is being deleted.
    Leaves,
    /// An instance of another pool with the same account: for tunnels and records, and for no server that
    /// is labelled with this pool.
    Elsewhere,
    Nobody,
}

/// What one pool's clouds hold, by instance.
#[derive(Debug, Clone, Default)]
pub struct PoolStanding {
    pub pool: String,
    /// By id.
    pub all: Vec<Arc<Standing>>,
}

/// Where an instance is, or was, whose life this process saw begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Home {
    pub pool: String,
    pub namespace: String,
    pub name: String,
}

/// The places that are taken by what no instance accounts for.
#[derive(Debug, Default)]
pub(super) struct Left<'a> {
    /// By pool and namespace.
    pub(super) by_namespace: HashMap<(&'a str, &'a str), u32>,
    /// By pool. There may be more than in all of its namespaces: a tunnel's name has no namespace in it.
    pub(super) by_pool: HashMap<&'a str, u32>,
}

/// The instances that count, so that they account for what has their id.
struct Accounting<'a> {
    by_place: HashMap<(&'a str, &'a str), &'a Applicant>,
    /// By the id that is computed for them. Asked only for what says no place.
    by_id: OnceCell<HashMap<InstanceId, &'a Applicant>>,
    installation: Option<InstallationId>,
}

impl<'a> Accounting<'a> {
    fn new(population: &'a Population) -> Self {
        // One that rests and has nothing covers nothing: it has no place of its own.
        let counts = |one: &&Applicant| one.granted || one.let_in && !one.resting;
        let counting = population.applicants.iter().filter(counts);
        let by_place = counting.map(|one| ((&*one.namespace, &*one.name), one)).collect();
        Self { by_place, by_id: OnceCell::new(), installation: population.installation }
    }

    fn of(&self, id: InstanceId, place: Option<(&str, &str)>) -> Option<&'a Applicant> {
        if let Some(place) = place {
            return self.by_place.get(&place).copied();
        }
        let installation = self.installation?;
        let compute = |one: &&'a Applicant| {
            (ownership::instance_id(installation, &one.namespace, &one.name), *one)
        };
        let by_id = self.by_id.get_or_init(|| self.by_place.values().map(compute).collect());
        by_id.get(&id).copied()
    }
}

impl<'a> Left<'a> {
    pub(super) fn of(population: &'a Population, rules: &HashMap<String, Rules>) -> Self {
        let accounting = Accounting::new(population);
        let clouds = Clouds { all: &population.standing, rules };
        let mut left = Self::default();
        for PoolStanding { pool, all } in &population.standing {
            let neighbours = clouds.neighbours(pool);
            let elsewhere = clouds.labelled_elsewhere(&neighbours);
            for one in all {
                let home = population.homes.get(&one.instance);
                let namespace = one.namespace.as_deref().or(home.map(|home| &*home.namespace));
                let name = one.name.as_deref().or(home.map(|home| &*home.name));
                let account = match accounting.of(one.instance, namespace.zip(name)) {
                    Some(owner) if clouds.may_be_one(&owner.pool, pool) => {
                        if owner.pool != *pool {
                            Account::Elsewhere
                        } else if owner.leaving {
                            Account::Leaves
                        } else {
                            Account::Lives
                        }
                    }
                    _ => Account::Nobody,
                };
                let places = one.places(pool, account);
                if places == 0 {
                    continue;
                }
                // Pools with one account see the same tunnels.
                if !neighbours.is_empty() && !one.is_labelled(pool) {
                    let home =
                        home.map(|home| &*home.pool).filter(|home| neighbours.contains(home));
                    let another = home.is_some() || elsewhere.contains(&one.instance);
                    if another || namespace.is_some_and(|namespace| !clouds.allows(pool, namespace))
                    {
                        continue;
                    }
                }
                *left.by_pool.entry(pool).or_default() += places;
                if let Some(namespace) = namespace {
                    *left.by_namespace.entry((pool, namespace)).or_default() += places;
                }
            }
        }
        left
    }
}

/// The clouds of all pools.
struct Clouds<'a, 'r> {
    all: &'a [PoolStanding],
    rules: &'r HashMap<String, Rules>,
}

impl<'a> Clouds<'a, '_> {
    fn account(&self, pool: &str) -> Option<&str> {
        self.rules.get(pool).map(|rules| &*rules.account)
    }

    fn allows(&self, pool: &str, namespace: &str) -> bool {
        self.rules.get(pool).is_some_and(|rules| rules.allows(namespace))
    }

    /// Whether what is in the clouds of one pool may be of the other.
    fn may_be_one(&self, one: &str, other: &str) -> bool {
        let accounts = self.account(one).zip(self.account(other));
        one == other || accounts.is_none_or(|(one, other)| one == other)
    }

    /// The other pools that have the same account.
    fn neighbours(&self, pool: &str) -> Vec<&'a str> {
        let account = self.account(pool);
        let others = self.all.iter().map(|clouds| &*clouds.pool).filter(|other| *other != pool);
        others.filter(|other| account.is_some() && self.account(other) == account).collect()
    }

    /// The ids of which a server is labelled with one of these pools.
    fn labelled_elsewhere(&self, pools: &[&str]) -> HashSet<InstanceId> {
        let all = self.all.iter().filter(|clouds| pools.contains(&&*clouds.pool));
        let labelled = all.flat_map(|clouds| {
            clouds.all.iter().filter(|one| one.is_labelled(&clouds.pool)).map(|one| one.instance)
        });
        labelled.collect()
    }
}
