//! Where the master keys come from: files (so a KMS or CSI volume), or Secrets, of which the first
//! leader makes the first one. A key is made only while no instance was claimed: another one in its
//! place would lock the operator out of every server that runs. A further key is a person's to add
//! (`stored` says how it is named); what derives from a key is in `master_key`.

mod stored;

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Read as _,
    os::unix::fs::PermissionsExt as _,
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
use thiserror::Error;
use zeroize::Zeroizing;

use crate::{
    master_key::{InvalidMasterKey, KEY_BYTES, MasterKey},
    master_keys::{KeyPlace, MasterKeys},
};

use stored::StoredKey;

/// The Secret with the first master key, in the operator's namespace. Those of later ones have the same
/// name with a hyphen and a number from 2 on.
pub const MASTER_KEY_SECRET: &str = "moorage-master-key";
/// The `ConfigMap` with the installation id, where the first key is a file or may go.
pub const INSTALLATION_CONFIG_MAP: &str = "moorage-installation";
const KEY: &str = "key";
const INSTALLATION_ID: &str = "installation-id";
/// Permission bits that a key file must not have: anything for others, writing for its group. A
/// volume with an `fsGroup` is readable by the group, so that is allowed.
const FORBIDDEN_MODE: u32 = 0o037;
/// Larger than any form of a key; bounds what a wrong path makes us read.
const MAX_FILE_BYTES: u64 = 1024;

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

/// Why there is no master key.
#[derive(Debug, Error)]
pub enum MasterKeyStoreError {
    /// It was there once: there are instances whose servers answer only to it.
    #[error(
        "{object} is missing in namespace {namespace}, but instances exist whose servers depend on it. Restore it from a backup, {}. If it is lost for good, deleting instances hangs, because nothing runs without a key: see docs/operations.md, \"A lost cluster, or a lost master key\"", remedy(.object)
    )]
    MasterKeyMissing {
        /// Kind and name of what is missing.
        object: &'static str,
        namespace: String,
    },
    /// The file cannot be read.
    #[error("the master key file {} cannot be read: {source}", .path.display())]
    File {
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is open to others.
    #[error(
        "the master key file {} has mode {mode:04o}, so others can read or change it; make it 0400 (for a Secret volume: defaultMode: 0400)", .path.display()
    )]
    FileMode { path: PathBuf, mode: u32 },
    /// What is stored is not a key.
    #[error("{place} holds no master key: {source}")]
    InvalidKey {
        /// The file, or the Secret and its key.
        place: String,
        source: InvalidMasterKey,
    },
    /// What is stored is not an installation id.
    #[error(
        "{place} holds no installation id: expected {INSTALLATION_ID} with 16 lower-case hexadecimal characters, as in the labels of every server that this installation made"
    )]
    InvalidInstallationId {
        /// The object and its key.
        place: String,
    },
    /// The operating system gave no randomness.
    #[error("no master key can be made: the operating system gives no randomness")]
    NoRandomness,
    /// A call to the API server failed.
    #[error("{action} failed: {}", crate::api_server::told(.source))]
    Kube { action: String, source: Box<kube::Error> },
}

impl MasterKeyStoreError {
    /// The reason for a condition.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::MasterKeyMissing { .. } => "MasterKeyMissing",
            Self::Kube { .. } | Self::NoRandomness => "MasterKeyUnavailable",
            _ => "MasterKeyInvalid",
        }
    }

    /// Whether trying again can help without anyone changing anything.
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Kube { .. } | Self::NoRandomness)
    }
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

const SECRET_OBJECT: &str = "Secret moorage-master-key";
const CONFIG_MAP_OBJECT: &str = "ConfigMap moorage-installation";

fn remedy(object: &str) -> &'static str {
    if object == CONFIG_MAP_OBJECT {
        "or create it with the installation-id from the label moorage.dev/installation of any server"
    } else {
        "or start the operator with --master-key-file if the key has moved to a file"
    }
}

fn read_key_file(path: &Path) -> Result<Secret, MasterKeyStoreError> {
    let unreadable = |source| MasterKeyStoreError::File { path: path.to_owned(), source };
    let file = std::fs::File::open(path).map_err(unreadable)?;
    // Of the opened file, so that it is not exchanged between the check and the reading.
    let mode = file.metadata().map_err(unreadable)?.permissions().mode() & 0o7777;
    if mode & FORBIDDEN_MODE != 0 {
        return Err(MasterKeyStoreError::FileMode { path: path.to_owned(), mode });
    }
    let mut bytes = Vec::with_capacity(usize::try_from(MAX_FILE_BYTES).unwrap_or_default());
    file.take(MAX_FILE_BYTES).read_to_end(&mut bytes).map_err(unreadable)?;
    Ok(Secret::new(bytes))
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

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;
    use rstest::rstest;

    const RAW: &[u8] = b"0123456789abcdef0123456789abcdef";

    fn file(directory: &Path, mode: u32) -> PathBuf {
        let path = directory.join("key");
        fs::write(&path, RAW).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    #[rstest]
    #[case(0o400, true)]
    #[case(0o600, true)]
    #[case(0o440, true)]
    #[case(0o640, true)]
    #[case(0o444, false)]
    #[case(0o644, false)]
    #[case(0o660, false)]
    #[case(0o602, false)]
    fn a_key_file_must_be_closed_to_others(#[case] mode: u32, #[case] taken: bool) {
        let directory = tempfile::tempdir().unwrap();
        let path = file(directory.path(), mode);
        match read_key_file(&path) {
            Ok(key) => assert!(taken && key.expose() == RAW),
            Err(error) => {
                assert!(!taken, "{error}");
                assert_eq!(error.reason(), "MasterKeyInvalid");
                assert!(error.to_string().contains(&format!("{mode:04o}")), "{error}");
            }
        }
    }

    #[test]
    fn a_mounted_volumes_symlink_is_followed() {
        let directory = tempfile::tempdir().unwrap();
        let link = directory.path().join("link");
        symlink(file(directory.path(), 0o400), &link).unwrap();
        assert_eq!(read_key_file(&link).unwrap().expose(), RAW);
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = read_key_file(Path::new("/nowhere/key")).unwrap_err();
        assert!(error.to_string().contains("/nowhere/key"), "{error}");
    }

    #[test]
    fn an_endless_file_is_not_read_to_its_end() {
        let directory = tempfile::tempdir().unwrap();
        let path = file(directory.path(), 0o600);
        fs::write(&path, vec![b'x'; 1 << 20]).unwrap();
        assert_eq!(read_key_file(&path).unwrap().len(), 1024);
    }
}
