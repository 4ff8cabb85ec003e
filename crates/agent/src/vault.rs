//! The vault: credentials in, receipts out. What is in them only the worker sees, but for the tunnel's
//! token. A receipt is given only for a value that is durable in its file, and every order of writes here is chosen so that a crash between two of them keeps that
//! true: a value comes before its record, a record goes before its value.

mod files;
mod records;

use std::collections::BTreeSet;

use jiff::Timestamp;
use moorage_wire::{
    CredentialName, CredentialType, Receipt, Sha256,
    credential::{GATEWAY_TOKEN, SealedCredential, TUNNEL_TOKEN},
    report::Consumed,
};
use thiserror::Error;

use self::{
    files::SecretFiles,
    records::{MOST_STORED, Place, Record, Records},
};
use crate::{
    disk::{Disk, DiskError},
    identity::Keys,
    layout::Layout,
    secret_text::SecretText,
    signed::SignedCall,
    tunnel::TunnelTokens,
    worker::{OpenClaw, WorkerError, protocol::Refusal},
};

/// Why a credential is not stored. No variant carries a value.
#[derive(Debug, Error)]
pub(crate) enum PutError {
    #[error(
        "a reserved name and its type belong together: {TUNNEL_TOKEN} with TunnelToken, {GATEWAY_TOKEN} with GatewayToken"
    )]
    ReservedName,
    #[error(
        "{MOST_STORED} credentials are stored already; take some out of spec.credentials first"
    )]
    TooMany,
    #[error("the credential {0} is the Google OAuth client already; a server has one")]
    SecondGoogleClient(CredentialName),
    #[error("this ciphertext was consumed and has been replaced or removed since")]
    AlreadyConsumed(Box<Receipt>),
    #[error("{0}")]
    CannotUnseal(String),
    #[error("{0}")]
    InvalidFormat(String),
    /// It has to be signed again, with a nonce of the worker's.
    #[error("the worker does not take this signature any more")]
    Stale,
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<WorkerError> for PutError {
    fn from(error: WorkerError) -> Self {
        match error.refusal() {
            Some(Refusal::Stale) => Self::Stale,
            Some(Refusal::CannotUnseal) => Self::CannotUnseal(error.to_string()),
            Some(Refusal::InvalidFormat) => Self::InvalidFormat(error.to_string()),
            _ => Self::Store(error.into()),
        }
    }
}

