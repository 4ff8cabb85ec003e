//! Sealing keys: the RSA pair whose certificate is published and whose private half opens envelopes.
//! The operator's key ring and every agent hold keys of this one kind.

use std::{sync::Arc, time::Duration};

use aws_lc_rs::{
    encoding::{AsDer as _, Pkcs8V1Der},
    rsa::{
        KeySize, OaepPrivateDecryptingKey, OaepPublicEncryptingKey, PrivateDecryptingKey,
        PublicEncryptingKey,
    },
};
use jiff::Timestamp;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, PKCS_RSA_SHA256};
use thiserror::Error;
use x509_cert::{
    Certificate,
    der::{DecodePem as _, Encode as _},
};
use zeroize::Zeroizing;

use crate::{
    digest::Sha256,
    envelope::{self, Envelope, EnvelopeError},
    secret::Secret,
};

/// The longest PEM that is taken for a certificate: four times that of the largest key here.
pub(crate) const LONGEST_PEM: usize = 8 * 1024;

/// How large a new key is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyStrength {
    /// 3072 bits: an agent's key, which lives as long as its server and must not take seconds to make.
    Agent,
    /// 4096 bits, as sealed-secrets uses: the operator's, whose ciphertexts may be kept in Git.
    Operator,
}

/// A private sealing key with its certificate.
#[derive(Clone)]
pub struct SealingKey {
    private: Arc<OaepPrivateDecryptingKey>,
    certificate: SealingCertificate,
}

/// Why a sealing key or certificate cannot be used.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum SealingKeyError {
    /// Key generation or signing failed.
    #[error("a sealing key cannot be generated")]
    Generation,
    /// The stored key is not PKCS#8 of an RSA key.
    #[error("the stored sealing key is damaged")]
    DamagedKey,
    /// Not the PEM of a certificate with an RSA key of at least 2048 bits.
    #[error("not a PEM certificate with an RSA key")]
    InvalidCertificate,
}

impl SealingKey {
    /// Makes a key and a self-signed certificate for it, valid from `from` for `lifetime`.
    ///
    /// Takes a fraction of a second to some seconds: call it off the async threads.
    pub fn generate(
        strength: KeyStrength,
        common_name: &str,
        from: Timestamp,
        lifetime: Duration,
    ) -> Result<(Self, Secret), SealingKeyError> {
        let size = match strength {
            KeyStrength::Agent => KeySize::Rsa3072,
            KeyStrength::Operator => KeySize::Rsa4096,
        };
        let failed = |_| SealingKeyError::Generation;
        let private = PrivateDecryptingKey::generate(size).map_err(failed)?;
        let der: Pkcs8V1Der<'_> = private.as_der().map_err(failed)?;
        let pkcs8 = Secret::new(der.as_ref().to_vec());
        Ok((Self::self_signed(&pkcs8, common_name, from, lifetime)?, pkcs8))
    }

    /// Takes a key in its PKCS#8 form and makes a self-signed certificate for it.
    pub fn self_signed(
        pkcs8: &Secret,
        common_name: &str,
        from: Timestamp,
        lifetime: Duration,
    ) -> Result<Self, SealingKeyError> {
        Self::from_parts(pkcs8, &self_sign(pkcs8, common_name, from, lifetime)?)
    }

    /// Loads a key from its PKCS#8 form and the PEM of its certificate.
    pub fn from_parts(pkcs8: &Secret, certificate: &str) -> Result<Self, SealingKeyError> {
        let damaged = |_| SealingKeyError::DamagedKey;
        let private = PrivateDecryptingKey::from_pkcs8(pkcs8.expose())
            .map_err(|_| SealingKeyError::DamagedKey)?;
        let private = OaepPrivateDecryptingKey::new(private).map_err(damaged)?;
        Ok(Self {
            private: Arc::new(private),
            certificate: SealingCertificate::parse(certificate)?,
        })
    }

    /// The public half, which values are sealed to.
    pub fn certificate(&self) -> &SealingCertificate {
        &self.certificate
    }

    /// Opens an envelope that was sealed to this key with `label`.
    pub fn unseal(&self, envelope: &Envelope, label: &str) -> Result<Secret, EnvelopeError> {
        envelope::unseal(&self.private, envelope, label.as_bytes())
    }
}

fn self_sign(
    pkcs8: &Secret,
    common_name: &str,
    from: Timestamp,
    lifetime: Duration,
) -> Result<String, SealingKeyError> {
    let failed = |_| SealingKeyError::Generation;
    let der = Zeroizing::new(pkcs8.expose().to_vec());
    let key = KeyPair::from_pkcs8_der_and_sign_algo(&der.as_slice().into(), &PKCS_RSA_SHA256)
        .map_err(failed)?;
    let mut params = CertificateParams::default();
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, common_name);
    params.distinguished_name = subject;
    let start = std::time::SystemTime::from(from);
    params.not_before = start.into();
    params.not_after = (start + lifetime).into();
    Ok(params.self_signed(&key).map_err(failed)?.pem())
}

/// A certificate that values can be sealed to.
#[derive(Clone)]
pub struct SealingCertificate {
    public: Arc<OaepPublicEncryptingKey>,
    pem: Arc<str>,
    fingerprint: Sha256,
    not_after: Timestamp,
}

