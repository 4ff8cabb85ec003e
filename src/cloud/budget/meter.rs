//! Counts calls against one limit. Pure: the time is an argument.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// How a cloud limits calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// A bucket of `capacity` calls that regains one every `refill_every`.
    Bucket {
        /// Calls in a full bucket.
        capacity: u32,
        /// Time in which one call comes back.
        refill_every: Duration,
    },
    /// At most `calls` in any span of `window`.
    Window {
        /// Calls per window.
        calls: u32,
        /// Length of the window.
        window: Duration,
    },
}

impl Limit {
    /// The most calls that can be available at once.
    pub const fn capacity(self) -> u32 {
        match self {
            Self::Bucket { capacity, .. } => capacity,
            Self::Window { calls, .. } => calls,
        }
    }

    /// The same kind of limit at `percent` of its size, at least one call.
    #[must_use]
    pub fn share(self, percent: u32) -> Self {
        match self {
            Self::Bucket { capacity, refill_every } => Self::Bucket {
                capacity: (capacity * percent / 100).max(1),
                refill_every: refill_every * 100 / percent.max(1),
            },
            Self::Window { calls, window } => {
                Self::Window { calls: (calls * percent / 100).max(1), window }
            }
        }
    }

    /// Time in which all calls come back.
    pub fn full_after(self) -> Duration {
        match self {
            Self::Bucket { capacity, refill_every } => refill_every * capacity,
            Self::Window { window, .. } => window,
        }
    }

    /// Time in which one call comes back on average.
    pub fn refill_every(self) -> Duration {
        match self {
            Self::Bucket { refill_every, .. } => refill_every,
            Self::Window { calls, window } => window / calls.max(1),
        }
    }
}

/// The state of one limit.
#[derive(Debug)]
pub enum Meter {
    /// See [`Limit::Bucket`].
    Bucket(Bucket),
    /// See [`Limit::Window`].
    Window(Window),
}

impl Meter {
    /// A meter with every call available.
    pub fn full(limit: Limit, now: Instant) -> Self {
        match limit {
            Limit::Bucket { capacity, refill_every } => {
                Self::Bucket(Bucket { capacity, refill_every, full_at: now })
            }
            Limit::Window { calls, window } => Self::Window(Window::new(calls, window, now)),
        }
    }

    /// Calls that could be made at this moment.
    pub fn available(&mut self, now: Instant) -> u32 {
        match self {
            Self::Bucket(bucket) => bucket.available(now),
            Self::Window(window) => window.available(now),
        }
    }

    /// Calls that could be made at a later moment if none were made until then.
    pub fn available_at(&self, then: Instant) -> u32 {
        match self {
            Self::Bucket(bucket) => bucket.available(then),
            Self::Window(window) => window.calls.saturating_sub(window.used(then)),
        }
    }

    /// The most calls that it lets through at once.
    pub fn capacity(&self) -> u32 {
        match self {
            Self::Bucket(bucket) => bucket.capacity,
            Self::Window(window) => window.calls,
        }
    }

    /// Counts `calls` as made now; more than are available empties the meter.
    pub fn spend(&mut self, now: Instant, calls: u32) {
        let calls = calls.min(self.available(now));
        if calls == 0 {
            return;
        }
        match self {
            Self::Bucket(bucket) => bucket.spend(now, calls),
            Self::Window(window) => window.spend(now, calls),
        }
    }

    /// How long until `calls` are available, zero if they are. More than the capacity means:
    /// until that many could have been made one after the other.
    pub fn wait_for(&mut self, now: Instant, calls: u32) -> Duration {
        match self {
            Self::Bucket(bucket) => bucket.wait_for(now, calls),
            Self::Window(window) => window.wait_for(now, calls),
        }
    }
}

/// A token bucket, kept as the moment at which it will be full.
#[derive(Debug)]
pub struct Bucket {
    capacity: u32,
    refill_every: Duration,
    full_at: Instant,
}

impl Bucket {
    fn available(&self, now: Instant) -> u32 {
        let missing = self.full_at.saturating_duration_since(now);
        let missing = missing.as_nanos().div_ceil(self.refill_every.as_nanos().max(1));
        self.capacity - u32::try_from(missing).unwrap_or(u32::MAX).min(self.capacity)
    }

    fn spend(&mut self, now: Instant, calls: u32) {
        self.full_at = self.full_at.max(now) + self.refill_every * calls;
    }

    fn wait_for(&self, now: Instant, calls: u32) -> Duration {
        let missing = self.full_at.saturating_duration_since(now) + self.refill_every * calls;
        missing.saturating_sub(self.refill_every * self.capacity)
    }
}

/// A sliding window, counted in slots so that its size does not depend on the number of calls.
#[derive(Debug)]
pub struct Window {
    calls: u32,
    length: Duration,
    origin: Instant,
    used: u32,
    /// Slot number and the calls made in it, oldest first.
    slots: VecDeque<(u64, u32)>,
}

/// Slots per window. A call is forgotten up to one slot late, never early: that is also the
/// margin for the time a request spends on its way.
const SLOTS: u32 = 100;

impl Window {
    /// A window in which nothing was called.
    pub fn new(calls: u32, length: Duration, now: Instant) -> Self {
        Self { calls, length, origin: now, used: 0, slots: VecDeque::new() }
    }

    /// Calls that still count at this moment, now or later.
    pub fn used(&self, then: Instant) -> u32 {
        let forgotten = self.slots.iter().take_while(|(slot, _)| self.forgotten_at(*slot) <= then);
        self.used - forgotten.map(|(_, calls)| calls).sum::<u32>()
    }

    fn slot_length(&self) -> Duration {
        (self.length / SLOTS).max(Duration::from_nanos(1))
    }

    /// The end of the slot plus a whole window.
    fn forgotten_at(&self, slot: u64) -> Instant {
        let ends = u32::try_from(slot + 1).unwrap_or(u32::MAX);
        self.origin + self.slot_length() * ends + self.length
    }

    fn forget(&mut self, now: Instant) {
        while let Some(&(slot, calls)) = self.slots.front() {
            if self.forgotten_at(slot) > now {
                break;
            }
            self.used -= calls;
            self.slots.pop_front();
        }
        if self.slots.is_empty() {
            // Slot numbers start again, so that they stay small for ever.
            self.origin = self.origin.max(now);
        }
    }

    fn available(&mut self, now: Instant) -> u32 {
        self.forget(now);
        self.calls - self.used
    }

    /// Counts calls as made now.
    pub fn spend(&mut self, now: Instant, calls: u32) {
        self.forget(now);
        let since = now.saturating_duration_since(self.origin).as_nanos();
        let slot = u64::try_from(since / self.slot_length().as_nanos()).unwrap_or(u64::MAX);
        self.used += calls;
        match self.slots.back_mut() {
            Some((last, count)) if *last >= slot => *count += calls,
            _ => self.slots.push_back((slot, calls)),
        }
    }

    fn wait_for(&mut self, now: Instant, calls: u32) -> Duration {
        let mut missing = calls.saturating_sub(self.available(now));
        if missing == 0 {
            return Duration::ZERO;
        }
        // What is left over after every slot was forgotten costs whole windows.
        let beyond = calls.saturating_sub(self.calls).div_ceil(self.calls.max(1));
        for &(slot, count) in &self.slots {
            missing = missing.saturating_sub(count);
            if missing == 0 {
                return self.forgotten_at(slot).saturating_duration_since(now);
            }
        }
        let last = self.slots.back().map_or(now, |&(slot, _)| self.forgotten_at(slot));
        last.saturating_duration_since(now) + self.length * beyond
    }
}
