//! How long a sealing key is served, kept and needed: dates only, no keys.
//!
//! sealed-secrets keeps its private keys for ever, so that a ciphertext in Git stays worth stealing.
//! Moorage delivers a value once, so it can destroy the key that opened it.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use moorage_wire::Sha256;

const DAY: SignedDuration = SignedDuration::from_hours(24);
/// A key is served for this long, counted from its creation.
pub const SERVED_FOR: SignedDuration = days(30);
/// From this age on a key is destroyed if nothing undelivered needs it.
pub const KEPT_FOR: SignedDuration = days(60);
/// From this age on a key is destroyed whatever needs it.
pub const KEPT_AT_MOST: SignedDuration = days(180);
/// A certificate is valid for longer than it is served: a copy that was fetched on the last day, or
/// that waits for an operator that is down, still seals. It ends well before the key may go.
pub const CERTIFICATE_VALID_FOR: SignedDuration = days(45);

const fn days(count: i64) -> SignedDuration {
    SignedDuration::from_secs(count * DAY.as_secs())
}

/// Which key, and since when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyDates {
    /// Names the key.
    pub fingerprint: Sha256,
    /// When it was made.
    pub created: Timestamp,
}

/// What a key is for at its age.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyState {
    /// The newest, at most 30 days old: its certificate is published.
    Serving,
    /// Opens envelopes, but nobody should seal to it any more.
    Retired,
    /// 60 days old: goes as soon as nothing undelivered needs it.
    DueUnlessNeeded,
    /// 180 days old: goes in any case.
    Due,
}

/// The keys that undelivered values still need.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UndeliveredNeeds {
    /// Keys that open some undelivered value.
    pub keys: BTreeSet<Sha256>,
    /// Whether some undelivered value could not be looked at (the instance is suspended, a list
    /// failed): then any key may be needed.
    pub unknown: bool,
}

impl UndeliveredNeeds {
    /// Any key may be needed.
    pub fn unknown() -> Self {
        Self { unknown: true, ..Self::default() }
    }

    fn contains(&self, key: &Sha256) -> bool {
        self.unknown || self.keys.contains(key)
    }
}

/// One change to the ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyRingStep {
    /// Make a key; it serves from now on. Always comes before any [`KeyRingStep::Destroy`].
    Generate,
    /// Destroy this key and keep its tombstone.
    Destroy(Sha256),
}

/// The state of a key. A creation date in the future (a clock that was set back) counts as age zero.
pub fn state(created: Timestamp, is_newest: bool, now: Timestamp) -> KeyState {
    let age = age(created, now);
    if is_newest && age <= SERVED_FOR {
        KeyState::Serving
    } else if age >= KEPT_AT_MOST {
        KeyState::Due
    } else if age >= KEPT_FOR {
        KeyState::DueUnlessNeeded
    } else {
        KeyState::Retired
    }
}

/// What has to be done to the ring now. Carrying it out and asking again gives nothing.
pub fn plan(keys: &[KeyDates], now: Timestamp, needs: &UndeliveredNeeds) -> Vec<KeyRingStep> {
    let newest = newest(keys);
    let state_of = |key: &KeyDates| state(key.created, newest == Some(key.fingerprint), now);
    let mut steps = Vec::new();
    if !keys.iter().any(|key| state_of(key) == KeyState::Serving) {
        steps.push(KeyRingStep::Generate);
    }
    let goes = |key: &&KeyDates| match state_of(key) {
        KeyState::Serving | KeyState::Retired => false,
        KeyState::DueUnlessNeeded => !needs.contains(&key.fingerprint),
        KeyState::Due => true,
    };
    steps.extend(keys.iter().filter(goes).map(|key| KeyRingStep::Destroy(key.fingerprint)));
    steps
}

