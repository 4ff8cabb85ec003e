//! The two files in OpenClaw's home that hold values: `secrets.json` and the Google OAuth client.
//! Nothing else opens them. Values are in memory only while a file is rewritten, and one is kept
//! longer: the gateway token that a running gateway may still want, until it was seen to take the
//! new one.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use moorage_wire::{CredentialName, credential::GATEWAY_TOKEN};
use parking_lot::Mutex;

use super::protocol::Held;
use crate::{
    disk::{Disk, DiskError},
    layout::Layout,
    secret_text::SecretText,
};

type Values = BTreeMap<CredentialName, SecretText>;

pub(super) struct Secrets {
    disk: Disk,
    layout: Layout,
    /// Locked while the files change, so that two changes never read the same old bytes.
    previous_gateway_token: Mutex<Option<SecretText>>,
}

impl Secrets {
    pub(super) fn new(disk: Disk, layout: Layout) -> Self {
        Self { disk, layout, previous_gateway_token: Mutex::default() }
    }

    pub(super) fn held(&self) -> Result<Held, DiskError> {
        Ok(self.describe(&self.read()?))
    }

    pub(super) fn set(&self, name: &CredentialName, value: SecretText) -> Result<Held, DiskError> {
        let mut previous = self.previous_gateway_token.lock();
        let mut values = self.read()?;
        let replaced = values.insert(name.clone(), value);
        self.disk.write_json(&self.layout.secrets(), &values)?;
        if name.as_str() == GATEWAY_TOKEN && replaced.as_ref() != values.get(name) {
            // After a second change the gateway still has the first.
            *previous = previous.take().or(replaced);
        }
        Ok(self.describe(&values))
    }

    /// Removes all values but those of `names`.
    pub(super) fn retain(&self, names: &BTreeSet<CredentialName>) -> Result<Held, DiskError> {
        let _lock = self.previous_gateway_token.lock();
        let mut values = self.read()?;
        if values.keys().any(|name| !names.contains(name)) {
            values.retain(|name, _| names.contains(name));
            self.disk.write_json(&self.layout.secrets(), &values)?;
        }
        Ok(self.describe(&values))
    }

    pub(super) fn set_google_client(&self, value: &SecretText) -> Result<Held, DiskError> {
        self.disk.write(&self.layout.google_client(), value.expose().as_bytes())?;
        self.held()
    }

    pub(super) fn remove_google_client(&self) -> Result<Held, DiskError> {
        self.disk.remove(&self.layout.google_client())?;
        self.held()
    }

    /// The token that the gateway should want.
    pub(super) fn gateway_token(&self) -> Result<Option<SecretText>, DiskError> {
        let mut values = self.read()?;
        let name = values.keys().find(|name| name.as_str() == GATEWAY_TOKEN).cloned();
        Ok(name.and_then(|name| values.remove(&name)))
    }

    /// The token that it may want still.
    pub(super) fn previous_gateway_token(&self) -> Option<SecretText> {
        self.previous_gateway_token.lock().clone()
    }

    /// The gateway was seen to want `current` and not the one before.
    pub(super) fn forget_previous_gateway_token(&self, current: &SecretText) {
        let mut previous = self.previous_gateway_token.lock();
        // Not if it changed again in the meantime.
        if self.gateway_token().ok().flatten().as_ref() == Some(current) {
            *previous = None;
        }
    }

    fn describe(&self, values: &Values) -> Held {
        let google_client = fs::exists(self.layout.google_client()).unwrap_or(false);
        Held { names: values.keys().cloned().collect(), google_client }
    }

    /// The values. A file that somebody damaged holds none: their receipts are withdrawn and they can
    /// be delivered again, and the server stays manageable.
    fn read(&self) -> Result<Values, DiskError> {
        match self.disk.read_json(&self.layout.secrets()) {
            Ok(values) => Ok(values.unwrap_or_default()),
            Err(error @ DiskError::Damaged { .. }) => {
                tracing::error!(%error, "the credentials in it have to be delivered again");
                Ok(Values::new())
            }
            Err(error) => Err(error),
        }
    }
}
