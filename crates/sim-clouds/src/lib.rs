//! The clouds that Moorage talks to, on loopback: Hetzner Cloud v1 and Cloudflare v4 over HTTP,
//! with their limits, their delays and their faults, and an admin API to make tenants, read the
//! journal of requests and break things on purpose. With them Cloudflare's edge, where the tunnels end.
//!
//! Nothing here knows the operator, or what a server is: a [`VpsBackend`] boots them. Both clouds are
//! written from the vendors' documentation and are checked with the vendors' own SDKs
//! (`crates/sim/sdk-tests`).

pub mod admin;
mod backend;
pub mod cloudflare;
pub mod edge;
pub mod faults;
mod gateway;
pub mod hetzner;
pub mod ids;
pub mod journal;
pub mod listener;
mod query;
pub mod ratelimit;
pub mod serve;
pub mod world;

pub use backend::{BackendError, NoBackend, PowerAction, ServerBoot, VpsBackend};
pub use cloudflare::CloudflareState;
pub use serve::{ListenAddresses, Simulator};
pub use world::{Timings, World};
