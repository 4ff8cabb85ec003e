//! The operator's ring of sealing keys: opens what customers sealed, and explains what does not open.
//! Which key is made or destroyed when is in `lifetimes`; where keys are stored, in `key_ring_store`.

use std::collections::BTreeMap;

use jiff::Timestamp;
use moorage_wire::{
    Secret, Sha256,
    envelope::Envelope,
    sealing::{SealingCertificate, SealingKey},
};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::lifetimes::{
    self, KeyDates, KeyRingStep, KeyState, SERVED_FOR, UndeliveredNeeds, after,
};

/// A private sealing key and its age.
#[derive(Clone)]
pub struct RingKey {
    /// The key with its certificate.
    pub key: SealingKey,
    /// When it was made.
    pub created: Timestamp,
}

impl RingKey {
    /// Names the key: SHA-256 of its certificate's DER form.
    pub fn fingerprint(&self) -> Sha256 {
        self.key.certificate().fingerprint()
    }

    fn dates(&self) -> KeyDates {
        KeyDates { fingerprint: self.fingerprint(), created: self.created }
    }
}

/// What is remembered of a destroyed key, so that a value that comes too late can be explained.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Tombstone {
    /// The key's name.
    pub fingerprint: Sha256,
    /// When it was made.
    pub created: Timestamp,
    /// When its certificate stopped being published.
    pub not_served_after: Timestamp,
    /// When it was destroyed.
    pub destroyed: Timestamp,
}

/// All live keys, newest first, and the tombstones of the others.
#[derive(Clone, Default)]
pub struct KeyRing {
    keys: Vec<RingKey>,
    destroyed: BTreeMap<Sha256, Tombstone>,
}

/// A value that was opened.
#[derive(Debug)]
pub struct Unsealed {
    /// The value; zeroized when dropped.
    pub plaintext: Secret,
    /// The key that opened it, which is therefore still needed.
    pub key: Sha256,
}

/// No live key opens the envelope under the label that was tried. [`KeyRing::explain`] says why.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
#[error("no key of the ring opens the value")]
pub struct NotUnsealed;

/// The likely reason why a value does not open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UnsealFailure {
    /// It was sealed, or may well have been sealed, to a key that has been destroyed.
    KeyExpired {
        /// When that key's certificate stopped being published.
        not_served_after: Timestamp,
        /// When that key was destroyed.
        destroyed: Timestamp,
    },
    /// It says that it was sealed to a key that is there, so the label differs.
    OtherLabel,
    /// It says that it was sealed to a key that never was in this ring.
    ForeignKey,
    /// Any of the above, or damage: nothing tells which.
    Unknown,
}

impl KeyRing {
    /// Takes the live keys and tombstones in any order. A key that is there is not destroyed,
    /// whatever a tombstone says: a crash between the two writes of a destruction leaves both.
    pub fn new(
        keys: impl IntoIterator<Item = RingKey>,
        destroyed: impl IntoIterator<Item = Tombstone>,
    ) -> Self {
        let mut keys: Vec<_> = keys.into_iter().collect();
        keys.sort_by_key(|key| std::cmp::Reverse((key.created, key.fingerprint())));
        let mut destroyed: BTreeMap<_, _> =
            destroyed.into_iter().map(|tombstone| (tombstone.fingerprint, tombstone)).collect();
        destroyed.retain(|gone, _| !keys.iter().any(|key| key.fingerprint() == *gone));
        Self { keys, destroyed }
    }

    /// The live keys, newest first.
    pub fn keys(&self) -> &[RingKey] {
        &self.keys
    }

    /// The tombstones of destroyed keys.
    pub fn tombstones(&self) -> impl Iterator<Item = &Tombstone> {
        self.destroyed.values()
    }

    /// The certificate to publish: that of the newest key. It is past its 30 days only while a new
    /// key cannot be stored.
    pub fn certificate(&self) -> Option<&SealingCertificate> {
        self.keys.first().map(|newest| newest.key.certificate())
    }

    /// The state of one key.
    pub fn state(&self, fingerprint: &Sha256, now: Timestamp) -> Option<KeyState> {
        let position = self.keys.iter().position(|key| key.fingerprint() == *fingerprint)?;
        Some(lifetimes::state(self.keys[position].created, position == 0, now))
    }

