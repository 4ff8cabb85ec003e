//! A sealing key as a Secret: its certificate, and its private half wrapped by the master key.

use std::collections::BTreeMap;

use k8s_openapi::{
    ByteString, api::core::v1::Secret as KubeSecret, apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use moorage_wire::{
    Secret, Sha256,
    sealing::{SealingCertificate, SealingKey},
};

use super::{SEALING_KEY_TYPE, labels, named};
use crate::credentials::{
    key_ring::RingKey,
    lifetimes::{SERVED_FOR, after},
    wrapping_key::{WrapFailed, WrappingKey},
};

const CREATED_ANNOTATION: &str = "moorage.dev/created";
const SERVED_UNTIL_ANNOTATION: &str = "moorage.dev/served-until";
const CERTIFICATE: &str = "certificate";
const WRAPPED_KEY: &str = "wrapped-key";

/// The name of the Secret with this key. One that was wrapped again has something behind it.
pub fn secret_name(fingerprint: &Sha256) -> String {
    format!("moorage-sealing-key-{}", &fingerprint.to_string()[..16])
}

/// Whether a Secret of this name holds the key with this fingerprint.
pub(super) fn is_of(name: &str, fingerprint: &Sha256) -> bool {
    let rest = name.strip_prefix(&secret_name(fingerprint));
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
}

pub(in crate::credentials) fn store_form(
    key: &RingKey,
    pkcs8: &Secret,
    wrapping: &WrappingKey,
) -> Result<KubeSecret, WrapFailed> {
    let fingerprint = key.fingerprint();
    let wrapped = wrapping.wrap(pkcs8, fingerprint.as_bytes())?;
    let pem = key.key.certificate().pem().as_bytes().to_vec();
    let served_until = after(key.created, SERVED_FOR);
    let annotations = BTreeMap::from([
        (CREATED_ANNOTATION.to_owned(), key.created.to_string()),
        (SERVED_UNTIL_ANNOTATION.to_owned(), served_until.to_string()),
    ]);
    Ok(KubeSecret {
        metadata: ObjectMeta {
            labels: Some(labels()),
            annotations: Some(annotations),
            ..named(&secret_name(&fingerprint))
        },
        type_: Some(SEALING_KEY_TYPE.to_owned()),
        immutable: Some(true),
        data: Some(BTreeMap::from([
            (CERTIFICATE.to_owned(), ByteString(pem)),
            (WRAPPED_KEY.to_owned(), ByteString(wrapped)),
        ])),
        ..KubeSecret::default()
    })
}

pub(super) fn parse_key(
    secret: KubeSecret,
    wrapping: &[WrappingKey],
) -> Result<RingKey, &'static str> {
    let (key, _, _) = open(secret, wrapping)?;
    Ok(key)
}

