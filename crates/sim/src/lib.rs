//! The clouds that Moorage talks to, on loopback.

pub mod backend;
mod body;
pub mod connector;
pub mod edge;
mod ids;
pub mod openclaw;
pub mod terminal;
pub mod vps;
