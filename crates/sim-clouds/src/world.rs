//! Everything one simulator holds: both clouds, the journal, the faults, the timings and the
//! backend behind the servers.

use std::sync::Arc;
use std::time::Duration;

use crate::backend::VpsBackend;
use crate::cloudflare::CloudflareState;
use crate::faults::Faults;
use crate::hetzner::HetznerState;
use crate::journal::Journal;

/// How long the clouds take. All of it is wall time.
#[derive(Debug, Clone, Copy)]
pub struct Timings {
    /// How long a Hetzner action runs, and each step of a server's start (initializing, starting).
    pub action: Duration,
    /// How long a firewall still counts as in use after its last server is gone.
    pub firewall_release: Duration,
    /// Multiplies every period of the rate limits: 0.01 turns Cloudflare's five minutes into three
    /// seconds and makes Hetzner's bucket refill a hundred times as fast.
    pub rate_limit_scale: f64,
}

impl Default for Timings {
    fn default() -> Self {
        Self {
            action: Duration::from_millis(400),
            firewall_release: Duration::from_secs(2),
            rate_limit_scale: 1.0,
        }
    }
}

/// What all listeners of a simulator share.
pub struct World {
    pub hetzner: HetznerState,
    /// The Cloudflare accounts and zones.
    pub cloudflare: CloudflareState,
    /// Every request so far.
    pub journal: Journal,
    /// What goes wrong on purpose.
    pub faults: Faults,
    /// How long things take.
    pub timings: Timings,
    /// What stands behind the servers.
    pub backend: Arc<dyn VpsBackend>,
}

impl World {
    /// An empty world: no project, no account, nothing but the catalogue.
    pub fn new(backend: Arc<dyn VpsBackend>, timings: Timings) -> Arc<Self> {
        Self::behind_edge(CloudflareState::default(), backend, timings)
    }

    /// An empty world whose Cloudflare half an edge knows already.
    pub fn behind_edge(
        cloudflare: CloudflareState,
        backend: Arc<dyn VpsBackend>,
        timings: Timings,
    ) -> Arc<Self> {
        Arc::new(Self {
            hetzner: HetznerState::default(),
            cloudflare,
            journal: Journal::default(),
            faults: Faults::default(),
            timings,
            backend,
        })
    }
}
