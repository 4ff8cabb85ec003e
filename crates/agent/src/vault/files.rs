//! Which values are in OpenClaw's home, and how they get there. The files belong to the worker, and no
//! value passes through here.

use std::collections::BTreeSet;

use moorage_wire::CredentialName;

use crate::{
    signed::SignedCall,
    worker::{OpenClaw, WorkerError, protocol::Held},
};

/// The files, and which names they hold.
pub(super) struct SecretFiles {
    openclaw: OpenClaw,
    /// Unknown until the worker answered: an agent must start, and be reachable, without it.
    held: Option<Held>,
}

impl SecretFiles {
    pub(super) fn open(openclaw: OpenClaw) -> Self {
        let mut files = Self { openclaw, held: None };
        if let Err(error) = files.refresh() {
            tracing::warn!(%error, "which credentials are stored is not known yet");
        }
        files
    }

    #[cfg(test)]
    pub(super) fn openclaw(&self) -> &OpenClaw {
        &self.openclaw
    }

    pub(super) fn refresh(&mut self) -> Result<(), WorkerError> {
        self.held = Some(self.openclaw.secret_names()?);
        Ok(())
    }

    /// Whether the value is there. While the worker does not answer, the records count.
    pub(super) fn contains(&self, name: &CredentialName) -> bool {
        self.held.as_ref().is_none_or(|held| held.names.contains(name))
    }

    /// Whether the Google OAuth client is there; as with [`Self::contains`].
    pub(super) fn has_google_client(&self) -> bool {
        self.held.as_ref().is_none_or(|held| held.google_client)
    }

    pub(super) fn is_known(&self) -> bool {
        self.held.is_some()
    }

    /// Has the worker open a credential and put its value where it belongs.
    pub(super) fn store(
        &mut self,
        name: &CredentialName,
        call: &SignedCall,
    ) -> Result<(), WorkerError> {
        self.held = Some(self.openclaw.store_credential(name, call)?);
        Ok(())
    }

    /// Removes all values but those of `names`.
    pub(super) fn retain(&mut self, names: &BTreeSet<CredentialName>) -> Result<(), WorkerError> {
        if self.held.as_ref().is_none_or(|held| !held.names.is_subset(names)) {
            self.held = Some(self.openclaw.retain_secrets(names)?);
        }
        Ok(())
    }

    pub(super) fn remove_google_client(&mut self) -> Result<(), WorkerError> {
        if self.has_google_client() {
            self.held = Some(self.openclaw.remove_google_client()?);
        }
        Ok(())
    }
}