/// Whether [`plan`] depends on what is undelivered: then that is worth finding out.
pub fn asks_for_needs(keys: &[KeyDates], now: Timestamp) -> bool {
    let newest = newest(keys);
    keys.iter().any(|key| {
        let is_newest = newest == Some(key.fingerprint);
        state(key.created, is_newest, now) == KeyState::DueUnlessNeeded
    })
}

/// When [`plan`] can next have something to do without anything else changing; `None` for an empty
/// ring, which has something to do at once.
pub fn next_change(keys: &[KeyDates], now: Timestamp) -> Option<Timestamp> {
    let newest = newest(keys);
    let changes = keys.iter().flat_map(|key| {
        // Serving ends when the age is past its limit, the others when it reaches theirs.
        let serving = (newest == Some(key.fingerprint))
            .then(|| after(key.created, SERVED_FOR + SignedDuration::from_nanos(1)));
        let kept = [KEPT_FOR, KEPT_AT_MOST].map(|limit| after(key.created, limit));
        kept.into_iter().chain(serving)
    });
    changes.filter(|at| *at > now).min()
}

/// The key that serves, or served last: the newest, by fingerprint among equals.
pub fn newest(keys: &[KeyDates]) -> Option<Sha256> {
    let newest = keys.iter().max_by_key(|key| (key.created, key.fingerprint));
    newest.map(|key| key.fingerprint)
}

/// `at` moved by `by`, held within what a timestamp can say.
pub fn after(at: Timestamp, by: SignedDuration) -> Timestamp {
    let end = if by.is_negative() { Timestamp::MIN } else { Timestamp::MAX };
    at.checked_add(by).unwrap_or(end)
}

