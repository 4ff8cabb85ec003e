//! The command line of the agent.

mod commands;

use std::{io, net::SocketAddr, path::PathBuf, time::Duration};

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand, ValueEnum};
use moorage_agent::{Agent, Disk, Listen, Programs, Settings};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// The management service on a Moorage server: takes one desired state and sealed credentials over
/// the tunnel, converges the server to them, and reports.
#[derive(Parser)]
#[command(name = "moorage-agent", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Answer the operator and converge the server until told to stop.
    Serve(Serve),
    /// Do for the agent what only root may do: install verified artifacts, control the server's
    /// units, write the tunnel's token, replace the agent itself. Run by systemd as root.
    Installer(commands::installer::Install),
    /// Take an update of the agent back whose installer does not start. Run by systemd as root.
    RollBack(commands::installer::Machine),
    /// Write OpenClaw's files and run its command line for the agent, as the user who owns them. Run
    /// by systemd as that user.
    Worker(commands::worker::Worker),
}

impl Command {
    fn log(&self) -> &str {
        match self {
            Self::Serve(serve) => &serve.log,
            Self::Installer(install) => &install.machine.log,
            Self::RollBack(machine) => &machine.log,
            Self::Worker(worker) => &worker.log,
        }
    }
}

/// See [`Programs`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ProgramsArgument {
    Managed,
    External,
}

#[derive(Args)]
struct Serve {
    /// The folder that all paths are below: /etc/moorage/bootstrap.json, /var/lib/moorage,
    /// /var/lib/openclaw, /run/moorage.
    #[arg(long, env = "MOORAGE_AGENT_ROOT", default_value = "/")]
    root: PathBuf,
    /// Where to answer [default: unix:<ROOT>/run/moorage/agent.sock].
    #[arg(
        long,
        env = "MOORAGE_AGENT_LISTEN",
        value_name = "unix:/PATH|tcp:127.X.Y.Z:PORT|systemd"
    )]
    listen: Option<Listen>,
    /// The address of OpenClaw's gateway.
    #[arg(long, env = "MOORAGE_AGENT_GATEWAY", default_value = commands::worker::GATEWAY)]
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
    openclaw: commands::worker::OpenClaw,
    /// How many seconds OpenClaw may take to start before its configuration is rolled back.
    #[arg(long, env = "MOORAGE_AGENT_HEALTH_DEADLINE", default_value_t = 120, value_name = "SECONDS",
          value_parser = clap::value_parser!(u64).range(1..=3600))]
    health_deadline: u64,
    /// What to log, as a tracing filter: error, warn, info, debug, or per target, such as
    /// "info,audit=off".
    #[arg(long, env = "MOORAGE_AGENT_LOG", default_value = "info")]
    log: String,
}

impl Serve {
    fn settings(self) -> Settings {
        let defaults = Settings::new(self.root);
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
}

impl Serve {
    async fn run(self, shutdown: impl Future<Output = ()>) -> anyhow::Result<()> {
        let agent = Agent::start(self.settings(), Disk::default()).await?;
        agent.run_until(shutdown).await.context("the agent cannot go on")
    }
}

/// A thread that has nothing to block on goes away soon: its stack is memory.
const BLOCKING_KEEP_ALIVE: Duration = Duration::from_secs(2);
/// For work that blocks a thread and does not matter any more.
const LAST_PATIENCE: Duration = Duration::from_secs(5);

fn main() -> anyhow::Result<()> {
    let command = Cli::parse().command;
    let filter = EnvFilter::try_new(command.log())
        .with_context(|| format!("--log {:?} is not a filter", command.log()))?;
    // The journal has its own clock, and no use for colours.
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(false)
        .without_time()
        .init();
    // One thread does all that waits, others only what blocks: most of the time there is nothing to do.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .max_blocking_threads(16)
        .thread_keep_alive(BLOCKING_KEEP_ALIVE)
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let outcome = runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let shutdown = async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            tracing::info!("stopping");
        };
        match command {
            Command::Serve(serve) => serve.run(shutdown).await,
            Command::Installer(install) => install.run(shutdown).await,
            Command::RollBack(machine) => machine.roll_back().await,
            Command::Worker(worker) => worker.run(shutdown).await,
        }
    });
    runtime.shutdown_timeout(LAST_PATIENCE);
    outcome
}
