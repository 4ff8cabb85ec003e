//! Where the master key comes from: a file (so a KMS or CSI volume), or a Secret that the first
//! leader makes. It is made once, and only while no instance was claimed: a second key would lock the
//! operator out of every server that runs. What derives from it is in `master_key`.

use std::{
    collections::BTreeMap,
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

use crate::master_key::{InvalidMasterKey, KEY_BYTES, MasterKey};

/// The Secret with the master key, in the operator's namespace.
pub const MASTER_KEY_SECRET: &str = "moorage-master-key";
/// The `ConfigMap` with the installation id where the key is a file.
pub const INSTALLATION_CONFIG_MAP: &str = "moorage-installation";
const KEY: &str = "key";
const INSTALLATION_ID: &str = "installation-id";
/// Permission bits that a key file must not have: anything for others, writing for its group. A
/// volume with an `fsGroup` is readable by the group, so that is allowed.
const FORBIDDEN_MODE: u32 = 0o037;
/// Larger than any form of a key; bounds what a wrong path makes us read.
const MAX_FILE_BYTES: u64 = 1024;

/// Where the master key is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MasterKeySource {
    /// In the Secret [`MASTER_KEY_SECRET`].
    Secret,
    /// In this file: 32 bytes, raw or in base64.
    File(PathBuf),
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
        "{object} is missing in namespace {namespace}, but instances exist whose servers depend on it; restore it from a backup, {}. If it is lost for good, delete the instances before a new one is made", remedy(.object)
    )]
    MasterKeyMissing {
        /// Kind and name of what is missing.
        object: &'static str,
        /// The operator's namespace.
        namespace: String,
    },
    /// The file cannot be read.
    #[error("the master key file {} cannot be read: {source}", .path.display())]
    File {
        /// Its path.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is open to others.
    #[error(
        "the master key file {} has mode {mode:04o}, so others can read or change it; make it 0400 (for a Secret volume: defaultMode: 0400)", .path.display()
    )]
    FileMode {
        /// Its path.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// What is stored is not a key.
    #[error("{place} holds no master key: {source}")]
    InvalidKey {
        /// The file, or the Secret and its key.
        place: String,
        /// What is wrong.
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
    Kube {
        /// What was tried.
        action: String,
        /// Why it failed.
        source: Box<kube::Error>,
    },
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

    /// Reads the key; `None` if it was never made. Any replica may call this.
    pub async fn load(&self) -> Result<Option<MasterKey>, MasterKeyStoreError> {
        match &self.source {
            MasterKeySource::Secret => self.load_secret().await,
            MasterKeySource::File(path) => self.load_file(path).await,
        }
    }

    /// Reads the key, or makes it while no instance was claimed. Only the leader may call this.
    pub async fn load_or_create(
        &self,
        census: &dyn InstanceCensus,
    ) -> Result<MasterKey, MasterKeyStoreError> {
        if let Some(key) = self.load().await? {
            return Ok(key);
        }
        let counted = census.any_instance_is_claimed().await;
        if counted.map_err(failed("listing OpenClawInstances"))? {
            return Err(self.missing());
        }
        match &self.source {
            MasterKeySource::Secret => self.create_secret().await?,
            MasterKeySource::File(_) => self.create_installation().await?,
        }
        // What was stored is the truth, also where somebody else was quicker.
        self.load().await?.ok_or_else(|| self.missing())
    }

    fn missing(&self) -> MasterKeyStoreError {
        let object = match self.source {
            MasterKeySource::Secret => SECRET_OBJECT,
            MasterKeySource::File(_) => CONFIG_MAP_OBJECT,
        };
        MasterKeyStoreError::MasterKeyMissing { object, namespace: self.namespace.clone() }
    }

    async fn load_secret(&self) -> Result<Option<MasterKey>, MasterKeyStoreError> {
        let found = self.secrets.get_opt(MASTER_KEY_SECRET).await;
        let found = found.map_err(failed("reading Secret moorage-master-key"))?;
        let Some(secret) = found else { return Ok(None) };
        let mut data = secret.data.unwrap_or_default();
        let place = |key| format!("Secret {MASTER_KEY_SECRET}, key {key},");
        let id = data.remove(INSTALLATION_ID).unwrap_or_default().0;
        let installation = installation_id(&id, || place(INSTALLATION_ID))?;
        let key = Secret::new(data.remove(KEY).unwrap_or_default().0);
        let parsed = MasterKey::parse(&key, installation);
        let invalid = |source| MasterKeyStoreError::InvalidKey { place: place(KEY), source };
        parsed.map(Some).map_err(invalid)
    }

    async fn create_secret(&self) -> Result<(), MasterKeyStoreError> {
        let key = Zeroizing::new(random::<KEY_BYTES>()?);
        let data = BTreeMap::from([
            (KEY.to_owned(), ByteString(key.to_vec())),
            (INSTALLATION_ID.to_owned(), ByteString(new_installation_id()?.into_bytes())),
        ]);
        let secret = KubeSecret {
            metadata: metadata(MASTER_KEY_SECRET),
            // Nobody changes it by mistake: it can only be deleted and restored.
            immutable: Some(true),
            data: Some(data),
            ..KubeSecret::default()
        };
        let created = self.secrets.create(&PostParams::default(), &secret).await;
        created_or_there(created, "creating Secret moorage-master-key")
    }

    async fn load_file(&self, path: &Path) -> Result<Option<MasterKey>, MasterKeyStoreError> {
        // The file first: a wrong path must not leave an installation behind.
        let key = read_key_file(path)?;
        let found = self.config_maps.get_opt(INSTALLATION_CONFIG_MAP).await;
        let found = found.map_err(failed("reading ConfigMap moorage-installation"))?;
        let Some(config_map) = found else { return Ok(None) };
        let data = config_map.data.unwrap_or_default();
        let id = data.get(INSTALLATION_ID).map(String::as_bytes).unwrap_or_default();
        let place = || format!("ConfigMap {INSTALLATION_CONFIG_MAP}");
        let installation = installation_id(id, place)?;
        let invalid = |source| MasterKeyStoreError::InvalidKey {
            place: format!("the file {}", path.display()),
            source,
        };
        MasterKey::parse(&key, installation).map(Some).map_err(invalid)
    }

    async fn create_installation(&self) -> Result<(), MasterKeyStoreError> {
        let data = BTreeMap::from([(INSTALLATION_ID.to_owned(), new_installation_id()?)]);
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

const SECRET_OBJECT: &str = "Secret moorage-master-key";
const CONFIG_MAP_OBJECT: &str = "ConfigMap moorage-installation";

fn remedy(object: &str) -> &'static str {
    if object == CONFIG_MAP_OBJECT {
        "or make it with the installation-id that stands in the labels of every server (also in Secret moorage-master-key, if the key was there before)"
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
