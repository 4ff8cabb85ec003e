//! Hetzner Cloud: the calls that the operator needs, as a narrow port ([`HetznerApi`]) and as
//! the real client behind it ([`HetznerClient`]).
//!
//! Nothing here decides anything: what to make or delete is the planner's business.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod catalogue;
mod client;
mod firewall;
mod labels;
mod look;
mod refusal;
mod server;
mod ssh_key;
#[cfg(test)]
mod tests;

use async_trait::async_trait;

use crate::cloud::{CloudError, Deletion, Priority};

pub use catalogue::{Architecture, Deprecation, ServerType, ServerTypeLocation};
pub use client::HetznerClient;
pub use firewall::{
    CreateFirewall, Direction, Firewall, FirewallId, FirewallRule, FirewallServer, FirewallTarget,
    Protocol,
};
pub use labels::{LabelSelector, Labels};
pub use look::{Allowance, Image, Location};
pub use refusal::{blames_the_place, blames_the_type};
pub use server::{
    Action, ActionError, ActionId, ActionStatus, AppliedFirewall, CreateServer, CreatedServer,
    FirewallStatus, KnownType, MAX_USER_DATA, Named, PrimaryIpId, Protection, PublicIpv4,
    PublicIpv6, PublicNet, Server, ServerId, ServerStatus,
};
pub use ssh_key::{CreateSshKey, SshKey, SshKeyId, openssh_ed25519};

/// The root of the public API.
pub const DEFAULT_BASE_URL: &str = "https://api.hetzner.cloud/v1";

/// One Hetzner project, as the operator sees it. Reads take the priority of whatever they are
/// done for; deletions have [`Priority::Delete`], other writes [`Priority::Normal`].
///
/// No write is ever repeated by an implementation. After an error whose
/// [`outcome`](CloudError::outcome) is unknown the caller observes before it writes again.
#[async_trait]
pub trait HetznerApi: Send + Sync {
    /// Every server that the selector matches. The pages are no transaction: an object that is
    /// missing here is not gone before [`Self::get_server`] says so.
    async fn list_servers(
        &self,
        priority: Priority,
        selector: &LabelSelector,
    ) -> Result<Vec<Server>, CloudError>;

    /// The server, or `None` if the API itself says that there is none.
    async fn get_server(
        &self,
        priority: Priority,
        id: ServerId,
    ) -> Result<Option<Server>, CloudError>;

    /// The server of this name.
    async fn find_server_by_name(
        &self,
        priority: Priority,
        name: &str,
    ) -> Result<Option<Server>, CloudError>;

    /// Orders a server. [`Conflict::NameTaken`](crate::cloud::Conflict::NameTaken) may mean that
    /// an earlier, unanswered call made it.
    async fn create_server(&self, server: &CreateServer) -> Result<CreatedServer, CloudError>;

    /// Switches a server on. That it is on already is no error.
    async fn power_on(&self, id: ServerId) -> Result<Action, CloudError>;

    /// The actions on a server that failed.
    async fn failed_actions(
        &self,
        priority: Priority,
        id: ServerId,
    ) -> Result<Vec<Action>, CloudError>;

    /// Deletes a server, with the primary IPs that were made for it.
    async fn delete_server(&self, id: ServerId) -> Result<Deletion<Option<Action>>, CloudError>;

    /// Replaces the server's whole label map.
    async fn update_server_labels(
        &self,
        id: ServerId,
        labels: &Labels,
    ) -> Result<Server, CloudError>;

    /// Every firewall that the selector matches.
    async fn list_firewalls(
        &self,
        priority: Priority,
        selector: &LabelSelector,
    ) -> Result<Vec<Firewall>, CloudError>;

    async fn create_firewall(&self, firewall: &CreateFirewall) -> Result<Firewall, CloudError>;

    /// Replaces a firewall's rules.
    async fn set_firewall_rules(
        &self,
        id: FirewallId,
        rules: &[FirewallRule],
    ) -> Result<Vec<Action>, CloudError>;

    /// Puts a firewall in front of a server. That it is there already is no error.
    async fn apply_firewall(
        &self,
        id: FirewallId,
        server: ServerId,
    ) -> Result<Vec<Action>, CloudError>;

    /// Deletes a firewall; [`ResourceInUse`](crate::cloud::ErrorKind::ResourceInUse) can last a
    /// while after its last server has gone.
    async fn delete_firewall(&self, id: FirewallId) -> Result<Deletion, CloudError>;

    /// The catalogue: which types exist, where, and what is in stock.
    async fn server_types(&self, priority: Priority) -> Result<Vec<ServerType>, CloudError>;

    /// Every SSH key that the selector matches.
    async fn list_ssh_keys(
        &self,
        priority: Priority,
        selector: &LabelSelector,
    ) -> Result<Vec<SshKey>, CloudError>;

    /// Adds an SSH key.
    async fn create_ssh_key(&self, key: &CreateSshKey) -> Result<SshKey, CloudError>;

    /// Removes an SSH key; servers that have it keep it.
    async fn delete_ssh_key(&self, id: SshKeyId) -> Result<Deletion, CloudError>;
}
