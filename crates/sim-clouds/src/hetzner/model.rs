//! The answers of the Hetzner API as types: what a client reads. What the simulator keeps to make
//! them is in `project`.

// The fields have the names that the API gives them.
#![allow(clippy::struct_field_names)]

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::labels::Labels;

/// Hetzner's words for what a server is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ServerStatus {
    Initializing,
    Starting,
    Running,
    Stopping,
    Off,
    Deleting,
    Migrating,
    Rebuilding,
    Unknown,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ActionStatus {
    Running,
    Success,
    Error,
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct Action {
    pub(crate) id: u64,
    pub(crate) command: String,
    pub(crate) status: ActionStatus,
    pub(crate) progress: u8,
    pub(crate) started: Timestamp,
    pub(crate) finished: Option<Timestamp>,
    pub(crate) resources: Vec<Resource>,
    pub(crate) error: Option<ActionErrorBody>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Resource {
    pub(crate) id: u64,
    #[serde(rename = "type")]
    pub(crate) kind: &'static str,
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct ActionErrorBody {
    pub(crate) code: String,
    pub(crate) message: String,
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct Server {
    pub(crate) id: u64,
    pub(crate) name: String,
    pub(crate) status: ServerStatus,
    pub(crate) created: Timestamp,
    pub(crate) public_net: PublicNet,
    pub(crate) private_net: Vec<()>,
    pub(crate) server_type: ServerType,
    pub(crate) location: Location,
    pub(crate) image: Option<Image>,
    pub(crate) iso: Option<()>,
    pub(crate) rescue_enabled: bool,
    pub(crate) locked: bool,
    pub(crate) backup_window: Option<String>,
    pub(crate) outgoing_traffic: u64,
    pub(crate) ingoing_traffic: u64,
    pub(crate) included_traffic: u64,
    pub(crate) protection: Protection,
    pub(crate) labels: Labels,
    pub(crate) volumes: Vec<u64>,
    pub(crate) load_balancers: Vec<u64>,
    pub(crate) primary_disk_size: u32,
    pub(crate) placement_group: Option<()>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Protection {
    pub(crate) delete: bool,
    pub(crate) rebuild: bool,
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct PublicNet {
    pub(crate) ipv4: Option<Ipv4>,
    pub(crate) ipv6: Option<Ipv6>,
    pub(crate) floating_ips: Vec<u64>,
    pub(crate) firewalls: Vec<AppliedFirewall>,
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct Ipv4 {
    pub(crate) id: u64,
    pub(crate) ip: String,
    pub(crate) blocked: bool,
    pub(crate) dns_ptr: String,
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct Ipv6 {
    pub(crate) id: u64,
    pub(crate) ip: String,
    pub(crate) blocked: bool,
    pub(crate) dns_ptr: Vec<DnsPtr>,
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct DnsPtr {
    pub(crate) ip: String,
    pub(crate) dns_ptr: String,
}

#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct AppliedFirewall {
    pub(crate) id: u64,
    pub(crate) status: FirewallStatus,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum FirewallStatus {
    Applied,
    Pending,
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct Location {
    pub(crate) id: u64,
    pub(crate) name: &'static str,
    pub(crate) description: &'static str,
    pub(crate) country: &'static str,
    pub(crate) city: &'static str,
    pub(crate) latitude: f64,
    pub(crate) longitude: f64,
    pub(crate) network_zone: &'static str,
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct ServerType {
    pub(crate) id: u64,
    pub(crate) name: &'static str,
    pub(crate) description: String,
    pub(crate) category: &'static str,
    pub(crate) cores: u32,
    pub(crate) memory: f64,
    pub(crate) disk: u32,
    pub(crate) storage_type: &'static str,
    pub(crate) cpu_type: &'static str,
    pub(crate) architecture: &'static str,
    pub(crate) deprecated: bool,
    pub(crate) deprecation: Option<Deprecation>,
    pub(crate) prices: Vec<Price>,
    pub(crate) locations: Vec<ServerTypeLocation>,
}

#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Deprecation {
    pub(crate) announced: &'static str,
    pub(crate) unavailable_after: &'static str,
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct Price {
    pub(crate) location: &'static str,
    pub(crate) price_hourly: Money,
    pub(crate) price_monthly: Money,
    pub(crate) included_traffic: u64,
    pub(crate) price_per_tb_traffic: Money,
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct Money {
    pub(crate) net: String,
    pub(crate) gross: String,
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct ServerTypeLocation {
    pub(crate) id: u64,
    pub(crate) name: &'static str,
    pub(crate) deprecation: Option<Deprecation>,
    pub(crate) available: bool,
    pub(crate) recommended: bool,
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct Image {
    pub(crate) id: u64,
    #[serde(rename = "type")]
    pub(crate) kind: &'static str,
    pub(crate) status: &'static str,
    pub(crate) name: Option<String>,
    pub(crate) description: String,
    pub(crate) image_size: Option<f64>,
    pub(crate) disk_size: u32,
    pub(crate) created: Timestamp,
    pub(crate) created_from: Option<CreatedFrom>,
    pub(crate) bound_to: Option<u64>,
    pub(crate) os_flavor: &'static str,
    pub(crate) os_version: Option<&'static str>,
    pub(crate) rapid_deploy: bool,
    pub(crate) protection: ImageProtection,
    pub(crate) deprecated: Option<Timestamp>,
    pub(crate) deleted: Option<Timestamp>,
    pub(crate) labels: Labels,
    pub(crate) architecture: &'static str,
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct CreatedFrom {
    pub(crate) id: u64,
    pub(crate) name: String,
}

#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(crate) struct ImageProtection {
    pub(crate) delete: bool,
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct SshKey {
    pub(crate) id: u64,
    pub(crate) name: String,
    pub(crate) fingerprint: String,
    pub(crate) public_key: String,
    pub(crate) labels: Labels,
    pub(crate) created: Timestamp,
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct Firewall {
    pub(crate) id: u64,
    pub(crate) name: String,
    pub(crate) labels: Labels,
    pub(crate) created: Timestamp,
    pub(crate) rules: Vec<Rule>,
    pub(crate) applied_to: Vec<AppliedTo>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rule {
    #[serde(default)]
    pub(crate) description: Option<String>,
    pub(crate) direction: Direction,
    pub(crate) protocol: Protocol,
    #[serde(default)]
    pub(crate) port: Option<String>,
    #[serde(default)]
    pub(crate) source_ips: Vec<String>,
    #[serde(default)]
    pub(crate) destination_ips: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Direction {
    In,
    Out,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Protocol {
    Tcp,
    Udp,
    Icmp,
    Esp,
    Gre,
}

#[derive(Debug, Clone, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum AppliedTo {
    Server { server: ServerRef },
    LabelSelector { label_selector: SelectorRef, applied_to_resources: Vec<AppliedToServer> },
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct AppliedToServer {
    #[serde(rename = "type")]
    pub(crate) kind: &'static str,
    pub(crate) server: ServerRef,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ServerRef {
    pub(crate) id: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SelectorRef {
    pub(crate) selector: String,
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct PrimaryIp {
    pub(crate) id: u64,
    pub(crate) name: String,
    #[serde(rename = "type")]
    pub(crate) kind: &'static str,
    pub(crate) ip: String,
    pub(crate) labels: Labels,
    pub(crate) created: Timestamp,
    pub(crate) blocked: bool,
    pub(crate) auto_delete: bool,
    pub(crate) assignee_id: Option<u64>,
    pub(crate) assignee_type: &'static str,
    pub(crate) dns_ptr: Vec<DnsPtr>,
    pub(crate) protection: ImageProtection,
    pub(crate) location: Location,
}
