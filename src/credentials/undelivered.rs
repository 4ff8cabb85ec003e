//! Which sealing keys the values that wait for their server still need. Asked only when a key is old
//! enough to go: then everything that is undelivered is looked at, whether passes reach it or not.

use std::collections::{BTreeMap, BTreeSet};

use moorage_wire::Sha256;

use super::{
    bundle::{HandedIn, InstanceRef, read_inline, read_secret, secrets_of},
    courier::needed_key,
    key_ring::KeyRing,
    secret_source::{CredentialRequest, SecretView},
};
use crate::api::OpenClawInstanceStatus;

/// The Secrets that an instance refers to, as they were read; `None` where there is none.
pub type Read = BTreeMap<String, Option<SecretView>>;

/// The names of the Secrets to read first.
pub fn secrets(requests: &[CredentialRequest]) -> BTreeSet<String> {
    secrets_of(requests).into_iter().map(str::to_owned).collect()
}

/// The keys that open what the instance's server does not have yet. What opens with none, or is not
/// of its type, will never be delivered and needs none.
pub fn keys_needed(
    instance: InstanceRef<'_>,
    status: Option<&OpenClawInstanceStatus>,
    requests: &[CredentialRequest],
    read: &Read,
    ring: &KeyRing,
) -> BTreeSet<Sha256> {
    let from_secrets = read.iter().flat_map(|(name, view)| {
        read_secret(instance, name, view.as_ref(), requests).values.into_values()
    });
    let inline = requests.iter().filter_map(|request| read_inline(instance, request));
    let values = from_secrets.chain(inline).flatten();
    let waiting = values.filter(|value| !is_delivered(status, value));
    waiting.filter_map(|value| needed_key(&value, ring)).collect()
}

/// Whether the status has the agent's receipt for exactly this ciphertext, from the server that is
/// there now.
fn is_delivered(status: Option<&OpenClawInstanceStatus>, value: &HandedIn) -> bool {
    let Some(status) = status else { return false };
    let epoch = status.server.as_ref().map(|server| server.epoch.as_str());
    let source = value.envelope.sha256().to_string();
    status.credentials.iter().any(|known| {
        known.name == value.name.as_str()
            && known.ciphertext_sha256 == source
            && Some(known.epoch.as_str()) == epoch
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        api::instance::{CredentialStatus, ServerStatus},
        credentials::{
            secret_source::{CredentialEntry, parse_entries},
            test_keys::{self, ANTHROPIC, ring_key},
        },
    };
    use rstest::rstest;
    use serde_json::json;

    const EPOCH: &str = "0101010101010101";

    /// Keys 0 and 1 are the ring's, key 2 is a stranger's.
    fn ring() -> KeyRing {
        let keys = [ring_key(0, "2026-01-01T00:00:00Z"), ring_key(1, "2026-02-01T00:00:00Z")];
        KeyRing::new(keys, [])
    }

    fn sealed(value: &str, key: usize, label: &str) -> String {
        let certificate = test_keys::key(key).certificate().clone();
        certificate.seal(&value.to_owned().into(), label).unwrap().to_base64()
    }

    /// The needs of ada with one value in the Secret `keys`, one inline, and what the status says.
    fn needed(
        secret: &str,
        inline: &str,
        status: Option<&OpenClawInstanceStatus>,
    ) -> BTreeSet<Sha256> {
        let entry = |name, secret_ref, sealed| CredentialEntry {
            name,
            r#type: "AnthropicApiKey",
            secret_ref,
            sealed,
            ..CredentialEntry::default()
        };
        let entries = [entry("one", Some(("keys", "k")), None), entry("two", None, Some(inline))];
        let (requests, refusals) = parse_entries(&entries);
        assert!(refusals.is_empty());
        let view: k8s_openapi::api::core::v1::Secret = serde_json::from_value(json!({
            "metadata": {"name": "keys", "namespace": "tenants", "labels": {"moorage.dev/instance": "ada"}},
            "type": "moorage.dev/sealed-credentials",
            "stringData": {"k": secret},
        }))
        .unwrap();
        assert_eq!(secrets(&requests), BTreeSet::from(["keys".to_owned()]));
        let read = Read::from([("keys".to_owned(), Some(view.into()))]);
        let created = "2026-01-02T00:00:00Z".parse().unwrap();
        let instance = InstanceRef { namespace: "tenants", name: "ada", created };
        keys_needed(instance, status, &requests, &read, &ring())
    }

    fn fingerprints(keys: &[usize]) -> BTreeSet<Sha256> {
        keys.iter().map(|key| test_keys::key(*key).certificate().fingerprint()).collect()
    }

    #[rstest]
    #[case::one_key_each(sealed(ANTHROPIC, 0, "tenants/keys"), sealed(ANTHROPIC, 1, "tenants/ada"), &[0, 1])]
    #[case::for_another_name(sealed(ANTHROPIC, 0, "tenants/other"), sealed(ANTHROPIC, 1, "tenants/ada"), &[1])]
    #[case::of_a_stranger(sealed(ANTHROPIC, 2, "tenants/keys"), sealed(ANTHROPIC, 1, "tenants/ada"), &[1])]
    #[case::of_another_type(sealed("nonsense", 0, "tenants/keys"), sealed(ANTHROPIC, 1, "tenants/ada"), &[1])]
    #[case::plaintext(ANTHROPIC.to_owned(), ANTHROPIC.to_owned(), &[])]
    fn a_value_needs_the_key_that_delivers_it_and_no_other(
        #[case] secret: String,
        #[case] inline: String,
        #[case] keys: &[usize],
    ) {
        assert_eq!(needed(&secret, &inline, None), fingerprints(keys));
    }

    #[test]
    fn what_is_delivered_to_this_server_needs_no_key() {
        let (secret, inline) =
            (sealed(ANTHROPIC, 0, "tenants/keys"), sealed(ANTHROPIC, 1, "tenants/ada"));
        let receipt = |name: &str, text: &str, epoch: &str| CredentialStatus {
            name: name.to_owned(),
            ciphertext_sha256: moorage_wire::envelope::Envelope::from_base64(text)
                .unwrap()
                .sha256()
                .to_string(),
            epoch: epoch.to_owned(),
            ..CredentialStatus::default()
        };
        let status = |credentials| OpenClawInstanceStatus {
            server: Some(ServerStatus { epoch: EPOCH.to_owned(), ..ServerStatus::default() }),
            credentials,
            ..OpenClawInstanceStatus::default()
        };
        let one = status(vec![receipt("one", &secret, EPOCH)]);
        assert_eq!(needed(&secret, &inline, Some(&one)), fingerprints(&[1]));
        let both = status(vec![receipt("one", &secret, EPOCH), receipt("two", &inline, EPOCH)]);
        assert_eq!(needed(&secret, &inline, Some(&both)), fingerprints(&[]));
        let other = status(vec![receipt("one", &inline, EPOCH), receipt("two", &inline, "0202")]);
        assert_eq!(needed(&secret, &inline, Some(&other)), fingerprints(&[0, 1]));
    }
}
