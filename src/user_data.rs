//! stub
use moorage_wire::{Secret, bootstrap::Bootstrap, desired::Artifacts};
use crate::{api::pool::SshSpec, cloud::SecretText};
/// s
pub struct UserDataInput<'a> { /// b
 pub bootstrap: &'a Bootstrap, /// t
 pub tunnel_token: &'a Secret, /// a
 pub artifacts: &'a Artifacts, /// s
 pub ssh: Option<&'a SshSpec> }
/// e
#[derive(Debug, thiserror::Error)] #[error("x")] pub struct UserDataError;
/// r
pub fn render(_: &UserDataInput<'_>) -> Result<SecretText, UserDataError> { Err(UserDataError) }
