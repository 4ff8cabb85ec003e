//! `HostingPool`: where servers are made, with which accounts, and for whom.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    guarded::{Fields, Stored},
    names::{
        AllowedNamespace, BudgetGroup, Cidr, CloudflareAccount, CloudflareZone, Domain, Image,
        Location, ReleaseName, ReservedHostname, SecretKey, SecretName, ServerType, SshPublicKey,
        SshUser,
    },
    reserved_users,
};

/// One Hetzner project with one Cloudflare account and zone.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "moorage.dev",
    version = "v1alpha1",
    kind = "HostingPool",
    plural = "hostingpools",
    doc = "One Hetzner project with one Cloudflare account and zone: where servers are made",
    shortname = "hpool",
    category = "moorage",
    status = "HostingPoolStatus",
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].status"
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].reason"
    ),
    printcolumn(name = "Domain", type_ = "string", json_path = ".spec.cloudflare.domain"),
    printcolumn(name = "Instances", type_ = "integer", json_path = ".status.instances"),
    printcolumn(name = "Capacity", type_ = "integer", json_path = ".spec.capacity"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("self.metadata.name.size() <= 63")
        .message("metadata.name must be at most 63 characters: it becomes a label of the servers")
)]
#[serde(rename_all = "camelCase")]
pub struct HostingPoolSpec {
    /// The Hetzner project that the servers are made in.
    pub hetzner: HetznerSpec,
    /// The Cloudflare account and zone.
    pub cloudflare: CloudflareSpec,
    /// The most instances that this pool takes.
    #[schemars(range(min = 0, max = 10_000))]
    pub capacity: u32,
    /// The most instances of one namespace; no limit of its own if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 10_000))]
    pub max_instances_per_namespace: Option<u32>,
    /// Namespaces whose instances may use this pool; `*` for all. Nobody if empty.
    #[serde(default)]
    #[schemars(length(max = 1000), extend("x-kubernetes-list-type" = "set"))]
    pub allowed_namespaces: Vec<AllowedNamespace>,
    /// Host names that no instance may take, besides those that are taken by other DNS records.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1000), extend("x-kubernetes-list-type" = "set"))]
    pub reserved_hostnames: Vec<ReservedHostname>,
    /// The `OpenClawRelease`s that instances of this pool may run; all if empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), extend("x-kubernetes-list-type" = "set"))]
    pub allowed_releases: Vec<ReleaseName>,
    /// What becomes of what is in the clouds under this installation's id and belongs to no instance or
    /// pool.
    #[serde(default)]
    pub orphan_policy: OrphanPolicy,
    /// The `OpenClawRelease` of instances that name none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_release: Option<ReleaseName>,
}

impl Stored for HostingPool {
    type Spec = HostingPoolSpec;
    type Status = HostingPoolStatus;

    fn of_parts(
        metadata: ObjectMeta,
        spec: HostingPoolSpec,
        status: Option<HostingPoolStatus>,
    ) -> Self {
        Self { metadata, spec, status }
    }

    fn names_cloud_objects(status: &Fields<'_>) -> bool {
        status.has("firewallId") || status.has("access")
    }
}

/// A Hetzner project and what is made in it.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct HetznerSpec {
    /// The project's API token (read and write), in the operator's namespace.
    pub token_secret_ref: TokenSecretRef,
    /// Server types in order of preference; the next is tried when one is out of stock.
    #[schemars(length(min = 1, max = 20))]
    pub server_types: Vec<ServerType>,
    /// Locations in order of preference.
    #[schemars(length(min = 1, max = 20))]
    pub locations: Vec<Location>,
    /// The image that servers boot.
    #[serde(default = "default_image")]
    pub image: Image,
    /// A way in when the tunnel is down; closed by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ssh: Option<SshSpec>,
    /// Pools that share a Hetzner project name the same group; the pool's own name by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget_group: Option<BudgetGroup>,
}

fn default_image() -> Image {
    "debian-13".parse().expect("a constant name")
}

/// The most characters that all SSH keys of a pool have together: user-data has 32,768 bytes for
/// everything.
pub const MOST_SSH_KEY_TEXT: usize = 10_240;

/// SSH as a fallback.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, PartialEq, Eq)]
#[x_kube(validation = Rule::new(format!("self.keys.map(key, key.size()).sum() <= {MOST_SSH_KEY_TEXT}"))
    .message("ssh.keys are at most 10240 characters together, or user-data has no room for them; use Ed25519 keys"))]
