//! What the agent knows of each credential: which receipt stands, where its value lies, and which
//! ciphertexts were consumed. No values.
//!
//! It is bounded, however long a server lives: of each credential the newest ciphertexts are known, and so
//! many of all credentials that ever were. The oldest are forgotten first, one that is stored now never.
//! One that is forgotten counts as new if somebody hands it in again. That takes somebody who kept it and
//! may write to the instance, who could as well seal the same value again; and the operator opens none
//! that is older than its sealing keys, 180 days.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use moorage_wire::{CredentialName, Receipt, Sha256, report::Consumed};
use serde::{Deserialize, Serialize};

/// So many ciphertexts of one credential are known.
pub(super) const OF_ONE: usize = 64;
/// So many ciphertexts of all credentials are known: about 80 kB in each report.
pub(super) const OF_ALL: usize = 512;
/// So many credentials are stored at a time: twice as many as an instance can name, for those of the
/// next document come before those of the last one go.
pub(super) const MOST_STORED: usize = 128;

/// Where a value lies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", rename_all_fields = "camelCase", tag = "kind")]
pub(super) enum Place {
    /// In `secrets.json`, under the credential's name.
    Secrets,
    /// In the file of the Google OAuth client.
    GoogleClient,
    /// Among the tunnel's tokens.
    Tunnel { token_sha256: Sha256 },
}

/// The receipt of a stored value, and where the value is.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct StoredValue {
    pub(super) receipt: Receipt,
    pub(super) place: Place,
    /// Digest of the desired state at that time.
    pub(super) under: Option<Sha256>,
}

/// All about one credential.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Record {
    /// What is stored now.
    pub(super) stored: Option<StoredValue>,
    /// The ciphertext whose value is being written; after a crash, the file may hold either value.
    pub(super) writing: Option<Sha256>,
    /// The receipts of its ciphertexts, in order, the newest ones.
    pub(super) receipts: Vec<Receipt>,
}

/// The records of all credentials.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Records(BTreeMap<CredentialName, Record>);

impl Record {
    fn is_standing(&self, receipt: &Receipt) -> bool {
        self.stored
            .as_ref()
            .is_some_and(|stored| stored.receipt.source_sha256 == receipt.source_sha256)
    }

    /// The oldest receipt that may be forgotten.
    fn oldest(&self) -> Option<(usize, Timestamp)> {
        let mut receipts = self.receipts.iter().enumerate();
        let found = receipts.find(|(_, receipt)| !self.is_standing(receipt));
        found.map(|(index, receipt)| (index, receipt.stored_at))
    }

    fn is_empty(&self) -> bool {
        self.stored.is_none() && self.writing.is_none() && self.receipts.is_empty()
    }
}

impl Records {
    /// Whether another value can be stored under `name`.
    pub(super) fn has_room_for(&self, name: &CredentialName) -> bool {
        self.stored().any(|(stored, _)| stored == name) || self.stored().count() < MOST_STORED
    }

    /// The value of `name` is about to be written; gives what was being written before.
    pub(super) fn begin(&mut self, name: &CredentialName, source: Sha256) -> Option<Sha256> {
        self.0.entry(name.clone()).or_default().writing.replace(source)
    }

    /// Nothing was written since [`Self::begin`].
    pub(super) fn abort(&mut self, name: &CredentialName, before: Option<Sha256>) {
        if let Some(record) = self.0.get_mut(name) {
            record.writing = before;
            if record.is_empty() {
                self.0.remove(name);
            }
        }
    }

    /// The value of `name` is durable in its place.
    pub(super) fn finish(
        &mut self,
        name: &CredentialName,
        receipt: Receipt,
        place: Place,
        under: Option<Sha256>,
    ) {
        let record = self.0.entry(name.clone()).or_default();
        record.receipts.retain(|known| known.source_sha256 != receipt.source_sha256);
        record.receipts.push(receipt.clone());
        record.stored = Some(StoredValue { receipt, place, under });
        record.writing = None;
        while record.receipts.len() > OF_ONE
            && let Some((index, _)) = record.oldest()
        {
            record.receipts.remove(index);
        }
        self.forget_the_oldest();
    }

    /// Keeps to [`OF_ALL`].
    fn forget_the_oldest(&mut self) {
        let mut known: usize = self.0.values().map(|record| record.receipts.len()).sum();
        while known > OF_ALL {
            let oldest = self.0.values_mut().filter_map(|record| Some((record.oldest()?, record)));
            let Some(((index, _), record)) = oldest.min_by_key(|((_, at), _)| *at) else { return };
            record.receipts.remove(index);
            known -= 1;
        }
        self.0.retain(|_, record| !record.is_empty());
    }

    /// The value of `name` is to be erased; that its ciphertexts were consumed is remembered.
    pub(super) fn forget(&mut self, name: &CredentialName) {
        if let Some(record) = self.0.get_mut(name) {
            record.stored = None;
            record.writing = None;
        }
    }

