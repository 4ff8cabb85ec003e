//! The walk through a configuration: every text with the field that it stands in, and the few pairs in
//! which one value names what the next one is.

use std::fmt;

use serde_json::{Map, Value};

use super::{
    Finding, Place, judge,
    names::{self, Field},
    patterns, values,
};

/// Fields that say where a service is.
pub const ADDRESSES: [&str; 7] =
    ["baseUrl", "baseURL", "base_url", "apiBase", "apiRoot", "endpoint", "url"];
/// Providers of models that run on the same machine unless an address says otherwise.
pub const LOCAL_PROVIDERS: [&str; 8] =
    ["ollama", "lmstudio", "lm-studio", "vllm", "sglang", "llamacpp", "llama-cpp", "localai"];
/// A key that is longer is not shown in full.
const LONGEST_SEGMENT: usize = 64;
const LONGEST_PATH: usize = 400;

/// All that was found, with its path from the root of the document.
pub fn search(config: &Map<String, Value>) -> Vec<(String, Finding)> {
    let mut search = Search { found: Vec::new() };
    search.object(&Path::Root, Node { name: "", field: Field::Other }, config);
    search.found
}

/// A place in the document; written out only where something is found.
enum Path<'a> {
    Root,
    Key(&'a Path<'a>, &'a str),
    Index(&'a Path<'a>, usize),
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => formatter.write_str("spec.config"),
            Self::Index(above, index) => write!(formatter, "{above}[{index}]"),
            Self::Key(above, key) => {
                // What is no plain word could be a key itself; it is told by its place.
                let plain = key.len() <= LONGEST_SEGMENT
                    && !key.chars().any(char::is_control)
                    && !patterns::has_key(&values::plain(key));
                write!(formatter, "{above}.{}", if plain { key } else { "…" })
            }
        }
    }
}

/// A path of keys in words, without what could be a key itself.
pub fn written<'a>(keys: impl Iterator<Item = &'a str>) -> String {
    fn down<'a>(above: &Path<'_>, mut keys: impl Iterator<Item = &'a str>) -> String {
        match keys.next() {
            Some(key) => down(&Path::Key(above, key), keys),
            None => shortened(above),
        }
    }
    down(&Path::Root, keys)
}

fn shortened(path: &Path<'_>) -> String {
    let mut path = path.to_string();
    if path.len() > LONGEST_PATH {
        path.truncate(path.floor_char_boundary(LONGEST_PATH));
        path.push('…');
    }
    path
}

/// The nearest name above a value, and what it says.
#[derive(Clone, Copy)]
struct Node<'a> {
    name: &'a str,
    field: Field,
}

struct Search {
    found: Vec<(String, Finding)>,
}

impl Search {
    fn tell(&mut self, path: &Path<'_>, finding: Finding) {
        self.found.push((shortened(path), finding));
    }

    fn object(&mut self, path: &Path<'_>, node: Node<'_>, map: &Map<String, Value>) {
        let local = is_local(node.name, map);
        let named = named_value(map);
        for (key, item) in map {
            let path = Path::Key(path, key);
            if patterns::has_key(&values::plain(key)) {
                self.tell(&path, Finding::Key);
            }
            let of_pair = named.filter(|_| key == "value").unwrap_or_default();
            let field = [names::field_in(node.name, key), of_pair, inherited(node.field, key)]
                .into_iter()
                .find(|field| *field != Field::Other);
            let field = field.unwrap_or_default();
            self.value(&path, Node { name: key, field }, local, item);
        }
    }

    fn array(&mut self, path: &Path<'_>, node: Node<'_>, local: bool, items: &[Value]) {
        let is_pair = items.len() == 2 && holds_pairs(node.name);
        let mut before: Option<&str> = None;
        for (index, item) in items.iter().enumerate() {
            let path = Path::Index(path, index);
            let named = match before {
                Some(name) if is_pair => names::field(name),
                Some("-u" | "--user") if item.as_str().is_some_and(|text| text.contains(':')) => {
                    Field::Password
                }
                Some(flag) if flag.starts_with('-') && !starts_option(item) => names::field(flag),
                _ => Field::Other,
            };
            let field = if named == Field::Other { node.field } else { named };
            self.value(&path, Node { field, ..node }, local, item);
            before = item.as_str();
        }
    }

    fn value(&mut self, path: &Path<'_>, node: Node<'_>, local: bool, value: &Value) {
        let found = match value {
            Value::String(text) => judge(Place { field: node.field, local }, text),
            Value::Number(number) => (node.field == Field::Password
                && number.to_string().len() >= 4)
                .then_some(Finding::Key),
            Value::Object(map) if is_reference(map) => Some(Finding::Reference),
            Value::Object(map) => return self.object(path, node, map),
            Value::Array(items) => return self.array(path, node, local, items),
            Value::Null | Value::Bool(_) => None,
        };
        if let Some(finding) = found {
            self.tell(path, finding);
        }
    }
}

/// What a name above says of what is called `key` there.
fn inherited(above: Field, key: &str) -> Field {
    match above {
        Field::Several => Field::Several,
        Field::ApiKey | Field::Secret | Field::Password
            if ["value", "literal", "plaintext", "raw"].contains(&key) =>
        {
            above
        }
        _ => Field::Other,
    }
}

/// Whether the object is a service on the same machine or network.
fn is_local(name: &str, map: &Map<String, Value>) -> bool {
    let address = ADDRESSES.iter().find_map(|key| map.get(*key)?.as_str());
    address.map_or_else(|| LOCAL_PROVIDERS.contains(&name), values::is_local)
}

/// What `{name: …, value: …}` says of its value.
fn named_value(map: &Map<String, Value>) -> Option<Field> {
    let name = ["name", "key", "header"].iter().find_map(|key| map.get(*key)?.as_str())?;
    map.contains_key("value").then(|| names::field(name))
}

/// Lists of pairs, as some programs write headers and variables.
fn holds_pairs(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    name.ends_with("headers") || name.ends_with("env")
}

fn starts_option(item: &Value) -> bool {
    item.as_str().is_none_or(|text| text.starts_with('-'))
}

/// A `SecretRef` as OpenClaw writes it: `{source, provider, id}`.
fn is_reference(map: &Map<String, Value>) -> bool {
    let source = map.get("source").and_then(Value::as_str);
    matches!(source, Some("env" | "file" | "exec" | "store")) && map.contains_key("id")
}
