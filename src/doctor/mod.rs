//! `moorage doctor`: whether the clouds, the edge, a release and the cluster are as Moorage needs them.
//!
//! Each area has a file with what is checked, as pure functions from what was seen to findings; [`look`] asks.
//! `write` and `spend` do more than ask, and only if they are told to.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod artifacts;
pub mod cloudflare;
pub mod cluster;
pub mod edge;
pub mod finding;
pub mod hetzner;
pub mod look;
pub mod name_server;
pub mod operator;
pub mod run_name;
pub mod spend;
pub mod traces;
pub mod web;
pub mod write;

use crate::{cloudflare::CloudflareClient, cloudflare::ZoneId, hetzner::HetznerClient};

pub use finding::{Check, Finding, Verdict};

/// A Hetzner project to look at.
pub struct HetznerTarget {
    /// Its client.
    pub client: HetznerClient,
    /// The host of the API.
    pub endpoint: url::Url,
    /// What is wanted of it.
    pub wanted: hetzner::Wanted,
}

/// A Cloudflare account and zone to look at.
pub struct CloudflareTarget {
    /// Its client.
    pub client: CloudflareClient,
    /// The host of the API.
    pub endpoint: url::Url,
    /// The zone.
    pub zone: ZoneId,
    /// What is wanted of them.
    pub wanted: cloudflare::Wanted,
}

/// All that is looked at.
#[derive(Default)]
pub struct Target {
    /// The project, if a token is given.
    pub hetzner: Option<HetznerTarget>,
    /// The account, if a token is given.
    pub cloudflare: Option<CloudflareTarget>,
    /// What servers fetch.
    pub artifacts: Vec<artifacts::Artifact>,
    /// The architectures of the releases that are given.
    pub released: Vec<String>,
}

/// The worst of some findings.
pub fn worst(findings: &[Finding]) -> Verdict {
    findings.iter().map(|finding| finding.verdict).max().unwrap_or(Verdict::Pass)
}
