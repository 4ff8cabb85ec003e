//! What a customer hands in, parsed once: the entries of `spec.credentials`, and a Secret as far as
//! it matters here.

use std::collections::{BTreeMap, BTreeSet};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret as KubeSecret;
use moorage_wire::{
    CredentialName, CredentialType, Secret, Sha256,
    envelope::{Envelope, EnvelopeError},
};

use thiserror::Error;
use zeroize::Zeroizing;

use super::{
    INSTANCE_LABEL, INSTANCE_SEEN_ANNOTATION, SEALED_SECRET_TYPE, SEALED_WITH_ANNOTATION,
    refusal::Refusal,
};

/// Annotations by which sealed-secrets asks for a wider scope than the strict one.
const WIDE_SCOPES: [&str; 2] =
    ["sealedsecrets.bitnami.com/cluster-wide", "sealedsecrets.bitnami.com/namespace-wide"];

/// An entry of `spec.credentials` as it was written. Not `Debug`: `sealed` may be plaintext by mistake.
#[derive(Clone, Copy, Default)]
pub struct CredentialEntry<'a> {
    /// `name`.
    pub name: &'a str,
    /// `type`.
    pub r#type: &'a str,
    /// `secretRef`: name and key.
    pub secret_ref: Option<(&'a str, &'a str)>,
    /// `sealed`: the ciphertext inline.
    pub sealed: Option<&'a str>,
    /// `sealedTo: Agent`.
    pub sealed_to_agent: bool,
}

/// A credential that an instance should have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CredentialRequest {
    pub name: CredentialName,
    pub kind: CredentialType,
    /// Where its sealed value stands.
    pub source: CredentialSource,
    /// Whose key opens it.
    pub sealed_to: SealedTo,
}

/// Where a sealed value stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CredentialSource {
    /// In a Secret of the instance's namespace.
    SecretKey {
        /// The Secret's name.
        secret: String,
        /// The key in its data.
        key: String,
    },
    /// In the spec itself: the value, or why it is none. What is no envelope is not kept.
    Inline(Result<Envelope, NotAnEnvelope>),
}

/// Why a text or bytes are not taken for a sealed value.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
pub enum NotAnEnvelope {
    /// It is not sealed.
    #[error("not a sealed value")]
    Plaintext,
    /// It is a sealed value in base64 once more.
    #[error("sealed, and encoded twice")]
    EncodedTwice,
    /// It is a whole object of sealed-secrets.
    #[error("a whole SealedSecret")]
    SealedSecret,
    /// It is larger than any credential.
    #[error("too large for a sealed credential")]
    TooLarge,
}

/// Whose key opens a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SealedTo {
    /// A key of the operator's ring, which checks the value and seals it again.
    #[default]
    Operator,
    /// The agent's own key: the operator cannot read the value.
    Agent,
}