/// The key, its private half, and which of the wrapping keys opened it.
pub(in crate::credentials) fn open(
    secret: KubeSecret,
    wrapping: &[WrappingKey],
) -> Result<(RingKey, Secret, usize), &'static str> {
    if secret.type_.as_deref() != Some(SEALING_KEY_TYPE) {
        return Err("its type is not moorage.dev/sealing-key");
    }
    let annotations = secret.metadata.annotations.unwrap_or_default();
    let created = annotations.get(CREATED_ANNOTATION).and_then(|text| text.parse().ok());
    let created = created.ok_or("its annotation moorage.dev/created is not a time")?;
    let mut data = secret.data.unwrap_or_default();
    let pem = data.remove(CERTIFICATE).and_then(|bytes| String::from_utf8(bytes.0).ok());
    let pem = pem.ok_or("it has no certificate")?;
    let certificate = SealingCertificate::parse(&pem).map_err(|_| "its certificate is damaged")?;
    let fingerprint = certificate.fingerprint();
    if !secret.metadata.name.is_some_and(|name| is_of(&name, &fingerprint)) {
        return Err("its name does not fit its certificate");
    }
    let wrapped = data.remove(WRAPPED_KEY).ok_or("it has no wrapped key")?;
    let unwrap = |key: &WrappingKey| key.unwrap(&wrapped.0, fingerprint.as_bytes()).ok();
    let opened = wrapping.iter().enumerate().find_map(|(index, key)| Some((unwrap(key)?, index)));
    let (pkcs8, index) = opened.ok_or("it was wrapped under another master key, or is damaged")?;
    let key = SealingKey::from_parts(&pkcs8, &pem).map_err(|_| "its private key is damaged")?;
    Ok((RingKey { key, created }, pkcs8, index))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credentials::{
        key_ring_store::{DamagedKey, KeyRingStoreError},
        test_keys,
    };
    use rstest::rstest;

    fn wrapping(byte: u8) -> WrappingKey {
        WrappingKey::new(&Secret::from([byte; 32]))
    }

    fn stored() -> KubeSecret {
        let key = test_keys::ring_key(0, "2026-01-01T00:00:00Z");
        store_form(&key, test_keys::pkcs8(0), &wrapping(1)).unwrap()
    }

    #[test]
    fn a_stored_key_is_read_as_it_was() {
        let read =
            parse_key(stored(), &[wrapping(1)]).unwrap_or_else(|problem| panic!("{problem}"));
        assert_eq!(read.fingerprint(), test_keys::key(0).certificate().fingerprint());
        assert_eq!(read.created.to_string(), "2026-01-01T00:00:00Z");
        let sealed = read.key.certificate().seal(&"value".to_owned().into(), "l").unwrap();
        assert_eq!(read.key.unseal(&sealed, "l").unwrap().expose(), b"value");
    }

    #[test]
    fn the_stored_form_has_no_private_key_in_the_clear() {
        let data = stored().data.unwrap();
        let private = test_keys::pkcs8(0).expose();
        let middle = &private[private.len() / 2..][..32];
        for bytes in data.values() {
            assert!(!bytes.0.windows(32).any(|window| window == middle));
        }
        let annotations = stored().metadata.annotations.unwrap();
        assert_eq!(annotations["moorage.dev/served-until"], "2026-01-31T00:00:00Z");
    }

    fn edit(change: impl FnOnce(&mut KubeSecret)) -> KubeSecret {
        let mut secret = stored();
        change(&mut secret);
        secret
    }

    fn data(secret: &mut KubeSecret) -> &mut BTreeMap<String, ByteString> {
        secret.data.as_mut().unwrap()
    }

    #[rstest]
    #[case::other_type(edit(|secret| secret.type_ = None), "type")]
    #[case::no_date(edit(|secret| secret.metadata.annotations = None), "created")]
    #[case::no_certificate(edit(|secret| drop(data(secret).remove(CERTIFICATE))), "certificate")]
    #[case::no_key(edit(|secret| drop(data(secret).remove(WRAPPED_KEY))), "wrapped key")]
    #[case::renamed(edit(|secret| secret.metadata.name = Some("other".into())), "name")]
    #[case::exchanged_certificate(
        edit(|secret| {
            let other = test_keys::key(1);
            let pem = other.certificate().pem().as_bytes().to_vec();
            data(secret).insert(CERTIFICATE.into(), ByteString(pem));
            secret.metadata.name = Some(secret_name(&other.certificate().fingerprint()));
        }),
        "master key"
    )]
    fn a_damaged_key_says_what_is_wrong(#[case] secret: KubeSecret, #[case] about: &str) {
        let problem = parse_key(secret, &[wrapping(1)]).err().unwrap();
        assert!(problem.contains(about), "{problem}");
    }

    #[test]
    fn a_key_under_another_master_key_is_an_error() {
        let name = stored().metadata.name.unwrap();
        let problem = parse_key(stored(), &[wrapping(2)]).err().unwrap();
        let error = KeyRingStoreError::Damaged {
            namespace: "moorage-system".into(),
            damaged: vec![DamagedKey { secret: name.clone(), problem }],
        };
        assert!(error.to_string().contains(&name), "{error}");
        assert!(!error.is_passing());
    }
}
