//! Where the master keys come from: files (so a KMS or CSI volume), or Secrets, of which the first
//! leader makes the first one. A key is made only while no instance was claimed: another one in its
//! place would lock the operator out of every server that runs. A further key is a person's to add
//! (`stored` says how it is named); what derives from a key is in `master_key`.

mod error;
mod file;
mod stored;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use async_trait::async_trait;
use aws_lc_rs::rand;
use k8s_openapi::{
    ByteString,
    api::core::v1::{ConfigMap, Secret as KubeSecret},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{Api, Client, api::PostParams};
use moorage_wire::{InstallationId, Secret};
use zeroize::Zeroizing;

use crate::{
    master_key::{KEY_BYTES, MasterKey},
    master_keys::{KeyPlace, MasterKeys},
};

pub use error::MasterKeyStoreError;

use error::{CONFIG_MAP_OBJECT, SECRET_OBJECT};
use file::read_key_file;
use stored::StoredKey;

/// The Secret with the first master key, in the operator's namespace. Those of later ones have the same
/// name with a hyphen and a number from 2 on.
pub const MASTER_KEY_SECRET: &str = "moorage-master-key";
/// The `ConfigMap` with the installation id, where the first key is a file or may go.
pub const INSTALLATION_CONFIG_MAP: &str = "moorage-installation";
const KEY: &str = "key";
const INSTALLATION_ID: &str = "installation-id";
/// Where the master keys are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MasterKeySource {
    /// In the Secret [`MASTER_KEY_SECRET`] and those that came after it.
    Secret,
    /// In files: 32 bytes each, raw or in base64. Keys in Secrets are older ones.
    File {
        newest: PathBuf,
        /// Keys that a rotation takes out of use, the newest of them first.
        older: Vec<PathBuf>,
    },
}

/// Tells whether anything depends on a master key already.
#[async_trait]
pub trait InstanceCensus: Send + Sync {
    /// Whether any `OpenClawInstance` in any namespace was ever claimed, that is, has the finalizer
    /// or an instance id; one that is being deleted included. Nothing depends on a key for the others,
    /// which somebody may have applied before the operator first ran.
    async fn any_instance_is_claimed(&self) -> Result<bool, kube::Error>;
}

/// Reads and, once, makes the master key.
#[derive(Clone)]
pub struct MasterKeyStore {
    secrets: Api<KubeSecret>,
    config_maps: Api<ConfigMap>,
    namespace: String,
    source: MasterKeySource,
}

impl MasterKeyStore {
    /// Works in the operator's namespace.
    pub fn new(client: Client, namespace: &str, source: MasterKeySource) -> Self {
        Self {
            secrets: Api::namespaced(client.clone(), namespace),
            config_maps: Api::namespaced(client, namespace),
            namespace: namespace.to_owned(),
            source,
        }
    }

    /// Reads the keys; `None` if none was ever made. Any replica may call this.
    pub async fn load(&self) -> Result<Option<MasterKeys>, MasterKeyStoreError> {
        match &self.source {
            MasterKeySource::Secret => self.load_secrets().await,
            MasterKeySource::File { newest, older } => self.load_files(newest, older).await,
        }
    }

    /// Reads the keys, or makes the first while no instance was claimed. Only the leader may call this.
    pub async fn load_or_create(
        &self,
        census: &dyn InstanceCensus,
    ) -> Result<MasterKeys, MasterKeyStoreError> {
        if let Some(keys) = self.load().await? {
            self.keep_installation(&keys).await?;
            return Ok(keys);
        }
        // A key that moves from its Secret into a file keeps the installation.
        let known = match &self.source {
            MasterKeySource::Secret => None,
            MasterKeySource::File { .. } => self.installation_of_secrets().await?,
        };
        let counted = census.any_instance_is_claimed().await;
        if known.is_none() && counted.map_err(failed("listing OpenClawInstances"))? {
            return Err(self.missing());
        }
        match &self.source {
            MasterKeySource::Secret => self.create_secret().await?,
            MasterKeySource::File { .. } => {
                let id = known.map_or_else(new_installation_id, |id| Ok(id.to_string()))?;
                self.create_installation(id).await?;
            }
        }
        // What was stored is the truth, also where somebody else was quicker.
        self.load().await?.ok_or_else(|| self.missing())
    }

    /// Sees to it that the installation id outlives the first Secret, once there is a second key.
    /// Only the leader may call this.
    pub async fn keep_installation(&self, keys: &MasterKeys) -> Result<(), MasterKeyStoreError> {
        if keys.older().is_empty() || self.installation_of_config_map().await?.is_some() {
            return Ok(());
        }
        self.create_installation(keys.installation().to_string()).await
    }

    /// Protects the Secrets of these keys from deletion, and no others. Only the leader may call this.
    pub async fn protect(&self, needed: &BTreeSet<String>) -> Result<(), MasterKeyStoreError> {
        let Some(keys) = self.load().await? else { return Ok(()) };
        for stored in self.stored().await? {
            let key = stored.parse(keys.installation())?;
            stored::protect(&self.secrets, &stored, needed.contains(key.id().as_str())).await?;
        }
        Ok(())
    }

    fn missing(&self) -> MasterKeyStoreError {
        let object = match self.source {
            MasterKeySource::Secret => SECRET_OBJECT,
            MasterKeySource::File { .. } => CONFIG_MAP_OBJECT,
        };
        MasterKeyStoreError::MasterKeyMissing { object, namespace: self.namespace.clone() }
    }

