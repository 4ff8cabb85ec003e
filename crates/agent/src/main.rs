//! The command line of the agent.

mod commands;

use std::{io, path::PathBuf, time::Duration};

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use moorage_agent::Layout;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::{
    filter::Targets, fmt, layer::SubscriberExt as _, util::SubscriberInitExt as _,
};

/// The management service on a Moorage server: takes one desired state and sealed credentials over
/// the tunnel, converges the server to them, and reports.
#[derive(Parser)]
#[command(name = "moorage-agent", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// The folder that all paths are below, such as /etc/moorage and /run/moorage.
    #[arg(long, global = true, env = "MOORAGE_AGENT_ROOT", default_value = "/")]
    root: PathBuf,
    /// What to log, as a tracing filter: error, warn, info, debug, or per target, such as
    /// "info,audit=off".
    #[arg(long, global = true, env = "MOORAGE_AGENT_LOG", default_value = "info")]
    log: String,
}

#[derive(Subcommand)]
enum Command {
    /// Answer the operator and converge the server until told to stop.
    Serve(commands::serve::Serve),
    /// Do for the agent what only root may do: install verified artifacts, control the server's
    /// units, write the tunnel's token, replace the agent itself. Run by systemd as root.
    Installer(commands::installer::Install),
    /// Take an update of the agent back whose installer does not start. Run by systemd as root.
    RollBack(commands::installer::Bus),
    /// Write OpenClaw's files and run its command line for the agent, as the user who owns them. Run
    /// by systemd as that user.
    Worker(commands::worker::Worker),
}

/// A thread that has nothing to block on goes away soon: its stack is memory.
const BLOCKING_KEEP_ALIVE: Duration = Duration::from_secs(2);
/// For work that blocks a thread and does not matter any more.
const LAST_PATIENCE: Duration = Duration::from_secs(5);

fn main() -> anyhow::Result<()> {
    let Cli { command, root, log } = Cli::parse();
    let layout = Layout::new(root);
    // Not an `EnvFilter`, whose regular expressions are a third of a megabyte of program.
    let filter: Targets = log.parse().with_context(|| format!("--log {log:?} is not a filter"))?;
    // The journal has its own clock, and no use for colours.
    let journal = fmt::layer().with_writer(io::stderr).with_ansi(false).without_time();
    tracing_subscriber::registry().with(filter).with(journal).init();
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
            Command::Serve(serve) => serve.run(layout, shutdown).await,
            Command::Installer(install) => install.run(layout, shutdown).await,
            Command::RollBack(bus) => bus.roll_back(&layout).await,
            Command::Worker(worker) => worker.run(layout, shutdown).await,
        }
    });
    runtime.shutdown_timeout(LAST_PATIENCE);
    outcome
}
