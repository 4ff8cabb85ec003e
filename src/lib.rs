//! The Moorage operator: custom resources in, customers' servers out.
//!
//! Data flows one way: observe → plan → apply → status.

pub mod api;
pub mod cloud;
pub mod cloudflare;
pub mod hetzner;
