//! What user-data and the programs on a server must agree on: the document that it leaves for the
//! agent, and the paths. The document holds no lasting secret: a one-time enrolment key, a hash
//! of the bearer token, and public keys.

use serde::{Deserialize, Serialize};

use crate::{
    digest::Sha256,
    identity::{Epoch, InstanceId, OperatorPublicKey},
};

/// Where user-data writes the document, root:moorage 0640.
pub const BOOTSTRAP_PATH: &str = "/etc/moorage/bootstrap.json";
/// Where the installer writes the public part of that document, for all to read: who the operator of this
/// server is. The worker trusts nobody else.
pub const OPERATOR_PATH: &str = "/etc/moorage/operator.json";
/// Where user-data writes the first tunnel token, root:moorage-tunnel 0640, as one line of text.
pub const TUNNEL_TOKEN_PATH: &str = "/etc/moorage/tunnel-token";
/// Where user-data writes which agent and cloudflared to start with, mode 0644.
pub const RELEASE_PATH: &str = "/etc/moorage/release.json";
/// Exists once the packages and settings of the first boot are done; its folder is open to all.
pub const SETUP_DONE_PATH: &str = "/var/lib/moorage-setup/done";
/// The Unix socket on which the agent answers and to which cloudflared forwards the management host:
/// held by systemd, `moorage:moorage-tunnel` 0660.
pub const AGENT_SOCKET_PATH: &str = "/run/moorage/agent.sock";
/// The worker's socket: held by systemd, `openclaw:moorage` 0660, so that only the agent opens it.
pub const WORKER_SOCKET_PATH: &str = "/run/moorage/worker.sock";
/// The installer's socket: held by systemd, `moorage:moorage` 0600.
pub const INSTALLER_SOCKET_PATH: &str = "/run/moorage/installer.sock";
/// The user that the agent runs as.
pub const AGENT_USER: &str = "moorage";
/// The user of OpenClaw and of the worker.
pub const OPENCLAW_USER: &str = "openclaw";
/// The user of the tunnel connector.
pub const CLOUDFLARED_USER: &str = "cloudflared";
/// The group that opens the agent's socket: the agent and the connector.
pub const TUNNEL_GROUP: &str = "moorage-tunnel";
/// The home of the `openclaw` user; `.openclaw/openclaw.json` and the state are below it.
pub const OPENCLAW_HOME: &str = "/var/lib/openclaw";
/// The one file that holds credentials: a flat JSON object from credential name to value. A rendered
/// configuration names its file provider by exactly this path. An agent with another root (tests,
/// the simulator) replaces every string in the configuration that equals this constant or
/// [`GOOGLE_CLIENT_PATH`] as a whole by the path below its root, and changes nothing else.
pub const SECRETS_PATH: &str = "/var/lib/openclaw/credentials/secrets.json";
/// The one credential that is a file of its own: the JSON of a Google OAuth client.
pub const GOOGLE_CLIENT_PATH: &str = "/var/lib/openclaw/credentials/google-oauth-client.json";
/// The TCP port of OpenClaw's gateway on the server's loopback interface.
pub const GATEWAY_PORT: u16 = 18789;

/// What an agent has to know before anybody spoke to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Bootstrap {
    /// The instance that this server belongs to.
    pub instance_id: InstanceId,
    /// The epoch of this server.
    pub epoch: Epoch,
    /// Verifies the operator's calls.
    pub operator_key: OperatorPublicKey,
    /// SHA-256 of the bearer token. The token has 256 bits of entropy, so its hash gives nothing away.
    pub bearer_sha256: Sha256,
    /// Authenticates the agent's first answer, 64 hexadecimal characters; blank after enrolment.
    pub enrolment_key: EnrolmentKeyText,
}

impl Bootstrap {
    /// Whose word counts on this server.
    pub fn operator(&self) -> Operator {
        Operator {
            instance_id: self.instance_id,
            epoch: self.epoch,
            operator_key: self.operator_key,
        }
    }
}

/// Whose word counts on a server: all that it takes to verify a signed call, and nothing secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Operator {
    /// The instance that this server belongs to.
    pub instance_id: InstanceId,
    /// The epoch of this server.
    pub epoch: Epoch,
    /// Verifies the operator's calls.
    pub operator_key: OperatorPublicKey,
}

/// The one-time enrolment key as text of the bootstrap document. Its `Debug` hides the value.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EnrolmentKeyText(String);

impl EnrolmentKeyText {
    /// Wraps the hexadecimal text.
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// What replaces a used key.
    pub fn erased() -> Self {
        Self(String::new())
    }

    /// Whether the key is used and erased.
    pub fn is_erased(&self) -> bool {
        self.0.is_empty()
    }

    /// 64 lower-case hexadecimal characters, or the text of an erased key.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for EnrolmentKeyText {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("EnrolmentKeyText(redacted)")
    }
}
