//! The key ring in the cluster: one Secret per sealing key, its private half wrapped by the master
//! key, and one `ConfigMap` with the tombstones. All in the operator's namespace; only the leader
//! writes.

mod stored;

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{ConfigMap, Secret as KubeSecret},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{
    Api, Client, ResourceExt as _,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions},
};
use moorage_wire::sealing::{KeyStrength, SealingKey, SealingKeyError};
use serde_json::json;
use thiserror::Error;

use super::{
    key_ring::{KeyRing, RingKey, Tombstone},
    lifetimes::CERTIFICATE_VALID_FOR,
    wrapping_key::WrappingKey,
};

pub use stored::secret_name;

pub(super) use stored::{open, store_form};

use stored::{is_of, parse_key};

/// The type of a Secret with a sealing key.
pub const SEALING_KEY_TYPE: &str = "moorage.dev/sealing-key";
/// The `ConfigMap` with the tombstones of destroyed keys.
pub const TOMBSTONES_CONFIG_MAP: &str = "moorage-sealing-keys-destroyed";
const COMPONENT_LABEL: &str = "moorage.dev/component";
const COMPONENT: &str = "sealing-key";
const COMMON_NAME: &str = "moorage sealing key";

/// Why the ring cannot be read or changed.
#[derive(Debug, Error)]
pub enum KeyRingStoreError {
    /// Stored keys that cannot be used. Nothing is deleted: they may be the only ones that open what
    /// customers sealed.
    #[error(
        "sealing keys in namespace {namespace} cannot be used: {}; restore them or the master key from a backup, or delete these Secrets if what was sealed to them may be lost", list(.damaged)
    )]
    Damaged { namespace: String, damaged: Vec<DamagedKey> },
    /// A new key could not be made.
    #[error("a sealing key cannot be made: {0}")]
    Generation(String),
    /// A call to the API server failed.
    #[error("{action} failed: {}", crate::api_server::told(.source))]
    Kube { action: String, source: Box<kube::Error> },
}

/// A Secret whose sealing key cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DamagedKey {
    /// The Secret's name.
    pub secret: String,
    /// What is wrong with it.
    pub problem: &'static str,
}

impl KeyRingStoreError {
    /// The reason for a condition.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Damaged { .. } => "SealingKeyDamaged",
            Self::Generation(_) | Self::Kube { .. } => "KeyRingUnavailable",
        }
    }

    /// Whether trying again can help without anyone changing anything.
    pub fn is_passing(&self) -> bool {
        !matches!(self, Self::Damaged { .. })
    }
}