/// Parses all entries. An entry that is wrong does not stop the others.
pub fn parse_entries(entries: &[CredentialEntry<'_>]) -> (Vec<CredentialRequest>, Vec<Refusal>) {
    let (mut requests, mut refusals) = (Vec::new(), Vec::new());
    let mut seen = BTreeSet::new();
    for (index, entry) in entries.iter().enumerate() {
        match parse_entry(index, entry) {
            Ok(request) if seen.insert(request.name.clone()) => requests.push(request),
            Ok(request) => {
                refusals.push(Refusal::DuplicateName { name: request.name.to_string() });
            }
            Err(refusal) => refusals.push(refusal),
        }
    }
    (requests, refusals)
}

fn parse_entry(index: usize, entry: &CredentialEntry<'_>) -> Result<CredentialRequest, Refusal> {
    let name = entry.name.parse::<CredentialName>().ok().filter(|name| !name.is_reserved());
    let name = name.ok_or(Refusal::InvalidName { index })?;
    let kind = CredentialType::parse_customer(entry.r#type)
        .ok_or_else(|| Refusal::UnknownType { name: name.to_string() })?;
    let source = match (entry.secret_ref, entry.sealed) {
        (Some((secret, key)), None) => {
            CredentialSource::SecretKey { secret: secret.to_owned(), key: key.to_owned() }
        }
        (None, Some(sealed)) => {
            CredentialSource::Inline(parse_envelope(&Secret::from(sealed.to_owned())))
        }
        _ => return Err(Refusal::AmbiguousSource { name: name.to_string() }),
    };
    let sealed_to = if entry.sealed_to_agent { SealedTo::Agent } else { SealedTo::Operator };
    Ok(CredentialRequest { name, kind, source, sealed_to })
}

/// The exact object that was read: preconditions for its deletion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretVersion {
    /// `metadata.uid`.
    pub uid: String,
    /// `metadata.resourceVersion`.
    pub resource_version: String,
}

/// Whether this may be the mark of a Secret that was seen beside its instance. It names one instance and
/// one object: a copy, or what is restored from a backup, has another UID. Whether it holds for the
/// data, which metadata does not show, tells [`SecretView::is_marked`].
pub fn may_be_mark(mark: &str, instance: &str, secret_uid: &str) -> bool {
    let digest = mark.strip_prefix(instance).and_then(|rest| rest.strip_prefix('/'));
    let digest = digest.and_then(|rest| rest.strip_prefix(secret_uid)?.strip_prefix('/'));
    digest.is_some_and(|digest| digest.parse::<Sha256>().is_ok())
}

/// A Secret as far as it matters for delivering what is in it. Its values may be plaintext by a
/// customer's mistake, so they are kept as such.
#[derive(Debug)]
pub struct SecretView {
    pub(super) name: String,
    pub(super) namespace: String,
    pub(super) r#type: String,
    pub(super) version: Option<SecretVersion>,
    pub(super) created: Timestamp,
    pub(super) instance: Option<String>,
    pub(super) sealed_with: Option<Sha256>,
    pub(super) wide_scope: Option<&'static str>,
    pub(super) mark: Option<String>,
    pub(super) data: BTreeMap<String, Secret>,
}

impl From<KubeSecret> for SecretView {
    /// `stringData` is write-only in Kubernetes; it is read here for manifests that come from a file.
    fn from(secret: KubeSecret) -> Self {
        let metadata = secret.metadata;
        let (labels, annotations) =
            (metadata.labels.unwrap_or_default(), metadata.annotations.unwrap_or_default());
        let data = secret.data.unwrap_or_default().into_iter();
        let text = secret.string_data.unwrap_or_default().into_iter();
        let version = metadata.uid.zip(metadata.resource_version);
        Self {
            name: metadata.name.unwrap_or_default(),
            namespace: metadata.namespace.unwrap_or_default(),
            // What the API server makes of a Secret without a type.
            r#type: secret.type_.unwrap_or_else(|| "Opaque".to_owned()),
            version: version.map(|(uid, resource_version)| SecretVersion { uid, resource_version }),
            // Without a date it might have been sealed just now.
            created: metadata.creation_timestamp.map_or(Timestamp::MAX, |time| time.0),
            instance: labels.get(INSTANCE_LABEL).cloned(),
            sealed_with: annotations.get(SEALED_WITH_ANNOTATION).and_then(|at| at.parse().ok()),
            wide_scope: WIDE_SCOPES
                .into_iter()
                .find(|scope| annotations.get(*scope).is_some_and(|value| value == "true")),
            mark: annotations.get(INSTANCE_SEEN_ANNOTATION).cloned(),
            data: data
                .map(|(key, value)| (key, Secret::new(value.0)))
                .chain(text.map(|(key, value)| (key, Secret::from(value))))
                .collect(),
        }
    }
}

impl SecretView {
    /// `metadata.name`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it is of our type and says that it is for this instance.
    pub fn is_sealed_for(&self, instance: &str) -> bool {
        self.r#type == SEALED_SECRET_TYPE && self.instance.as_deref() == Some(instance)
    }

    /// The mark that says that this object was seen, with this data, beside its instance. None where a
    /// value is not sealed: nothing that could be guessed is put into a digest.
    pub fn mark(&self) -> Option<String> {
        let (instance, version) = (self.instance.as_ref()?, self.version.as_ref()?);
        if self.data.values().any(|value| parse_envelope(value).is_err()) {
            return None;
        }
        let mut said = Vec::new();
        let mut say = |part: &[u8]| said.extend_from_slice(Sha256::of(part).as_bytes());
        say(self.r#type.as_bytes());
        say(instance.as_bytes());
        for (key, value) in &self.data {
            say(key.as_bytes());
            say(value.expose());
        }
        Some(format!("{instance}/{}/{}", version.uid, Sha256::of(&said)))
    }

    /// Whether it has the mark, and the mark was set beside the data that is there now.
    pub fn is_marked(&self) -> bool {
        self.mark.is_some() && self.mark == self.mark()
    }

    /// The exact object that was read, if it came from an API server.
    pub fn version(&self) -> Option<&SecretVersion> {
        self.version.as_ref()
    }
}

/// Reads an envelope as it stands in a Secret: as the text that `kubeseal --raw` prints (under
/// `stringData`), or as its bytes (that text under `data`). Line breaks inside the text are ignored.
pub fn parse_envelope(value: &Secret) -> Result<Envelope, NotAnEnvelope> {
    // The text may be plaintext by mistake, so the copy without line breaks is kept as a secret too.
    let joined =
        |text: &str| Secret::new(text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect());
    let from_text = value.expose_str().map(joined);
    let from_text = from_text.as_ref().and_then(Secret::expose_str).map(Envelope::from_base64);
    let parsed = match from_text {
        None | Some(Err(EnvelopeError::NotSealed)) => Envelope::from_bytes(value.expose().to_vec()),
        Some(parsed) => parsed,
    };
    parsed.map_err(|error| match error {
        EnvelopeError::TooLarge => NotAnEnvelope::TooLarge,
        _ => mistaken(value),
    })
}

/// What is no sealed value, but was one before somebody wrapped it.
fn mistaken(value: &Secret) -> NotAnEnvelope {
    let text = value.expose_str().unwrap_or_default();
    if text.contains("SealedSecret") && text.contains("encryptedData") {
        return NotAnEnvelope::SealedSecret;
    }
    let whole: Zeroizing<Vec<u8>> =
        Zeroizing::new(text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect());
    let once = STANDARD.decode(&*whole).ok().map(Secret::new);
    let twice = once.as_ref().and_then(Secret::expose_str).map(Envelope::from_base64);
    if matches!(twice, Some(Ok(_))) {
        NotAnEnvelope::EncodedTwice
    } else {
        NotAnEnvelope::Plaintext
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::conditions::Reason;
    use crate::credentials::test_keys;
    use base64::engine::general_purpose::STANDARD as BASE64;
    use rstest::rstest;

    fn entry<'a>(name: &'a str, r#type: &'a str) -> CredentialEntry<'a> {
        CredentialEntry { name, r#type, sealed: Some("x"), ..CredentialEntry::default() }
    }

    #[rstest]
    #[case::reserved(entry("moorage-tunnel", "AnthropicApiKey"), "InvalidName")]
    #[case::path(entry("../etc", "AnthropicApiKey"), "InvalidName")]
    #[case::internal_type(entry("a", "TunnelToken"), "UnknownType")]
    #[case::no_type(entry("a", ""), "UnknownType")]
    #[case::both(
        CredentialEntry { secret_ref: Some(("s", "k")), ..entry("a", "AnthropicApiKey") },
        "AmbiguousSource"
    )]
    #[case::neither(
        CredentialEntry { sealed: None, ..entry("a", "AnthropicApiKey") },
        "AmbiguousSource"
    )]
    fn a_wrong_entry_is_refused_and_the_others_stay(
        #[case] wrong: CredentialEntry<'_>,
        #[case] reason: &str,
    ) {
        let (requests, refusals) = parse_entries(&[wrong, entry("good", "AnthropicApiKey")]);
        assert_eq!(
            refusals.iter().map(|refusal| refusal.reason().as_str()).collect::<Vec<_>>(),
            [reason]
        );
        assert_eq!(requests.len(), 1);
        assert_eq!(requests[0].name.as_str(), "good");
    }

    #[test]
    fn plaintext_inline_is_not_kept() {
        let entry =
            CredentialEntry { sealed: Some(test_keys::ANTHROPIC), ..entry("a", "AnthropicApiKey") };
        let (requests, refusals) = parse_entries(&[entry]);
        assert!(refusals.is_empty(), "the credential is still wanted");
        let problem = CredentialSource::Inline(Err(NotAnEnvelope::Plaintext));
        assert_eq!(requests[0].source, problem);
    }

    #[test]
    fn a_name_given_twice_is_refused_once() {
        let twice = [entry("a", "AnthropicApiKey"), entry("a", "OpenAiApiKey")];
        let (requests, refusals) = parse_entries(&twice);
        assert_eq!((requests.len(), refusals.len()), (1, 1));
        assert_eq!(refusals[0].reason(), Reason::DuplicateName);
    }

    #[test]
    fn text_wrapped_text_and_bytes_are_the_same_envelope() {
        let certificate = test_keys::key(0).certificate().clone();
        let envelope = certificate.seal(&"value".to_owned().into(), "l").unwrap();
        let text = envelope.to_base64();
        let wrapped = format!("{}\n  {}\n", &text[..76], &text[76..]);
        let bytes = BASE64.decode(&text).unwrap();
        for form in [text.into_bytes(), wrapped.into_bytes(), bytes] {
            let parsed = parse_envelope(&Secret::new(form)).unwrap();
            assert_eq!(parsed.sha256(), envelope.sha256());
        }
    }

    #[test]
    fn what_was_sealed_and_then_wrapped_is_no_plaintext() {
        let certificate = test_keys::key(0).certificate().clone();
        let text = certificate.seal(&"value".to_owned().into(), "l").unwrap().to_base64();
        let twice = BASE64.encode(&text);
        let wrapped = format!("{}\n{}\n", &twice[..76], &twice[76..]);
        for encoded in [twice, wrapped] {
            let parsed = parse_envelope(&Secret::from(encoded));
            assert_eq!(parsed, Err(NotAnEnvelope::EncodedTwice));
        }
        let object = format!("kind: SealedSecret\nspec:\n  encryptedData:\n    k: {text}\n");
        assert_eq!(parse_envelope(&Secret::from(object)), Err(NotAnEnvelope::SealedSecret));
    }

    fn marked(value: &str, label: &str, mark: Option<&str>) -> SecretView {
        let secret = serde_json::json!({
            "type": "moorage.dev/sealed-credentials",
            "metadata": {
                "name": "keys", "uid": "u1", "resourceVersion": "7",
                "labels": {"moorage.dev/instance": label},
                "annotations": mark.map(|mark| serde_json::json!({"moorage.dev/instance-seen": mark})),
            },
            "stringData": {"key": value},
        });
        SecretView::from(serde_json::from_value::<KubeSecret>(secret).unwrap())
    }

    #[test]
    fn a_mark_holds_only_for_the_data_beside_which_it_was_set() {
        let certificate = test_keys::key(0).certificate().clone();
        let seal = || certificate.seal(&"value".to_owned().into(), "l").unwrap().to_base64();
        let (old, new) = (seal(), seal());
        let mark = marked(&old, "ada", None).mark().unwrap();
        assert!(may_be_mark(&mark, "ada", "u1"), "{mark}");
        assert!(!may_be_mark(&mark, "ada", "u2") && !may_be_mark(&mark, "bob", "u1"));
        assert!(!may_be_mark("ada/u1", "ada", "u1"), "an earlier version said nothing of the data");
        assert!(marked(&old, "ada", Some(&mark)).is_marked());
        assert!(!marked(&new, "ada", Some(&mark)).is_marked());
        assert!(!marked(&old, "bob", Some(&mark)).is_marked());
        assert!(!marked(&old, "ada", Some("ada/u1")).is_marked());
        assert!(!marked(&old, "ada", None).is_marked());
        assert_eq!(marked(test_keys::ANTHROPIC, "ada", None).mark(), None, "it is not sealed");
    }

    proptest::proptest! {
        #[test]
        fn short_printable_text_is_never_taken_for_an_envelope(text in "[ -~]{0,300}") {
            let parsed = parse_envelope(&Secret::from(text));
            proptest::prop_assert_eq!(parsed, Err(NotAnEnvelope::Plaintext));
        }
    }
}
