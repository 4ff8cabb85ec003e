//! What the agent knows of each credential: which receipt stands, where its value lies, and every
//! ciphertext that was ever consumed. No values.

use std::collections::{BTreeMap, BTreeSet};

use moorage_wire::{CredentialName, Receipt, Sha256, report::Consumed};
use serde::{Deserialize, Serialize};

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

/// A value that is stored.
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
    /// The receipts of all ciphertexts, in order.
    pub(super) receipts: Vec<Receipt>,
}

/// The records of all credentials.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Records(BTreeMap<CredentialName, Record>);

impl Records {
    /// The value of `name` is about to be written.
    pub(super) fn begin(&mut self, name: &CredentialName, source: Sha256) {
        self.0.entry(name.clone()).or_default().writing = Some(source);
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

    /// What is stored under `name`, unless a crash left in doubt which value that is.
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

    /// Every ciphertext that was ever consumed.
    pub(super) fn consumed(&self) -> Vec<Consumed> {
        let receipts = self.0.values().flat_map(|record| &record.receipts);
        let consumed = receipts.map(|receipt| Consumed {
            credential: receipt.credential.clone(),
            source_sha256: receipt.source_sha256,
        });
        consumed.collect()
    }
}
