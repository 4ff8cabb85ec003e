//! A Secret with sealed values, seen from the instance that refers to it: which credential gets
//! which envelope, what is refused and why, and when the Secret may be deleted.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use moorage_wire::{
    CredentialName, CredentialType, Sha256, envelope::Envelope, sealing::strict_label,
};

use super::{
    SEALED_SECRET_TYPE,
    refusal::{Mistake, Refusal},
    secret_source::{
        CredentialRequest, CredentialSource, NotAnEnvelope, SealedTo, SecretVersion, SecretView,
        parse_envelope,
    },
};

/// The instance that refers to credentials.
#[derive(Debug, Clone, Copy)]
pub struct InstanceRef<'a> {
    /// Its namespace, also that of its Secrets.
    pub namespace: &'a str,
    pub name: &'a str,
    /// Its creation, which also dates its inline values as well as anything does.
    pub created: Timestamp,
}

/// A sealed value that was handed in for a credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HandedIn {
    pub name: CredentialName,
    pub kind: CredentialType,
    /// Whose key opens it.
    pub sealed_to: SealedTo,
    /// What it is sealed for.
    pub scope: Scope,
    pub envelope: Envelope,
    /// The certificate that its Secret says it was sealed to.
    pub sealed_with: Option<Sha256>,
    /// When it certainly existed; [`Timestamp::MAX`] if unknown.
    pub sealed_by: Timestamp,
    /// Where it stands, for messages.
    pub place: String,
}

/// The strict scope of sealed-secrets: one name in one namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    pub namespace: String,
    /// The Secret's name, or the instance's for an inline value.
    pub name: String,
}

impl Scope {
    /// The label that the envelope is bound to.
    pub fn label(&self) -> String {
        strict_label(&self.namespace, &self.name)
    }
}

/// What one Secret gives to one instance.
#[derive(Debug, PartialEq, Eq)]
pub struct Bundle {
    /// The Secret's name.
    pub secret: String,
    /// The exact object that was read.
    pub version: Option<SecretVersion>,
    /// For every credential that refers to the Secret, its value or why there is none.
    pub values: BTreeMap<CredentialName, Result<HandedIn, Refusal>>,
    /// [`Refusal::UnusedKey`], if there are such keys.
    pub unused: Option<Refusal>,
}

/// The names of all Secrets that the requests refer to.
pub fn secrets_of(requests: &[CredentialRequest]) -> BTreeSet<&str> {
    let secrets = requests.iter().filter_map(|request| match &request.source {
        CredentialSource::SecretKey { secret, .. } => Some(secret.as_str()),
        CredentialSource::Inline(_) => None,
    });
    secrets.collect()
}

/// Reads the Secret called `secret` for all of the instance's `requests`; those that refer to
/// something else are passed over. `view` is `None` where there is no such Secret.
pub fn read_secret(
    instance: InstanceRef<'_>,
    secret: &str,
    view: Option<&SecretView>,
    requests: &[CredentialRequest],
) -> Bundle {
    let wanted = requests.iter().filter_map(|request| match &request.source {
        CredentialSource::SecretKey { secret: name, key } if name == secret => {
            Some((request, key.as_str()))
        }
        _ => None,
    });
    let wanted: Vec<_> = wanted.collect();
    let checked = match view {
        Some(view) => check_secret(instance, view).map(|()| view),
        None => Err(Refusal::NotFound { secret: secret.to_owned() }),
    };
    let read = |(request, key): &(&CredentialRequest, &str)| {
        let value = checked.as_ref().map_err(Refusal::clone);
        (request.name.clone(), value.and_then(|view| read_value(view, request, key)))
    };
    Bundle {
        secret: secret.to_owned(),
        version: view.and_then(|view| view.version.clone()),
        values: wanted.iter().map(read).collect(),
        unused: checked.ok().and_then(|view| unused_keys(view, &wanted)),
    }
}

