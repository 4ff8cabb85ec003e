//! DNS changes of many instances in shared batches.

use std::sync::Arc;

use crate::cloudflare::{CloudflareApi, ZoneId};

/// The queue of one zone.
pub struct DnsQueue {
    cloudflare: Arc<dyn CloudflareApi>,
    zone: ZoneId,
}

impl DnsQueue {
    /// An empty queue. Must be called within a tokio runtime.
    pub fn new(cloudflare: Arc<dyn CloudflareApi>, zone: ZoneId) -> Self {
        Self { cloudflare, zone }
    }

    /// The zone.
    pub fn zone(&self) -> &ZoneId {
        let _ = &self.cloudflare;
        &self.zone
    }
}
