//! What an agent is started with. Parsed once from the command line; trusted afterwards.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use moorage_wire::bootstrap::GATEWAY_PORT;

use crate::{
    layout::Layout,
    listen::{Listen, UnixSocket},
};

/// Where `OpenClaw`'s gateway is unless told otherwise.
pub const GATEWAY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), GATEWAY_PORT);

/// Everything that an agent is started with.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The paths on the server.
    pub layout: Layout,
    /// Where the agent listens.
    pub listen: Listen,
    /// Where `OpenClaw`'s gateway listens; always loopback.
    pub gateway: SocketAddr,
    /// The metrics address of cloudflared, which serves `/ready`.
    pub cloudflared_metrics: SocketAddr,
    /// The Unix socket of the installer.
    pub installer_socket: PathBuf,
    /// Who brings the programs here and owns `OpenClaw`'s files.
    pub programs: Programs,
    /// How `OpenClaw`'s command line is run.
    pub openclaw: OpenClawProgram,
    /// How patient the agent is.
    pub timing: Timing,
}

impl Settings {
    /// The defaults of a server with these paths.
    pub fn new(layout: Layout) -> Self {
        Self {
            listen: Listen::Unix(UnixSocket::Made(layout.agent_socket())),
            gateway: GATEWAY,
            cloudflared_metrics: SocketAddr::from(([127, 0, 0, 1], 20241)),
            installer_socket: layout.installer_socket(),
            programs: Programs::Managed { worker_socket: layout.worker_socket() },
            openclaw: OpenClawProgram::managed(&layout),
            timing: Timing::default(),
            layout,
        }
    }
}

/// Who brings the programs to the server, and which user owns `OpenClaw`'s files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Programs {
    /// The agent has the release's artifacts installed, and the worker, another user, owns the files.
    Managed {
        /// The Unix socket of the worker.
        worker_socket: PathBuf,
    },
    /// They are there, and this process writes the files itself (tests, the simulator).
    External,
}

impl Programs {
    /// Whether the agent installs what the release pins.
    pub fn are_managed(&self) -> bool {
        matches!(self, Self::Managed { .. })
    }
}

/// How `OpenClaw`'s command line is run: as it is, or by a certain Node.js.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenClawProgram {
    /// The program, or the script for Node.js.
    pub openclaw: PathBuf,
    /// The Node.js that runs it.
    pub node: Option<PathBuf>,
}

impl OpenClawProgram {
    /// What the installer made current.
    pub fn managed(layout: &Layout) -> Self {
        Self { openclaw: layout.openclaw_program(), node: Some(layout.node_program()) }
    }

    /// The file to execute.
    pub fn executable(&self) -> &Path {
        self.node.as_deref().unwrap_or(&self.openclaw)
    }

    /// What comes before the arguments.
    pub fn first_argument(&self) -> Option<&Path> {
        self.node.is_some().then_some(self.openclaw.as_path())
    }

    /// The folder of the Node.js that runs it.
    pub fn node_folder(&self) -> Option<&Path> {
        self.node.as_deref().and_then(Path::parent)
    }
}

/// How patient the agent is. The defaults are right for a server; tests shorten them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timing {
    /// How long `OpenClaw` may take to answer `/startupz` after a start.
    pub health_deadline: Duration,
    /// Between two looks at a server on which nothing changed.
    pub reconcile_interval: Duration,
    /// The first wait after a failure; doubles up to [`Self::reconcile_interval`].
    pub retry_after_failure: Duration,
    /// How long a running `OpenClaw` may take to use a changed configuration before it is restarted.
    pub reload_patience: Duration,
    /// Between two tries to fetch an artifact that cannot be reached; the first, and the longest.
    pub fetch_retry: (Duration, Duration),
    /// Until a failed security audit of OpenClaw is retried; the first wait, and the longest.
    pub audit_retry: (Duration, Duration),
    /// Until an artifact that is not what was pinned is retried: somebody may repair it.
    pub repair_interval: Duration,
    /// How long cloudflared of a new version may take to connect before the old one comes back.
    pub connect_deadline: Duration,
    /// Between two looks at a health endpoint while waiting for it.
    pub health_poll: Duration,
    /// Between two looks at cloudflared with a single token.
    pub tunnel_poll: Duration,
    /// Between two looks at cloudflared while two tokens are there.
    pub rotation_poll: Duration,
    /// How long cloudflared must be without connections before the other token is tried.
    pub disconnected_for: Duration,
    /// How long a token that is tried has to connect; grows while neither does.
    pub token_grace: Duration,
    /// For the headers, and again for the body of a request.
    pub read_timeout: Duration,
    /// For a whole request.
    pub request_timeout: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            health_deadline: Duration::from_secs(120),
            reconcile_interval: Duration::from_secs(30),
            retry_after_failure: Duration::from_secs(1),
            reload_patience: Duration::from_secs(20),
            fetch_retry: (Duration::from_secs(5), Duration::from_secs(300)),
            audit_retry: (Duration::from_secs(30), Duration::from_secs(900)),
            repair_interval: Duration::from_secs(900),
            connect_deadline: Duration::from_secs(60),
            health_poll: Duration::from_millis(500),
            tunnel_poll: Duration::from_secs(15),
            rotation_poll: Duration::from_secs(1),
            disconnected_for: Duration::from_secs(2),
            token_grace: Duration::from_secs(3),
            read_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(30),
        }
    }
}
