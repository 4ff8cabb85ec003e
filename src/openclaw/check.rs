//! What a customer may not set: what would undo the lock-down, and keys in the clear. A refusal
//! names the path; it never contains the value.

use std::fmt;

use serde_json::{Map, Value};

use super::keys::{self, Finding};
use crate::api::conditions::Reason;

/// Keys that are Moorage's, with what to do instead.
const RESERVED: [(&[&str], &str); 6] = [
    (&["gateway"], "the gateway is set up by Moorage; remove it"),
    (&["secrets"], "secrets come from spec.credentials; remove it"),
    (&["update"], "versions come from the OpenClawRelease; remove it"),
    (&["env"], "the environment is set up by Moorage; give keys under spec.credentials"),
    (&["plugins", "load"], "plugins come from spec.integrations; remove it"),
    (&["$include"], "the document must be whole; write out what it would include"),
];

/// Something in `spec.config` that is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigRefusal {
    /// Where, such as `spec.config.channels.telegram.botToken`.
    pub path: String,
    pub kind: RefusalKind,
}

/// Why something is refused. What is worse comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum RefusalKind {
    /// It is, or looks like, a key in the clear.
    LiteralSecret,
    /// It is Moorage's; what to do instead.
    Reserved(&'static str),
    /// It stands for a key that the server does not have.
    Reference,
}

impl ConfigRefusal {
    /// The reason of the condition.
    pub fn reason(&self) -> Reason {
        match self.kind {
            RefusalKind::LiteralSecret => Reason::LiteralSecret,
            RefusalKind::Reserved(_) => Reason::ReservedConfigKey,
            RefusalKind::Reference => Reason::KeyReference,
        }
    }
}

impl fmt::Display for ConfigRefusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = &self.path;
        match self.kind {
            RefusalKind::LiteralSecret => write!(
                formatter,
                "{path} holds a key in the clear: revoke it at its provider, then seal a new one and name it under spec.credentials"
            ),
            RefusalKind::Reserved(remedy) => write!(formatter, "{path} cannot be set: {remedy}"),
            RefusalKind::Reference => write!(
                formatter,
                "{path} refers to a key that the server does not have: remove it here and give it as spec.credentials, for which Moorage writes the reference"
            ),
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

/// Checks a customer's configuration.
///
/// # Errors
/// Everything that is refused, keys in the clear first.
pub fn check(config: &Map<String, Value>) -> Result<(), Vec<ConfigRefusal>> {
    let reserved =
        RESERVED.iter().filter(|(path, _)| find(config, path).is_some()).map(|(path, remedy)| {
            ConfigRefusal {
                path: format!("spec.config.{}", path.join(".")),
                kind: RefusalKind::Reserved(remedy),
            }
        });
    let found = keys::search(config).into_iter().map(|(path, finding)| {
        let kind = match finding {
            Finding::Key => RefusalKind::LiteralSecret,
            Finding::Reference => RefusalKind::Reference,
        };
        ConfigRefusal { path, kind }
    });
    let mut refusals: Vec<_> = reserved.chain(found).collect();
    refusals.sort_by_key(|refusal| refusal.kind);
    if refusals.is_empty() { Ok(()) } else { Err(refusals) }
}

fn find<'a>(config: &'a Map<String, Value>, path: &[&str]) -> Option<&'a Value> {
    let (first, rest) = path.split_first()?;
    rest.iter().try_fold(config.get(*first)?, |value, key| value.get(key))
}
