//! `OpenClawInstance`: one customer's server. Here is what it should be; what is known of it is in
//! `status`.

mod config;
mod status;

use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

use super::{
    guarded::{Fields, IN_PART, Stored},
    names::{
        Hostname, IntegrationName, Location, PairingId, PoolName, ReleaseName, SecretKey,
        SecretName, ServerType,
    },
};

pub use config::{ConfigDocument, ConfigProblem};
pub use status::{
    AgentStatus, CredentialStatus, EarlierIdentity, FirstBoot, GivenUp, OpenClawInstanceStatus,
    Phase, ProgramStatus, RollbackStatus, ServerStatus, Shortage, TunnelStatus, Urls,
};

/// The most characters that all sealed values in a spec have together. With a configuration of the largest
/// size there is room left for the status in what etcd takes.
pub const MOST_SEALED_TEXT: usize = 393_216;

/// What one customer's server should be.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "moorage.dev",
    version = "v1alpha1",
    kind = "OpenClawInstance",
    plural = "openclawinstances",
    doc = "One customer's OpenClaw server, reachable only through its tunnel",
    shortname = "oci",
    category = "moorage",
    namespaced,
    status = "OpenClawInstanceStatus",
    printcolumn(
        name = "Phase",
        type_ = "string",
        json_path = ".status.phase",
        description = "Summary of the conditions"
    ),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].status"
    ),
    printcolumn(name = "URL", type_ = "string", json_path = ".status.urls.dashboard"),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].reason"
    ),
    printcolumn(name = "Pool", type_ = "string", json_path = ".spec.pool", priority = 1),
    printcolumn(name = "Release", type_ = "string", json_path = ".status.release", priority = 1),
    printcolumn(name = "Server", type_ = "string", json_path = ".status.server.id", priority = 1),
    printcolumn(name = "Location", type_ = "string", json_path = ".status.server.location", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("self.metadata.name.size() <= 63")
        .message("metadata.name must be at most 63 characters: it becomes a label of the server"),
    validation = Rule::new("(has(self.spec.access) && has(self.spec.access.tokenGeneration) ? self.spec.access.tokenGeneration : 0) >= (has(oldSelf.spec.access) && has(oldSelf.spec.access.tokenGeneration) ? oldSelf.spec.access.tokenGeneration : 0)")
        .message("spec.access.tokenGeneration cannot be lowered: the server takes no token a second time")
)]
#[serde(rename_all = "camelCase")]
pub struct OpenClawInstanceSpec {
    /// The `HostingPool` that the server is made in. It cannot be changed.
    #[x_kube(validation = Rule::new("self == oldSelf")
        .message("pool cannot be changed: delete the instance and make it in the other pool"))]
    pub pool: PoolName,

    /// First label of the dashboard's host name, such as `ada` for `ada.example.com`; the management
    /// API is at `ada-mgmt.example.com`. It cannot be changed.
    #[x_kube(validation = Rule::new("self == oldSelf")
        .message("hostname cannot be changed: delete the instance and make it with the other name"))]
    #[x_kube(validation = Rule::new("!self.endsWith('-mgmt')")
        .message("hostname must not end in -mgmt: those names belong to the management API"))]
    pub hostname: Hostname,

    /// The `OpenClawRelease` to run; the pool's default if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release: Option<ReleaseName>,

    /// Wishes for the server, read when it is made. Later changes are reported, never applied.
    #[serde(default, skip_serializing_if = "ServerPreferences::is_empty")]
    pub server: ServerPreferences,

    /// `openclaw.json` as data. Keys are given under `credentials`, never here; `{credentialRef: NAME}` stands
    /// for one wherever OpenClaw takes a reference to a key. Most of `gateway` and the secrets providers are
    /// Moorage's.
    #[serde(default, skip_serializing_if = "ConfigDocument::is_empty")]
    pub config: ConfigDocument,

    /// Plugins and skills to install, out of those that the release approves.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub integrations: Vec<IntegrationRef>,

    /// The customer's keys: where the sealed value of each is.
    #[x_kube(validation = Rule::new(format!("self.filter(one, has(one.sealed)).map(one, one.sealed.size()).sum() <= {MOST_SEALED_TEXT}"))
        .message("sealed values in the spec are at most 393216 characters together; put them into a Secret and name it under secretRef"))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub credentials: Vec<CredentialSpec>,

    /// Access to the dashboard.
    #[serde(default, skip_serializing_if = "AccessSpec::is_empty")]
    pub access: AccessSpec,

    /// While true nothing is written anywhere, deletion included.
    #[serde(default)]
    pub suspend: bool,

    /// What becomes of the server and its tunnel when the instance is deleted.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,
}

