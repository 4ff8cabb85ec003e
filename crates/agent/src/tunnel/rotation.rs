//! When to try which token: a pure function of what was seen, and when.

use std::time::{Duration, Instant};

use super::Which;

/// The most that the grace grows to while neither token connects.
const LONGEST_GRACE: Duration = Duration::from_secs(60);

/// What to do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Wait,
    /// Start cloudflared with this token.
    Switch(Which),
    /// cloudflared is connected with the pending token.
    Promote,
}

/// How long to wait before trying the other token.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// At first: how long without connections is no mere hiccup.
    pub(crate) disconnected_for: Duration,
    /// For a token that is being tried.
    pub(crate) grace: Duration,
}

/// What was seen so far. Lives in memory only: after a restart it starts over.
#[derive(Debug)]
pub(crate) struct Rotation {
    patience: Patience,
    disconnected_since: Option<Instant>,
    /// How often a token was tried since cloudflared was last connected.
    attempts: u32,
}

impl Rotation {
    pub(crate) fn new(patience: Patience) -> Self {
        Self { patience, disconnected_since: None, attempts: 0 }
    }

    /// What to do, given whether a second token waits and cloudflared is connected.
    pub(super) fn next(
        &mut self,
        is_pending: bool,
        runs: Which,
        connected: bool,
        now: Instant,
    ) -> Step {
        if connected {
            self.disconnected_since = None;
            self.attempts = 0;
            return if is_pending && runs == Which::Pending { Step::Promote } else { Step::Wait };
        }
        let since = *self.disconnected_since.get_or_insert(now);
        if !is_pending || now.saturating_duration_since(since) < self.wait() {
            return Step::Wait;
        }
        self.disconnected_since = None;
        self.attempts += 1;
        Step::Switch(runs.other())
    }

    /// Both tokens get the same grace, twice as long in every round.
    fn wait(&self) -> Duration {
        match self.attempts.checked_sub(1) {
            None => self.patience.disconnected_for,
            Some(tried) => {
                self.patience.grace.saturating_mul(1 << (tried / 2).min(8)).min(LONGEST_GRACE)
            }
        }
    }
}
