//! Who may make a call now: priorities, the reserve, pauses, and what the cloud says about the
//! limit. Pure: the time is an argument, nothing waits.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::flow::Flow;
use super::meter::{Limit, Meter, Window};
use crate::fair;

/// What a call is for, which decides how much of the budget it may touch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, strum::VariantArray)]
pub enum Priority {
    /// Deleting, and the look-ups a deletion needs: may use the reserve.
    Delete,
    /// Everything a reconcile does.
    Normal,
    /// Periodic lists: a fixed share of the budget, never the reserve.
    Sweep,
}

impl Priority {
    /// All of them, in the order of their discriminants.
    pub const ALL: &[Self] = <Self as strum::VariantArray>::VARIANTS;
}

/// The rules of one budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BudgetPlan {
    /// The limit that is never exceeded.
    pub limit: Limit,
    /// Percent of the limit that only deletions may use.
    pub reserve_percent: u32,
    /// Percent of the limit that sweeps may use.
    pub sweep_percent: u32,
    /// How many times what is left a namespace may have taken.
    pub share: u32,
    /// The pause after a 429 that does not say how long.
    pub default_pause: Duration,
}

impl BudgetPlan {
    /// Hetzner Cloud: 3,600 calls per project, one regained each second. A namespace alone gets nine tenths
    /// of what is beside the reserve at once, and then all that is regained.
    pub const fn hetzner() -> Self {
        Self {
            limit: Limit::Bucket { capacity: 3600, refill_every: Duration::from_secs(1) },
            reserve_percent: 10,
            sweep_percent: 20,
            share: 9,
            default_pause: Duration::from_secs(1),
        }
    }

    /// Cloudflare: 1,200 calls per user in 5 minutes; one too many blocks every call for five
    /// minutes. So 2 percent stay unused, for people at the dashboard and clocks that differ,
    /// and the reserve is half of Hetzner's to leave new instances nine calls of ten. A namespace alone gets
    /// these: who comes while it has them finds 37, enough to begin with five instances.
    pub const fn cloudflare() -> Self {
        Self {
            limit: Limit::Window { calls: 1176, window: Duration::from_secs(300) },
            reserve_percent: 5,
            sweep_percent: 20,
            share: 30,
            default_pause: Duration::from_secs(300),
        }
    }

    /// Calls that only deletions may use.
    pub const fn reserve(&self) -> u32 {
        self.limit.capacity() * self.reserve_percent / 100
    }
}

/// How many calls may be made at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BudgetLeft {
    /// Calls available now, the reserve included; they cannot be used during a pause.
    pub calls: u32,
    /// The most that can be available.
    pub capacity: u32,
    /// How long the group still pauses after a 429.
    pub paused_for: Duration,
}

/// From this number on, flows that took nothing lately are forgotten.
const MANY_FLOWS: usize = 64;
/// How exactly the end of a wait is searched for.
const SEARCHED_TO: Duration = Duration::from_millis(50);

/// The state of one budget.
#[derive(Debug)]
pub struct Ledger {
    plan: BudgetPlan,
    all: Meter,
    sweeps: Meter,
    /// What each namespace took within the time in which an empty limit is full again.
    flows: HashMap<Flow, Window>,
    paused_until: Option<Instant>,
    /// When a 429 last showed the bucket to be empty: from then on the reserve fills up along with
    /// the rest, or one 429 would keep reconciles waiting for as long as the whole reserve takes.
    emptied: Option<Instant>,
    /// Calls granted whose answers have not come yet.
    in_flight: u32,
}

impl Ledger {
    /// Begins full.
    pub fn new(plan: BudgetPlan, now: Instant) -> Self {
        Self {
            plan,
            all: Meter::full(plan.limit, now),
            sweeps: Meter::full(plan.limit.share(plan.sweep_percent), now),
            flows: HashMap::new(),
            paused_until: None,
            emptied: None,
            in_flight: 0,
        }
    }

    /// The rules it follows.
    pub fn plan(&self) -> &BudgetPlan {
        &self.plan
    }

    /// Takes one call, or says how long to wait (never zero) before it is worth asking again.
    pub fn try_take(
        &mut self,
        now: Instant,
        priority: Priority,
        flow: &Flow,
    ) -> Result<(), Duration> {
        let wait = self.wait_for(now, priority, flow, 0);
        if !wait.is_zero() {
            return Err(wait);
        }
        self.all.spend(now, 1);
        if priority == Priority::Sweep {
            self.sweeps.spend(now, 1);
        }
        if *flow != Flow::Shared {
            self.charge(now, flow);
        }
        self.in_flight += 1;
        Ok(())
    }

    fn charge(&mut self, now: Instant, flow: &Flow) {
        if self.flows.len() >= MANY_FLOWS {
            self.flows.retain(|_, taken| taken.used(now) > 0);
        }
        let limit = self.plan.limit;
        let fresh = || Window::new(limit.capacity(), limit.full_after(), now);
        self.flows.entry(flow.clone()).or_insert_with(fresh).spend(now, 1);
    }

