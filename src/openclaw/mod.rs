//! stub
use std::collections::BTreeMap;
use moorage_wire::{CredentialName, CredentialType};
use serde_json::{Map, Value};
/// stub
pub struct RenderInput<'a> { /// c
 pub config: &'a Map<String, Value>, /// u
 pub dashboard_url: &'a str, /// c
 pub credentials: &'a BTreeMap<CredentialName, CredentialType> }
/// stub
pub fn render(_: &RenderInput<'_>) -> Value { Value::Null }
/// stub
#[derive(Debug, thiserror::Error)] #[error("x")] pub struct ConfigRefusal;
impl ConfigRefusal { /// r
 pub fn reason(&self) -> &'static str { "" } }
/// stub
pub fn check(_: &Map<String, Value>) -> Result<(), Vec<ConfigRefusal>> { Ok(()) }
