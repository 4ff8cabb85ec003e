//! `spec.config`: kept as text, looked into once, and refused where it is too deep or too large to be
//! passed on.

use std::{borrow::Cow, fmt, sync::Arc};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};
use serde_json::value::RawValue;
use thiserror::Error;

/// Levels of objects and lists within each other. OpenClaw's own schema needs about ten; parsers on the
/// way stop at 128.
pub const MAX_DEPTH: usize = 64;

/// The longest text. An agent takes a whole desired state of twice this, of which the configuration with
/// its integrations and references is the greater part.
pub const MAX_BYTES: usize = 512 * 1024;

/// A JSON object that is kept as compact text: it is passed through, compared and hashed far more
/// often than looked into. Of one that is too long only the length is kept, or a few of them would fill
/// the operator's memory.
#[derive(Clone, PartialEq, Eq)]
pub struct ConfigDocument {
    text: Arc<str>,
    bytes: usize,
}

/// What stands for a document without anything in it.
const EMPTY: &str = "{}";

/// A key may stand in it by mistake.
impl fmt::Debug for ConfigDocument {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "ConfigDocument({} bytes)", self.bytes)
    }
}

/// Why a document is not passed on.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum ConfigProblem {
    /// More than [`MAX_BYTES`]; holds its size in bytes.
    #[error("it has {0} bytes, but a server takes {MAX_BYTES}; make it smaller")]
    TooLarge(usize),
    /// Deeper than [`MAX_DEPTH`].
    #[error(
        "it has more than {MAX_DEPTH} levels of objects and lists within each other; make it flatter"
    )]
    TooDeep,
    /// A number that no program takes, for example.
    #[error("it holds something that is no JSON for OpenClaw; correct what was added last")]
    Unreadable,
}

impl ConfigDocument {
    fn new(text: &str) -> Self {
        let kept = if text.len() > MAX_BYTES { EMPTY } else { text };
        Self { text: kept.into(), bytes: text.len() }
    }

    /// The JSON text; that of an empty object if it is longer than [`MAX_BYTES`].
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The document as a tree.
    pub fn parse(&self) -> Result<serde_json::Map<String, serde_json::Value>, ConfigProblem> {
        if self.bytes > MAX_BYTES {
            return Err(ConfigProblem::TooLarge(self.bytes));
        }
        if depth(&self.text) > MAX_DEPTH {
            return Err(ConfigProblem::TooDeep);
        }
        serde_json::from_str(&self.text).map_err(|_| ConfigProblem::Unreadable)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes == EMPTY.len()
    }
}

/// The most levels that are open at a time, counted without recursion.
fn depth(json: &str) -> usize {
    let (mut open, mut most) = (0_usize, 0);
    let mut bytes = json.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'{' | b'[' => {
                open += 1;
                most = most.max(open);
            }
            b'}' | b']' => open = open.saturating_sub(1),
            b'"' => {
                // To the end of the string; an escaped character is passed over.
                while let Some(byte) = bytes.next().filter(|byte| *byte != b'"') {
                    if byte == b'\\' {
                        bytes.next();
                    }
                }
            }
            _ => {}
        }
    }
    most
}

impl Default for ConfigDocument {
    fn default() -> Self {
        Self::new(EMPTY)
    }
}

impl From<serde_json::Map<String, serde_json::Value>> for ConfigDocument {
    fn from(map: serde_json::Map<String, serde_json::Value>) -> Self {
        Self::new(&serde_json::Value::Object(map).to_string())
    }
}

impl Serialize for ConfigDocument {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let raw = RawValue::from_string(self.text.to_string()).map_err(ser::Error::custom)?;
        raw.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for ConfigDocument {
    /// Takes any depth, so that an object is readable in which somebody nests without end.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        let text = raw.get();
        if !text.starts_with('{') {
            return Err(de::Error::invalid_type(de::Unexpected::Other("value"), &"a JSON object"));
        }
        Ok(Self::new(text))
    }
}

impl JsonSchema for ConfigDocument {
    fn schema_name() -> Cow<'static, str> {
        "ConfigDocument".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nested(levels: usize) -> ConfigDocument {
        let text = format!("{}1{}", r#"{"a":"#.repeat(levels), "}".repeat(levels));
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn a_document_that_is_too_deep_is_not_passed_on() {
        assert!(nested(MAX_DEPTH).parse().is_ok());
        for levels in [MAX_DEPTH + 1, 130, 60_000] {
            assert_eq!(nested(levels).parse(), Err(ConfigProblem::TooDeep));
        }
    }

    #[test]
    fn a_document_that_no_server_takes_is_refused_with_its_size() {
        let of_length = |length: usize| -> ConfigDocument {
            let text = "x".repeat(length - r#"{"a":""}"#.len());
            serde_json::from_str(&format!(r#"{{"a":"{text}"}}"#)).unwrap()
        };
        assert!(of_length(MAX_BYTES).parse().is_ok());
        let long = of_length(1_400_000);
        assert!(long.as_str().len() < 10, "it is not kept");
        let told = long.parse().unwrap_err().to_string();
        assert_eq!(told, "it has 1400000 bytes, but a server takes 524288; make it smaller");
    }

    #[test]
    fn brackets_in_strings_are_no_levels() {
        let text = format!(r#"{{"a\\\"{{":"{}","b":[]}}"#, "[".repeat(200));
        let document: ConfigDocument = serde_json::from_str(&text).unwrap();
        assert_eq!(depth(document.as_str()), 2);
        assert!(document.parse().is_ok());
    }

    #[test]
    fn a_number_that_no_program_takes_is_told() {
        let document: ConfigDocument = serde_json::from_str(r#"{"a": 1e999}"#).unwrap();
        assert_eq!(document.parse(), Err(ConfigProblem::Unreadable));
    }

    #[test]
    fn what_is_no_object_is_no_document() {
        assert!(serde_json::from_str::<ConfigDocument>("[1]").is_err());
    }

    #[test]
    fn a_document_is_written_as_it_was_read() {
        let text = r#"{"a":{"b":[1,"x"]}}"#;
        let document: ConfigDocument = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&document).unwrap(), text);
        assert_eq!(serde_json::to_value(&document).unwrap()["a"]["b"][1], "x");
    }
}
