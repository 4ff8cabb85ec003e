//! What the agent may ask of the installer: one JSON line in, one JSON line out, one request per
//! connection, on a Unix socket that only the agent can open. There is no verb that takes a command.

use serde::{Deserialize, Serialize};

/// Where the installer listens.
pub const INSTALLER_SOCKET_PATH: &str = "/run/moorage/installer.sock";

/// The units that the agent may control.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unit {
    /// OpenClaw's gateway.
    Openclaw,
    /// The tunnel connector.
    Cloudflared,
    /// The agent itself.
    Agent,
}

/// A request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    rename_all = "kebab-case",
    rename_all_fields = "kebab-case",
    tag = "verb",
    deny_unknown_fields
)]
pub enum Request {
    /// Is the unit running?
    Status {
        /// Which unit.
        unit: Unit,
    },
    /// Start the unit if it does not run.
    Start {
        /// Which unit.
        unit: Unit,
    },
    /// Stop the unit if it runs.
    Stop {
        /// Which unit.
        unit: Unit,
    },
    /// Stop and start the unit.
    Restart {
        /// Which unit.
        unit: Unit,
    },
    /// Replace the token that cloudflared runs with (the file that user-data wrote first,
    /// `moorage_wire::bootstrap::TUNNEL_TOKEN_PATH`), atomically, mode 0600. Takes effect at its next
    /// start.
    WriteTunnelToken {
        /// The run token, one line of base64.
        token: String,
    },
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", rename_all_fields = "kebab-case", tag = "result")]
pub enum Answer {
    /// Done.
    Done,
    /// Answer to [`Request::Status`].
    Status {
        /// Whether its process runs.
        running: bool,
        /// How often it was started since boot; tells a restart from a long run.
        starts: u32,
    },
    /// Refused or failed.
    Failed {
        /// For the journal.
        message: String,
    },
}
