//! What a pass over a pool reads: one list per kind of object, fewer when nothing suggests a change.

use crate::{
    cloud::{CloudError, Priority},
    cloudflare::{AccessApp, AccessPolicy, CloudflareApi, ServiceToken, Zone, ZoneId},
    hetzner::{Firewall, HetznerApi, ServerType, SshKey},
};

use crate::pool::identity::PoolIdentity;

/// The clouds of a pool.
#[derive(Clone, Copy)]
pub struct Clouds<'a> {
    /// The pool's Hetzner project.
    pub hetzner: &'a dyn HetznerApi,
    /// The pool's Cloudflare account.
    pub cloudflare: &'a dyn CloudflareApi,
}

/// What every pass sees: three calls.
#[derive(Debug, Clone)]
pub struct Glance {
    /// Firewalls with the pool's labels.
    pub firewalls: Vec<Firewall>,
    /// SSH keys with the pool's labels.
    pub ssh_keys: Vec<SshKey>,
    /// All Access applications of the account.
    pub apps: Vec<AccessApp>,
}

/// What a pass sees besides, when something changed or may have.
#[derive(Debug, Clone)]
pub struct AccessObjects {
    /// All reusable policies of the account.
    pub policies: Vec<AccessPolicy>,
    /// All service tokens of the account.
    pub tokens: Vec<ServiceToken>,
}

/// Costs three calls.
pub async fn glance(clouds: Clouds<'_>, identity: &PoolIdentity) -> Result<Glance, CloudError> {
    let selector = identity.selector();
    let priority = Priority::Normal;
    Ok(Glance {
        firewalls: clouds.hetzner.list_firewalls(priority, &selector).await?,
        ssh_keys: clouds.hetzner.list_ssh_keys(priority, &selector).await?,
        apps: clouds.cloudflare.list_access_apps(priority).await?,
    })
}

/// Costs two calls.
pub async fn access_objects(clouds: Clouds<'_>) -> Result<AccessObjects, CloudError> {
    Ok(AccessObjects {
        policies: clouds.cloudflare.list_access_policies(Priority::Normal).await?,
        tokens: clouds.cloudflare.list_service_tokens(Priority::Normal).await?,
    })
}

/// Costs one call.
pub async fn server_types(clouds: Clouds<'_>) -> Result<Vec<ServerType>, CloudError> {
    clouds.hetzner.server_types(Priority::Normal).await
}

/// Costs one call. `None` if the token does not see such a zone.
pub async fn zone(clouds: Clouds<'_>, zone: &ZoneId) -> Result<Option<Zone>, CloudError> {
    clouds.cloudflare.get_zone(Priority::Normal, zone).await
}
