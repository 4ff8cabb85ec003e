//! Who this agent is: its two keys, made at the first start, the proof under the one-time key, and
//! whether the operator has confirmed them. What credentials are sealed to is the worker's and only named
//! here; the agent's own second key opens the tunnel's token and nothing else.

use std::{panic::resume_unwind, thread, time::Duration};

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
    worker::{OpenClaw, WorkerError},
};

/// The certificate is only a wrapper of the key, which lives as long as its server.
pub(crate) const CERTIFICATE_LIFETIME: Duration = Duration::from_secs(20 * 365 * 24 * 60 * 60);

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
        "the state in {0} belongs to another instance or epoch than the bootstrap document: remove it to enrol again"
    )]
    OtherServer(String),
    /// The keys are gone and cannot be proven again.
    #[error(
        "{0} is missing and the one-time enrolment key is used up: the server has to be rebuilt"
    )]
    Lost(String),
    /// The worker does not say what credentials are sealed to.
    #[error("the worker cannot be asked for its certificate: {0}")]
    Worker(String),
    /// A key cannot be made or read.
    #[error("{0} holds keys that cannot be used: {1}")]
    Keys(String, String),
}

impl From<WorkerError> for IdentityError {
    fn from(error: WorkerError) -> Self {
        Self::Worker(error.to_string())
    }
}

/// The agent's private keys, and the identity that they are part of.
pub(crate) struct Keys {
    pub(crate) signing: AgentKey,
    /// Opens the tunnel's token.
    pub(crate) tunnel: SealingKey,
    pub(crate) identity: AgentIdentity,
    /// An older agent made these: it opened everything with one key, which is the worker's to have.
    pub(crate) is_to_hand_over: bool,
}

/// An older agent cannot read this, and does not start with it: it would not know what it opens.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct StoredKeys {
    /// Ed25519 seed, base64.
    signing_seed: SecretText,
    /// PKCS#8 of the RSA key that the tunnel's token is sealed to, base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tunnel_key: Option<SecretText>,
    /// Of an older agent: PKCS#8 of the RSA key that everything is sealed to, base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sealing_key: Option<SecretText>,
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
    /// Loads the keys, or makes them at the first start. Making takes up to seconds, and a worker that
    /// answers: call it off the async threads. Once the operator has `confirmed` keys, none are made: the
    /// one-time key is used, whether or not it is still in the bootstrap document.
    pub(crate) fn load_or_make(
        disk: &Disk,
        layout: &Layout,
        bootstrap: &Bootstrap,
        confirmed: bool,
        openclaw: &OpenClaw,
    ) -> Result<Self, IdentityError> {
        let path = layout.identity();
        let name = path.display().to_string();
        if let Some(stored) = disk.read_json::<StoredKeys>(&path)? {
            return Self::from_stored(&stored, bootstrap, &name);
        }
        let key = EnrolmentKey::from_text(&bootstrap.enrolment_key).ok().filter(|_| !confirmed);
        let key = key.ok_or_else(|| IdentityError::Lost(name.clone()))?;
        let stored = make(&key, bootstrap, openclaw, &name)?;
        disk.write_json(&path, &stored)?;
        Self::from_stored(&stored, bootstrap, &name)
    }

    /// Gives the worker the key that an older agent opened credentials with, and makes one for the tunnel's
    /// token in its place. `None` if there is nothing to give. Can be repeated after a crash.
    pub(crate) fn hand_over(
        disk: &Disk,
        layout: &Layout,
        bootstrap: &Bootstrap,
        openclaw: &OpenClaw,
    ) -> Result<Option<Self>, IdentityError> {
        let path = layout.identity();
        let name = path.display().to_string();
        let Some(mut stored) = disk.read_json::<StoredKeys>(&path)? else { return Ok(None) };
        let Some(key) = stored.sealing_key.take() else { return Ok(None) };
        let signing = Self::from_stored(
            &StoredKeys { sealing_key: Some(key.clone()), ..stored.clone() },
            bootstrap,
            &name,
        )?
        .signing;
        openclaw.adopt_key(key, stored.identity.sealing_certificate.clone())?;
        let (tunnel, pkcs8) = make_tunnel_key(bootstrap, &name)?;
        stored.tunnel_key = Some(pkcs8);
        let certificate = tunnel.certificate().pem().to_owned();
        stored.identity = stored.identity.with_tunnel_certificate(&signing, certificate);
        disk.write_json(&path, &stored)?;
        Self::from_stored(&stored, bootstrap, &name).map(Some)
    }

    fn from_stored(
        stored: &StoredKeys,
        bootstrap: &Bootstrap,
        name: &str,
    ) -> Result<Self, IdentityError> {
        let StoredKeys { signing_seed, tunnel_key, sealing_key, identity } = stored;
        if (identity.instance_id, identity.epoch) != (bootstrap.instance_id, bootstrap.epoch) {
            return Err(IdentityError::OtherServer(name.to_owned()));
        }
        let damaged =
            |what: &str| IdentityError::Keys(name.to_owned(), format!("{what} is damaged"));
        let decode = |text: &SecretText| BASE64.decode(text.expose()).map(Secret::new).ok();
        let seed = decode(signing_seed).filter(|seed| seed.len() == 32);
        let own = identity.tunnel_certificate.as_ref().map(|own| own.certificate.as_str());
        let (key, certificate) = match (tunnel_key, sealing_key) {
            (Some(key), _) => (key, own),
            (None, Some(key)) => (key, Some(identity.sealing_certificate.as_str())),
            (None, None) => return Err(damaged("the key of the tunnel's token")),
        };
        let tunnel = decode(key)
            .zip(certificate)
            .and_then(|(pkcs8, certificate)| SealingKey::from_parts(&pkcs8, certificate).ok());
        Ok(Self {
            signing: AgentKey::from_seed(&seed.ok_or_else(|| damaged("the signing key"))?),
            tunnel: tunnel.ok_or_else(|| damaged("the key of the tunnel's token"))?,
            identity: identity.clone(),
            is_to_hand_over: tunnel_key.is_none(),
        })
    }
}