#[serde(rename_all = "camelCase")]
pub struct SshSpec {
    /// The user to log in as; none of the system's own.
    #[x_kube(validation = Rule::new(reserved_users::rule())
        .message("ssh.user must be none of the system's own users or groups, such as root"))]
    pub user: SshUser,
    /// Public keys in OpenSSH's format.
    #[schemars(length(min = 1, max = 20))]
    pub keys: Vec<SshPublicKey>,
    /// Networks in CIDR notation that reach port 22; nobody if empty.
    #[serde(default)]
    #[schemars(length(max = 50))]
    pub allow_from: Vec<Cidr>,
}

/// The most characters of a domain: `*-mgmt.` and the domain are that of an Access application, which has
/// at most 63.
pub const MOST_DOMAIN: usize = 56;

/// A Cloudflare account and zone.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, PartialEq, Eq)]
#[x_kube(validation = Rule::new(format!("self.domain.size() <= {MOST_DOMAIN}"))
    .message("domain is at most 56 characters: with *-mgmt. before it, it is the domain of an Access application, which has at most 63"))]
#[serde(rename_all = "camelCase")]
pub struct CloudflareSpec {
    /// The account's API token, in the operator's namespace.
    pub token_secret_ref: TokenSecretRef,
    /// Id of the Cloudflare account, 32 hexadecimal characters.
    pub account_id: CloudflareAccount,
    /// The zone of `domain`.
    pub zone_id: CloudflareZone,
    /// The zone's name. Instances' names are one level below it, as Universal SSL covers.
    #[x_kube(validation = Rule::new("self == oldSelf")
        .message("domain cannot be changed: make another pool"))]
    pub domain: Domain,
    /// How the servers' connectors reach Cloudflare; of new servers.
    #[serde(default)]
    pub connector_protocol: ConnectorProtocol,
    /// Pools that share a Cloudflare user name the same group; the pool's own name by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget_group: Option<BudgetGroup>,
}

/// How a connector reaches Cloudflare.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ConnectorProtocol {
    /// HTTP/2 over TCP.
    #[default]
    Http2,
    /// QUIC over UDP.
    Quic,
    /// As cloudflared chooses: QUIC, and HTTP/2 where that does not work.
    Auto,
}

impl ConnectorProtocol {
    /// In cloudflared's words.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http2 => "http2",
            Self::Quic => "quic",
            Self::Auto => "auto",
        }
    }
}

/// One key of a Secret in the operator's namespace.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct TokenSecretRef {
    /// Name of the Secret, in the operator's namespace.
    pub name: SecretName,
    /// The key in its data.
    #[serde(default = "default_token_key")]
    pub key: SecretKey,
}

fn default_token_key() -> SecretKey {
    "token".parse().expect("a constant name")
}

/// What is known of a pool.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct HostingPoolStatus {
    /// The generation of the spec that the conditions speak of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The conditions `Ready`, `Reconciling` and `Stalled`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// How many instances are admitted to this pool.
    #[serde(default)]
    pub instances: u32,
    /// The deny-all firewall of this pool, which also marks the project as the right one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub firewall_id: Option<u64>,
    /// What protects the management host names at the edge.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access: Option<AccessStatus>,
    /// How much of Cloudflare's limits is used, as far as it was seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<UsageStatus>,
    /// PEM of the certificate to seal credentials with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sealing_certificate: Option<String>,
    /// The master key of the installation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub master_key: Option<MasterKeyStatus>,
    /// What is in the clouds and belongs to nobody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub orphans: Option<OrphansStatus>,
    /// What was left behind on purpose, by `deletionPolicy: Retain` or a label. It is never deleted
    /// automatically.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retained: Option<RetainedStatus>,
}

/// How much of Cloudflare's limits is used.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct UsageStatus {
    /// Tunnels of this installation in the account, which may have 1,000 of everybody's.
    pub tunnels: u32,
    /// DNS records in the zone, whosever they are. A free zone may have 200, a paid one 3,500.
    pub dns_records: u32,
    /// Access applications in the account, whosever they are. It may have 500.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_applications: Option<u32>,
    /// Access service tokens in the account, whosever they are. It may have 50.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_tokens: Option<u32>,
}

