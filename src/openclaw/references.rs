//! References to credentials in `spec.config`: `{credentialRef: NAME}` wherever OpenClaw takes a
//! reference. Which credential stands where, what is wrong with a reference, and what becomes of the
//! document while a credential is not delivered yet.

use std::collections::{BTreeMap, BTreeSet};

use moorage_wire::{CredentialName, CredentialType};
use serde_json::{Map, Value};

use super::{
    places,
    refusal::{ConfigRefusal, RefusalKind},
};

/// The one key of a reference.
pub(super) const KEY: &str = "credentialRef";

/// The credentials that a spec names.
#[derive(Debug, Clone, Copy)]
pub struct Named<'a> {
    /// The names of all, those with a type that nobody knows as well.
    pub all: &'a BTreeSet<CredentialName>,
    /// Those whose type is known.
    pub types: &'a BTreeMap<CredentialName, CredentialType>,
}

impl Named<'static> {
    /// A spec without credentials.
    pub const NONE: Self = Self { all: &BTreeSet::new(), types: &BTreeMap::new() };
}

/// A place in a document, as the keys that lead to it.
pub(super) type Path = Vec<String>;

/// A credential that is referred to, and where.
pub(super) type Reference = (Path, CredentialName);

/// Every reference of a configuration that is one.
pub(super) fn all(config: &Map<String, Value>) -> Vec<Reference> {
    let mut found = Vec::new();
    walk(config, &mut Vec::new(), &mut |path, value| {
        if let Ok(name) = parse(value) {
            found.push((path.to_vec(), name));
        }
    });
    found
}

/// What is wrong with the references of a configuration, and with two credentials that belong at one place.
pub(super) fn check(config: &Map<String, Value>, named: Named<'_>) -> Vec<ConfigRefusal> {
    let mut refusals = Vec::new();
    walk(config, &mut Vec::new(), &mut |path, value| {
        if let Err(kind) = judge(path, value, named) {
            refusals.push(ConfigRefusal { path: told(path), kind });
        }
    });
    refusals.extend(contested(config, named.types));
    refusals
}

/// Where each credential belongs: where it is referred to, or else where its type does.
pub(super) fn placed<'a>(
    references: &[Reference],
    types: &'a BTreeMap<CredentialName, CredentialType>,
) -> Vec<(Path, &'a CredentialName)> {
    let mut placed = Vec::new();
    for (name, kind) in types {
        let given = references.iter().filter(|(_, referred)| referred == name);
        let given: Vec<_> = given.map(|(path, _)| path.clone()).collect();
        let own = given.is_empty().then(|| places::of(*kind, name)).flatten();
        placed.extend(given.into_iter().chain(own).map(|path| (path, name)));
    }
    placed
}

/// Takes the references out of a document, for those to be put there whose credentials are stored on the server:
/// OpenClaw does not start with one that it cannot resolve. What cannot work without its key is switched off
/// until that comes.
pub(super) fn remove(
    document: &mut Value,
    references: &[Reference],
    stored: &BTreeMap<CredentialName, CredentialType>,
) {
    for (path, name) in references {
        if let Some((leaf, above)) = path.split_last()
            && let Some(Value::Object(above)) = at(document, above)
        {
            above.remove(leaf);
        }
        if !stored.contains_key(name)
            && let Some(needy) = places::needy(path)
            && let Some(Value::Object(needy)) = at(document, needy)
        {
            needy.insert("enabled".to_owned(), Value::Bool(false));
        }
    }
}

fn at<'a>(document: &'a mut Value, path: &[String]) -> Option<&'a mut Value> {
    path.iter().try_fold(document, |value, key| value.get_mut(key))
}

/// Two credentials for one place: the later one would silently win.
fn contested(
    config: &Map<String, Value>,
    types: &BTreeMap<CredentialName, CredentialType>,
) -> Vec<ConfigRefusal> {
    let mut at: BTreeMap<Path, Vec<CredentialName>> = BTreeMap::new();
    for (path, name) in placed(&all(config), types) {
        at.entry(path).or_default().push(name.clone());
    }
    let several = at.into_iter().filter(|(_, names)| names.len() > 1);
    several
        .map(|(path, names)| ConfigRefusal {
            path: told(&path),
            kind: RefusalKind::Contested(names),
        })
        .collect()
}

fn judge(path: &[String], value: &Value, named: Named<'_>) -> Result<(), RefusalKind> {
    let name = parse(value)?;
    if places::is_text_only(path) {
        return Err(RefusalKind::NoPlace(places::NO_WAY));
    }
    if !named.all.contains(&name) {
        return Err(RefusalKind::UnknownCredential);
    }
    match named.types.get(&name) {
        Some(CredentialType::GoogleOAuthClient) => Err(RefusalKind::NoPlace(
            "an OAuth client is a file of its own on the server, which the gog skill reads; remove it",
        )),
        _ => Ok(()),
    }
}

/// Exactly one key, and a name.
fn parse(value: &Value) -> Result<CredentialName, RefusalKind> {
    let map = value.as_object().filter(|map| map.len() == 1);
    let name = map.and_then(|map| map.get(KEY)).and_then(Value::as_str);
    name.and_then(|name| name.parse().ok()).ok_or(RefusalKind::MalformedReference)
}

/// Calls `found` with every object that has the key of a reference.
fn walk(map: &Map<String, Value>, path: &mut Path, found: &mut impl FnMut(&[String], &Value)) {
    for (key, value) in map {
        path.push(key.clone());
        visit(value, path, found);
        path.pop();
    }
}

fn visit(value: &Value, path: &mut Path, found: &mut impl FnMut(&[String], &Value)) {
    match value {
        Value::Object(map) if map.contains_key(KEY) => found(path, value),
        Value::Object(map) => walk(map, path, found),
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                path.push(index.to_string());
                visit(item, path, found);
                path.pop();
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// A path in words. Its keys are the customer's: what is no plain word could be a key itself.
fn told(path: &[String]) -> String {
    super::keys::search::written(path.iter().map(String::as_str))
}

#[cfg(test)]
mod tests;
