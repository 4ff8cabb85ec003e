//! Who is admitted: instances whose pool allows their namespace, and whose host name is valid and free
//! among those that are. Only they count: for host names, capacity, quotas, the finalizers of pools and
//! releases, and the sealing keys. Pure; what is known of the cluster is given.
//!
//! What was granted stays granted: an instance for which something was made keeps its name and its
//! place whoever comes. Among the others the older one comes first, then the one with the lower UID.

mod standing;

use std::collections::{HashMap, HashSet};

use jiff::Timestamp;
use moorage_wire::{InstallationId, InstanceId};

use crate::api::HostingPoolSpec;

use standing::Left;
pub use standing::{Home, PoolStanding, Routes, Standing, StandingServer};

/// One instance, as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub struct Applicant {
    pub namespace: String,
    pub name: String,
    /// Kubernetes' id of the object.
    pub uid: String,
    /// When it was made.
    pub created: Timestamp,
    /// The pool that it names.
    pub pool: String,
    /// The host name that it wants.
    pub hostname: String,
    /// Whether something was made for it.
    pub granted: bool,
    /// Whether it was let in a moment ago, so that something may be made for it any moment.
    pub let_in: bool,
    /// Whether the epoch of its server is known: its life has begun, and it makes no first tunnel.
    pub begun: bool,
    /// Whether nothing will be made for it: it is suspended, or being deleted.
    pub resting: bool,
    /// Whether it is being deleted.
    pub leaving: bool,
    /// Whether it has ended, and somebody else's finalizer keeps the object: it counts for nothing.
    pub ended: bool,
}

/// What a pool says about who may come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// Where its host names have to be free.
    zone: String,
    /// Where its tunnels are.
    account: String,
    allowed_namespaces: Vec<String>,
    reserved_hostnames: Vec<String>,
    capacity: u32,
    per_namespace: Option<u32>,
    /// Whether nobody new may come: the pool is being deleted.
    closed: bool,
}

impl Rules {
    /// Those of a pool, which may be on its way out.
    pub fn of(spec: &HostingPoolSpec, closed: bool) -> Self {
        Self {
            closed,
            zone: spec.cloudflare.zone_id.to_string(),
            account: spec.cloudflare.account_id.to_string(),
            allowed_namespaces: spec.allowed_namespaces.iter().map(ToString::to_string).collect(),
            reserved_hostnames: spec.reserved_hostnames.iter().map(ToString::to_string).collect(),
            capacity: spec.capacity,
            per_namespace: spec.max_instances_per_namespace,
        }
    }

    /// Whether the pool takes instances of a namespace.
    pub fn allows(&self, namespace: &str) -> bool {
        self.allowed_namespaces.iter().any(|allowed| allowed == "*" || allowed == namespace)
    }

    /// Whether an instance may be in the pool at all, whoever else is.
    ///
    /// # Errors
    /// With what it lacks.
    pub fn allow(&self, namespace: &str, hostname: &str) -> Result<(), Denied> {
        if !self.allows(namespace) {
            return Err(Denied::NamespaceNotAllowed);
        }
        if !is_hostname(hostname) {
            return Err(Denied::InvalidHostname);
        }
        if self.reserved_hostnames.iter().any(|reserved| reserved == hostname) {
            return Err(Denied::HostnameReserved);
        }
        Ok(())
    }
}

/// Whether a namespace is among those that are watched, which are all if there are none.
pub fn is_watched(watched: &[String], namespace: &str) -> bool {
    watched.is_empty() || watched.iter().any(|known| known == namespace)
}

/// Why an instance is not admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denied {
    /// There is no such pool.
    NoPool,
    /// The pool does not take instances of its namespace.
    NamespaceNotAllowed,
    /// The host name cannot be one.
    InvalidHostname,
    /// The pool keeps the host name for something else.
    HostnameReserved,
    /// Another that is admitted has the host name.
    HostnameTaken,
    /// Its namespace has as many places in the pool as it may.
    NamespaceQuota {
        /// How many it may have.
        most: u32,
        /// How many of these are taken by what no instance accounts for.
        left: u32,
    },
    /// As many servers were begun for its namespace in the last hour as may be.
    ServerRate(u32),
    /// The pool is being deleted.
    PoolClosed,
    PoolFull {
        /// How many places it has.
        capacity: u32,
        /// How many of these are taken by what no instance accounts for.
        left: u32,
    },
    /// It asks for nothing: it is suspended, or being deleted, and nothing was made for it.
    Resting,
}

/// By pool and namespace.
pub type ByNamespace = HashMap<(String, String), u32>;

/// Whom the register is made of.
#[derive(Debug, Clone, Default)]
pub struct Population {
    pub applicants: Vec<Applicant>,
    /// What stands in the clouds of the pools. What no instance has still counts.
    pub standing: Vec<PoolStanding>,
    /// Whose ids these are, as far as this process saw their lives begin.
    pub homes: HashMap<InstanceId, Home>,
    /// The installation, by which the ids of the applicants are computed.
    pub installation: Option<InstallationId>,
    /// How many lives of servers began in the last hour.
    pub begun: ByNamespace,
}

/// The most lives that begin in an hour for a namespace which may have `quota` servers at once.
fn hourly(quota: u32) -> u32 {
    quota.saturating_add(quota.max(5))
}

/// Who is admitted, of all instances.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Register {
    by_namespace: HashMap<String, HashMap<String, Entry>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    uid: String,
    pool: String,
    counts: bool,
    verdict: Result<(), Denied>,
}

