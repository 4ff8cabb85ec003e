//! The two files in OpenClaw's home that hold values: `secrets.json` and the Google OAuth client.
//! Nothing else in the agent opens them.

use std::{collections::BTreeSet, fs};

use moorage_wire::CredentialName;

use super::Values;
use crate::{
    disk::{Disk, DiskError},
    layout::Layout,
    secret_text::SecretText,
};

/// The files, and which names they hold. Values are in memory only while a file is rewritten.
pub(super) struct SecretFiles {
    disk: Disk,
    layout: Layout,
    names: BTreeSet<CredentialName>,
}

impl SecretFiles {
    pub(super) fn open(disk: &Disk, layout: &Layout) -> Result<Self, DiskError> {
        let names = read(disk, layout)?.into_keys().collect();
        Ok(Self { disk: disk.clone(), layout: layout.clone(), names })
    }

    pub(super) fn contains(&self, name: &CredentialName) -> bool {
        self.names.contains(name)
    }

    pub(super) fn set(
        &mut self,
        name: &CredentialName,
        value: SecretText,
    ) -> Result<(), DiskError> {
        self.rewrite(|values| {
            values.insert(name.clone(), value);
        })
    }

    /// Removes all values but those of `names`.
    pub(super) fn retain(&mut self, names: &BTreeSet<CredentialName>) -> Result<(), DiskError> {
        if self.names.is_subset(names) {
            return Ok(());
        }
        self.rewrite(|values| values.retain(|name, _| names.contains(name)))
    }

    fn rewrite(&mut self, change: impl FnOnce(&mut Values)) -> Result<(), DiskError> {
        let mut values = read(&self.disk, &self.layout)?;
        change(&mut values);
        self.disk.write_json(&self.layout.secrets(), &values)?;
        self.names = values.into_keys().collect();
        Ok(())
    }

    pub(super) fn has_google_client(&self) -> bool {
        fs::exists(self.layout.google_client()).unwrap_or(false)
    }

    pub(super) fn set_google_client(&mut self, value: &SecretText) -> Result<(), DiskError> {
        self.disk.write(&self.layout.google_client(), value.expose().as_bytes())
    }

    pub(super) fn remove_google_client(&mut self) -> Result<(), DiskError> {
        self.disk.remove(&self.layout.google_client())
    }
}

/// The values. A file that somebody damaged holds none: their receipts are withdrawn and they can be
/// delivered again, and the server stays manageable.
fn read(disk: &Disk, layout: &Layout) -> Result<Values, DiskError> {
    match disk.read_json(&layout.secrets()) {
        Ok(values) => Ok(values.unwrap_or_default()),
        Err(error @ DiskError::Damaged { .. }) => {
            tracing::error!(%error, "the credentials in it have to be delivered again");
            Ok(Values::new())
        }
        Err(error) => Err(error),
    }
}
