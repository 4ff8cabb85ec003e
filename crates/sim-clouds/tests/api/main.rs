//! The clouds' behaviour over HTTP, on loopback. Every test has a simulator of its own.

#![allow(clippy::unwrap_used)]

mod admin;
mod cloudflare_access;
mod cloudflare_dns;
mod cloudflare_setup;
mod cloudflare_tunnels;
mod edge;
mod faults;
mod hetzner_firewalls;
mod hetzner_lists;
mod hetzner_servers;
mod lab;
mod limits;
