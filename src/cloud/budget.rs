//! Call budgets: one per cloud and budget group, shared by everything that spends the same
//! rate limit. The arithmetic is pure and lives in [`ledger`] and [`meter`]; this file adds
//! waiting, fairness and the registry.

pub mod flow;
pub mod ledger;
pub mod meter;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use tokio::time::Instant;

use super::Cloud;
pub use flow::Flow;
pub use ledger::{BudgetLeft, BudgetPlan, Ledger, Priority};
pub use meter::Limit;

/// The budget of one group. Callers of the same priority and namespace are served first come, first
/// served; those of one namespace never stand before those of another.
#[derive(Debug)]
pub struct Budget {
    ledger: Mutex<Ledger>,
    queues: Mutex<HashMap<(Priority, Flow), Arc<Queue>>>,
}

/// From this number on, queues in which nobody stands are removed.
const MANY_QUEUES: usize = 64;

/// A call that was not granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exhausted {
    /// How long until the budget would have had a call for this caller.
    pub wait: Duration,
}

/// The right to make one call. Settle it with what the answer says about the limit; dropping it
/// counts the call as made, with nothing learnt.
#[derive(Debug)]
#[must_use = "a permit that is dropped at once spends a call for nothing"]
pub struct Permit<'a> {
    budget: &'a Budget,
}

/// What an answer says about the rate limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RateFeedback {
    /// How many calls the cloud believes are left.
    pub remaining: Option<u32>,
    /// The answer was a 429.
    pub limited: bool,
    /// `Retry-After`, if there was one.
    pub retry_after: Option<Duration>,
}

#[derive(Debug, Default)]
struct Queue {
    turn: tokio::sync::Mutex<()>,
    waiting: AtomicU32,
}

/// Counts a caller in its queue for as long as it waits, cancelled or not.
struct Place<'a>(&'a AtomicU32);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Queue {
    /// Joins the queue; also tells how many are ahead.
    fn join(&self) -> (Place<'_>, u32) {
        let ahead = self.waiting.fetch_add(1, Ordering::Relaxed);
        (Place(&self.waiting), ahead)
    }
}

impl Budget {
    /// Begins full.
    pub fn new(plan: BudgetPlan) -> Self {
        Self {
            ledger: Mutex::new(Ledger::new(plan, Instant::now().into_std())),
            queues: Mutex::default(),
        }
    }

    /// Takes one call, waiting for it when it will come before `deadline`; otherwise says at
    /// once how long the wait would be.
    pub async fn acquire(
        &self,
        priority: Priority,
        deadline: Instant,
    ) -> Result<Permit<'_>, Exhausted> {
        let flow = Flow::current();
        let queue = self.queue(priority, &flow);
        let (_place, ahead) = queue.join();
        self.worth_waiting(priority, &flow, ahead, deadline)?;
        let Ok(_turn) = tokio::time::timeout_at(deadline, queue.turn.lock()).await else {
            return Err(self.exhausted(priority, &flow, ahead));
        };
        loop {
            let taken = self.ledger().try_take(Instant::now().into_std(), priority, &flow);
            let Err(wait) = taken else {
                return Ok(Permit { budget: self });
            };
            self.worth_waiting(priority, &flow, 0, deadline)?;
            tokio::time::sleep(wait).await;
        }
    }

    fn queue(&self, priority: Priority, flow: &Flow) -> Arc<Queue> {
        let mut queues = self.queues.lock();
        if queues.len() >= MANY_QUEUES {
            queues.retain(|_, queue| Arc::strong_count(queue) > 1);
        }
        Arc::clone(queues.entry((priority, flow.clone())).or_default())
    }

    /// A call that is there now is granted even past the deadline; one that comes too late is not.
    fn worth_waiting(
        &self,
        priority: Priority,
        flow: &Flow,
        ahead: u32,
        deadline: Instant,
    ) -> Result<(), Exhausted> {
        let now = Instant::now();
        let wait = self.ledger().wait_for(now.into_std(), priority, flow, ahead);
        if wait.is_zero() || now + wait <= deadline {
            return Ok(());
        }
        Err(Exhausted { wait })
    }

    /// The refusal of a caller whose turn did not come. Never a wait of zero, which would invite
    /// it to ask again at once.
    fn exhausted(&self, priority: Priority, flow: &Flow, ahead: u32) -> Exhausted {
        let mut ledger = self.ledger();
        let wait = ledger.wait_for(Instant::now().into_std(), priority, flow, ahead);
        Exhausted { wait: wait.max(ledger.plan().limit.refill_every()) }
    }

    /// What is left, for metrics.
    pub fn left(&self) -> BudgetLeft {
        self.ledger().left(Instant::now().into_std())
    }

    /// The pause after a 429 that does not say how long.
    pub fn default_pause(&self) -> Duration {
        self.ledger().plan().default_pause
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        // The ledger's methods leave it consistent even if one were to panic.
        self.ledger.lock()
    }
}

impl Permit<'_> {
    /// Ends the call with what its answer says about the limit.
    pub fn settle(self, feedback: RateFeedback) {
        let now = Instant::now().into_std();
        let mut ledger = self.budget.ledger();
        if feedback.limited {
            ledger.limited(now, feedback.retry_after);
        } else if let Some(remaining) = feedback.remaining {
            ledger.observe_remaining(now, remaining);
        }
        // Dropping the permit locks the ledger again to count the call as answered.
        drop(ledger);
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.budget.ledger().answered();
    }
}

/// Hands out the same budget to everyone who names the same cloud and group.
#[derive(Debug)]
pub struct BudgetRegistry {
    hetzner: BudgetPlan,
    cloudflare: BudgetPlan,
    budgets: Mutex<BTreeMap<(Cloud, String), Arc<Budget>>>,
}

impl BudgetRegistry {
    /// A registry whose budgets follow these plans.
    pub fn new(hetzner: BudgetPlan, cloudflare: BudgetPlan) -> Self {
        Self { hetzner, cloudflare, budgets: Mutex::default() }
    }

    /// The group's budget, made full when it is first asked for.
    pub fn budget(&self, cloud: Cloud, group: &str) -> Arc<Budget> {
        let plan = match cloud {
            Cloud::Hetzner => self.hetzner,
            Cloud::Cloudflare => self.cloudflare,
        };
        let mut budgets = self.budgets.lock();
        Arc::clone(
            budgets.entry((cloud, group.to_owned())).or_insert_with(|| Arc::new(Budget::new(plan))),
        )
    }

    /// What is left of every budget, for metrics.
    pub fn left(&self) -> Vec<(Cloud, String, BudgetLeft)> {
        let budgets = self.budgets.lock();
        budgets
            .iter()
            .map(|((cloud, group), budget)| (*cloud, group.clone(), budget.left()))
            .collect()
    }
}

impl Default for BudgetRegistry {
    /// The limits that the vendors document.
    fn default() -> Self {
        Self::new(BudgetPlan::hetzner(), BudgetPlan::cloudflare())
    }
}

#[cfg(test)]
mod tests;