fn list(damaged: &[DamagedKey]) -> String {
    let one = |key: &DamagedKey| format!("Secret {} ({})", key.secret, key.problem);
    damaged.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// Reads and changes the stored ring.
#[derive(Clone)]
pub struct KeyRingStore {
    pub(super) secrets: Api<KubeSecret>,
    config_maps: Api<ConfigMap>,
    namespace: String,
    strength: KeyStrength,
}

impl KeyRingStore {
    /// Works in the operator's namespace and makes keys of 4096 bits.
    pub fn new(client: Client, namespace: &str) -> Self {
        Self {
            secrets: Api::namespaced(client.clone(), namespace),
            config_maps: Api::namespaced(client, namespace),
            namespace: namespace.to_owned(),
            strength: KeyStrength::Operator,
        }
    }

    /// Makes new keys of another strength, for tests that should not wait.
    #[must_use]
    pub fn with_strength(self, strength: KeyStrength) -> Self {
        Self { strength, ..self }
    }

    /// Reads all keys and tombstones. One unusable key is an error that names its Secret.
    /// `wrapping` are the keys that may have wrapped them.
    pub async fn load(&self, wrapping: &[WrappingKey]) -> Result<KeyRing, KeyRingStoreError> {
        let secrets = self.list().await?;
        let (mut keys, mut damaged) = (Vec::<RingKey>::new(), Vec::new());
        for secret in secrets {
            let name = secret.metadata.name.clone().unwrap_or_default();
            match parse_key(secret, wrapping) {
                // While it is wrapped again, one key has two Secrets.
                Ok(key) if keys.iter().any(|known| known.fingerprint() == key.fingerprint()) => {}
                Ok(key) => keys.push(key),
                Err(problem) => damaged.push(DamagedKey { secret: name, problem }),
            }
        }
        if !damaged.is_empty() {
            let namespace = self.namespace.clone();
            return Err(KeyRingStoreError::Damaged { namespace, damaged });
        }
        Ok(KeyRing::new(keys, self.tombstones().await?))
    }

    pub(super) async fn list(&self) -> Result<Vec<KubeSecret>, KeyRingStoreError> {
        let selected = ListParams::default().labels(&format!("{COMPONENT_LABEL}={COMPONENT}"));
        let listed = self.secrets.list(&selected).await;
        Ok(listed.map_err(failed("listing sealing keys"))?.items)
    }

    async fn tombstones(&self) -> Result<Vec<Tombstone>, KeyRingStoreError> {
        let found = self.config_maps.get_opt(TOMBSTONES_CONFIG_MAP).await;
        let found = found.map_err(failed("reading the tombstones of sealing keys"))?;
        let data = found.and_then(|config_map| config_map.data).unwrap_or_default();
        let parse = |(fingerprint, text): (String, String)| {
            let tombstone = serde_json::from_str(&text).ok();
            if tombstone.is_none() {
                // Tombstones only explain; a bad one must not stop deliveries.
                tracing::warn!(%fingerprint, "a tombstone in {TOMBSTONES_CONFIG_MAP} is not readable");
            }
            tombstone
        };
        Ok(data.into_iter().filter_map(parse).collect())
    }

    /// Makes a key and stores it. Takes seconds, on a thread of its own.
    pub async fn generate(
        &self,
        wrapping: &WrappingKey,
        now: Timestamp,
    ) -> Result<RingKey, KeyRingStoreError> {
        let strength = self.strength;
        // Kubernetes and certificates know whole seconds.
        let created = Timestamp::from_second(now.as_second()).unwrap_or(now);
        let validity = CERTIFICATE_VALID_FOR.unsigned_abs();
        let generate = move || SealingKey::generate(strength, COMMON_NAME, created, validity);
        let made = tokio::task::spawn_blocking(generate).await;
        let broken =
            |error: &dyn std::fmt::Display| KeyRingStoreError::Generation(error.to_string());
        let (key, pkcs8) = made
            .map_err(|error| broken(&error))?
            .map_err(|error: SealingKeyError| broken(&error))?;
        let key = RingKey { key, created };
        let secret = store_form(&key, &pkcs8, wrapping).map_err(|error| broken(&error))?;
        let stored = self.secrets.create(&PostParams::default(), &secret).await;
        match stored {
            // Named after its certificate: what is there is this very key, of a call whose answer
            // was lost.
            Err(kube::Error::Api(status)) if status.is_already_exists() => {}
            stored => drop(stored.map_err(failed("storing a sealing key"))?),
        }
        Ok(key)
    }

    /// Destroys a key for good: the tombstone first, so that a crash in between loses only a little
    /// time, then the Secret, if it is still the one that was read.
    pub async fn destroy(&self, tombstone: &Tombstone) -> Result<(), KeyRingStoreError> {
        self.write_tombstone(tombstone).await?;
        for secret in self.list().await? {
            if is_of(&secret.name_any(), &tombstone.fingerprint) {
                self.delete(secret).await?;
            }
        }
        Ok(())
    }

    /// Deletes exactly what was read.
    pub(super) async fn delete(&self, secret: KubeSecret) -> Result<(), KeyRingStoreError> {
        let name = secret.name_any();
        let preconditions = Preconditions {
            uid: secret.metadata.uid,
            resource_version: secret.metadata.resource_version,
        };
        let parameters =
            DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
        match self.secrets.delete(&name, &parameters).await {
            Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
            deleted => deleted.map(|_| ()).map_err(failed("deleting a sealing key")),
        }
    }

    async fn write_tombstone(&self, tombstone: &Tombstone) -> Result<(), KeyRingStoreError> {
        let text = serde_json::to_string(tombstone).unwrap_or_default();
        let data = BTreeMap::from([(tombstone.fingerprint.to_string(), text)]);
        let patch = Patch::Merge(json!({ "data": data }));
        let parameters = PatchParams::default();
        let merge = || self.config_maps.patch(TOMBSTONES_CONFIG_MAP, &parameters, &patch);
        match merge().await {
            Err(kube::Error::Api(status)) if status.is_not_found() => {}
            merged => return merged.map(|_| ()).map_err(failed("writing a tombstone")),
        }
        let config_map = ConfigMap {
            metadata: ObjectMeta { labels: Some(labels()), ..named(TOMBSTONES_CONFIG_MAP) },
            data: Some(data),
            ..ConfigMap::default()
        };
        match self.config_maps.create(&PostParams::default(), &config_map).await {
            Err(kube::Error::Api(status)) if status.is_already_exists() => {
                merge().await.map(|_| ()).map_err(failed("writing a tombstone"))
            }
            created => created.map(|_| ()).map_err(failed("creating the tombstones")),
        }
    }
}

fn labels() -> BTreeMap<String, String> {
    BTreeMap::from([
        ("app.kubernetes.io/managed-by".to_owned(), "moorage".to_owned()),
        (COMPONENT_LABEL.to_owned(), COMPONENT.to_owned()),
    ])
}

fn named(name: &str) -> ObjectMeta {
    ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() }
}

pub(super) fn failed(action: &str) -> impl FnOnce(kube::Error) -> KeyRingStoreError {
    let action = action.to_owned();
    move |source| KeyRingStoreError::Kube { action, source: Box::new(source) }
}
