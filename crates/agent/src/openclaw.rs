//! `OpenClaw` as seen from the agent: its health endpoints, and what its configuration should be. Its
//! files and its command line are the worker's.

pub(crate) mod config;
pub(crate) mod health;