    /// What has to be done to the ring now.
    pub fn plan(&self, now: Timestamp, needs: &UndeliveredNeeds) -> Vec<KeyRingStep> {
        lifetimes::plan(&self.dates(), now, needs)
    }

    /// Whether the plan depends on what is undelivered.
    pub fn asks_for_needs(&self, now: Timestamp) -> bool {
        lifetimes::asks_for_needs(&self.dates(), now)
    }

    /// When there is next something to plan without anything else changing.
    pub fn next_change(&self, now: Timestamp) -> Option<Timestamp> {
        lifetimes::next_change(&self.dates(), now)
    }

    fn dates(&self) -> Vec<KeyDates> {
        self.keys.iter().map(RingKey::dates).collect()
    }

    /// The ring with a new key.
    #[must_use]
    pub fn with(self, key: RingKey) -> Self {
        Self::new(self.keys.into_iter().chain([key]), self.destroyed.into_values())
    }

    /// The ring without the tombstone's key.
    #[must_use]
    pub fn without(self, tombstone: Tombstone) -> Self {
        let keys = self.keys.into_iter().filter(|key| key.fingerprint() != tombstone.fingerprint);
        let keys: Vec<_> = keys.collect();
        Self::new(keys, self.destroyed.into_values().chain([tombstone]))
    }

    /// What to remember of a live key that is destroyed now; `None` if it is not in the ring.
    pub fn tombstone(&self, fingerprint: &Sha256, now: Timestamp) -> Option<Tombstone> {
        let position = self.keys.iter().position(|key| key.fingerprint() == *fingerprint)?;
        let created = self.keys[position].created;
        // A key is published until its successor is made, also where that was late.
        let successor = position.checked_sub(1).map(|newer| self.keys[newer].created);
        let not_served_after = successor.unwrap_or_else(|| after(created, SERVED_FOR));
        Some(Tombstone { fingerprint: *fingerprint, created, not_served_after, destroyed: now })
    }

    /// Opens an envelope with whichever key fits, newest first: the format names no key.
    pub fn unseal(&self, envelope: &Envelope, label: &str) -> Result<Unsealed, NotUnsealed> {
        let opened = self.keys.iter().find_map(|ring_key| {
            let plaintext = ring_key.key.unseal(envelope, label).ok()?;
            Some(Unsealed { plaintext, key: ring_key.fingerprint() })
        });
        opened.ok_or(NotUnsealed)
    }

