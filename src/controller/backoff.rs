//! How long an object that failed has to wait: exponential with jitter, for each object on its own.
//! The arithmetic takes its randomness as an argument; [`random`] is the source in production.

use std::{collections::HashMap, hash::Hash, time::Duration};

use parking_lot::{Mutex, MutexGuard};

use crate::randomness::{Randomness as _, SystemRandomness};

/// The first pause of an object that failed.
pub const BASE: Duration = Duration::from_secs(1);
/// The longest pause of an object that goes on failing.
pub const CAP: Duration = Duration::from_mins(5);
/// Objects that are remembered; beyond it the one that failed the longest ago starts over.
const MAX_KEYS: usize = 32_768;

/// The failures of each object since its last success.
#[derive(Debug)]
pub struct Backoff<K> {
    base: Duration,
    cap: Duration,
    max_keys: usize,
    failures: Mutex<Failures<K>>,
}

#[derive(Debug)]
struct Failures<K> {
    /// How often, and which call of [`Backoff::next`] was the last.
    by_key: HashMap<K, (u32, u64)>,
    calls: u64,
}

impl<K: Hash + Eq + Clone> Backoff<K> {
    /// Pauses from `base` to `cap`.
    pub fn new(base: Duration, cap: Duration) -> Self {
        let failures = Mutex::new(Failures { by_key: HashMap::new(), calls: 0 });
        Self { base, cap, max_keys: MAX_KEYS, failures }
    }

    /// Counts a failure and says how long to wait: between half of and the whole of
    /// `base · 2^failures`, at most the cap. `random` is in `0.0..1.0`.
    pub fn next(&self, key: &K, random: f64) -> Duration {
        let mut failures = self.failures();
        failures.calls += 1;
        let call = failures.calls;
        if failures.by_key.len() >= self.max_keys && !failures.by_key.contains_key(key) {
            failures.forget_oldest();
        }
        let entry = failures.by_key.entry(key.clone()).or_insert((0, call));
        let before = entry.0;
        *entry = (before.saturating_add(1), call);
        let factor = 1_u32.checked_shl(before.min(31)).unwrap_or(u32::MAX);
        let full = self.base.saturating_mul(factor).min(self.cap);
        full.mul_f64(0.5 + random.clamp(0.0, 1.0) / 2.0)
    }

    /// Forgets the failures of an object that succeeded or is gone.
    pub fn reset(&self, key: &K) {
        self.failures().by_key.remove(key);
    }

    fn failures(&self) -> MutexGuard<'_, Failures<K>> {
        self.failures.lock()
    }
}

impl<K: Hash + Eq + Clone> Default for Backoff<K> {
    fn default() -> Self {
        Self::new(BASE, CAP)
    }
}

impl<K: Hash + Eq + Clone> Failures<K> {
    fn forget_oldest(&mut self) {
        let oldest = self.by_key.iter().min_by_key(|(_, (_, call))| *call);
        if let Some(key) = oldest.map(|(key, _)| key.clone()) {
            self.by_key.remove(&key);
        }
    }
}

/// A random number in `0.0..1.0` for what is not simulated.
pub fn random() -> f64 {
    SystemRandomness.fraction()
}

/// `interval`, up to a tenth longer or shorter, so that objects do not move in step.
pub fn jittered(interval: Duration, random: f64) -> Duration {
    interval.mul_f64(0.9 + random.clamp(0.0, 1.0) / 5.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn pauses_double_up_to_the_cap_and_start_over_after_a_success() {
        let backoff = Backoff::default();
        let pauses: Vec<u64> = (0..11).map(|_| backoff.next(&"a", 1.0).as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
        backoff.reset(&"a");
        assert_eq!(backoff.next(&"a", 1.0), BASE);
    }

    #[test]
    fn objects_do_not_wait_for_each_other() {
        let backoff = Backoff::default();
        for _ in 0..5 {
            backoff.next(&"a", 0.0);
        }
        assert_eq!(backoff.next(&"b", 1.0), BASE);
    }

    #[test]
    fn the_object_that_failed_the_longest_ago_is_forgotten_first() {
        let backoff = Backoff { max_keys: 2, ..Backoff::default() };
        for key in ["a", "b", "a", "c"] {
            backoff.next(&key, 1.0);
        }
        assert_eq!(backoff.failures().by_key.len(), 2);
        assert_eq!(backoff.next(&"a", 1.0), BASE * 4);
        assert_eq!(backoff.next(&"b", 1.0), BASE);
    }

    proptest! {
        #[test]
        fn a_pause_is_between_half_and_the_cap(
            times in 1_usize..100, jitter in 0.0_f64..1.0
        ) {
            let backoff = Backoff::default();
            for _ in 0..times {
                let pause = backoff.next(&(), jitter);
                prop_assert!(pause >= BASE / 2 && pause <= CAP);
            }
        }

        #[test]
        fn randomness_stays_in_its_range(_ in 0..64) {
            let number = random();
            prop_assert!((0.0..1.0).contains(&number));
        }
    }
}
