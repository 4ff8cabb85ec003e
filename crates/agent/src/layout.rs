//! Where everything lies on a server, relative to one root: `/` in production, a folder of its own
//! in tests and in the simulator.

use std::path::{Path, PathBuf};

use moorage_wire::{
    Sha256,
    bootstrap::{
        AGENT_SOCKET_PATH, BOOTSTRAP_PATH, GOOGLE_CLIENT_PATH, INSTALLER_SOCKET_PATH,
        OPENCLAW_HOME, OPERATOR_PATH, SECRETS_PATH, SETUP_DONE_PATH, TUNNEL_TOKEN_PATH,
        WORKER_SOCKET_PATH,
    },
};

const STATE_FOLDER: &str = "/var/lib/moorage";
const INSTALLER_STATE_FOLDER: &str = "/var/lib/moorage-installer";
const PROGRAMS_FOLDER: &str = "/opt/moorage";
/// Below [`PROGRAMS_FOLDER`].
pub(crate) const INTEGRATIONS_FOLDER: &str = "integrations";
const OPENCLAW_PROGRAM: &str = "/opt/moorage/openclaw/current/bin/openclaw";
const NODE_PROGRAM: &str = "/opt/moorage/node/current/bin/node";

/// The paths of one server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    root: PathBuf,
}

