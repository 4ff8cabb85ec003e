//! A rotation of the master key: sealing keys that an older one wraps are wrapped again by the newest.
//! The Secret with the new wrapping is there before the old one goes, so that a crash in between leaves
//! two of one key and never none.

use kube::{ResourceExt as _, api::PostParams};

use super::{
    key_ring_store::{KeyRingStore, KeyRingStoreError, failed, open, secret_name, store_form},
    wrapping_key::WrappingKey,
};

impl KeyRingStore {
    /// Wraps all keys by the first of `wrapping` and says by which how many are wrapped now. `mark` names
    /// that wrapping in the Secrets' names. What cannot be opened is left as it is: `load` tells of it.
    pub async fn rewrap(
        &self,
        wrapping: &[WrappingKey],
        mark: &str,
    ) -> Result<Vec<u32>, KeyRingStoreError> {
        let mut wrapped = vec![0; wrapping.len()];
        for secret in self.list().await? {
            let Ok((key, pkcs8, by)) = open(secret.clone(), wrapping) else { continue };
            if by == 0 {
                wrapped[0] += 1;
                continue;
            }
            let mut new = store_form(&key, &pkcs8, &wrapping[0])
                .map_err(|error| KeyRingStoreError::Generation(error.to_string()))?;
            let name = format!("{}-{mark}", secret_name(&key.fingerprint()));
            new.metadata.name = Some(name.clone());
            let stored = self.secrets.create(&PostParams::default(), &new).await;
            match stored {
                // Of a try before this one; it is counted as what it is.
                Err(kube::Error::Api(status)) if status.is_already_exists() => {}
                stored => {
                    stored.map_err(failed("storing a sealing key that is wrapped again"))?;
                    wrapped[0] += 1;
                }
            }
            self.delete(secret.clone()).await?;
            tracing::info!(
                old = secret.name_any(),
                new = name,
                "wrapped a sealing key by the newest master key"
            );
        }
        Ok(wrapped)
    }
}
