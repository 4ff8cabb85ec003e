//! Servers and actions, as Hetzner's API writes them, cut down to what the operator uses.
//! Unknown fields are ignored, unknown enum values kept as text.

use std::net::Ipv4Addr;

use jiff::Timestamp;
use serde::Deserialize;

use super::{Architecture, FirewallId, Labels, SshKeyId};
use crate::cloud::{SecretText, numeric_id, open_enum};

numeric_id!(ServerId);
numeric_id!(ActionId);
numeric_id!(PrimaryIpId);

open_enum!(
    /// What a server is doing.
    ServerStatus {
        Initializing = "initializing",
        Starting = "starting",
        /// Switched on.
        Running = "running",
        Stopping = "stopping",
        /// Switched off; billed all the same.
        Off = "off",
        Deleting = "deleting",
        /// Moving to another host.
        Migrating = "migrating",
        /// Being rebuilt from an image.
        Rebuilding = "rebuilding",
    }
);

open_enum!(
    /// How far an action is.
    ActionStatus {
        Running = "running",
        Success = "success",
        /// Failed; the action says why.
        Error = "error",
    }
);

open_enum!(
    /// Whether a firewall already protects a server.
    FirewallStatus {
        Applied = "applied",
        Pending = "pending",
    }
);

/// A server as Hetzner lists it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Server {
    /// Its id, never used again.
    pub id: ServerId,
    /// Unique in the project.
    pub name: String,
    /// What it is doing.
    pub status: ServerStatus,
    /// When it was made.
    pub created: Timestamp,
    #[serde(default)]
    pub labels: Labels,
    pub server_type: KnownType,
    #[serde(default)]
    pub location: Option<Named>,
    /// Its public addresses and firewalls.
    #[serde(default)]
    pub public_net: PublicNet,
    /// An action is running on it.
    #[serde(default)]
    pub locked: bool,
    /// The rescue system runs instead of its own from the next boot on.
    #[serde(default)]
    pub rescue_enabled: bool,
    /// What it is protected from.
    #[serde(default)]
    pub protection: Protection,
}

/// The type of a server, as the server itself tells it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct KnownType {
    /// The name, such as `cx33`.
    pub name: String,
    #[serde(default)]
    pub architecture: Option<Architecture>,
}

/// Something that is known by its name.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Named {
    /// The name, such as `fsn1`.
    pub name: String,
}

/// A server's public network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct PublicNet {
    /// The IPv4 address, if it has one.
    #[serde(default)]
    pub ipv4: Option<PublicIpv4>,
    /// The IPv6 network, if it has one.
    #[serde(default)]
    pub ipv6: Option<PublicIpv6>,
    /// The firewalls in front of it.
    #[serde(default)]
    pub firewalls: Vec<AppliedFirewall>,
}

/// A server's IPv4 address.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct PublicIpv4 {
    /// The primary IP behind it.
    #[serde(default)]
    pub id: Option<PrimaryIpId>,
    pub ip: Ipv4Addr,
}

/// A server's IPv6 network.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct PublicIpv6 {
    /// The primary IP behind it.
    #[serde(default)]
    pub id: Option<PrimaryIpId>,
    /// The network, such as `2001:db8::/64`.
    pub ip: String,
}

/// A firewall in front of a server.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct AppliedFirewall {
    pub id: FirewallId,
    /// Whether it already protects.
    pub status: FirewallStatus,
}

/// What a server is protected from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub struct Protection {
    #[serde(default)]
    pub delete: bool,
}

/// A server to make. Its user-data may hold one-time secrets, so it prints without them.
#[derive(Debug)]
pub struct CreateServer {
    /// Unique in the project, a valid host name.
    pub name: String,
    /// Such as `cx33`.
    pub server_type: String,
    /// Such as `debian-13`.
    pub image: String,
    /// Such as `fsn1`; the cloud's choice if absent.
    pub location: Option<String>,
    pub labels: Labels,
    /// Keys for root. Without any, Hetzner makes a root password, which the client never reads.
    pub ssh_keys: Vec<SshKeyId>,
    /// What cloud-init reads: at most [`MAX_USER_DATA`] bytes.
    pub user_data: SecretText,
    /// In force before the server boots.
    pub firewalls: Vec<FirewallId>,
    /// A public IPv4 address, which is billed.
    pub enable_ipv4: bool,
    /// A public IPv6 network.
    pub enable_ipv6: bool,
}

/// The most bytes of user-data that Hetzner takes.
pub const MAX_USER_DATA: usize = 32 * 1024;

/// A server that is being made.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct CreatedServer {
    pub server: Server,
    pub action: Action,
    /// What follows, such as starting it.
    #[serde(default)]
    pub next_actions: Vec<Action>,
    /// Whether Hetzner made a root password, which it then mails. The password itself is never read.
    #[serde(rename = "root_password", default, deserialize_with = "is_present")]
    pub has_root_password: bool,
}

fn is_present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    Ok(Option::<serde::de::IgnoredAny>::deserialize(deserializer)?.is_some())
}

/// Work that Hetzner does in the background.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Action {
    pub id: ActionId,
    /// Such as `create_server`.
    pub command: String,
    /// How far it is.
    pub status: ActionStatus,
    /// Percent done.
    #[serde(default)]
    pub progress: u8,
    /// Set once `status` is `Error`.
    #[serde(default)]
    pub error: Option<ActionError>,
}

/// Why an action failed.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct ActionError {
    /// For machines.
    pub code: String,
    /// For people; redacted by the client.
    #[serde(default)]
    pub message: String,
}