    /// How long a caller with `ahead` others of its flow before it waits for its call, if nobody else
    /// comes.
    pub fn wait_for(
        &mut self,
        now: Instant,
        priority: Priority,
        flow: &Flow,
        ahead: u32,
    ) -> Duration {
        let calls = ahead.saturating_add(1);
        let mut wait = match priority {
            Priority::Delete => self.all.wait_for(now, calls),
            Priority::Normal | Priority::Sweep => self.wait_beside_reserve(now, calls),
        };
        wait = wait.max(self.paused_for(now));
        if priority == Priority::Sweep {
            // What looks after single instances leaves half to the sweeps that all of them need.
            let beside = if *flow == Flow::Shared { 0 } else { self.sweeps.capacity() / 2 };
            wait = wait.max(self.sweeps.wait_for(now, calls + beside));
        }
        wait.max(self.wait_for_share(now, priority, flow, ahead))
    }

    /// How long until the flow may take more of the limit, by [`fair::may_take`]. What it used falls with
    /// time and what is free rises, so the moment can be searched for.
    fn wait_for_share(
        &mut self,
        now: Instant,
        priority: Priority,
        flow: &Flow,
        ahead: u32,
    ) -> Duration {
        let held = self.held_back(now);
        let Some(taken) = self.flows.get(flow) else { return Duration::ZERO };
        let (all, share) = (&self.all, self.plan.share);
        let may = |wait: Duration| {
            let used = taken.used(now + wait).saturating_add(ahead);
            let left = all.available_at(now + wait).saturating_sub(ahead);
            // Deletions share the reserve when nothing else is left, and leave others theirs before.
            let reserve_only = priority == Priority::Delete && left <= held;
            let free = if reserve_only { left } else { left.saturating_sub(held) };
            // Whether there is one at all is not asked here.
            fair::may_take(used, free.max(1), share)
        };
        if may(Duration::ZERO) {
            return Duration::ZERO;
        }
        let (mut too_soon, mut enough) = (Duration::ZERO, self.plan.limit.full_after() * 2);
        while enough.saturating_sub(too_soon) > SEARCHED_TO {
            let between = (too_soon + enough) / 2;
            if may(between) {
                enough = between;
            } else {
                too_soon = between;
            }
        }
        enough
    }

    /// How long until `calls` are there beside the reserve.
    fn wait_beside_reserve(&mut self, now: Instant, calls: u32) -> Duration {
        let whole = self.all.wait_for(now, calls.saturating_add(self.plan.reserve()));
        let held = self.held_back(now);
        if self.emptied.is_none() {
            return whole;
        }
        // What is held back grows while one waits.
        (self.all.wait_for(now, calls.saturating_add(held)) * 2).min(whole)
    }

    /// What is held back for deletions: the reserve. While that fills up, it gets every other call that
    /// is regained.
    fn held_back(&mut self, now: Instant) -> u32 {
        let Some(emptied) = self.emptied else { return self.plan.reserve() };
        let every = self.plan.limit.refill_every();
        let regained = now.saturating_duration_since(emptied).as_nanos() / every.as_nanos().max(1);
        let held = u32::try_from(regained / 2).unwrap_or(u32::MAX);
        if held >= self.plan.reserve() {
            self.emptied = None;
            return self.plan.reserve();
        }
        held
    }

    /// An answer has come, or will never come.
    pub fn answered(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    /// The cloud says how many calls are left. Fewer than thought: believe it, for others may
    /// share the limit. More: do not. Call it before [`Self::answered`] of the same call.
    pub fn observe_remaining(&mut self, now: Instant, remaining: u32) {
        // The other calls on their way may not be in the cloud's count yet.
        let others = self.in_flight.saturating_sub(1);
        let surplus = self.all.available(now).saturating_sub(remaining.saturating_sub(others));
        self.all.spend(now, surplus);
    }

    /// The cloud refused a call with 429: nothing is left, and the whole group pauses.
    pub fn limited(&mut self, now: Instant, retry_after: Option<Duration>) {
        if matches!(self.plan.limit, Limit::Bucket { .. }) {
            self.all.spend(now, u32::MAX);
            self.emptied = Some(now);
            // Whoever took what there was, little comes back: what each took before would keep those
            // who took much from all of it for as long as the whole bucket takes to fill.
            self.flows.clear();
        }
        let until = now + retry_after.unwrap_or(self.plan.default_pause);
        self.paused_until = Some(self.paused_until.map_or(until, |before| before.max(until)));
    }

    pub fn left(&mut self, now: Instant) -> BudgetLeft {
        BudgetLeft {
            calls: self.all.available(now),
            capacity: self.plan.limit.capacity(),
            paused_for: self.paused_for(now),
        }
    }

    fn paused_for(&self, now: Instant) -> Duration {
        self.paused_until.map_or(Duration::ZERO, |until| until.saturating_duration_since(now))
    }
}

#[cfg(test)]
mod tests;
