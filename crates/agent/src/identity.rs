//! Who this agent is: its two keys, made at the first start, the proof under the one-time key, and
//! whether the operator has confirmed them.

use std::time::Duration;

use aws_lc_rs::rand;
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use jiff::Timestamp;
use moorage_wire::{
    Secret,
    bootstrap::Bootstrap,
    enrolment::{AgentIdentity, EnrolmentKey},
    sealing::{KeyStrength, SealingKey},
    signature::AgentKey,
};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::{
    disk::{Disk, DiskError},
    layout::Layout,
    secret_text::SecretText,
};

/// The certificate is only a wrapper of the key, which lives as long as its server.
const CERTIFICATE_LIFETIME: Duration = Duration::from_secs(20 * 365 * 24 * 60 * 60);

/// Why an agent has no identity.
#[derive(Debug, Error)]
pub enum IdentityError {
    /// A file cannot be read or written.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// There is no bootstrap document.
    #[error("{0} is missing: user-data writes it when the server is made")]
    NoBootstrap(String),
    /// The state was made on another server.
    #[error(
        "the state in {0} belongs to another instance or epoch than the bootstrap document: remove it to enrol anew"
    )]
    OtherServer(String),
    /// The keys are gone and cannot be proven again.
    #[error(
        "{0} is missing and the one-time enrolment key is used up: the server has to be rebuilt"
    )]
    Lost(String),
    /// A key cannot be made or read.
    #[error("{0} holds keys that cannot be used: {1}")]
    Keys(String, String),
}

/// The agent's private keys with their proven public halves.
pub(crate) struct Keys {
    pub(crate) signing: AgentKey,
    pub(crate) sealing: SealingKey,
    pub(crate) identity: AgentIdentity,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct StoredKeys {
    /// Ed25519 seed, base64.
    signing_seed: SecretText,
    /// PKCS#8 of the RSA key, base64.
    sealing_key: SecretText,
    identity: AgentIdentity,
}

/// The mark that the operator confirmed the identity.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Enrolled {
    confirmed_at: Timestamp,
}

/// Reads the bootstrap document.
pub(crate) fn read_bootstrap(disk: &Disk, layout: &Layout) -> Result<Bootstrap, IdentityError> {
    let path = layout.bootstrap();
    disk.read_json(&path)?.ok_or_else(|| IdentityError::NoBootstrap(path.display().to_string()))
}

/// Whether the operator has confirmed the identity.
pub(crate) fn is_enrolled(disk: &Disk, layout: &Layout) -> Result<bool, DiskError> {
    Ok(disk.read_json::<Enrolled>(&layout.enrolled())?.is_some())
}

/// Records the operator's confirmation; durable when this returns.
pub(crate) fn confirm(disk: &Disk, layout: &Layout, now: Timestamp) -> Result<(), DiskError> {
    disk.write_json(&layout.enrolled(), &Enrolled { confirmed_at: now })
}

impl Keys {
    /// Loads the keys, or makes them at the first start. Making takes up to seconds: call it off the
    /// async threads. Once the operator has `confirmed` keys, none are made: the one-time key is used
    /// up, whether or not it still stands in the bootstrap document.
    pub(crate) fn load_or_make(
        disk: &Disk,
        layout: &Layout,
        bootstrap: &Bootstrap,
        confirmed: bool,
    ) -> Result<Self, IdentityError> {
        let path = layout.identity();
        let name = path.display().to_string();
        if let Some(stored) = disk.read_json::<StoredKeys>(&path)? {
            return Self::from_stored(stored, bootstrap, &name);
        }
        let key = EnrolmentKey::from_text(&bootstrap.enrolment_key).ok().filter(|_| !confirmed);
        let key = key.ok_or_else(|| IdentityError::Lost(name.clone()))?;
        let stored = make(&key, bootstrap)
            .map_err(|error| IdentityError::Keys(name.clone(), error.to_string()))?;
        disk.write_json(&path, &stored)?;
        Self::from_stored(stored, bootstrap, &name)
    }

    fn from_stored(
        stored: StoredKeys,
        bootstrap: &Bootstrap,
        name: &str,
    ) -> Result<Self, IdentityError> {
        let StoredKeys { signing_seed, sealing_key, identity } = stored;
        if (identity.instance_id, identity.epoch) != (bootstrap.instance_id, bootstrap.epoch) {
            return Err(IdentityError::OtherServer(name.to_owned()));
        }
        let damaged =
            |what: &str| IdentityError::Keys(name.to_owned(), format!("{what} is damaged"));
        let decode = |text: &SecretText| BASE64.decode(text.expose()).map(Secret::new).ok();
        let seed = decode(&signing_seed).filter(|seed| seed.len() == 32);
        let pkcs8 = decode(&sealing_key).ok_or_else(|| damaged("the sealing key"))?;
        let sealing = SealingKey::from_parts(&pkcs8, &identity.sealing_certificate)
            .map_err(|_| damaged("the sealing key"))?;
        let signing = AgentKey::from_seed(&seed.ok_or_else(|| damaged("the signing key"))?);
        Ok(Self { signing, sealing, identity })
    }
}

fn make(
    key: &EnrolmentKey,
    bootstrap: &Bootstrap,
) -> Result<StoredKeys, moorage_wire::sealing::SealingKeyError> {
    let mut seed = Zeroizing::new([0; 32]);
    rand::fill(&mut *seed).expect("the kernel gives randomness once it has booted");
    let signing = AgentKey::from_seed(&Secret::from(*seed));
    let name = format!("moorage-agent {}", bootstrap.instance_id);
    let (sealing, pkcs8) =
        SealingKey::generate(KeyStrength::Agent, &name, Timestamp::now(), CERTIFICATE_LIFETIME)?;
    let identity = AgentIdentity::new(
        key,
        bootstrap.instance_id,
        bootstrap.epoch,
        signing.public_key(),
        sealing.certificate().pem().to_owned(),
    );
    Ok(StoredKeys {
        signing_seed: SecretText::new(&Zeroizing::new(BASE64.encode(*seed))),
        sealing_key: SecretText::new(&Zeroizing::new(BASE64.encode(pkcs8.expose()))),
        identity,
    })
}