    async fn load_secrets(&self) -> Result<Option<MasterKeys>, MasterKeyStoreError> {
        let stored = self.stored().await?;
        let Some((newest, older)) = stored.split_first() else { return Ok(None) };
        let installation = match stored::installation(&stored)? {
            Some(id) => id,
            None => self.installation_of_config_map().await?.ok_or_else(|| {
                let place = format!("Secret {}", newest.name);
                MasterKeyStoreError::InvalidInstallationId { place }
            })?,
        };
        let newest = newest.parse(installation)?;
        with_older(MasterKeys::only(newest, KeyPlace::Secret), older).map(Some)
    }

    /// The Secrets with keys, that of the newest first.
    async fn stored(&self) -> Result<Vec<StoredKey>, MasterKeyStoreError> {
        stored::read(&self.secrets).await
    }

    async fn installation_of_secrets(&self) -> Result<Option<InstallationId>, MasterKeyStoreError> {
        stored::installation(&self.stored().await?)
    }

    async fn create_secret(&self) -> Result<(), MasterKeyStoreError> {
        let key = Zeroizing::new(random::<KEY_BYTES>()?);
        let data = BTreeMap::from([
            (KEY.to_owned(), ByteString(key.to_vec())),
            (INSTALLATION_ID.to_owned(), ByteString(new_installation_id()?.into_bytes())),
        ]);
        let secret = KubeSecret {
            metadata: ObjectMeta {
                finalizers: Some(vec![stored::PROTECTION.to_owned()]),
                ..metadata(MASTER_KEY_SECRET)
            },
            // Nobody changes it by mistake: it can only be deleted and restored.
            immutable: Some(true),
            data: Some(data),
            ..KubeSecret::default()
        };
        let created = self.secrets.create(&PostParams::default(), &secret).await;
        created_or_there(created, "creating Secret moorage-master-key")
    }

    async fn load_files(
        &self,
        newest: &Path,
        older: &[PathBuf],
    ) -> Result<Option<MasterKeys>, MasterKeyStoreError> {
        // The files first: a wrong path must not leave an installation behind.
        let key = read_key_file(newest)?;
        let others: Vec<_> =
            older.iter().map(|path| Ok((path, read_key_file(path)?))).collect::<Result<_, _>>()?;
        let Some(installation) = self.installation_of_config_map().await? else { return Ok(None) };
        let parse = |path: &Path, key: &Secret| {
            let place = format!("the file {}", path.display());
            let invalid = |source| MasterKeyStoreError::InvalidKey { place, source };
            MasterKey::parse(key, installation).map_err(invalid)
        };
        let mut keys = MasterKeys::only(parse(newest, &key)?, KeyPlace::File);
        for (path, key) in &others {
            keys = keys.with_older(parse(path, key)?);
        }
        with_older(keys, &self.stored().await?).map(Some)
    }

    async fn installation_of_config_map(
        &self,
    ) -> Result<Option<InstallationId>, MasterKeyStoreError> {
        let found = self.config_maps.get_opt(INSTALLATION_CONFIG_MAP).await;
        let found = found.map_err(failed("reading ConfigMap moorage-installation"))?;
        let Some(config_map) = found else { return Ok(None) };
        let data = config_map.data.unwrap_or_default();
        let id = data.get(INSTALLATION_ID).map(String::as_bytes).unwrap_or_default();
        installation_id(id, || format!("ConfigMap {INSTALLATION_CONFIG_MAP}")).map(Some)
    }

    async fn create_installation(&self, id: String) -> Result<(), MasterKeyStoreError> {
        let data = BTreeMap::from([(INSTALLATION_ID.to_owned(), id)]);
        let config_map = ConfigMap {
            metadata: metadata(INSTALLATION_CONFIG_MAP),
            immutable: Some(true),
            data: Some(data),
            ..ConfigMap::default()
        };
        let created = self.config_maps.create(&PostParams::default(), &config_map).await;
        created_or_there(created, "creating ConfigMap moorage-installation")
    }
}

/// Adds the keys of these Secrets, which are older ones.
fn with_older(
    mut keys: MasterKeys,
    stored: &[StoredKey],
) -> Result<MasterKeys, MasterKeyStoreError> {
    let installation = keys.installation();
    for stored in stored {
        keys = keys.with_older(stored.parse(installation)?);
    }
    Ok(keys)
}

fn installation_id(
    bytes: &[u8],
    place: impl Fn() -> String,
) -> Result<InstallationId, MasterKeyStoreError> {
    let parsed = std::str::from_utf8(bytes).ok().and_then(|text| text.trim().parse().ok());
    parsed.ok_or_else(|| MasterKeyStoreError::InvalidInstallationId { place: place() })
}

fn new_installation_id() -> Result<String, MasterKeyStoreError> {
    Ok(InstallationId::from_bytes(random()?).to_string())
}

fn random<const N: usize>() -> Result<[u8; N], MasterKeyStoreError> {
    let mut bytes = [0; N];
    rand::fill(&mut bytes).map_err(|_| MasterKeyStoreError::NoRandomness)?;
    Ok(bytes)
}

fn metadata(name: &str) -> ObjectMeta {
    let managed_by = ("app.kubernetes.io/managed-by".to_owned(), "moorage".to_owned());
    let labels = Some(BTreeMap::from([managed_by]));
    ObjectMeta { name: Some(name.to_owned()), labels, ..ObjectMeta::default() }
}

fn created_or_there<T>(
    created: Result<T, kube::Error>,
    action: &str,
) -> Result<(), MasterKeyStoreError> {
    match created {
        Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(()),
        created => created.map(|_| ()).map_err(failed(action)),
    }
}

fn failed(action: &str) -> impl FnOnce(kube::Error) -> MasterKeyStoreError {
    let action = action.to_owned();
    move |source| MasterKeyStoreError::Kube { action, source: Box::new(source) }
}
