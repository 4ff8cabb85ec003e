//! x

pub mod cloud;
pub mod cloudflare;
pub mod hetzner;
