//! The key that credentials are sealed to: made here, kept here, and used here alone. The process that talks
//! to the network passes envelopes on that it cannot open.

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use jiff::Timestamp;
use moorage_wire::{
    Secret,
    envelope::{Envelope, EnvelopeError},
    sealing::{KeyStrength, SealingKey, SealingKeyError},
};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{WorkError, protocol::Refusal};
use crate::{
    disk::{Disk, DiskError},
    identity::CERTIFICATE_LIFETIME,
    layout::Layout,
    secret_text::SecretText,
};

/// The key as it lies on the disk.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct StoredKey {
    /// PKCS#8 of the RSA key, base64.
    key: SecretText,
    /// PEM.
    certificate: String,
}

/// The key. It is in memory only while something is opened.
pub(super) struct WorkerKey {
    disk: Disk,
    layout: Layout,
    /// Held while it is made, so that there is one.
    making: Mutex<()>,
}

impl WorkerKey {
    pub(super) fn new(disk: Disk, layout: Layout) -> Self {
        Self { disk, layout, making: Mutex::default() }
    }

    fn stored(&self) -> Result<Option<StoredKey>, DiskError> {
        self.disk.read_json(&self.layout.worker_key())
    }

    /// The certificate, of a new key if there is none. Making one takes up to seconds.
    pub(super) fn certificate(&self) -> Result<String, WorkError> {
        let _lock = self.making.lock();
        if let Some(stored) = self.stored()? {
            return Ok(stored.certificate);
        }
        let now = Timestamp::now();
        let (key, pkcs8) =
            SealingKey::generate(KeyStrength::Agent, "moorage-worker", now, CERTIFICATE_LIFETIME)
                .map_err(|error| WorkError::Other(error.to_string()))?;
        let certificate = key.certificate().pem().to_owned();
        let key = SecretText::new(&Zeroizing::new(BASE64.encode(pkcs8.expose())));
        self.disk.write_json(
            &self.layout.worker_key(),
            &StoredKey { key, certificate: certificate.clone() },
        )?;
        Ok(certificate)
    }

    /// Takes over the key of an older agent, unless there is one: nobody can exchange it.
    pub(super) fn adopt(&self, key: SecretText, certificate: String) -> Result<(), WorkError> {
        let _lock = self.making.lock();
        match self.stored()? {
            Some(stored) if stored.certificate == certificate => return Ok(()),
            Some(_) => {
                return Err(WorkError::refused(Refusal::OtherKey, "there is another key already"));
            }
            None => {}
        }
        let stored = StoredKey { key, certificate };
        stored.open().map_err(|error| WorkError::refused(Refusal::Invalid, error.to_string()))?;
        Ok(self.disk.write_json(&self.layout.worker_key(), &stored)?)
    }

    pub(super) fn unseal(&self, envelope: &Envelope, label: &str) -> Result<Secret, WorkError> {
        let stored =
            self.stored()?.ok_or_else(|| WorkError::Other("there is no key".to_owned()))?;
        let key = stored.open().map_err(|error| WorkError::Other(error.to_string()))?;
        key.unseal(envelope, label).map_err(|error: EnvelopeError| {
            let hint = "seal it to this server's certificate, for this instance and name";
            WorkError::refused(Refusal::CannotUnseal, format!("{error}: {hint}"))
        })
    }
}

impl StoredKey {
    fn open(&self) -> Result<SealingKey, SealingKeyError> {
        let pkcs8 = BASE64.decode(self.key.expose()).map(Secret::new);
        let pkcs8 = pkcs8.map_err(|_| SealingKeyError::DamagedKey)?;
        SealingKey::from_parts(&pkcs8, &self.certificate)
    }
}
