//! Why something that a customer handed in is not taken. Every message says what a person does next
//! and none can contain any part of a value: no variant holds one.

use jiff::Timestamp;
use moorage_wire::credential::{CredentialType, FormatError};
use thiserror::Error;

use super::{INSTANCE_LABEL, SEALED_SECRET_TYPE, hints::Hint, key_ring::UnsealFailure};
use crate::api::conditions::Reason;

/// A credential, or a Secret with credentials, that is not taken. Nothing is deleted.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Refusal {
    /// There is no such Secret.
    #[error(
        "Secret {secret} does not exist in this namespace; make it with `moorage seal --name {secret}` and apply it"
    )]
    NotFound { secret: String },
    /// The Secret does not say that it is for this instance.
    #[error(
        "Secret {secret} is not meant for this instance: it needs the label {INSTANCE_LABEL}={instance}{}",
        .found.as_ref().map(|other| format!(", but has {INSTANCE_LABEL}={other}; one Secret serves one instance")).unwrap_or_default()
    )]
    SecretNotBound {
        /// The Secret's name.
        secret: String,
        /// The instance that refers to it.
        instance: String,
        /// The instance that the label names.
        found: Option<String>,
    },
    /// The Secret is of another type, so perhaps it is not meant for Moorage at all.
    #[error(
        "Secret {secret} has the type {found} instead of {SEALED_SECRET_TYPE}; a Secret's type cannot be changed, so delete it and apply one made by `moorage seal`"
    )]
    WrongSecretType {
        /// The Secret's name.
        secret: String,
        /// The type that it has.
        found: String,
    },
    /// The Secret asks for a scope in which any name, or any namespace, could use its ciphertexts.
    #[error(
        "Secret {secret} carries {annotation}, a scope in which others could use its values; seal again with the strict scope and remove the annotation"
    )]
    UnsupportedScope {
        /// The Secret's name.
        secret: String,
        /// The annotation that asks for the scope.
        annotation: &'static str,
    },
    /// The Secret lacks the key.
    #[error("Secret {secret} has no key {key}; add it, or correct secretRef.key")]
    KeyMissing { secret: String, key: String },
    /// Keys that no credential names. They would be lost if the Secret were deleted, so it is kept.
    #[error(
        "Secret {secret} is kept because no credential of the instance names {}; name them in spec.credentials or remove them from the Secret", .keys.join(", ")
    )]
    UnusedKey { secret: String, keys: Vec<String> },
    /// The value is not sealed: it lay in the cluster in the clear.
    #[error(
        "{place} is not a sealed value; if it is a key in the clear it is exposed now, so revoke it at its provider, then seal a new one with `moorage seal`"
    )]
    Plaintext { place: String },
    /// The value is larger than any credential.
    #[error("{place} is too large for a credential; seal the key alone")]
    TooLarge { place: String },
    /// No live key opens the value for the place where it stands.
    #[error(
        "{place} does not open: {}; seal it again with `moorage seal` for {label}", why_not(.failure)
    )]
    WrongKeyOrLabel {
        place: String,
        /// The namespace and name that it has to be sealed for.
        label: String,
        /// What is known of the reason; not [`UnsealFailure::KeyExpired`].
        failure: UnsealFailure,
    },
    /// The key that opens the value has been destroyed.
    #[error(
        "{place} was sealed with a certificate that was replaced on {} and whose key was destroyed on {}; seal it again with `moorage seal`", day(.not_served_after), day(.destroyed)
    )]
    KeyExpired {
        place: String,
        /// When the certificate stopped being published.
        not_served_after: Timestamp,
        /// When the key was destroyed.
        destroyed: Timestamp,
    },
    /// The value opens but is not what its type says.
    #[error(
        "{place}: {error}{}; seal the right value with `moorage seal`", .hint.map(|hint| format!(" ({hint})")).unwrap_or_default()
    )]
    InvalidFormat {
        place: String,
        error: FormatError,
        /// What is wrong, if it is something common.
        hint: Option<Hint>,
    },
    /// What stands there is sealed, but is not one sealed value.
    #[error("{place} {}", .mistake.told())]
    NotOneEnvelope { place: String, mistake: Mistake },
    /// The spec names a type that there is not.
    #[error("credential {name} has an unknown type; the types are {}", types())]
    UnknownType { name: String },
    /// The spec names a credential in a way that is not allowed.
    #[error(
        "a credential's name is 1 to 40 characters of a-z, 0-9 and -, starts with a letter, does not end with - and does not start with moorage-; rename entry {index} of spec.credentials"
    )]
    InvalidName {
        /// Position in `spec.credentials`, from 0.
        index: usize,
    },
    /// Two entries have the same name.
    #[error("spec.credentials names {name} more than once; give each its own name")]
    DuplicateName { name: String },
    /// Both or neither of the two places for a value are given.
    #[error("credential {name} needs either secretRef or sealed, and not both")]
    AmbiguousSource { name: String },
    /// The envelope could not be made. Passing; try again.
    #[error("{place} could not be sealed to the server; it is tried again")]
    SealingFailed {
        /// What could not be sealed.
        place: String,
    },
}

/// What people put in the place of a sealed value although it is sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mistake {
    /// The sealed value in base64 once more.
    EncodedTwice,
    /// A whole object of sealed-secrets.
    SealedSecret,
}

