//! Cloudflare: the calls that the operator needs, as a narrow port ([`CloudflareApi`]) and as
//! the real client behind it ([`CloudflareClient`]).
//!
//! Nothing here decides anything: what to make or delete is the planner's business.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod access;
mod client;
mod dns;
mod look;
mod refusal;
#[cfg(test)]
mod tests;
mod tunnel;

use async_trait::async_trait;
use jiff::Timestamp;

use crate::cloud::{CloudError, Deletion, Priority, is_opaque_id, is_uuid, text_id};
use crate::master_key::TunnelSecret;

pub use access::{
    AccessApp, AccessAppId, AccessAppSpec, AccessDestination, AccessPolicy, AccessPolicyId,
    AccessPolicySpec, AccessRule, AttachedPolicy, Decision, IssuedServiceToken, ServiceToken,
    ServiceTokenId, ServiceTokenReference,
};
pub use client::CloudflareClient;
pub use dns::{
    DnsBatch, DnsBatchResult, DnsPatch, DnsRecord, MAX_COMMENT_CHARS, NewDnsRecord, RecordId,
    RecordType, Zone, ZoneAccount, ZoneKind, ZonePlan, ZoneStatus,
};
pub use look::{
    AccountObjects, BotManagement, CertificatePack, Organization, TokenCheck, TokenStatus,
};
pub use tunnel::{
    CreateTunnel, IngressRule, OriginRequest, Tunnel, TunnelConfiguration, TunnelId, TunnelStatus,
    VersionedTunnelConfiguration,
};

/// The root of the public API.
pub const DEFAULT_BASE_URL: &str = "https://api.cloudflare.com/client/v4";

text_id!(
    /// An account's id: 32 hexadecimal digits.
    AccountId, "an account id", is_opaque_id, "letters, digits, `-` and `_`, 64 at most"
);
text_id!(
    /// A zone's id: 32 hexadecimal digits.
    ZoneId, "a zone id", is_opaque_id, "letters, digits, `-` and `_`, 64 at most"
);

/// One Cloudflare account, as the operator sees it. Reads take the priority of whatever they are
/// done for; deletions have [`Priority::Delete`], other writes [`Priority::Normal`].
///
/// No write is ever repeated by an implementation. After an error whose
/// [`outcome`](CloudError::outcome) is unknown the caller observes before it writes again.
pub trait CloudflareApi: TunnelApi + DnsApi + AccessApi {}

impl<T: TunnelApi + DnsApi + AccessApi> CloudflareApi for T {}

/// Tunnels and their routes.
#[async_trait]
pub trait TunnelApi: Send + Sync {
    /// Every live tunnel whose name begins with the prefix. The pages are no transaction: a
    /// tunnel that is missing here is not gone before [`Self::get_tunnel`] says so.
    async fn list_tunnels(
        &self,
        priority: Priority,
        name_prefix: &str,
    ) -> Result<Vec<Tunnel>, CloudError>;

    /// The tunnel, or `None` if there is none or it is deleted (Cloudflare keeps deleted ones).
    async fn get_tunnel(
        &self,
        priority: Priority,
        id: &TunnelId,
    ) -> Result<Option<Tunnel>, CloudError>;

    /// The live tunnel of this name.
    async fn find_tunnel_by_name(
        &self,
        priority: Priority,
        name: &str,
    ) -> Result<Option<Tunnel>, CloudError>;