impl Register {
    /// Goes through all applicants in their order.
    pub fn of(population: &Population, rules: &HashMap<String, Rules>) -> Self {
        let mut applicants: Vec<_> = population.applicants.iter().collect();
        applicants.sort_by_key(|one| (!one.granted, !one.let_in, one.created, one.uid.as_str()));
        let mut taken = Taken::new(population, rules);
        let mut register = Self::default();
        for one in applicants {
            let verdict = match rules.get(&one.pool) {
                None => Err(Denied::NoPool),
                Some(rules) => taken.judge(one, rules),
            };
            let counts = one.granted || verdict.is_ok();
            if counts {
                taken.add(one, rules.get(&one.pool));
            }
            let (uid, pool) = (one.uid.clone(), one.pool.clone());
            let namespace = register.by_namespace.entry(one.namespace.clone()).or_default();
            namespace.insert(one.name.clone(), Entry { uid, pool, counts, verdict });
        }
        register
    }

    /// Whether an instance is admitted; `None` if it is not known.
    pub fn verdict(&self, namespace: &str, name: &str, uid: &str) -> Option<Result<(), Denied>> {
        let entry = self.entry(namespace, name).filter(|entry| entry.uid == uid)?;
        Some(entry.verdict)
    }

    /// Whether an instance counts: it is admitted, or was before and has something. `None` if it is
    /// not known.
    pub fn counts(&self, namespace: &str, name: &str) -> Option<bool> {
        self.entry(namespace, name).map(|entry| entry.counts)
    }

    fn entry(&self, namespace: &str, name: &str) -> Option<&Entry> {
        self.by_namespace.get(namespace)?.get(name)
    }

    /// Namespace and name of the instances of which the verdict is another than in `old`.
    pub fn changed_since(&self, old: &Self) -> Vec<(String, String)> {
        let all = self.by_namespace.iter().flat_map(|(namespace, entries)| {
            entries.iter().map(move |(name, entry)| (namespace, name, entry))
        });
        let changed = all.filter(|(namespace, name, entry)| {
            old.entry(namespace, name).map(|known| known.verdict) != Some(entry.verdict)
        });
        changed.map(|(namespace, name, _)| (namespace.clone(), name.clone())).collect()
    }
}

/// What those have that came before.
struct Taken<'a> {
    left: Left<'a>,
    begun: &'a ByNamespace,
    hostnames: HashSet<(&'a str, &'a str)>,
    in_pool: HashMap<&'a str, u32>,
    in_namespace: HashMap<(&'a str, &'a str), u32>,
}

impl<'a> Taken<'a> {
    fn new(population: &'a Population, rules: &HashMap<String, Rules>) -> Self {
        let (hostnames, in_pool, in_namespace) = Default::default();
        let (left, begun) = (Left::of(population, rules), &population.begun);
        Self { left, begun, hostnames, in_pool, in_namespace }
    }

    fn judge(&self, one: &'a Applicant, rules: &'a Rules) -> Result<(), Denied> {
        if one.resting && !one.granted {
            return Err(Denied::Resting);
        }
        rules.allow(&one.namespace, &one.hostname)?;
        if self.hostnames.contains(&(&*rules.zone, &*one.hostname)) {
            return Err(Denied::HostnameTaken);
        }
        if one.granted {
            return self.may_begin(one, rules);
        }
        if rules.closed {
            return Err(Denied::PoolClosed);
        }
        let count = |number: Option<&u32>| number.copied().unwrap_or_default();
        let (pool, namespace) = (&*one.pool, &*one.namespace);
        let left = count(self.left.by_namespace.get(&(pool, namespace)));
        let in_namespace = count(self.in_namespace.get(&(pool, namespace)));
        let quota = rules.per_namespace;
        if let Some(most) = quota.filter(|most| in_namespace.saturating_add(left) >= *most) {
            return Err(Denied::NamespaceQuota { most, left });
        }
        let left = count(self.left.by_pool.get(pool));
        let capacity = rules.capacity;
        if count(self.in_pool.get(pool)).saturating_add(left) >= capacity {
            return Err(Denied::PoolFull { capacity, left });
        }
        self.may_begin(one, rules)
    }

    /// Whether a life may begin for it, if none has. Its quota does not bound that: whoever has the
    /// instance removed by force and applies it again has one place, and a new life each time.
    fn may_begin(&self, one: &Applicant, rules: &Rules) -> Result<(), Denied> {
        let begun = || self.begun.get(&(one.pool.clone(), one.namespace.clone()));
        let Some(most) = rules.per_namespace.map(hourly).filter(|_| !one.begun) else {
            return Ok(());
        };
        if begun().is_some_and(|begun| *begun >= most) {
            return Err(Denied::ServerRate(most));
        }
        Ok(())
    }

    /// A name that was granted is held also where its pool does not take its namespace any more.
    fn add(&mut self, one: &'a Applicant, rules: Option<&'a Rules>) {
        if let Some(rules) = rules {
            self.hostnames.insert((&rules.zone, &one.hostname));
        }
        *self.in_pool.entry(&one.pool).or_default() += 1;
        *self.in_namespace.entry((&one.pool, &one.namespace)).or_default() += 1;
    }
}

/// One DNS label that leaves room for `-mgmt`.
pub fn is_hostname(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=58).contains(&text.len())
        && text.bytes().all(allowed)
        && !text.starts_with('-')
        && !text.ends_with('-')
        && !text.ends_with("-mgmt")
}

#[cfg(test)]
mod tests;
