//! What is known of one customer's server.

use std::str::FromStr;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use moorage_wire::InstanceId;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

use super::is_zero;
use crate::{api::names::SecretName, master_key::MasterKeyId};

/// What is known of one customer's server.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct OpenClawInstanceStatus {
    /// The generation of the spec that the conditions speak of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Ready`, `Reconciling` and `Stalled`, and one per part.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// A summary of the conditions for people; never an input.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "known_phase")]
    pub phase: Option<Phase>,
    /// The release that the server was told to run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release: Option<String>,
    /// The id that an earlier version drew for this instance and that its things in the clouds still
    /// have; nothing where the id is computed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub earlier_identity: Option<EarlierIdentity>,
    /// The server at Hetzner, from before it is created.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<ServerStatus>,
    /// The tunnel at Cloudflare that leads to the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tunnel: Option<TunnelStatus>,
    /// Where the two routes are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub urls: Option<Urls>,
    /// The agent on the server, once it has enrolled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<AgentStatus>,
    /// What was delivered, with the digest of the ciphertext that it came from.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub credentials: Vec<CredentialStatus>,
    /// Name of the Secret that the dashboard's token was put into: it goes when the spec names another
    /// or none.
    #[serde(
        default,
        deserialize_with = "names::<SecretName, _>",
        skip_serializing_if = "Option::is_none"
    )]
    pub dashboard_secret_name: Option<String>,
}

/// A summary of the conditions.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Work has not begun, or waits for something.
    Pending,
    /// The server is being made.
    Provisioning,
    /// All is as the spec says.
    Ready,
    /// Ready before; something is being changed or repaired.
    Updating,
    /// Runs, but something is wrong.
    Degraded,
    /// Nothing will happen until a person changes something.
    Stalled,
    /// `spec.suspend` is true.
    Suspended,
    /// The instance is being deleted, with its objects in the clouds.
    Deleting,
}

/// A phase that only another version knows says nothing, and is no reason to read nothing at all.
fn known_phase<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Phase>, D::Error> {
    let value = serde_json::Value::deserialize(deserializer)?;
    Ok(serde_json::from_value(value).unwrap_or_default())
}

/// The same of a first boot: then nothing is concluded from it.
fn known_first_boot<'de, D: Deserializer<'de>>(from: D) -> Result<Option<FirstBoot>, D::Error> {
    let value = serde_json::Value::deserialize(from)?;
    Ok(serde_json::from_value(value).unwrap_or_default())
}

/// A text in a status that is a name of this kind. The operator wrote no other, so another says nothing: it
/// becomes no path and no word of a message, and what it stood for is found out again.
fn names<'de, T: FromStr, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    let text = Option::<String>::deserialize(from)?;
    Ok(text.filter(|text| text.parse::<T>().is_ok()))
}

/// An id from before ids were computed, and whose it is: a status that is restored into another
/// namespace or under another name says nothing.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct EarlierIdentity {
    /// The id, 32 hexadecimal characters.
    pub id: String,
    /// Namespace of the instance.
    pub namespace: String,
    /// Name of the instance.
    pub name: String,
}

impl EarlierIdentity {
    /// The id, if it is that of this instance.
    pub fn of(&self, namespace: &str, name: &str) -> Option<InstanceId> {
        let same = (self.namespace.as_str(), self.name.as_str()) == (namespace, name);
        self.id.parse().ok().filter(|_| same)
    }
}

/// The server of an instance.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ServerStatus {
    /// Random id of this server's life, 16 hexadecimal characters; written before the server is made.
    pub epoch: String,
    /// Id of the master key that this server's keys are derived from.
    #[serde(
        default,
        deserialize_with = "names::<MasterKeyId, _>",
        skip_serializing_if = "Option::is_none"
    )]
    pub master_key_id: Option<String>,
    /// When the server before it was given up; absent of an instance's first server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaced_at: Option<String>,
    /// How far its first boot is, until its agent has answered once; absent from then on, and where that is
    /// not known.
    #[serde(
        default,
        deserialize_with = "known_first_boot",
        skip_serializing_if = "Option::is_none"
    )]
    pub first_boot: Option<FirstBoot>,
    /// Where the servers before this one were given up because they never ran, the latest last; absent once
    /// an agent has answered.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub given_up: Vec<GivenUp>,
    /// Hetzner's id, once it is made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<u64>,
    /// Hetzner's name of its type, such as `cx33`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub r#type: Option<String>,
    /// Hetzner's name of its location, such as `fsn1`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub location: Option<String>,
}