    /// Why a value does not open. `sealed_with` is what the value's Secret says about the
    /// certificate, if anything; `sealed_by` is when the value certainly existed, so when its Secret
    /// or instance was created.
    pub fn explain(&self, sealed_with: Option<Sha256>, sealed_by: Timestamp) -> UnsealFailure {
        let expired = |tombstone: &Tombstone| UnsealFailure::KeyExpired {
            not_served_after: tombstone.not_served_after,
            destroyed: tombstone.destroyed,
        };
        if let Some(named) = sealed_with {
            return match self.destroyed.get(&named) {
                Some(tombstone) => expired(tombstone),
                None if self.keys.iter().any(|key| key.fingerprint() == named) => {
                    UnsealFailure::OtherLabel
                }
                None => UnsealFailure::ForeignKey,
            };
        }
        // Nothing names the key. Whatever was there while a destroyed key was still published may
        // have been sealed to it; the best guess is the key that was published at that time.
        let candidates = self.destroyed.values().filter(|gone| sealed_by <= gone.not_served_after);
        let likely = candidates.min_by_key(|gone| gone.not_served_after);
        likely.map_or(UnsealFailure::Unknown, expired)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credentials::test_keys::{self, ring_key};
    use rstest::rstest;

    const LABEL: &str = "tenants/ada-keys";

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn sealed(number: usize, label: &str) -> Envelope {
        let certificate = test_keys::key(number).certificate().clone();
        certificate.seal(&"value".to_owned().into(), label).unwrap()
    }

    /// Keys 0 (March) and 1 (April) live, key 2 (January) destroyed.
    fn ring() -> KeyRing {
        let january = ring_key(2, "2026-01-01T00:00:00Z");
        let february = at("2026-02-01T00:00:00Z");
        let tombstone = Tombstone {
            fingerprint: january.fingerprint(),
            created: january.created,
            not_served_after: february,
            destroyed: at("2026-03-05T00:00:00Z"),
        };
        let live = [ring_key(0, "2026-03-01T00:00:00Z"), ring_key(1, "2026-04-01T00:00:00Z")];
        KeyRing::new(live, [tombstone])
    }

    #[test]
    fn every_live_key_opens_and_is_named() {
        for number in [0, 1] {
            let opened = ring().unseal(&sealed(number, LABEL), LABEL).unwrap();
            assert_eq!(opened.plaintext.expose(), b"value");
            assert_eq!(opened.key, test_keys::key(number).certificate().fingerprint());
        }
        assert_eq!(ring().unseal(&sealed(2, LABEL), LABEL).unwrap_err(), NotUnsealed);
        assert_eq!(ring().unseal(&sealed(1, LABEL), "tenants/bob").unwrap_err(), NotUnsealed);
    }

    #[test]
    fn the_newest_key_is_the_one_that_is_published() {
        let fingerprint = test_keys::key(1).certificate().fingerprint();
        assert_eq!(ring().certificate().unwrap().fingerprint(), fingerprint);
        let now = at("2026-04-02T00:00:00Z");
        assert_eq!(ring().state(&fingerprint, now), Some(KeyState::Serving));
        let older = test_keys::key(0).certificate().fingerprint();
        assert_eq!(ring().state(&older, now), Some(KeyState::Retired));
    }

    #[test]
    fn a_tombstone_says_when_the_successor_took_over() {
        let older = test_keys::key(0).certificate().fingerprint();
        let now = at("2026-05-10T00:00:00Z");
        let tombstone = ring().tombstone(&older, now).unwrap();
        assert_eq!(tombstone.not_served_after, at("2026-04-01T00:00:00Z"));
        assert_eq!(tombstone.destroyed, now);

        let smaller = ring().without(tombstone);
        assert_eq!(smaller.keys().len(), 1);
        assert_eq!(smaller.unseal(&sealed(0, LABEL), LABEL).unwrap_err(), NotUnsealed);
        assert_eq!(smaller.tombstones().count(), 2);
    }

    #[test]
    fn a_key_that_is_still_there_is_not_taken_for_destroyed() {
        let older = test_keys::key(0).certificate().fingerprint();
        let tombstone = ring().tombstone(&older, at("2026-05-10T00:00:00Z")).unwrap();
        let crashed = KeyRing::new(ring().keys().to_vec(), [tombstone]);
        assert!(crashed.unseal(&sealed(0, LABEL), LABEL).is_ok());
        let failure = crashed.explain(Some(older), at("2026-03-02T00:00:00Z"));
        assert_eq!(failure, UnsealFailure::OtherLabel);
    }

    #[rstest]
    #[case::names_a_destroyed_key(Some(2), "2026-06-01T00:00:00Z", "expired")]
    #[case::names_a_live_key(Some(0), "2026-01-02T00:00:00Z", "label")]
    #[case::older_than_the_last_day(None, "2026-01-31T23:59:59Z", "expired")]
    #[case::on_the_last_moment(None, "2026-02-01T00:00:00Z", "expired")]
    #[case::younger(None, "2026-02-01T00:00:01Z", "unknown")]
    fn a_value_that_does_not_open_is_explained(
        #[case] named: Option<usize>,
        #[case] created: &str,
        #[case] expected: &str,
    ) {
        let named = named.map(|number| test_keys::key(number).certificate().fingerprint());
        let found = match ring().explain(named, at(created)) {
            UnsealFailure::KeyExpired { not_served_after, destroyed } => {
                assert_eq!(not_served_after, at("2026-02-01T00:00:00Z"));
                assert_eq!(destroyed, at("2026-03-05T00:00:00Z"));
                "expired"
            }
            UnsealFailure::OtherLabel => "label",
            UnsealFailure::ForeignKey => "foreign",
            UnsealFailure::Unknown => "unknown",
        };
        assert_eq!(found, expected);
    }

    #[test]
    fn a_key_of_another_cluster_is_named_as_such() {
        let foreign = ring().explain(Some(Sha256::of(b"?")), at("2026-01-01T00:00:00Z"));
        assert_eq!(foreign, UnsealFailure::ForeignKey);
    }
}