    /// All that is stored now.
    pub(super) fn stored(&self) -> impl Iterator<Item = (&CredentialName, &StoredValue)> {
        self.0.iter().filter_map(|(name, record)| Some((name, record.stored.as_ref()?)))
    }

    /// What is stored under `name`, unless a crash left it unknown which value that is.
    pub(super) fn undisturbed(&self, name: &CredentialName) -> Option<&StoredValue> {
        self.0.get(name).filter(|record| record.writing.is_none())?.stored.as_ref()
    }

    /// The receipt of a ciphertext that was consumed for `name` but is not the one stored now.
    pub(super) fn replaced(&self, name: &CredentialName, source: Sha256) -> Option<&Receipt> {
        let record = self.0.get(name)?;
        let stands =
            record.stored.as_ref().is_some_and(|stored| stored.receipt.source_sha256 == source);
        let mut receipts = record.receipts.iter();
        receipts.find(|receipt| receipt.source_sha256 == source).filter(|_| !stands)
    }

    /// Which credential is the Google OAuth client.
    pub(super) fn holder_of_google_client(&self) -> Option<&CredentialName> {
        let mut stored = self.stored();
        stored.find(|(_, stored)| stored.place == Place::GoogleClient).map(|(name, _)| name)
    }

    /// Whether any write was begun and not finished.
    pub(super) fn is_writing(&self) -> bool {
        self.0.values().any(|record| record.writing.is_some())
    }

    /// The names whose record fulfils `condition`.
    pub(super) fn names_where(
        &self,
        condition: impl Fn(&Record) -> bool,
    ) -> BTreeSet<CredentialName> {
        let matching = self.0.iter().filter(|(_, record)| condition(record));
        matching.map(|(name, _)| name.clone()).collect()
    }

    /// The ciphertexts that were consumed.
    pub(super) fn consumed(&self) -> Vec<Consumed> {
        let receipts = self.0.values().flat_map(|record| &record.receipts);
        let consumed = receipts.map(|receipt| Consumed {
            credential: receipt.credential.clone(),
            source_sha256: receipt.source_sha256,
        });
        consumed.collect()
    }
}

#[cfg(test)]
mod tests {
    use moorage_wire::{CredentialType, Epoch, InstanceId, Secret, signature::AgentKey};

    use super::*;

    /// The ciphertext with this number, stored in the second with this number.
    fn receipt(name: &CredentialName, number: usize) -> Receipt {
        let key = AgentKey::from_seed(&Secret::from([5; 32]));
        let server = (InstanceId::from_bytes([1; 16]), Epoch::from_bytes([2; 8]));
        let what = (name.clone(), CredentialType::AnthropicApiKey);
        let at = Timestamp::from_second(i64::try_from(number).unwrap()).unwrap();
        Receipt::sign(&key, server, what, Sha256::of(&number.to_be_bytes()), at)
    }

    fn store(records: &mut Records, name: &str, number: usize) {
        let name: CredentialName = name.parse().unwrap();
        let receipt = receipt(&name, number);
        records.begin(&name, receipt.source_sha256);
        records.finish(&name, receipt, Place::Secrets, None);
    }

    fn knows(records: &Records, number: usize) -> bool {
        let source = Sha256::of(&number.to_be_bytes());
        records.consumed().iter().any(|consumed| consumed.source_sha256 == source)
    }

    #[test]
    fn the_newest_ciphertexts_of_a_credential_are_remembered() {
        let mut records = Records::default();
        (0..1000).for_each(|number| store(&mut records, "a", number));
        assert_eq!(records.consumed().len(), OF_ONE);
        assert!(knows(&records, 999) && knows(&records, 1000 - OF_ONE));
        assert!(!knows(&records, 999 - OF_ONE));
        let name = "a".parse().unwrap();
        let replaced = Sha256::of(&998_usize.to_be_bytes());
        assert!(records.replaced(&name, replaced).is_some(), "a replay of these is recognised");
    }

    #[test]
    fn changing_names_do_not_evict_stored_credentials() {
        let mut records = Records::default();
        store(&mut records, "lasting", 0);
        for number in 1..3000 {
            let name = format!("passing-{number}");
            store(&mut records, &name, number);
            records.forget(&name.parse().unwrap());
        }
        assert_eq!(records.consumed().len(), OF_ALL);
        assert_eq!(records.0.len(), OF_ALL);
        assert!(knows(&records, 0), "it is stored");
        assert!(knows(&records, 2999) && !knows(&records, 1));
        assert!(serde_json::to_vec(&records).unwrap().len() < 1024 * 1024);
    }

    #[test]
    fn the_number_of_credentials_is_bounded_but_not_rotations() {
        let mut records = Records::default();
        for number in 0..MOST_STORED {
            let name = format!("a{number}");
            assert!(records.has_room_for(&name.parse().unwrap()));
            store(&mut records, &name, number);
        }
        assert!(!records.has_room_for(&"another".parse().unwrap()));
        assert!(records.has_room_for(&"a7".parse().unwrap()));
        records.forget(&"a7".parse().unwrap());
        assert!(records.has_room_for(&"another".parse().unwrap()));
    }
}