/// Why the vault cannot change.
#[derive(Debug, Error)]
pub(crate) enum StoreError {
    #[error(transparent)]
    Disk(#[from] DiskError),
    #[error(transparent)]
    Worker(#[from] WorkerError),
}

/// What a successful call did.
#[derive(Debug)]
pub(crate) struct Stored {
    pub(crate) receipt: Receipt,
    /// Whether a value that `OpenClaw` reads changed.
    pub(crate) openclaw_secrets_changed: bool,
    /// Whether the tunnel has another token to go to.
    pub(crate) tunnel_changed: bool,
}

/// The credentials of this server.
pub(crate) struct Vault {
    disk: Disk,
    layout: Layout,
    records: Records,
    files: SecretFiles,
    tunnel: TunnelTokens,
}

impl Vault {
    /// Reads the state and finishes what a crash interrupted, as far as the worker answers.
    pub(crate) fn open(
        disk: &Disk,
        layout: &Layout,
        openclaw: OpenClaw,
    ) -> Result<Self, DiskError> {
        let mut vault = Self {
            disk: disk.clone(),
            layout: layout.clone(),
            records: disk.read_json(&layout.credential_records())?.unwrap_or_default(),
            files: SecretFiles::open(openclaw),
            tunnel: TunnelTokens::open(disk, layout)?,
        };
        if let Err(error) = vault.scrub() {
            tracing::warn!(%error, "values that no record accounts for are not removed yet");
        }
        Ok(vault)
    }

    pub(crate) fn tunnel(&mut self) -> &mut TunnelTokens {
        &mut self.tunnel
    }

    /// Stores a sealed credential that arrived by `call`, while the desired state had the digest `under`.
    pub(crate) fn put(
        &mut self,
        keys: &Keys,
        name: &CredentialName,
        (sealed, call): (&SealedCredential, &SignedCall),
        under: Option<Sha256>,
        now: Timestamp,
    ) -> Result<Stored, PutError> {
        let place = self.place_of(name, sealed.r#type)?;
        if !self.files.is_known() && place != Target::Tunnel {
            // A receipt is given again only for a value that was seen.
            self.files.refresh().map_err(StoreError::from)?;
        }
        let source = sealed.source_sha256();
        if let Some(receipt) = self.standing_receipt(name, sealed.r#type, source) {
            let receipt = receipt.clone();
            return Ok(Stored { receipt, openclaw_secrets_changed: false, tunnel_changed: false });
        }
        if let Some(receipt) = self.records.replaced(name, source) {
            return Err(PutError::AlreadyConsumed(Box::new(receipt.clone())));
        }
        if !self.records.has_room_for(name) {
            return Err(PutError::TooMany);
        }
        let server = (keys.identity.instance_id, keys.identity.epoch);
        let (place, tunnel_changed) = match place {
            Target::Tunnel => self.store_token(keys, name, sealed)?,
            _ => (self.store_elsewhere(name, source, place, call)?, false),
        };
        let receipt =
            Receipt::sign(&keys.signing, server, (name.clone(), sealed.r#type), source, now);
        let (stored, stored_place) = (receipt.clone(), place.clone());
        self.change_records(move |records| records.finish(name, stored, stored_place, under))
            .map_err(StoreError::from)?;
        self.scrub()?;
        let openclaw_secrets_changed = !matches!(place, Place::Tunnel { .. });
        Ok(Stored { receipt, openclaw_secrets_changed, tunnel_changed })
    }

    fn place_of(&self, name: &CredentialName, kind: CredentialType) -> Result<Target, PutError> {
        let target = match kind {
            CredentialType::TunnelToken => Target::Tunnel,
            CredentialType::GoogleOAuthClient => Target::GoogleClient,
            _ => Target::Secrets,
        };
        if !kind.fits(name) {
            return Err(PutError::ReservedName);
        }
        match self.records.holder_of_google_client() {
            Some(holder) if target == Target::GoogleClient && holder != name => {
                Err(PutError::SecondGoogleClient(holder.clone()))
            }
            _ => Ok(target),
        }
    }

    /// This process handles the tunnel's token itself.
    fn store_token(
        &mut self,
        keys: &Keys,
        name: &CredentialName,
        sealed: &SealedCredential,
    ) -> Result<(Place, bool), PutError> {
        let label = sealed.label(keys.identity.instance_id, keys.identity.epoch, name);
        let value = keys.tunnel.unseal(&sealed.envelope, &label).map_err(|error| {
            let hint = "seal it to this agent's own certificate, for this instance and name";
            PutError::CannotUnseal(format!("{error}: {hint}"))
        })?;
        let checked = sealed.r#type.check(value.expose());
        checked.map_err(|error| PutError::InvalidFormat(error.to_string()))?;
        let source = sealed.source_sha256();
        self.change_records(|records| {
            records.begin(name, source);
        })
        .map_err(StoreError::from)?;
        let text = SecretText::new(value.expose_str().unwrap_or_default());
        let token_sha256 = text.sha256();
        let changed = self.tunnel.add(text).map_err(StoreError::from)?;
        Ok((Place::Tunnel { token_sha256 }, changed))
    }

    /// Has the worker open the envelope and store the value.
    fn store_elsewhere(
        &mut self,
        name: &CredentialName,
        source: Sha256,
        target: Target,
        call: &SignedCall,
    ) -> Result<Place, PutError> {
        let mut before = None;
        self.change_records(|records| before = records.begin(name, source))
            .map_err(StoreError::from)?;
        if let Err(error) = self.files.store(name, call) {
            if error.refusal().is_some() {
                // Nothing has changed, so the records hold.
                self.change_records(|records| records.abort(name, before))
                    .map_err(StoreError::from)?;
            }
            return Err(error.into());
        }
        Ok(if target == Target::GoogleClient { Place::GoogleClient } else { Place::Secrets })
    }

    /// Erases every value that `wanted` does not name, unless it came after the document `current`:
    /// then it is ahead of a document yet to come. The tunnel's token is never erased, since that
    /// would cut the server off. Says whether anything was erased.
    pub(crate) fn erase_all_but(
        &mut self,
        wanted: &BTreeSet<CredentialName>,
        current: Sha256,
    ) -> Result<bool, StoreError> {
        let unwanted: Vec<CredentialName> = self
            .records
            .stored()
            .filter(|(name, record)| {
                !matches!(record.place, Place::Tunnel { .. })
                    && !wanted.contains(*name)
                    && record.under != Some(current)
            })
            .map(|(name, _)| name.clone())
            .collect();
        if unwanted.is_empty() {
            return Ok(false);
        }
        self.change_records(|records| unwanted.iter().for_each(|name| records.forget(name)))?;
        for name in &unwanted {
            tracing::info!(target: "audit", credential = %name, "erased: the desired state no longer names it");
        }
        self.scrub()?;
        Ok(true)
    }

    /// The receipts of what is stored now.
    pub(crate) fn receipts(&self) -> Vec<Receipt> {
        let stored = self.records.stored();
        let present = stored.filter(|(name, record)| self.is_present(name, &record.place));
        present.map(|(_, record)| record.receipt.clone()).collect()
    }

    /// The ciphertexts that were consumed, the newest ones.
    pub(crate) fn consumed(&self) -> Vec<Consumed> {
        self.records.consumed()
    }

    /// The receipt to give again for a ciphertext that is stored already.
    fn standing_receipt(
        &self,
        name: &CredentialName,
        kind: CredentialType,
        source: Sha256,
    ) -> Option<&Receipt> {
        let record = self.records.undisturbed(name)?;
        let same = record.receipt.source_sha256 == source && record.receipt.r#type == kind;
        (same && self.is_present(name, &record.place)).then_some(&record.receipt)
    }

    fn is_present(&self, name: &CredentialName, place: &Place) -> bool {
        match place {
            Place::Secrets => self.files.contains(name),
            Place::GoogleClient => self.files.has_google_client(),
            Place::Tunnel { token_sha256 } => self.tunnel.contains(token_sha256),
        }
    }

    /// Removes values that no record accounts for, once it is known which there are.
    fn scrub(&mut self) -> Result<(), StoreError> {
        if !self.files.is_known() {
            return Ok(());
        }
        let in_place = |record: &Record| match &record.stored {
            Some(stored) => stored.place == Place::Secrets || record.writing.is_some(),
            None => record.writing.is_some(),
        };
        let accounted: BTreeSet<_> = self.records.names_where(in_place);
        self.files.retain(&accounted)?;
        if self.records.holder_of_google_client().is_none() && !self.records.is_writing() {
            self.files.remove_google_client()?;
        }
        Ok(())
    }

    /// Looks at the files again: whoever removed a value also took its receipt away.
    pub(crate) fn refresh(&mut self) -> Result<(), StoreError> {
        self.files.refresh()?;
        self.scrub()
    }

    /// Changes a copy of the records and makes it durable before it counts.
    fn change_records(&mut self, change: impl FnOnce(&mut Records)) -> Result<(), DiskError> {
        let mut changed = self.records.clone();
        change(&mut changed);
        self.disk.write_json(&self.layout.credential_records(), &changed)?;
        self.records = changed;
        Ok(())
    }
}

/// Where a value of a type goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Target {
    Secrets,
    GoogleClient,
    Tunnel,
}

#[cfg(test)]
mod tests;
