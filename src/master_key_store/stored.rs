//! Master keys in Secrets: the first is `moorage-master-key`, each later one has a number from 2 on
//! behind it, and the highest number is the newest. Adding a key is creating an object, and taking one
//! away is deleting one: nothing is ever edited, so nothing is lost by a wrong edit.
//!
//! A key that something needs has a finalizer, so that no deletion, that of the whole namespace
//! included, takes it away: it stays readable until the operator or a person lets it go.

use k8s_openapi::api::core::v1::Secret as KubeSecret;
use kube::{
    Api, ResourceExt as _,
    api::{ListParams, Patch, PatchParams},
};
use moorage_wire::{InstallationId, Secret};
use serde_json::json;

use super::{
    INSTALLATION_ID, KEY, MASTER_KEY_SECRET, MasterKeyStoreError, failed, installation_id,
};
use crate::master_key::MasterKey;

/// The finalizer of a key that something needs.
pub(super) const PROTECTION: &str = "moorage.dev/master-key-in-use";

/// A Secret with a key.
pub(super) struct StoredKey {
    pub(super) name: String,
    number: u64,
    key: Secret,
    installation: Option<Vec<u8>>,
    protected: bool,
    deleting: bool,
    uid: Option<String>,
    resource_version: Option<String>,
    finalizers: Vec<String>,
}

impl StoredKey {
    fn new(name: String, number: u64, mut secret: KubeSecret) -> Self {
        let mut data = secret.data.take().unwrap_or_default();
        let finalizers = secret.finalizers().to_vec();
        Self {
            name,
            number,
            key: Secret::new(data.remove(KEY).unwrap_or_default().0),
            installation: data.remove(INSTALLATION_ID).map(|id| id.0),
            protected: finalizers.iter().any(|held| held == PROTECTION),
            deleting: secret.metadata.deletion_timestamp.is_some(),
            uid: secret.uid(),
            resource_version: secret.resource_version(),
            finalizers,
        }
    }

    pub(super) fn parse(
        &self,
        installation: InstallationId,
    ) -> Result<MasterKey, MasterKeyStoreError> {
        let place = format!("Secret {}, key {KEY},", self.name);
        let invalid = |source| MasterKeyStoreError::InvalidKey { place, source };
        MasterKey::parse(&self.key, installation).map_err(invalid)
    }
}

/// All of them, the newest first. Only their names are listed: other Secrets are not read for this.
pub(super) async fn read(secrets: &Api<KubeSecret>) -> Result<Vec<StoredKey>, MasterKeyStoreError> {
    let listed = secrets.list_metadata(&ListParams::default()).await;
    let listed = listed.map_err(failed("listing the Secrets with master keys"))?;
    let mut stored = Vec::new();
    for entry in listed.items {
        let name = entry.name_any();
        let Some(number) = number(&name) else { continue };
        let found = secrets.get_opt(&name).await;
        let found = found.map_err(failed(&format!("reading Secret {name}")))?;
        stored.extend(found.map(|secret| StoredKey::new(name, number, secret)));
    }
    stored.sort_by_key(|key| std::cmp::Reverse(key.number));
    Ok(stored)
}

/// The installation that the Secrets name, which is one.
pub(super) fn installation(
    stored: &[StoredKey],
) -> Result<Option<InstallationId>, MasterKeyStoreError> {
    let mut found = None;
    for key in stored {
        let place = || format!("Secret {}, key {INSTALLATION_ID},", key.name);
        let Some(id) = &key.installation else {
            // The first Secret always had one.
            if key.number == 1 {
                return Err(MasterKeyStoreError::InvalidInstallationId { place: place() });
            }
            continue;
        };
        let id = installation_id(id, place)?;
        if found.is_some_and(|known| known != id) {
            return Err(MasterKeyStoreError::InvalidInstallationId { place: place() });
        }
        found = Some(id);
    }
    Ok(found)
}

/// Puts the finalizer on or takes it away. Exactly what was read is changed.
pub(super) async fn protect(
    secrets: &Api<KubeSecret>,
    stored: &StoredKey,
    needed: bool,
) -> Result<(), MasterKeyStoreError> {
    // Kubernetes takes no new finalizer on what is being deleted.
    if stored.protected == needed || (needed && stored.deleting) {
        return Ok(());
    }
    let others = stored.finalizers.iter().filter(|held| *held != PROTECTION).cloned();
    let finalizers: Vec<_> = others.chain(needed.then(|| PROTECTION.to_owned())).collect();
    let patch = Patch::Merge(json!({ "metadata": {
        "uid": stored.uid, "resourceVersion": stored.resource_version, "finalizers": finalizers,
    }}));
    let patched = secrets.patch_metadata(&stored.name, &PatchParams::default(), &patch).await;
    match patched {
        Err(kube::Error::Api(status)) if !needed && status.is_not_found() => Ok(()),
        patched => {
            patched.map_err(failed(&format!("protecting Secret {}", stored.name)))?;
            tracing::info!(
                secret = stored.name,
                needed,
                "whether the master key may be deleted has changed"
            );
            Ok(())
        }
    }
}

/// Which key a Secret of this name holds, from 1 on; `None` for other Secrets.
fn number(name: &str) -> Option<u64> {
    let rest = name.strip_prefix(MASTER_KEY_SECRET)?;
    if rest.is_empty() {
        return Some(1);
    }
    let digits = rest.strip_prefix('-')?;
    // One way of writing each number, so that no two Secrets have the same.
    let number: u64 = digits.parse().ok().filter(|number| *number >= 2)?;
    (number.to_string() == digits).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("moorage-master-key", Some(1))]
    #[case("moorage-master-key-2", Some(2))]
    #[case("moorage-master-key-10", Some(10))]
    #[case("moorage-master-key-1", None)]
    #[case("moorage-master-key-02", None)]
    #[case("moorage-master-key-+2", None)]
    #[case("moorage-master-key-backup", None)]
    #[case("moorage-master-key2", None)]
    #[case("moorage-access-eu-1", None)]
    fn a_key_is_known_by_the_name_of_its_secret(#[case] name: &str, #[case] expected: Option<u64>) {
        assert_eq!(number(name), expected);
    }

    fn stored(name: &str, installation: Option<&str>) -> StoredKey {
        let data = installation.map(|id| json!({ INSTALLATION_ID: id }));
        let secret = serde_json::from_value(json!({"metadata": {"name": name}})).unwrap();
        let mut key = StoredKey::new(name.to_owned(), number(name).unwrap(), secret);
        key.installation = data.map(|data| data[INSTALLATION_ID].as_str().unwrap().into());
        key
    }

    #[test]
    fn all_keys_are_of_one_installation() {
        let (one, other) = ("0011223344556677", "8899aabbccddeeff");
        let first = |id| stored("moorage-master-key", id);
        let second = |id| stored("moorage-master-key-2", id);
        let id = |keys: &[StoredKey]| installation(keys).map(|id| id.map(|id| id.to_string()));
        assert_eq!(id(&[second(None), first(Some(one))]).unwrap().as_deref(), Some(one));
        assert_eq!(id(&[second(None)]).unwrap(), None, "the ConfigMap says it then");
        assert!(id(&[second(Some(other)), first(Some(one))]).is_err());
        assert!(id(&[first(None)]).is_err());
    }
}
