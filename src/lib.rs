//! The Moorage operator: custom resources in, customers' servers out.
//!
//! Data flows one way: observe → plan → apply → status.

pub mod api;
pub mod cli;
pub mod cloud;
pub mod cloudflare;
pub mod credentials;
pub mod hetzner;
pub mod master_key;
pub mod master_key_store;
