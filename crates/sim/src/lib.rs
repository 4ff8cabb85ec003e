//! The clouds that Moorage talks to, on loopback: Hetzner Cloud v1 and Cloudflare v4 over HTTP,
//! with their limits, their delays and their faults, and an admin API to make tenants, read the
//! journal of requests and break things on purpose. Behind them: Cloudflare's edge, and servers that
//! are processes.
//!
//! Nothing here knows the operator. Both clouds are written from the vendors' documentation and
//! are checked with the vendors' own SDKs (`sdk-tests/`).

pub mod admin;
pub mod backend;
mod body;
pub mod cloudflare;
pub mod connector;
pub mod edge;
pub mod faults;
mod gateway;
pub mod hetzner;
mod ids;
pub mod journal;
mod json_lines;
mod listener;
pub mod openclaw;
mod query;
pub mod ratelimit;
mod registration;
pub mod serve;
pub mod terminal;
pub mod vps;
pub mod world;

pub use backend::{BackendError, NoBackend, PowerAction, ServerBoot, VpsBackend};
pub use cloudflare::CloudflareState;
pub use serve::{ListenAddresses, Simulator};
pub use world::{Timings, World};
