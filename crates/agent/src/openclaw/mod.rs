//! `OpenClaw` as seen from the agent: its command line, its health endpoints, its configuration file.
//! All that touches its home runs through here and through the vault.

pub(crate) mod cli;
pub(crate) mod config;
pub(crate) mod health;