impl std::fmt::Debug for SealingCertificate {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "SealingCertificate({})", self.fingerprint)
    }
}

impl SealingCertificate {
    /// Parses one PEM certificate.
    pub fn parse(pem: &str) -> Result<Self, SealingKeyError> {
        let invalid = || SealingKeyError::InvalidCertificate;
        // It is shown as it was given: no words before it, and nothing that a terminal obeys.
        let is_plain = |byte: u8| byte.is_ascii_graphic() || byte.is_ascii_whitespace();
        let is_alone = pem.trim_start().starts_with("-----BEGIN");
        if pem.len() > LONGEST_PEM || !is_alone || !pem.bytes().all(is_plain) {
            return Err(invalid());
        }
        let certificate = Certificate::from_pem(pem.trim()).map_err(|_| invalid())?;
        let body = certificate.tbs_certificate();
        let spki = body.subject_public_key_info().to_der().map_err(|_| invalid())?;
        let public = PublicEncryptingKey::from_der(&spki).map_err(|_| invalid())?;
        let seconds = body.validity().not_after.to_unix_duration().as_secs();
        let not_after = i64::try_from(seconds).ok().and_then(|at| Timestamp::from_second(at).ok());
        Ok(Self {
            public: Arc::new(OaepPublicEncryptingKey::new(public).map_err(|_| invalid())?),
            pem: pem.into(),
            fingerprint: Sha256::of(&certificate.to_der().map_err(|_| invalid())?),
            not_after: not_after.ok_or_else(invalid)?,
        })
    }

    /// The certificate as it was parsed.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// SHA-256 of the certificate's DER form.
    pub fn fingerprint(&self) -> Sha256 {
        self.fingerprint
    }

    /// The end of its validity.
    pub fn not_after(&self) -> Timestamp {
        self.not_after
    }

    /// Seals a value for the holder of this certificate's key, bound to `label`.
    pub fn seal(&self, plaintext: &Secret, label: &str) -> Result<Envelope, EnvelopeError> {
        envelope::seal(&self.public, plaintext, label.as_bytes())
    }
}

/// The strict label of sealed-secrets, which binds an envelope to one name in one namespace.
pub fn strict_label(namespace: &str, name: &str) -> String {
    format!("{namespace}/{name}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> SealingKey {
        let lifetime = Duration::from_hours(24);
        SealingKey::generate(KeyStrength::Agent, "test", Timestamp::UNIX_EPOCH, lifetime).unwrap().0
    }

    #[test]
    fn a_sealed_value_opens_with_its_key_and_label_only() {
        let (key, stranger) = (key(), key());
        let sealed =
            key.certificate().seal(&"sk-ant-secret".to_owned().into(), "tenants/ada").unwrap();
        assert_eq!(key.unseal(&sealed, "tenants/ada").unwrap().expose(), b"sk-ant-secret");
        let wrong = EnvelopeError::WrongKeyOrLabel;
        assert_eq!(key.unseal(&sealed, "tenants/bob").unwrap_err(), wrong);
        assert_eq!(stranger.unseal(&sealed, "tenants/ada").unwrap_err(), wrong);
    }

    #[test]
    fn a_flipped_bit_is_noticed() {
        let key = key();
        let sealed = key.certificate().seal(&"value".to_owned().into(), "l").unwrap();
        let mut bytes = BASE64.decode(sealed.to_base64()).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        let damaged = Envelope::from_bytes(bytes).unwrap();
        assert_eq!(key.unseal(&damaged, "l").unwrap_err(), EnvelopeError::WrongKeyOrLabel);
    }

    #[test]
    fn plaintext_is_not_taken_for_an_envelope() {
        for text in ["sk-ant-api03-abcdefghijklmnopqrstuvwxyz", "", "aGVsbG8=", "123456:AAbbcc"] {
            assert_eq!(Envelope::from_base64(text), Err(EnvelopeError::NotSealed), "{text}");
        }
    }

    #[test]
    fn every_sealing_gives_another_ciphertext() {
        let key = key();
        let seal = || key.certificate().seal(&"value".to_owned().into(), "l").unwrap().sha256();
        assert_ne!(seal(), seal());
    }

    #[test]
    fn a_key_survives_being_stored_and_loaded() {
        let lifetime = Duration::from_hours(24);
        let (key, pkcs8) =
            SealingKey::generate(KeyStrength::Agent, "test", Timestamp::UNIX_EPOCH, lifetime)
                .unwrap();
        let loaded = SealingKey::from_parts(&pkcs8, key.certificate().pem()).unwrap();
        let pem = key.certificate().pem();
        for around in
            [format!("\u{1b}[2J{pem}"), format!("{pem}\u{1b}[2J"), "x".repeat(9_000) + pem]
        {
            assert!(SealingCertificate::parse(&around).is_err(), "it is shown as it was given");
        }
        let sealed = key.certificate().seal(&"value".to_owned().into(), "l").unwrap();
        assert_eq!(loaded.unseal(&sealed, "l").unwrap().expose(), b"value");
        assert_eq!(loaded.certificate().not_after().as_second(), 24 * 3600);
    }

    use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
}
