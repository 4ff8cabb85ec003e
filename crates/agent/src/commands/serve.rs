//! `moorage-agent serve`.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use moorage_agent::{Agent, Disk, GATEWAY, Layout, Listen, Programs, Settings};

use super::worker::OpenClaw;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ProgramsArgument {
    Managed,
    External,
}

#[derive(Args)]
pub(crate) struct Serve {
    /// Where to answer [default: unix:<ROOT>/run/moorage/agent.sock].
    #[arg(
        long,
        env = "MOORAGE_AGENT_LISTEN",
        value_name = "unix:/PATH|tcp:127.X.Y.Z:PORT|systemd"
    )]
    listen: Option<Listen>,
    /// The address of OpenClaw's gateway.
    #[arg(long, env = "MOORAGE_AGENT_GATEWAY", default_value_t = GATEWAY)]
    gateway: SocketAddr,
    /// The metrics address of cloudflared, which serves /ready.
    #[arg(long, env = "MOORAGE_AGENT_CLOUDFLARED_METRICS", default_value = "127.0.0.1:20241")]
    cloudflared_metrics: SocketAddr,
    /// The installer's socket. [default: <ROOT>/run/moorage/installer.sock]
    #[arg(long, env = "MOORAGE_AGENT_INSTALLER_SOCKET")]
    installer_socket: Option<PathBuf>,
    /// Who brings the programs: the agent has the release's artifacts installed and leaves OpenClaw's
    /// files to the worker, or somebody else brought them and this process owns all files.
    #[arg(long, env = "MOORAGE_AGENT_PROGRAMS", value_enum, default_value = "managed")]
    programs: ProgramsArgument,
    /// The worker's socket, where programs are managed. [default: <ROOT>/run/moorage/worker.sock]
    #[arg(long, env = "MOORAGE_AGENT_WORKER_SOCKET")]
    worker_socket: Option<PathBuf>,
    #[command(flatten)]
    openclaw: OpenClaw,
    /// How many seconds OpenClaw may take to start before its configuration is rolled back.
    #[arg(long, env = "MOORAGE_AGENT_HEALTH_DEADLINE", default_value_t = 120, value_name = "SECONDS",
          value_parser = clap::value_parser!(u64).range(1..=3600))]
    health_deadline: u64,
}

impl Serve {
    fn settings(self, layout: Layout) -> Settings {
        let defaults = Settings::new(layout);
        let mut timing = defaults.timing;
        timing.health_deadline = Duration::from_secs(self.health_deadline);
        Settings {
            listen: self.listen.unwrap_or(defaults.listen),
            gateway: self.gateway,
            cloudflared_metrics: self.cloudflared_metrics,
            installer_socket: self.installer_socket.unwrap_or(defaults.installer_socket),
            programs: match self.programs {
                ProgramsArgument::External => Programs::External,
                ProgramsArgument::Managed => Programs::Managed {
                    worker_socket: self.worker_socket.unwrap_or(defaults.layout.worker_socket()),
                },
            },
            openclaw: self.openclaw.program(&defaults.layout),
            timing,
            layout: defaults.layout,
        }
    }

    pub(crate) async fn run(
        self,
        layout: Layout,
        shutdown: impl Future<Output = ()>,
    ) -> anyhow::Result<()> {
        let agent = Agent::start(self.settings(layout), Disk::default()).await?;
        agent.run_until(shutdown).await.context("the agent failed")
    }
}
