//! What a pass over a pool came to, and what instances get of it.

use std::sync::Arc;

use super::Offers;
use crate::{
    agent::AccessHeaders,
    api::{
        HostingPoolStatus,
        conditions::Reason,
        pool::{AccessStatus, OrphansStatus, RetainedStatus},
    },
    hetzner::{FirewallId, SshKeyId},
    problem::Problem,
};

/// The shared cloud objects of a pool.
#[derive(Clone)]
pub struct Facilities {
    /// The deny-all firewall; attached in every server's create call.
    pub firewall: FirewallId,
    /// The keys of the SSH fallback.
    pub ssh_keys: Vec<SshKeyId>,
    /// The operator's service token for management host names.
    pub access: Arc<AccessHeaders>,
    /// What Hetzner's catalogue says of the pool's server types.
    pub offers: Arc<Offers>,
}

/// What a pass came to.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    pub firewall: Option<FirewallId>,
    pub ssh_keys: Vec<SshKeyId>,
    pub access: Option<AccessStatus>,
    pub headers: Option<Arc<AccessHeaders>>,
    /// What Hetzner's catalogue says of what the spec names.
    pub offers: Option<Arc<Offers>>,
    /// How many Access applications the account has, if they were listed.
    pub applications: Option<usize>,
    /// How many service tokens it has, if they were listed.
    pub tokens: Option<usize>,
    /// What went wrong, if something did.
    pub problem: Option<Problem>,
    /// Whether the pool's instances are looked after all the same.
    pub serving: bool,
}

impl Outcome {
    /// What instances get, or why they get nothing.
    pub fn facilities(&self) -> Result<Facilities, Problem> {
        match (&self.problem, self.firewall, &self.headers, &self.offers) {
            (Some(problem), ..) => Err(problem.clone()),
            (None, Some(firewall), Some(access), Some(offers)) => Ok(Facilities {
                firewall,
                ssh_keys: self.ssh_keys.clone(),
                access: Arc::clone(access),
                offers: Arc::clone(offers),
            }),
            (None, ..) => Err(Problem::whole(Reason::Progressing, "The pool is being set up.")),
        }
    }
}

/// What a pool's status says of what no instance accounts for.
#[derive(Debug, Clone, Default)]
pub struct Unaccounted {
    /// What belongs to nobody.
    pub orphans: Option<OrphansStatus>,
    /// What was left behind on purpose.
    pub retained: Option<RetainedStatus>,
}

impl Unaccounted {
    /// As it was told.
    pub fn told(status: Option<&HostingPoolStatus>) -> Self {
        let Some(status) = status else { return Self::default() };
        Self { orphans: status.orphans.clone(), retained: status.retained.clone() }
    }
}