/// Reads the sealed value that stands in the spec itself. `None` if the request refers to a Secret.
pub fn read_inline(
    instance: InstanceRef<'_>,
    request: &CredentialRequest,
) -> Option<Result<HandedIn, Refusal>> {
    let CredentialSource::Inline(value) = &request.source else { return None };
    let place = format!("The sealed value of credential {}", request.name);
    let scope = Scope { namespace: instance.namespace.to_owned(), name: instance.name.to_owned() };
    Some(handed_in(request, scope, value.clone(), place, None, instance.created))
}

/// Whether the Secret is one that this instance may take from.
fn check_secret(instance: InstanceRef<'_>, view: &SecretView) -> Result<(), Refusal> {
    let secret = view.name.clone();
    if view.r#type != SEALED_SECRET_TYPE {
        return Err(Refusal::WrongSecretType { secret, found: view.r#type.clone() });
    }
    if view.namespace != instance.namespace || view.instance.as_deref() != Some(instance.name) {
        let found = view.instance.clone().filter(|other| other != instance.name);
        let instance = instance.name.to_owned();
        return Err(Refusal::SecretNotBound { secret, instance, found });
    }
    view.wide_scope
        .map_or(Ok(()), |annotation| Err(Refusal::UnsupportedScope { secret, annotation }))
}

fn read_value(
    view: &SecretView,
    request: &CredentialRequest,
    key: &str,
) -> Result<HandedIn, Refusal> {
    let missing = || Refusal::KeyMissing { secret: view.name.clone(), key: key.to_owned() };
    let value = view.data.get(key).ok_or_else(missing)?;
    let place = format!("Key {key} of Secret {}", view.name);
    let scope = Scope { namespace: view.namespace.clone(), name: view.name.clone() };
    handed_in(request, scope, parse_envelope(value), place, view.sealed_with, view.created)
}

fn handed_in(
    request: &CredentialRequest,
    scope: Scope,
    value: Result<Envelope, NotAnEnvelope>,
    place: String,
    sealed_with: Option<Sha256>,
    sealed_by: Timestamp,
) -> Result<HandedIn, Refusal> {
    let envelope = match value {
        Ok(envelope) => envelope,
        Err(NotAnEnvelope::TooLarge) => return Err(Refusal::TooLarge { place }),
        Err(NotAnEnvelope::Plaintext) => return Err(Refusal::Plaintext { place }),
        Err(NotAnEnvelope::EncodedTwice) => {
            return Err(Refusal::NotOneEnvelope { place, mistake: Mistake::EncodedTwice });
        }
        Err(NotAnEnvelope::SealedSecret) => {
            return Err(Refusal::NotOneEnvelope { place, mistake: Mistake::SealedSecret });
        }
    };
    let (name, kind, sealed_to) = (request.name.clone(), request.kind, request.sealed_to);
    Ok(HandedIn { name, kind, sealed_to, scope, envelope, sealed_with, sealed_by, place })
}

fn unused_keys(view: &SecretView, wanted: &[(&CredentialRequest, &str)]) -> Option<Refusal> {
    let named: BTreeSet<&str> = wanted.iter().map(|(_, key)| *key).collect();
    let unused = view.data.keys().filter(|key| !named.contains(key.as_str()));
    let keys: Vec<_> = unused.cloned().collect();
    (!keys.is_empty()).then(|| Refusal::UnusedKey { secret: view.name.clone(), keys })
}

impl Bundle {
    /// Whether the Secret may be deleted now: it was read, every one of its keys belongs to a
    /// credential, and `delivered` says of every value that a receipt for exactly this ciphertext is
    /// recorded. Gives the preconditions for the deletion.
    pub fn deletion(
        &self,
        delivered: impl Fn(&CredentialName, &Sha256) -> bool,
    ) -> Option<&SecretVersion> {
        let done = |(name, value): (&CredentialName, &Result<HandedIn, Refusal>)| {
            value.as_ref().is_ok_and(|handed_in| delivered(name, &handed_in.envelope.sha256()))
        };
        let all = !self.values.is_empty() && self.unused.is_none() && self.values.iter().all(done);
        self.version.as_ref().filter(|_| all)
    }

    /// Everything that a person has to look at.
    pub fn refusals(&self) -> impl Iterator<Item = &Refusal> {
        self.values.values().filter_map(|value| value.as_ref().err()).chain(&self.unused)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::conditions::Reason;
    use crate::credentials::{
        secret_source::{CredentialEntry, parse_entries},
        test_keys,
    };
    use k8s_openapi::api::core::v1::Secret as KubeSecret;
    use moorage_wire::Secret;
    use rstest::rstest;
    use serde_json::{Value, json};

    const INSTANCE: InstanceRef<'static> =
        InstanceRef { namespace: "tenants", name: "ada", created: Timestamp::UNIX_EPOCH };

    fn sealed() -> String {
        let certificate = test_keys::key(0).certificate().clone();
        certificate.seal(&"value".to_owned().into(), "tenants/ada-keys").unwrap().to_base64()
    }

    /// A Secret as it should be, with `changes` merged into it.
    fn secret(changes: Value) -> SecretView {
        fn merge(into: &mut Value, from: Value) {
            match (into, from) {
                (Value::Object(into), Value::Object(from)) => {
                    for (key, value) in from {
                        merge(into.entry(key).or_insert(Value::Null), value);
                    }
                }
                (into, from) => *into = from,
            }
        }
        let mut secret = json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "type": "moorage.dev/sealed-credentials",
            "metadata": {
                "name": "ada-keys",
                "namespace": "tenants",
                "uid": "u-1",
                "resourceVersion": "7",
                "creationTimestamp": "2026-01-01T00:00:00Z",
                "labels": {"moorage.dev/instance": "ada"},
                "annotations": {},
            },
            "stringData": {"anthropic": sealed(), "telegram": sealed()},
        });
        merge(&mut secret, changes);
        SecretView::from(serde_json::from_value::<KubeSecret>(secret).unwrap())
    }

    fn requests() -> Vec<CredentialRequest> {
        let entry = |name, r#type| CredentialEntry {
            name,
            r#type,
            secret_ref: Some(("ada-keys", name)),
            ..CredentialEntry::default()
        };
        let inline = CredentialEntry {
            name: "openai",
            r#type: "OpenAiApiKey",
            sealed: Some("hello"),
            ..CredentialEntry::default()
        };
        let entries =
            [entry("anthropic", "AnthropicApiKey"), entry("telegram", "TelegramBotToken"), inline];
        parse_entries(&entries).0
    }

    fn read(view: Option<&SecretView>) -> Bundle {
        read_secret(INSTANCE, "ada-keys", view, &requests())
    }

    fn name(text: &str) -> CredentialName {
        text.parse().unwrap()
    }

    #[test]
    fn every_credential_gets_its_envelope_with_its_scope() {
        let bundle = read(Some(&secret(json!({}))));
        assert_eq!(bundle.refusals().count(), 0);
        assert_eq!(bundle.values.len(), 2);
        let value = bundle.values[&name("anthropic")].as_ref().unwrap();
        assert_eq!(value.scope.label(), "tenants/ada-keys");
        assert_eq!(value.kind, CredentialType::AnthropicApiKey);
    }

    #[rstest]
    #[case::other_type(json!({"type": "Opaque"}), "WrongSecretType")]
    #[case::no_type(json!({"type": null}), "WrongSecretType")]
    #[case::no_label(json!({"metadata": {"labels": null}}), "SecretNotBound")]
    #[case::other_instance(json!({"metadata": {"labels": {"moorage.dev/instance": "bob"}}}), "SecretNotBound")]
    #[case::other_namespace(json!({"metadata": {"namespace": "elsewhere"}}), "SecretNotBound")]
    #[case::cluster_wide(
        json!({"metadata": {"annotations": {"sealedsecrets.bitnami.com/cluster-wide": "true"}}}),
        "UnsupportedScope"
    )]
    #[case::namespace_wide(
        json!({"metadata": {"annotations": {"sealedsecrets.bitnami.com/namespace-wide": "true"}}}),
        "UnsupportedScope"
    )]
    #[case::no_key(json!({"stringData": null}), "KeyMissing")]
    #[case::plaintext(
        json!({"stringData": {"anthropic": test_keys::ANTHROPIC, "telegram": "123456:plain"}}),
        "NotSealed"
    )]
    #[case::too_large(
        json!({"stringData": {"anthropic": "AAAA".repeat(30_000), "telegram": "AAAA".repeat(30_000)}}),
        "ValueTooLarge"
    )]
    fn a_secret_that_is_not_as_it_should_be_is_refused_and_kept(
        #[case] changes: Value,
        #[case] reason: &str,
    ) {
        let bundle = read(Some(&secret(changes)));
        let reasons: Vec<_> = bundle.refusals().map(|refusal| refusal.reason().as_str()).collect();
        assert_eq!(reasons, [reason, reason]);
        assert_eq!(bundle.deletion(|_, _| true), None);
        for refusal in bundle.refusals() {
            assert!(!refusal.to_string().contains("sk-ant"), "{refusal}");
            assert!(!format!("{refusal:?}").contains("sk-ant"), "{refusal:?}");
        }
    }

    #[test]
    fn a_secret_that_does_not_exist_is_not_found() {
        let bundle = read(None);
        assert!(bundle.refusals().all(|refusal| refusal.reason() == Reason::SecretNotFound));
        assert_eq!(bundle.values.len(), 2);
        assert_eq!(bundle.deletion(|_, _| true), None);
    }

    #[test]
    fn a_key_that_no_credential_names_keeps_the_secret() {
        let bundle = read(Some(&secret(json!({"stringData": {"spare": "x"}}))));
        let unused = Refusal::UnusedKey { secret: "ada-keys".into(), keys: vec!["spare".into()] };
        assert_eq!(bundle.refusals().collect::<Vec<_>>(), [&unused]);
        assert_eq!(bundle.deletion(|_, _| true), None);
    }

    #[test]
    fn a_secret_goes_only_when_every_exact_ciphertext_has_a_receipt() {
        let bundle = read(Some(&secret(json!({}))));
        let version = SecretVersion { uid: "u-1".into(), resource_version: "7".into() };
        assert_eq!(bundle.deletion(|_, _| true), Some(&version));
        assert_eq!(bundle.deletion(|credential, _| *credential == name("anthropic")), None);
        let other = Sha256::of(b"another ciphertext");
        assert_eq!(bundle.deletion(|_, ciphertext| *ciphertext == other), None);
    }

    #[test]
    fn a_secret_that_no_credential_refers_to_is_never_deleted() {
        let empty = secret(json!({"stringData": null}));
        let bundle = read_secret(INSTANCE, "ada-keys", Some(&empty), &[]);
        assert_eq!(bundle.deletion(|_, _| true), None);
        let full = secret(json!({}));
        let bundle = read_secret(INSTANCE, "ada-keys", Some(&full), &[]);
        assert_eq!(bundle.refusals().map(Refusal::reason).collect::<Vec<_>>(), [Reason::UnusedKey]);
        assert_eq!(bundle.deletion(|_, _| true), None);
    }

    #[test]
    fn a_manifest_that_no_api_server_gave_is_never_deleted() {
        let view = secret(json!({"metadata": {"uid": null}}));
        assert_eq!(read(Some(&view)).deletion(|_, _| true), None);
    }

    #[test]
    fn an_inline_value_is_scoped_to_the_instance() {
        let mut request = requests().remove(2);
        let refused = read_inline(INSTANCE, &request).unwrap().unwrap_err();
        assert_eq!(refused.reason(), Reason::NotSealed);
        assert!(!refused.to_string().contains("hello"));

        request.source = CredentialSource::Inline(parse_envelope(&Secret::from(sealed())));
        let value = read_inline(INSTANCE, &request).unwrap().unwrap();
        assert_eq!(value.scope.label(), "tenants/ada");
        assert_eq!(read_inline(INSTANCE, &requests()[0]), None);
    }

    #[test]
    fn a_debugged_view_shows_no_value() {
        let view = secret(json!({"stringData": {"anthropic": test_keys::ANTHROPIC}}));
        assert!(!format!("{view:?}").contains("sk-ant"));
    }
}
