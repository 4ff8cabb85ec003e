//! What is refused of a configuration, and how it is told: with its path, never with a value.

use std::fmt;

use moorage_wire::CredentialName;

use super::places;
use crate::api::conditions::Reason;

/// Something in `spec.config` that is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigRefusal {
    /// Where, such as `spec.config.channels.telegram.botToken`.
    pub path: String,
    pub kind: RefusalKind,
}

/// Why something is refused. What is worse comes first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum RefusalKind {
    /// It is, or looks like, a key in the clear.
    LiteralSecret,
    /// It is Moorage's; what to do instead.
    Reserved(&'static str),
    /// It stands for a key that the server does not have.
    Reference,
    /// It is meant as a reference to a credential and has another form.
    MalformedReference,
    /// It refers to a credential that the spec does not have.
    UnknownCredential,
    /// No credential can be given there, and why.
    NoPlace(&'static str),
    /// These credentials all belong there.
    Contested(Vec<CredentialName>),
}

impl ConfigRefusal {
    /// The reason of the condition.
    pub fn reason(&self) -> Reason {
        match self.kind {
            RefusalKind::LiteralSecret => Reason::LiteralSecret,
            RefusalKind::Reserved(_) => Reason::ReservedConfigKey,
            RefusalKind::Reference
            | RefusalKind::MalformedReference
            | RefusalKind::UnknownCredential
            | RefusalKind::NoPlace(_) => Reason::KeyReference,
            RefusalKind::Contested(_) => Reason::ContestedPlace,
        }
    }
}

impl fmt::Display for ConfigRefusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = &self.path;
        match &self.kind {
            RefusalKind::LiteralSecret if places::is_text_only(&keys_of(path)) => write!(
                formatter,
                "{path} holds a key in the clear: revoke it if it is in use. {}",
                places::NO_WAY
            ),
            RefusalKind::LiteralSecret => write!(
                formatter,
                "{path} holds a key in the clear: revoke it at its provider, then seal a new one and name it under spec.credentials"
            ),
            RefusalKind::Reserved(remedy) => write!(formatter, "{path} cannot be set: {remedy}"),
            RefusalKind::Reference => write!(
                formatter,
                "{path} refers to a key that the server does not have: give the key under spec.credentials, and write {{credentialRef: NAME}} here with its name there"
            ),
            RefusalKind::MalformedReference => write!(
                formatter,
                "{path} is no reference to a credential: write exactly {{credentialRef: NAME}}, with a name of spec.credentials"
            ),
            RefusalKind::UnknownCredential => write!(
                formatter,
                "{path} refers to a credential that spec.credentials does not have: add it there, or remove the reference"
            ),
            RefusalKind::NoPlace(why) => write!(formatter, "{path} cannot be a credential: {why}"),
            RefusalKind::Contested(names) => {
                let names: Vec<_> = names.iter().map(CredentialName::as_str).collect();
                write!(
                    formatter,
                    "{path} is the place of several credentials, {}: keep one, or write {{credentialRef: NAME}} where each of the others belongs",
                    names.join(", ")
                )
            }
        }
    }
}

/// How many refusals are told at once: a condition's message is limited, a configuration hardly.
const TOLD: usize = 10;

/// All refusals in one message, as far as there is room.
pub fn told(refusals: &[ConfigRefusal]) -> String {
    let mut messages: Vec<_> = refusals.iter().take(TOLD).map(ToString::to_string).collect();
    if let more @ 1.. = refusals.len().saturating_sub(TOLD) {
        messages.push(format!("and {more} more"));
    }
    messages.join("; ")
}

/// The keys of a path in words.
pub(super) fn keys_of(path: &str) -> Vec<String> {
    path.split('.').skip(2).map(str::to_owned).collect()
}
