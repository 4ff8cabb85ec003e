//! `openclaw.json`: what a customer may put into it, and the document that is sent to the server.
//! Configuration is data here: a JSON tree that is checked, merged and serialized, never text.
//!
//! The customer's keys never stand in it. Wherever OpenClaw takes a key, the document holds a
//! reference into the one secrets file of the server (OpenClaw's `file` provider, `mode: json`); the
//! customer writes `{credentialRef: NAME}` there, or nothing where the credential's type says enough.

mod check;
mod gateway;
pub mod keys;
mod places;
mod references;
mod refusal;
mod render;

pub use check::check;
pub use references::Named;
pub use refusal::{ConfigRefusal, told};
pub use render::{RenderInput, render};

/// The name of Moorage's file provider in the document.
pub const PROVIDER: &str = "moorage";

#[cfg(test)]
mod tests;
