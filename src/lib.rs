//! The Moorage operator: custom resources in, customers' servers out.
//!
//! Data flows one way: observe → plan → apply → status.

pub mod admission;
pub mod admission_policy;
pub mod agent;
pub mod api;
pub mod api_server;
mod certificate_roots;
pub mod cidr;
pub mod cli;
pub mod clock;
pub mod cloud;
pub mod cloudflare;
pub mod cluster;
pub mod controller;
pub mod credentials;
pub mod dns;
pub mod doctor;
mod fair;
pub mod hetzner;
pub mod http;
pub mod instance;
pub mod inventory;
pub mod leader;
pub mod master_key;
pub mod master_key_store;
pub mod master_keys;
pub mod metrics;
pub mod names;
pub mod openclaw;
pub mod orphans;
pub mod ownership;
pub mod pool;
pub mod problem;
pub mod randomness;
pub mod release;
pub mod telemetry;
pub mod user_data;

/// Of `crates/simulation`, which is made of the same sources.
#[cfg(test)]
fn main() -> std::process::ExitCode {
    controller::instance::simulation::lives::main()
}