fn make(
    key: &EnrolmentKey,
    bootstrap: &Bootstrap,
    openclaw: &OpenClaw,
    name: &str,
) -> Result<StoredKeys, IdentityError> {
    let mut seed = Zeroizing::new([0; 32]);
    rand::fill(&mut *seed).expect("the kernel gives randomness once it has booted");
    let signing = AgentKey::from_seed(&Secret::from(*seed));
    // At a time: each takes up to seconds.
    let (worker, own) = thread::scope(|scope| {
        let worker = scope.spawn(|| openclaw.certificate());
        let own = make_tunnel_key(bootstrap, name);
        (worker.join().unwrap_or_else(|panic| resume_unwind(panic)), own)
    });
    let (sealing_certificate, (tunnel, pkcs8)) = (worker?, own?);
    let identity = AgentIdentity::new(
        key,
        bootstrap.instance_id,
        bootstrap.epoch,
        signing.public_key(),
        sealing_certificate,
    );
    Ok(StoredKeys {
        signing_seed: SecretText::new(&Zeroizing::new(BASE64.encode(*seed))),
        tunnel_key: Some(pkcs8),
        sealing_key: None,
        identity: identity.with_tunnel_certificate(&signing, tunnel.certificate().pem().to_owned()),
    })
}

fn make_tunnel_key(
    bootstrap: &Bootstrap,
    name: &str,
) -> Result<(SealingKey, SecretText), IdentityError> {
    let subject = format!("moorage-agent {}", bootstrap.instance_id);
    let (key, pkcs8) =
        SealingKey::generate(KeyStrength::Agent, &subject, Timestamp::now(), CERTIFICATE_LIFETIME)
            .map_err(|error| IdentityError::Keys(name.to_owned(), error.to_string()))?;
    Ok((key, SecretText::new(&Zeroizing::new(BASE64.encode(pkcs8.expose())))))
}

#[cfg(test)]
mod tests;
