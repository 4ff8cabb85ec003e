//! What the operator holds for each pool while it runs: clients, inventory, DNS queue, and whether
//! instances may be made in it. [`super::pool`] makes these; instances use them.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use parking_lot::Mutex;

use crate::{
    api::{HostingPoolSpec, annotation::AcceptedLoss},
    cloudflare::{AccountId, CloudflareApi, ZoneId},
    dns::DnsQueue,
    hetzner::HetznerApi,
    inventory::Inventory,
    pool::Facilities,
    problem::Problem,
};

/// One pool whose tokens could be read, so that its clouds can be talked to.
pub struct PoolRuntime {
    /// Name of the `HostingPool`.
    pub name: String,
    pub spec: HostingPoolSpec,
    /// The account of the tunnels.
    pub account: AccountId,
    /// The zone of the DNS records.
    pub zone: ZoneId,
    /// Hetzner with the pool's token.
    pub hetzner: Arc<dyn HetznerApi>,
    /// Cloudflare with the pool's token.
    pub cloudflare: Arc<dyn CloudflareApi>,
    /// What the sweeps saw.
    pub inventory: Arc<Inventory>,
    /// Where DNS changes queue for the next batch.
    pub dns: Arc<DnsQueue>,
    /// How many missing servers a person accepts to have recreated (annotation
    /// `moorage.dev/accept-missing-servers`).
    pub accepted_loss: Option<AcceptedLoss>,
    /// What instances need besides the clients; without it they can only be deleted. What was found
    /// once serves on while the pool cannot be looked at.
    pub facilities: Result<Facilities, Problem>,
    /// Whether something may be made for an instance that has nothing yet.
    pub intake: Result<(), Problem>,
}

/// What is known of a pool by its name.
#[derive(Clone)]
pub enum PoolState {
    /// Its first look or its first sweep is under way. Nothing is known, so nothing is said.
    Starting,
    /// There is none that this operator looks after.
    Absent,
    /// Its clouds cannot be talked to, or nothing was ever seen in them.
    Blocked(Problem),
    /// Its clouds can be talked to.
    Running(Arc<PoolRuntime>),
}

impl PoolState {
    /// Whether a change from `self` to `other` is one for all of the pool's instances.
    fn differs(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Starting, Self::Starting) | (Self::Absent, Self::Absent) => false,
            (Self::Blocked(old), Self::Blocked(new)) => old.told() != new.told(),
            (Self::Running(old), Self::Running(new)) => {
                let why = |runtime: &PoolRuntime| {
                    let told = |problem: &Problem| (problem.reason, problem.message.clone());
                    let barred = runtime.facilities.as_ref().err().map(told);
                    (barred, runtime.intake.as_ref().err().map(told))
                };
                let says = |runtime: &PoolRuntime| (runtime.spec.clone(), runtime.accepted_loss);
                let has = |runtime: &PoolRuntime| {
                    let facilities = runtime.facilities.as_ref().ok();
                    facilities.map(|has| (has.firewall, has.ssh_keys.clone(), has.offers.clone()))
                };
                why(old) != why(new) || says(old) != says(new) || has(old) != has(new)
            }
            _ => true,
        }
    }
}

/// All pools by name.
#[derive(Default)]
pub struct Pools(Mutex<State>);

#[derive(Default)]
struct State {
    by_name: HashMap<String, PoolState>,
    /// Whether all pools of the cluster were listed.
    listed: bool,
    changed: BTreeSet<String>,
}

impl Pools {
    /// The state of a pool. Before all were listed, none is absent.
    pub fn get(&self, name: &str) -> PoolState {
        let state = self.0.lock();
        let unknown = if state.listed { PoolState::Absent } else { PoolState::Starting };
        state.by_name.get(name).cloned().unwrap_or(unknown)
    }

    /// Sets the state of a pool.
    pub fn set(&self, name: &str, new: PoolState) {
        let mut state = self.0.lock();
        if state.by_name.get(name).is_none_or(|old| old.differs(&new)) {
            state.changed.insert(name.to_owned());
        }
        state.by_name.insert(name.to_owned(), new);
    }

    /// Notes that there is such a pool.
    pub fn exists(&self, name: &str) {
        let mut state = self.0.lock();
        if !state.by_name.contains_key(name) {
            state.by_name.insert(name.to_owned(), PoolState::Starting);
            state.changed.insert(name.to_owned());
        }
    }

    /// Notes that all pools were listed.
    pub fn listed(&self) {
        self.0.lock().listed = true;
    }

    /// The pools whose state changed in a way that matters to their instances since this was asked.
    pub fn take_changed(&self) -> BTreeSet<String> {
        std::mem::take(&mut self.0.lock().changed)
    }

    /// The states of all pools.
    pub fn all(&self) -> Vec<PoolState> {
        self.0.lock().by_name.values().cloned().collect()
    }

    /// Forgets a pool that is gone.
    pub fn remove(&self, name: &str) {
        let mut state = self.0.lock();
        if state.by_name.remove(name).is_some() {
            state.changed.insert(name.to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::conditions::Reason;

    #[test]
    fn no_pool_is_absent_before_all_were_listed() {
        let pools = Pools::default();
        assert!(matches!(pools.get("eu-1"), PoolState::Starting));
        pools.exists("eu-1");
        pools.listed();
        assert!(matches!(pools.get("eu-1"), PoolState::Starting), "it was not looked at yet");
        assert!(matches!(pools.get("typo"), PoolState::Absent));
        pools.remove("eu-1");
        assert!(matches!(pools.get("eu-1"), PoolState::Absent));
    }

    #[test]
    fn only_a_change_that_matters_to_instances_is_told() {
        let pools = Pools::default();
        let blocked =
            |message: &str| PoolState::Blocked(Problem::whole(Reason::Unauthorized, message));
        pools.set("eu-1", blocked("a"));
        assert!(pools.take_changed().contains("eu-1"));
        pools.set("eu-1", blocked("a"));
        assert!(pools.take_changed().is_empty());
        pools.set("eu-1", blocked("b"));
        assert!(pools.take_changed().contains("eu-1"));
    }
}
