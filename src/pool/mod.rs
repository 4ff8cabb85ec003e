//! What the operator holds for each pool while it runs: clients, inventory, DNS queue, and whether
//! instances may be made in it. `crate::controller::pool` makes these; instances use them.

mod offers;

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
};

use crate::{
    agent::AccessHeaders,
    api::HostingPoolSpec,
    cloudflare::{AccountId, CloudflareApi, ZoneId},
    dns::DnsQueue,
    hetzner::{FirewallId, HetznerApi, SshKeyId},
    inventory::Inventory,
};

pub use offers::Offers;

/// One pool whose tokens could be read, so that its clouds can be talked to.
pub struct PoolRuntime {
    /// Name of the `HostingPool`.
    pub name: String,
    /// Its spec.
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
    /// How many missing servers a person accepts to have made anew (annotation
    /// `moorage.dev/accept-missing-servers`).
    pub accepted_loss: Option<usize>,
    /// What instances need besides the clients; without it they can only be deleted.
    pub facilities: Result<Facilities, Blocked>,
}

/// The shared cloud objects of a pool.
#[derive(Clone)]
pub struct Facilities {
    /// The deny-all firewall; attached in every server's create call.
    pub firewall: FirewallId,
    /// The keys of the SSH fall-back.
    pub ssh_keys: Vec<SshKeyId>,
    /// The operator's service token for management host names.
    pub access: Arc<AccessHeaders>,
    /// What Hetzner's catalogue says of the pool's server types.
    pub offers: Arc<Offers>,
}

/// Why a pool cannot be used, as a condition says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blocked {
    /// One of [`crate::api::conditions::reason`].
    pub reason: &'static str,
    /// What a person does next.
    pub message: String,
}

/// What is known of a pool by its name.
#[derive(Clone)]
pub enum PoolState {
    /// Its tokens cannot be read, so nothing can be done in it.
    Blocked(Blocked),
    /// Its clouds can be talked to.
    Running(Arc<PoolRuntime>),
}

/// All pools by name.
#[derive(Default)]
pub struct Pools(RwLock<HashMap<String, PoolState>>);

impl Pools {
    /// The state of a pool; `None` before it was reconciled for the first time.
    pub fn get(&self, name: &str) -> Option<PoolState> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    /// Sets the state of a pool.
    pub fn set(&self, name: &str, state: PoolState) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), state);
    }

    /// The states of all pools.
    pub fn all(&self) -> Vec<PoolState> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// Forgets a pool that is gone.
    pub fn remove(&self, name: &str) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).remove(name);
    }
}