/// What becomes of orphans.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OrphanPolicy {
    /// They are listed in the status.
    #[default]
    Report,
    /// They are deleted after a day, a few at a time. Retained ones never are.
    Delete,
}

/// What carries this installation's id in the clouds and belongs to nobody.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct OrphansStatus {
    /// Number of orphans, those included that `first` has no room for.
    pub count: u32,
    /// What to know and to do about them.
    pub message: String,
    /// What the servers among them cost a month, in the project's currency, taxes included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub monthly_cost: Option<String>,
    /// The oldest first, what stays anyway last, 20 at most.
    pub first: Vec<OrphanStatus>,
}

/// A cloud object that belongs to nobody.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct OrphanStatus {
    /// Kind of the object.
    pub kind: OrphanKind,
    /// The cloud's id of the object.
    pub id: String,
    /// Name of the object in the cloud.
    pub name: String,
    /// Whose it says it is: `namespace/name`, an instance's id, or a pool.
    pub owner: String,
    /// When it was first seen to belong to nobody.
    pub first_seen: String,
    /// When the cloud made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// Hetzner's type of a server, such as `cx33`; absent of anything else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_type: Option<String>,
    /// What a server costs a month, in the project's currency, taxes included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub monthly_cost: Option<String>,
    /// Why it is never deleted by itself, if that is so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// What carries this installation's id in the clouds and was left behind on purpose.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct RetainedStatus {
    /// Number of servers, those included that `first` has no room for.
    pub servers: u32,
    /// Number of tunnels, those included that `first` has no room for.
    pub tunnels: u32,
    /// How many DNS records.
    pub dns_records: u32,
    /// What to know and to do about them.
    pub message: String,
    /// What the servers cost a month, in the project's currency, taxes included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub monthly_cost: Option<String>,
    /// The oldest first, 20 at most.
    pub first: Vec<RetainedObject>,
}

/// A cloud object that was left behind on purpose.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct RetainedObject {
    /// Kind of the object.
    pub kind: OrphanKind,
    /// The cloud's id of the object.
    pub id: String,
    /// Name of the object in the cloud.
    pub name: String,
    /// Whose it was: `namespace/name`, or an instance's id.
    pub owner: String,
    /// When the cloud made it, if it says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// Hetzner's type of a server, such as `cx33`; absent of anything else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_type: Option<String>,
    /// What a server costs a month, in the project's currency, taxes included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub monthly_cost: Option<String>,
}

/// Kinds of cloud objects, in the order in which they are removed.
#[derive(
    Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash,
)]
pub enum OrphanKind {
    /// A server at Hetzner.
    Server,
    /// A DNS record in the zone of the pool.
    DnsRecord,
    /// A tunnel of the Cloudflare account.
    Tunnel,
    /// An Access application of the Cloudflare account.
    AccessApplication,
    /// An Access policy of the Cloudflare account.
    AccessPolicy,
    /// An Access service token.
    ServiceToken,
    /// An SSH key at Hetzner.
    SshKey,
    /// A firewall at Hetzner.
    Firewall,
}

/// The master key, and how far its rotation is.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct MasterKeyStatus {
    /// The id of the newest key, which new servers are made under.
    pub id: String,
    /// Where it is kept.
    pub source: MasterKeyPlace,
    /// Keys that a rotation takes out of use.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub older: Vec<OlderMasterKey>,
    /// What to know and to do about them.
    pub message: String,
}

/// Where the master key is kept.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
pub enum MasterKeyPlace {
    /// In a Secret, so in etcd and its backups.
    Secret,
    /// In a file that is mounted into the operator, so not in etcd.
    File,
}

/// A master key that a rotation takes out of use.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct OlderMasterKey {
    /// Id of this older master key.
    pub id: String,
    /// Servers of all pools that still obey it.
    pub servers: u32,
    /// Stored sealing keys that it still wraps.
    pub sealing_keys: u32,
    /// Whether nothing needs it any more.
    pub removable: bool,
}

/// The Cloudflare Access objects of a pool.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct AccessStatus {
    /// The application over all management host names.
    pub application_id: String,
    /// Id of the policy that lets the operator's service token in, and nobody else.
    pub policy_id: String,
    /// The operator's service token.
    pub service_token_id: String,
}