impl Mistake {
    fn told(self) -> &'static str {
        match self {
            Self::EncodedTwice => {
                "is a sealed value in base64 once too often: put it under stringData as it is"
            }
            Self::SealedSecret => {
                "is a whole SealedSecret: put only the sealed value of one key there, made with `kubeseal --raw` or `moorage seal`"
            }
        }
    }
}

impl Refusal {
    /// The reason for a condition or an Event.
    pub fn reason(&self) -> Reason {
        match self {
            Self::NotFound { .. } => Reason::SecretNotFound,
            Self::SecretNotBound { .. } => Reason::SecretNotBound,
            Self::WrongSecretType { .. } => Reason::WrongSecretType,
            Self::UnsupportedScope { .. } => Reason::UnsupportedScope,
            Self::KeyMissing { .. } => Reason::KeyMissing,
            Self::UnusedKey { .. } => Reason::UnusedKey,
            Self::Plaintext { .. } => Reason::NotSealed,
            Self::TooLarge { .. } => Reason::ValueTooLarge,
            Self::WrongKeyOrLabel { .. } => Reason::CannotUnseal,
            Self::KeyExpired { .. } => Reason::KeyExpired,
            Self::InvalidFormat { .. } => Reason::InvalidFormat,
            Self::NotOneEnvelope { .. } => Reason::NotOneEnvelope,
            Self::UnknownType { .. } => Reason::UnknownType,
            Self::InvalidName { .. } => Reason::InvalidName,
            Self::DuplicateName { .. } => Reason::DuplicateName,
            Self::AmbiguousSource { .. } => Reason::AmbiguousSource,
            Self::SealingFailed { .. } => Reason::SealingFailed,
        }
    }

    /// Whether the same input may be taken later without anyone changing it.
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::SealingFailed { .. })
    }
}

fn why_not(failure: &UnsealFailure) -> &'static str {
    match failure {
        UnsealFailure::OtherLabel => "it was sealed for another namespace or name, or is damaged",
        UnsealFailure::ForeignKey => "it was sealed with a certificate that is not this cluster's",
        UnsealFailure::Unknown | UnsealFailure::KeyExpired { .. } => {
            "it was sealed for another namespace or name, with another cluster's certificate or with one whose key is gone"
        }
    }
}

fn day(at: &Timestamp) -> String {
    at.strftime("%Y-%m-%d").to_string()
}

/// The names of all types, for messages.
pub fn types() -> String {
    CredentialType::of_customers().map(CredentialType::as_str).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret() -> String {
        "ada-keys".into()
    }

    fn place() -> String {
        "Key anthropic of Secret ada-keys".into()
    }

    /// One of each, so that the snapshot shows every message that a customer can meet.
    fn all() -> Vec<Refusal> {
        let (instance, key, name) = ("ada".into(), "anthropic".into(), "anthropic".into());
        let at = |text: &str| text.parse().unwrap();
        vec![
            Refusal::NotFound { secret: secret() },
            Refusal::SecretNotBound { secret: secret(), instance, found: None },
            Refusal::SecretNotBound {
                secret: secret(),
                instance: "ada".into(),
                found: Some("bob".into()),
            },
            Refusal::WrongSecretType { secret: secret(), found: "Opaque".into() },
            Refusal::UnsupportedScope {
                secret: secret(),
                annotation: "sealedsecrets.bitnami.com/cluster-wide",
            },
            Refusal::KeyMissing { secret: secret(), key },
            Refusal::UnusedKey { secret: secret(), keys: vec!["a".into(), "b".into()] },
            Refusal::Plaintext { place: place() },
            Refusal::TooLarge { place: place() },
            Refusal::WrongKeyOrLabel {
                place: place(),
                label: "tenants/ada-keys".into(),
                failure: UnsealFailure::OtherLabel,
            },
            Refusal::KeyExpired {
                place: place(),
                not_served_after: at("2026-02-01T00:00:00Z"),
                destroyed: at("2026-03-05T00:00:00Z"),
            },
            Refusal::InvalidFormat {
                place: place(),
                error: CredentialType::AnthropicApiKey.check(b"?").unwrap_err(),
                hint: None,
            },
            Refusal::InvalidFormat {
                place: place(),
                error: CredentialType::AnthropicApiKey.check(b"?").unwrap_err(),
                hint: Some(Hint::Base64),
            },
            Refusal::NotOneEnvelope { place: place(), mistake: Mistake::EncodedTwice },
            Refusal::NotOneEnvelope { place: place(), mistake: Mistake::SealedSecret },
            Refusal::UnknownType { name },
            Refusal::InvalidName { index: 0 },
            Refusal::DuplicateName { name: "anthropic".into() },
            Refusal::AmbiguousSource { name: "anthropic".into() },
            Refusal::SealingFailed { place: place() },
        ]
    }

    #[test]
    fn every_message_reads_as_it_should() {
        let lines = all().into_iter().map(|refusal| format!("{}: {refusal}", refusal.reason()));
        insta::assert_snapshot!(lines.collect::<Vec<_>>().join("\n"));
    }

    #[test]
    fn reasons_are_camel_case_as_kubernetes_requires() {
        for refusal in all() {
            let reason = refusal.reason().as_str();
            assert!(reason.starts_with(|first: char| first.is_ascii_uppercase()), "{reason}");
            assert!(reason.bytes().all(|byte| byte.is_ascii_alphanumeric()), "{reason}");
        }
    }
}