impl OpenClawInstance {
    /// Drops what only an instance that is admitted needs.
    pub fn keep_in_part(&mut self) {
        self.spec = self.spec.essence();
        let annotations = self.metadata.annotations.get_or_insert_default();
        annotations.insert(IN_PART.to_owned(), String::new());
    }

    /// Whether only the essence of it is here. No object in the cluster can say so of itself.
    pub fn is_in_part(&self) -> bool {
        self.metadata.annotations.as_ref().is_some_and(|known| known.contains_key(IN_PART))
    }
}

impl OpenClawInstanceSpec {
    /// What a refusal and a deletion need.
    fn essence(&self) -> Self {
        Self {
            pool: self.pool.clone(),
            hostname: self.hostname.clone(),
            release: self.release.clone(),
            server: ServerPreferences::default(),
            config: ConfigDocument::default(),
            integrations: Vec::new(),
            credentials: Vec::new(),
            access: AccessSpec::default(),
            suspend: self.suspend,
            deletion_policy: self.deletion_policy,
        }
    }
}

impl Stored for OpenClawInstance {
    type Spec = OpenClawInstanceSpec;
    type Status = OpenClawInstanceStatus;

    fn of_parts(
        metadata: ObjectMeta,
        spec: OpenClawInstanceSpec,
        status: Option<OpenClawInstanceStatus>,
    ) -> Self {
        Self { metadata, spec, status }
    }

    /// Pool and host name are looked at before anything is made, and cannot be changed: where one of
    /// them is none, nothing was ever made.
    fn salvage(
        metadata: &ObjectMeta,
        spec: &Fields<'_>,
        status: Option<OpenClawInstanceStatus>,
    ) -> Option<Self> {
        // Whoever said something about it that is not understood did not say "delete".
        let unreadable = if spec.has("deletionPolicy") {
            DeletionPolicy::Retain
        } else {
            DeletionPolicy::Delete
        };
        let spec = OpenClawInstanceSpec {
            pool: spec.get("pool")?,
            hostname: spec.get("hostname")?,
            release: None,
            server: ServerPreferences::default(),
            config: ConfigDocument::default(),
            integrations: Vec::new(),
            credentials: Vec::new(),
            access: AccessSpec::default(),
            suspend: spec.get("suspend").unwrap_or_default(),
            deletion_policy: spec.get("deletionPolicy").unwrap_or(unreadable),
        };
        Some(Self { metadata: metadata.clone(), spec, status })
    }

    fn names_cloud_objects(status: &Fields<'_>) -> bool {
        status.has("server") || status.has("tunnel")
    }
}

/// Narrows the pool's lists; each list in order of preference.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ServerPreferences {
    /// Server types such as `cx33`; empty for all of the pool.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20))]
    pub server_types: Vec<ServerType>,
    /// Locations such as `fsn1`; empty for all of the pool.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20))]
    pub locations: Vec<Location>,
    /// Whether the server gets a public IPv4 address; default true. Without one it reaches hosts with an AAAA
    /// record only, which several that releases and OpenClaw need do not have; experimental.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv4: Option<bool>,
}

impl ServerPreferences {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// An approved plugin or skill, by name.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct IntegrationRef {
    /// The name under which the release approves it.
    pub name: IntegrationName,
}

