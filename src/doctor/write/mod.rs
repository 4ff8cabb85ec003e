//! `--write`: makes what Moorage makes, under names of its own, and deletes it again, whatever happens.

pub mod door;
pub mod firewall;
pub mod record;
pub mod tunnel;

use std::net::SocketAddr;

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use super::{
    CloudflareTarget, Finding, HetznerTarget, Target, finding::Check, run_name::RunName, spend,
    traces,
};

/// The run was interrupted.
pub const INTERRUPTED: Check = Check { id: "write.interrupted", title: "Interruption" };

/// How names and the edge are reached, where that is not what the Internet says.
#[derive(Default)]
pub struct Ways {
    /// Dial the edge here.
    pub edge: Option<SocketAddr>,
    /// PEM certificates to trust at the edge beside the system's.
    pub edge_roots: Option<Vec<u8>>,
    /// Ask this name server instead of the zone's own.
    pub name_server: Option<SocketAddr>,
}

/// What a run may do besides looking.
#[derive(Debug, Clone, Copy, Default)]
pub struct Allowed {
    /// Objects that cost nothing.
    pub write: bool,
    /// A server.
    pub spend: bool,
}

/// What one `--write` works with, from the first object that it makes to the last that it deletes.
pub struct Run<'a> {
    pub(super) target: &'a Target,
    pub(super) ways: &'a Ways,
    pub(super) name: RunName,
    pub(super) stop: &'a CancellationToken,
    pub(super) progress: &'a (dyn Fn(&str) + Sync),
}

impl<'a> Run<'a> {
    /// One that begins now and ends early when `stop` says so.
    pub fn new(
        target: &'a Target,
        ways: &'a Ways,
        stop: &'a CancellationToken,
        progress: &'a (dyn Fn(&str) + Sync),
    ) -> Self {
        Self { target, ways, name: RunName::new(Timestamp::now()), stop, progress }
    }

    /// Makes, looks, and deletes. A call is never cut off in the middle, or it could make something after the
    /// deletion: an interruption is seen between two calls.
    pub async fn run(&self, allowed: Allowed) -> Vec<Finding> {
        (self.progress)("deleting what earlier runs have left");
        let mut findings = vec![traces::remove_leftovers(self.target, Timestamp::now()).await];
        if let (Some(hetzner), true) = (&self.target.hetzner, allowed.write) {
            (self.progress)("making a firewall");
            findings.push(firewall::check(self, hetzner).await);
        }
        if let (Some(cloudflare), true) = (&self.target.cloudflare, allowed.write) {
            findings.extend(self.write_at_cloudflare(cloudflare).await);
        }
        if let (Some(hetzner), true) = (&self.target.hetzner, allowed.spend) {
            findings.push(self.spend_at(hetzner).await);
        }
        if self.stop.is_cancelled() {
            findings.push(INTERRUPTED.fail("Not everything was tried", "Run it again"));
        }
        (self.progress)("deleting what was made");
        findings.push(traces::clean_up(self.target, self.name).await);
        findings
    }

    async fn write_at_cloudflare(&self, target: &CloudflareTarget) -> Vec<Finding> {
        (self.progress)("making a tunnel");
        let (finding, tunnel) = tunnel::check(self, target).await;
        let mut findings = vec![finding];
        let Some(tunnel) = tunnel else {
            findings.push(record::RECORD.blocked_by(&tunnel::TUNNEL));
            findings.push(door::DOOR.blocked_by(&tunnel::TUNNEL));
            return findings;
        };
        (self.progress)("making a DNS record, and waiting until it is known");
        let (finding, host) = record::check(self, target, &tunnel).await;
        findings.push(finding);
        match host {
            Some(host) => {
                (self.progress)("making an Access application, and knocking");
                findings.push(door::check(self, target, &host).await);
            }
            None => findings.push(door::DOOR.blocked_by(&record::RECORD)),
        }
        findings
    }

    async fn spend_at(&self, target: &HetznerTarget) -> Finding {
        if self.stop.is_cancelled() {
            return spend::SERVER.unknown("Not tried");
        }
        spend::check(self, target).await
    }

    /// Waits, unless the run is interrupted.
    pub(super) async fn pause(&self, pause: std::time::Duration) {
        self.stop.run_until_cancelled(tokio::time::sleep(pause)).await;
    }
}