fn age(created: Timestamp, now: Timestamp) -> SignedDuration {
    now.duration_since(created).max(SignedDuration::ZERO)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;

    const NANOSECOND: SignedDuration = SignedDuration::from_nanos(1);
    fn start() -> Timestamp {
        "2026-01-01T00:00:00Z".parse().unwrap()
    }

    fn key(number: u8, created: Timestamp) -> KeyDates {
        KeyDates { fingerprint: Sha256::from_bytes([number; 32]), created }
    }

    #[rstest]
    #[case::just_made(SignedDuration::ZERO, true, KeyState::Serving)]
    #[case::made_in_the_future(-days(2), true, KeyState::Serving)]
    #[case::on_day_30(days(30), true, KeyState::Serving)]
    #[case::past_day_30(days(30) + NANOSECOND, true, KeyState::Retired)]
    #[case::replaced_early(days(1), false, KeyState::Retired)]
    #[case::before_day_60(days(60) - NANOSECOND, false, KeyState::Retired)]
    #[case::on_day_60(days(60), false, KeyState::DueUnlessNeeded)]
    #[case::before_day_180(days(180) - NANOSECOND, false, KeyState::DueUnlessNeeded)]
    #[case::on_day_180(days(180), false, KeyState::Due)]
    #[case::the_only_one_on_day_180(days(180), true, KeyState::Due)]
    fn a_key_has_the_state_of_its_age(
        #[case] age: SignedDuration,
        #[case] is_newest: bool,
        #[case] expected: KeyState,
    ) {
        assert_eq!(state(start(), is_newest, after(start(), age)), expected);
    }

    #[rstest]
    #[case::unneeded(days(60), false, true)]
    #[case::needed(days(60), true, false)]
    #[case::needed_to_the_last(days(180) - NANOSECOND, true, false)]
    #[case::needed_too_long(days(180), true, true)]
    #[case::unneeded_but_young(days(60) - NANOSECOND, false, false)]
    fn an_old_key_goes_unless_something_needs_it(
        #[case] age: SignedDuration,
        #[case] needed: bool,
        #[case] goes: bool,
    ) {
        let now = after(start(), age);
        let (old, new) = (key(1, start()), key(2, now));
        let keys = needed.then_some(old.fingerprint).into_iter().collect();
        let needs = UndeliveredNeeds { keys, unknown: false };
        let expected: Vec<_> =
            goes.then_some(KeyRingStep::Destroy(old.fingerprint)).into_iter().collect();
        assert_eq!(plan(&[old, new], now, &needs), expected);
        let unknown = UndeliveredNeeds { unknown: true, ..UndeliveredNeeds::default() };
        assert_eq!(plan(&[old, new], now, &unknown).is_empty(), age < KEPT_AT_MOST);
    }

    #[rstest]
    #[case::young(days(59), false)]
    #[case::old(days(60), true)]
    #[case::older_than_any_need(days(180), false)]
    fn needs_are_asked_for_only_where_they_decide(#[case] age: SignedDuration, #[case] asks: bool) {
        let now = after(start(), age);
        assert_eq!(asks_for_needs(&[key(1, start()), key(2, now)], now), asks);
    }

    #[test]
    fn an_empty_ring_and_one_of_a_long_sleep_get_a_new_key_first() {
        let needs = UndeliveredNeeds::default();
        assert_eq!(plan(&[], start(), &needs), [KeyRingStep::Generate]);
        let old = key(1, start());
        let woken = after(start(), days(400));
        let expected = [KeyRingStep::Generate, KeyRingStep::Destroy(old.fingerprint)];
        assert_eq!(plan(&[old], woken, &needs), expected);
    }

    fn ring() -> impl Strategy<Value = (Vec<KeyDates>, Timestamp, UndeliveredNeeds)> {
        let ages = prop::collection::vec((-5_i64..220 * 24, any::<bool>()), 0..8);
        (ages, any::<bool>()).prop_map(|(ages, unknown)| {
            let now = start();
            let mut keys = Vec::new();
            let mut needs = UndeliveredNeeds { unknown, ..UndeliveredNeeds::default() };
            for (number, (hours, needed)) in (1..).zip(ages) {
                let made = key(number, after(now, SignedDuration::from_hours(-hours)));
                keys.push(made);
                if needed {
                    needs.keys.insert(made.fingerprint);
                }
            }
            (keys, now, needs)
        })
    }

    fn carry_out(keys: &mut Vec<KeyDates>, steps: &[KeyRingStep], now: Timestamp) {
        for step in steps {
            match step {
                KeyRingStep::Generate => keys.push(key(200, now)),
                KeyRingStep::Destroy(gone) => keys.retain(|key| key.fingerprint != *gone),
            }
        }
    }

    proptest! {
        #[test]
        fn after_a_plan_exactly_one_key_serves(
            (mut keys, now, needs) in ring()
        ) {
            let steps = plan(&keys, now, &needs);
            carry_out(&mut keys, &steps, now);
            let newest = newest(&keys);
            let serving = keys.iter().filter(|key| {
                state(key.created, newest == Some(key.fingerprint), now) == KeyState::Serving
            });
            prop_assert_eq!(serving.count(), 1);
            prop_assert_eq!(plan(&keys, now, &needs), []);
        }

        #[test]
        fn nothing_young_or_needed_is_destroyed((keys, now, needs) in ring()) {
            let steps = plan(&keys, now, &needs);
            for key in &keys {
                let destroyed = steps.contains(&KeyRingStep::Destroy(key.fingerprint));
                let age = age(key.created, now);
                let needed = needs.contains(&key.fingerprint);
                let expected = age >= KEPT_AT_MOST || (age >= KEPT_FOR && !needed);
                prop_assert_eq!(destroyed, expected, "age {:?}, needed {}", age, needed);
            }
        }

        #[test]
        fn nothing_is_left_to_do_until_the_next_change((mut keys, now, _) in ring()) {
            let needs = UndeliveredNeeds::default();
            let steps = plan(&keys, now, &needs);
            carry_out(&mut keys, &steps, now);
            let next = next_change(&keys, now).unwrap();
            prop_assert!(next > now);
            prop_assert_eq!(plan(&keys, after(next, -NANOSECOND), &needs), []);
        }
    }
}