/// One key of the customer.
#[derive(Serialize, Deserialize, KubeSchema, Clone, PartialEq, Eq)]
#[x_kube(validation = Rule::new("has(self.secretRef) != has(self.sealed)")
    .message("a credential needs exactly one of secretRef and sealed"))]
#[serde(rename_all = "camelCase")]
pub struct CredentialSpec {
    /// Unique within the instance.
    #[x_kube(validation = Rule::new("self.matches('^[a-z]([a-z0-9-]*[a-z0-9])?$') && !self.startsWith('moorage-')")
        .message("a credential name is a-z, 0-9 and -, starts with a letter, does not end with - and does not start with moorage-"))]
    #[schemars(length(min = 1, max = 40))]
    pub name: String,
    /// What the value is. A string here and an enum in the schema, so that one unknown type in etcd
    /// does not make the whole object unreadable.
    #[schemars(length(max = 64), extend("enum" = customer_types()))]
    pub r#type: String,
    /// The sealed value as one key of a Secret of type `moorage.dev/sealed-credentials`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<SecretKeyRef>,
    /// The sealed value itself: the form for Git.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "bounded")]
    #[schemars(length(min = 1, max = LONGEST_SEALED))]
    pub sealed: Option<String>,
    /// Whose certificate the value is sealed to.
    #[serde(default)]
    pub sealed_to: SealedTo,
}

/// The longest sealed value, in characters.
const LONGEST_SEALED: usize = 90_000;

/// Of a value that is too long, which an older schema took, just enough is kept to show that it is.
fn bounded<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let mut sealed = Option::<String>::deserialize(deserializer)?;
    if let Some(sealed) = &mut sealed
        && let Some((end, _)) = sealed.char_indices().nth(LONGEST_SEALED)
    {
        sealed.truncate(end);
        sealed.shrink_to_fit();
    }
    Ok(sealed)
}

/// What stands under `sealed` may be a key in the clear by mistake.
impl fmt::Debug for CredentialSpec {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("CredentialSpec")
            .field("name", &self.name)
            .field("type", &self.r#type)
            .field("secret_ref", &self.secret_ref)
            .field("sealed", &self.sealed.as_ref().map(String::len))
            .field("sealed_to", &self.sealed_to)
            .finish()
    }
}

fn customer_types() -> Vec<&'static str> {
    let types = moorage_wire::CredentialType::of_customers();
    types.map(moorage_wire::CredentialType::as_str).collect()
}

/// One key of a Secret in the instance's namespace.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "camelCase")]
pub struct SecretKeyRef {
    /// Name of the Secret, in the namespace of the instance.
    pub name: SecretName,
    /// The key in its data.
    pub key: SecretKey,
}

/// Whose certificate a value is sealed to.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SealedTo {
    /// The operator's, which opens it for an instant and seals it again for the agent.
    #[default]
    Operator,
    /// The agent's own (`status.agent.sealingCertificate`): the operator cannot read it.
    Agent,
}

/// Access to the dashboard.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct AccessSpec {
    /// Name of a Secret to keep the dashboard's URL and token in; none by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dashboard_secret_name: Option<SecretName>,
    /// Raise it to give the dashboard another token, after one has leaked for example: the old token is
    /// refused from then on. It cannot be lowered.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub token_generation: u32,
    /// Ids of device-pairing requests of OpenClaw that the owner approves: what a browser shows that is
    /// not let in yet. Each is looked for once, and again when the spec changes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), extend("x-kubernetes-list-type" = "set"))]
    pub approved_pairings: Vec<PairingId>,
}

impl AccessSpec {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// What becomes of the cloud objects when the instance is deleted.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeletionPolicy {
    /// Server, tunnel and DNS records are deleted, with all that the server stores.
    #[default]
    Delete,
    /// They are labelled as retained and left alone.
    Retain,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde asks for")]
fn is_zero(count: &u32) -> bool {
    *count == 0
}
