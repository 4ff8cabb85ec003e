//! What a customer may not set: what would undo the lock-down, keys in the clear, and references to credentials
//! that lead nowhere. A refusal names the path; it never contains the value.

use serde_json::{Map, Value};

use super::{
    gateway,
    keys::{self, Finding},
    places,
    references::{self, Named},
    refusal::{ConfigRefusal, RefusalKind, keys_of},
};

/// Keys that are Moorage's, with what to do instead.
const RESERVED: [(&[&str], &str); 5] = [
    (&["secrets"], "secrets come from spec.credentials; remove it"),
    (&["update"], "versions come from the OpenClawRelease; remove it"),
    (&["env"], "the environment is set up by Moorage; give keys under spec.credentials"),
    (&["plugins", "load"], "plugins come from spec.integrations; remove it"),
    (&["$include"], "the document must be whole; write out what it would include"),
];

/// Checks a customer's configuration, for the credentials that the spec names.
///
/// # Errors
/// Everything that is refused, keys in the clear first.
pub fn check(config: &Map<String, Value>, named: Named<'_>) -> Result<(), Vec<ConfigRefusal>> {
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
            Finding::Reference if places::is_text_only(&keys_of(&path)) => {
                RefusalKind::NoPlace(places::NO_WAY)
            }
            Finding::Reference => RefusalKind::Reference,
        };
        ConfigRefusal { path, kind }
    });
    let mut refusals: Vec<_> = reserved.chain(gateway::check(config)).chain(found).collect();
    refusals.extend(references::check(config, named));
    refusals.sort_by(|one, other| one.kind.cmp(&other.kind));
    if refusals.is_empty() { Ok(()) } else { Err(refusals) }
}

fn find<'a>(config: &'a Map<String, Value>, path: &[&str]) -> Option<&'a Value> {
    let (first, rest) = path.split_first()?;
    rest.iter().try_fold(config.get(*first)?, |value, key| value.get(key))
}