/// How far a server's first boot is.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
pub enum FirstBoot {
    /// It was never seen to run.
    Awaited,
    /// It was seen to run, and its agent has not answered yet.
    Running,
    /// It has never run, and is deleted.
    GivenUp,
}

/// A place where a server never ran.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct GivenUp {
    /// Its server type.
    pub r#type: String,
    /// Its location.
    pub location: String,
}

/// The tunnel of an instance.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct TunnelStatus {
    /// Cloudflare's id of the tunnel, a UUID.
    pub id: String,
    /// Whether the tunnel's first secret is being replaced: written before the new one is set, and kept
    /// until the connections that were made with the old one are cut.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub rotating: bool,
}

/// Where the two routes are.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Urls {
    /// URL of OpenClaw's dashboard, which asks for its token.
    pub dashboard: String,
    /// The agent's management API.
    pub management: String,
}

/// The agent that enrolled from the server, and what it last reported.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct AgentStatus {
    /// Epoch of the server that it enrolled from.
    pub epoch: String,
    /// Verifies its answers and receipts: Ed25519, 64 hexadecimal characters.
    pub public_key: String,
    /// PEM of the certificate to seal values for this agent with (`sealedTo: Agent`).
    pub sealing_certificate: String,
    /// Version of the agent, as it reports it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Version of OpenClaw, as the agent reports it; absent until it has reported one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub openclaw_version: Option<String>,
    /// The programs that it runs; none where it does not install them itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub programs: Vec<ProgramStatus>,
    /// The last update that was rolled back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_rollback: Option<RollbackStatus>,
    /// When OpenClaw's data was last backed up on the server, by the server's clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_backup: Option<String>,
    /// Whether an upgrade of the system waits for a reboot.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub reboot_pending: bool,
    /// How short its server is of free disk space; absent while there is enough.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_shortage: Option<Shortage>,
    /// How short its server is of available memory; absent while there is enough.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_shortage: Option<Shortage>,
}

/// How short a server is of something. A level is left only well above its limit, so it is remembered
/// here from one report to the next.
#[derive(
    Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord,
)]
pub enum Shortage {
    /// Less than 10 % are free.
    Low,
    /// Less than 5 % are free.
    VeryLow,
    /// Less than 2 % are free.
    Critical,
}

/// A program that the server runs.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ProgramStatus {
    /// `openclaw`, `node`, `cloudflared` or `agent`.
    pub name: String,
    /// Its version, if a release that is known pins it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// SHA-256 of its artifact, 64 hexadecimal characters.
    pub sha256: String,
}

/// An update that was rolled back.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct RollbackStatus {
    /// `openclaw`, `node`, `cloudflared` or `agent`.
    pub program: String,
    /// SHA-256 of the artifact that did not work, 64 hexadecimal characters.
    pub sha256: String,
    /// What failed, and what the agent says of it.
    pub reason: String,
    /// When, by the server's clock.
    pub at: String,
}

/// A credential that the agent has stored.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct CredentialStatus {
    /// Name of the credential, as in `spec.credentials`.
    pub name: String,
    /// When the agent stored it.
    pub delivered_at: String,
    /// SHA-256 of the decoded ciphertext that it came from.
    #[serde(rename = "ciphertextSHA256")]
    pub ciphertext_sha256: String,
    /// Epoch of the server that stores it.
    pub epoch: String,
    /// How often the Secret of a ciphertext that was already consumed came back and was deleted again.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub recreated: u32,
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    #[rstest]
    #[case::names("ada-dashboard", "0123456789abcdef", true)]
    #[case::query("?limit=500", "?watch=true", false)]
    #[case::path("../../x", "../../../../x/y/z", false)]
    #[case::escape("a\u{1b}[2Jb", "\u{1b}[2J9abcdef012", false)]
    #[case::empty("", "", false)]
    fn a_text_that_names_nothing_is_not_read(
        #[case] secret: &str,
        #[case] master_key: &str,
        #[case] read: bool,
    ) {
        let status = json!({
            "dashboardSecretName": secret,
            "server": {"epoch": "0000000000000001", "id": 4711, "masterKeyId": master_key},
        });
        let status: OpenClawInstanceStatus = serde_json::from_value(status).unwrap();
        let server = status.server.unwrap();
        assert_eq!(server.id, Some(4711));
        assert_eq!(status.dashboard_secret_name.is_some(), read);
        assert_eq!(server.master_key_id.is_some(), read);
    }
}