impl Layout {
    /// The layout below `root`.
    pub fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// An absolute production path, moved below the root.
    pub fn under_root(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// What user-data left for the agent.
    pub fn bootstrap(&self) -> PathBuf {
        self.under_root(BOOTSTRAP_PATH)
    }

    /// The public part of it, for the worker.
    pub fn operator(&self) -> PathBuf {
        self.under_root(OPERATOR_PATH)
    }

    /// The token that cloudflared runs with; the installer replaces it.
    pub fn tunnel_token(&self) -> PathBuf {
        self.under_root(TUNNEL_TOKEN_PATH)
    }

    /// The agent's own state, mode 0700.
    pub fn state(&self) -> PathBuf {
        self.under_root(STATE_FOLDER)
    }

    /// Held while an agent runs: one state, one agent.
    pub fn lock(&self) -> PathBuf {
        self.state().join("lock")
    }

    /// The agent's private keys and its proven identity.
    pub fn identity(&self) -> PathBuf {
        self.state().join("identity.json")
    }

    /// Exists once the operator confirmed the identity.
    pub fn enrolled(&self) -> PathBuf {
        self.state().join("enrolled.json")
    }

    /// Which operators' keys were handed over.
    pub fn handover(&self) -> PathBuf {
        self.state().join("handover.json")
    }

    /// The desired state, byte for byte as it was sent.
    pub fn desired(&self) -> PathBuf {
        self.state().join("desired.json")
    }

    /// The last document that worked, with the configuration as it was written.
    pub fn last_good(&self) -> PathBuf {
        self.state().join("last-good.json")
    }

    /// Which configuration `OpenClaw` was last started with; absent while that is unknown.
    pub fn started(&self) -> PathBuf {
        self.state().join("openclaw-started.json")
    }

    /// The update of OpenClaw that is under way.
    pub fn update(&self) -> PathBuf {
        self.state().join("openclaw-update.json")
    }

    /// The change of cloudflared that is under way.
    pub fn connector_update(&self) -> PathBuf {
        self.state().join("cloudflared-update.json")
    }

    /// When the last verified backup was made.
    pub fn backup(&self) -> PathBuf {
        self.state().join("backup.json")
    }

    /// The last update that was rolled back.
    pub fn last_rollback(&self) -> PathBuf {
        self.state().join("last-rollback.json")
    }

    /// The operator's signed word for the document with this digest.
    pub fn order(&self, document: &Sha256) -> PathBuf {
        self.state().join(format!("order-{document}.json"))
    }

    /// The documents that failed.
    pub fn failed(&self) -> PathBuf {
        self.state().join("failed.json")
    }

    /// Receipts and consumed ciphertexts; no values.
    pub fn credential_records(&self) -> PathBuf {
        self.state().join("credentials.json")
    }

    /// The tunnel's tokens.
    pub fn tunnel_state(&self) -> PathBuf {
        self.state().join("tunnel.json")
    }

    /// Where artifacts are fetched to; the installer takes them over from here only.
    pub fn downloads(&self) -> PathBuf {
        self.state().join("downloads")
    }

    /// Installed artifacts, root's: a folder per kind, in it a folder per version.
    pub fn programs(&self) -> PathBuf {
        self.under_root(PROGRAMS_FOLDER)
    }

    /// The folder of an integration that was installed from the artifact with this digest.
    pub fn integration(&self, artifact: Sha256) -> PathBuf {
        self.programs().join(INTEGRATIONS_FOLDER).join(artifact.to_string())
    }

    /// The installer's own state, root's, mode 0700.
    pub fn installer_state(&self) -> PathBuf {
        self.under_root(INSTALLER_STATE_FOLDER)
    }

    /// How far an update of the agent is, and which ones failed.
    pub fn agent_updates(&self) -> PathBuf {
        self.installer_state().join("agent-updates.json")
    }

    /// The home of the `openclaw` user.
    pub fn openclaw_home(&self) -> PathBuf {
        self.under_root(OPENCLAW_HOME)
    }

    /// The worker's own state, mode 0700. Not OpenClaw's to look into: its unit does not see it.
    pub fn worker_state(&self) -> PathBuf {
        self.openclaw_home().join("worker")
    }

    /// The key that credentials are sealed to.
    pub fn worker_key(&self) -> PathBuf {
        self.worker_state().join("key.json")
    }

    /// Which of the operator's calls were taken, and which documents are kept.
    pub fn worker_ledger(&self) -> PathBuf {
        self.worker_state().join("ledger.json")
    }

    /// A desired state that the operator signed, byte for byte.
    pub fn worker_document(&self, digest: &Sha256) -> PathBuf {
        self.worker_state().join(format!("document-{digest}.json"))
    }

    /// OpenClaw's state folder (`OPENCLAW_STATE_DIR`).
    pub fn openclaw_state(&self) -> PathBuf {
        self.openclaw_home().join(".openclaw")
    }

    /// OpenClaw's configuration (`OPENCLAW_CONFIG_PATH`).
    pub fn openclaw_config(&self) -> PathBuf {
        self.openclaw_state().join("openclaw.json")
    }

    /// A configuration that is being validated.
    pub fn staged_config(&self) -> PathBuf {
        self.openclaw_state().join("openclaw.staged.json")
    }

    /// A configuration for the command line alone; it holds no value.
    pub fn client_config(&self) -> PathBuf {
        self.openclaw_state().join("openclaw.client.json")
    }

    /// Which pairing requests were let in.
    pub fn paired(&self) -> PathBuf {
        self.state().join("paired.json")
    }

    /// Verified backups. `OpenClaw` refuses to write them into its state folder.
    pub fn backups(&self) -> PathBuf {
        self.openclaw_home().join("backups")
    }

    /// The copy of the state folder that can be put back while an update is tried.
    pub fn snapshot(&self) -> PathBuf {
        self.openclaw_home().join("snapshot")
    }

    /// Which integrations were ever installed and not removed.
    pub fn integrations(&self) -> PathBuf {
        self.openclaw_home().join("integrations.json")
    }

    /// npm's own settings, for whoever runs it as this user.
    pub fn npm_settings(&self) -> PathBuf {
        self.openclaw_home().join(".npmrc")
    }

    /// A copy of an integration's packages, in the form of npm's cache: npm writes into a cache that it
    /// reads.
    pub fn npm_cache(&self) -> PathBuf {
        self.openclaw_home().join(".npm-packed")
    }

    /// Values of credentials, as OpenClaw's file provider reads them.
    pub fn secrets(&self) -> PathBuf {
        self.under_root(SECRETS_PATH)
    }

    /// The Google OAuth client.
    pub fn google_client(&self) -> PathBuf {
        self.under_root(GOOGLE_CLIENT_PATH)
    }

    /// The folder of the two files above.
    pub fn credentials(&self) -> PathBuf {
        self.openclaw_home().join("credentials")
    }

    /// Debian's mark that an upgrade waits for a reboot.
    pub fn reboot_required(&self) -> PathBuf {
        self.under_root("/run/reboot-required")
    }

    /// The mark of the first boot that packages and settings are done.
    pub fn setup_done(&self) -> PathBuf {
        self.under_root(SETUP_DONE_PATH)
    }

    /// Where the agent listens unless told otherwise.
    pub fn agent_socket(&self) -> PathBuf {
        self.under_root(AGENT_SOCKET_PATH)
    }

    /// Where the installer listens unless told otherwise.
    pub fn installer_socket(&self) -> PathBuf {
        self.under_root(INSTALLER_SOCKET_PATH)
    }

    /// Where the worker listens unless told otherwise.
    pub fn worker_socket(&self) -> PathBuf {
        self.under_root(WORKER_SOCKET_PATH)
    }

    /// The Node.js that runs OpenClaw unless told otherwise.
    pub fn node_program(&self) -> PathBuf {
        self.under_root(NODE_PROGRAM)
    }

    /// OpenClaw's program unless told otherwise.
    pub fn openclaw_program(&self) -> PathBuf {
        self.under_root(OPENCLAW_PROGRAM)
    }

    /// Whether this is a real server.
    pub fn is_production(&self) -> bool {
        self.root == Path::new("/")
    }
}
