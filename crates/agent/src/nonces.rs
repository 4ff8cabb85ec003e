//! Nonces as ACME (RFC 8555, section 6.5) uses them: the agent gives them, each is good for one
//! request and for ten minutes. They make a signed request fresh without anybody's clock.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use aws_lc_rs::rand;

/// How long a nonce is good.
pub(crate) const LIFETIME: Duration = Duration::from_secs(600);
/// How many are remembered; the oldest are forgotten first.
pub(crate) const CAPACITY: usize = 64;

/// The nonces that were given and not used.
#[derive(Default)]
pub(crate) struct Nonces {
    given: VecDeque<(String, Instant)>,
}

impl Nonces {
    /// A fresh nonce: the one that the worker `made`, or 128 random bits.
    pub(crate) fn give(&mut self, made: Option<String>, now: Instant) -> String {
        let nonce = made.unwrap_or_else(|| {
            let mut bytes = [0; 16];
            rand::fill(&mut bytes).expect("the kernel gives randomness once it has booted");
            format!("{:032x}", u128::from_be_bytes(bytes))
        });
        if self.given.len() == CAPACITY {
            self.given.pop_front();
        }
        self.given.push_back((nonce.clone(), now));
        nonce
    }

    /// Uses a nonce up; whether it was good.
    pub(crate) fn take(&mut self, nonce: &str, now: Instant) -> bool {
        self.given.retain(|(_, at)| now.saturating_duration_since(*at) < LIFETIME);
        let found = self.given.iter().position(|(given, _)| given == nonce);
        found.and_then(|index| self.given.remove(index)).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nonce_is_good_once() {
        let (mut nonces, now) = (Nonces::default(), Instant::now());
        let nonce = nonces.give(None, now);
        assert!(nonces.take(&nonce, now));
        assert!(!nonces.take(&nonce, now));
    }

    #[test]
    fn a_nonce_that_was_never_given_is_not_good() {
        let (mut nonces, now) = (Nonces::default(), Instant::now());
        nonces.give(None, now);
        assert!(!nonces.take(&"0".repeat(32), now));
    }

    #[test]
    fn a_nonce_expires() {
        let (mut nonces, now) = (Nonces::default(), Instant::now());
        let early = nonces.give(None, now);
        let late = nonces.give(None, now + LIFETIME / 2);
        assert!(!nonces.take(&early, now + LIFETIME));
        assert!(nonces.take(&late, now + LIFETIME));
    }

    #[test]
    fn memory_is_bounded_and_the_newest_survive() {
        let (mut nonces, now) = (Nonces::default(), Instant::now());
        let given: Vec<_> = (0..1000).map(|_| nonces.give(None, now)).collect();
        assert_eq!(nonces.given.len(), CAPACITY);
        assert!(!nonces.take(&given[0], now));
        assert!(nonces.take(&given[999], now));
    }
}
