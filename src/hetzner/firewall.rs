//! Firewalls, as Hetzner's API writes them.

use serde::{Deserialize, Serialize};

use super::{Labels, ServerId};
use crate::cloud::{numeric_id, open_enum};

numeric_id!(FirewallId);
open_enum!(
    /// The direction of traffic that a rule allows.
    Direction {
        In = "in",
        Out = "out",
    }
);

open_enum!(
    /// The protocol that a rule allows.
    Protocol {
        Tcp = "tcp",
        Udp = "udp",
            Icmp = "icmp",
        Esp = "esp",
        Gre = "gre",
    }
);

/// A firewall: inbound traffic is dropped unless an `in` rule allows it; outbound is free
/// unless there is an `out` rule.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Firewall {
    pub id: FirewallId,
    /// Unique in the project.
    pub name: String,
    #[serde(default)]
    pub labels: Labels,
    #[serde(default)]
    pub rules: Vec<FirewallRule>,
    /// What it stands in front of.
    #[serde(default)]
    pub applied_to: Vec<FirewallTarget>,
}

/// What a firewall stands in front of; kept to tell an unused firewall from a used one.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct FirewallTarget {
    /// `server` or `label_selector`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The server, if it is one.
    #[serde(default)]
    pub server: Option<FirewallServer>,
}

/// A server named by a firewall.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct FirewallServer {
    pub id: ServerId,
}

/// One kind of traffic that is allowed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FirewallRule {
    /// To or from the server.
    pub direction: Direction,
    pub protocol: Protocol,
    /// A port or a range `from-to`; absent for ICMP, ESP and GRE.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<String>,
    /// Networks that traffic to the server may come from.
    #[serde(default)]
    pub source_ips: Vec<String>,
    /// Networks that traffic from the server may go to.
    #[serde(default)]
    pub destination_ips: Vec<String>,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

/// A firewall to make.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CreateFirewall {
    /// Unique in the project.
    pub name: String,
    pub labels: Labels,
    /// What it allows; empty = nothing comes in.
    pub rules: Vec<FirewallRule>,
}