    /// Makes a tunnel that is configured remotely. Its run token is
    /// [`TunnelSecret::run_token`]: no further call is needed.
    async fn create_tunnel(&self, tunnel: &CreateTunnel<'_>) -> Result<Tunnel, CloudError>;

    /// Deletes a tunnel; [`ResourceInUse`](crate::cloud::ErrorKind::ResourceInUse) while it has
    /// connections.
    async fn delete_tunnel(&self, id: &TunnelId) -> Result<Deletion, CloudError>;

    /// Cuts a tunnel's connections. A connector that holds the current secret comes back.
    async fn delete_tunnel_connections(&self, id: &TunnelId) -> Result<Deletion, CloudError>;

    /// Replaces the secret. The old one opens no new connection; what is open stays open until
    /// [`Self::delete_tunnel_connections`].
    async fn rotate_tunnel_secret(
        &self,
        id: &TunnelId,
        secret: &TunnelSecret,
    ) -> Result<Tunnel, CloudError>;

    /// Gives a tunnel another name. Its connections stay as they are.
    async fn rename_tunnel(&self, id: &TunnelId, name: &str) -> Result<Tunnel, CloudError>;

    /// The tunnel's routes; `None` if there is no such tunnel.
    async fn get_tunnel_configuration(
        &self,
        priority: Priority,
        id: &TunnelId,
    ) -> Result<Option<VersionedTunnelConfiguration>, CloudError>;

    /// Replaces the whole configuration.
    async fn put_tunnel_configuration(
        &self,
        id: &TunnelId,
        configuration: &TunnelConfiguration,
    ) -> Result<VersionedTunnelConfiguration, CloudError>;
}

/// Zones and DNS records.
#[async_trait]
pub trait DnsApi: Send + Sync {
    /// Every DNS record of the zone whose comment begins with the prefix.
    async fn list_dns_records(
        &self,
        priority: Priority,
        zone: &ZoneId,
        comment_prefix: &str,
    ) -> Result<Vec<DnsRecord>, CloudError>;

    /// Every DNS record of this full name, whoever made it.
    async fn find_dns_records_by_name(
        &self,
        priority: Priority,
        zone: &ZoneId,
        name: &str,
    ) -> Result<Vec<DnsRecord>, CloudError>;

    /// Changes records in one transaction: deletes, patches, posts, in this order. An error with
    /// [`Outcome::NotApplied`](crate::cloud::Outcome::NotApplied) means that none of it was
    /// done; if it also [blames the request](CloudError::blames_the_request), a smaller batch
    /// may pass. A batch of deletions alone may use the budget's reserve.
    async fn dns_batch(
        &self,
        zone: &ZoneId,
        batch: &DnsBatch,
    ) -> Result<DnsBatchResult, CloudError>;

    /// The zone; `None` if the token sees no such zone.
    async fn get_zone(&self, priority: Priority, zone: &ZoneId)
    -> Result<Option<Zone>, CloudError>;
}

/// Access applications, reusable policies and service tokens.
#[async_trait]
pub trait AccessApi: Send + Sync {
    /// Every Access application of the account.
    async fn list_access_apps(&self, priority: Priority) -> Result<Vec<AccessApp>, CloudError>;

    /// Makes a self-hosted application.
    async fn create_access_app(&self, app: &AccessAppSpec) -> Result<AccessApp, CloudError>;

    /// Replaces a self-hosted application.
    async fn update_access_app(
        &self,
        id: &AccessAppId,
        app: &AccessAppSpec,
    ) -> Result<AccessApp, CloudError>;

    async fn delete_access_app(&self, id: &AccessAppId) -> Result<Deletion, CloudError>;

    /// Every reusable policy of the account.
    async fn list_access_policies(
        &self,
        priority: Priority,
    ) -> Result<Vec<AccessPolicy>, CloudError>;

    /// Makes a reusable policy.
    async fn create_access_policy(
        &self,
        policy: &AccessPolicySpec,
    ) -> Result<AccessPolicy, CloudError>;

    /// Replaces a reusable policy.
    async fn update_access_policy(
        &self,
        id: &AccessPolicyId,
        policy: &AccessPolicySpec,
    ) -> Result<AccessPolicy, CloudError>;

    /// Deletes a reusable policy.
    async fn delete_access_policy(&self, id: &AccessPolicyId) -> Result<Deletion, CloudError>;

    /// Every service token of the account, without its secret.
    async fn list_service_tokens(
        &self,
        priority: Priority,
    ) -> Result<Vec<ServiceToken>, CloudError>;

    /// Makes a service token; its secret is shown this once. `duration` in Cloudflare's form,
    /// such as `8760h`.
    async fn create_service_token(
        &self,
        name: &str,
        duration: &str,
    ) -> Result<IssuedServiceToken, CloudError>;

    /// Gives a service token a new secret, shown this once. The previous secret is good until
    /// then; with `None` it ends at once.
    async fn rotate_service_token(
        &self,
        id: &ServiceTokenId,
        previous_secret_expires_at: Option<Timestamp>,
    ) -> Result<IssuedServiceToken, CloudError>;

    async fn delete_service_token(&self, id: &ServiceTokenId) -> Result<Deletion, CloudError>;
}
