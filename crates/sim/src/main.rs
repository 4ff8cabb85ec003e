//! The `moorage-sim` program. Called as `openclaw` or `agent-stand-in` (by a symlink), it is the
//! stand-in of that name.

use std::ffi::OsStr;
use std::io::IsTerminal as _;
use std::path::Path;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use moorage_sim::connector::{self, ConnectorOptions};
use moorage_sim::openclaw::{self, OpenClaw};
use moorage_sim::terminal;
use moorage_sim::vps::agent_stand_in::{self, AgentStandIn};
use moorage_sim::vps::guard::{self, GuardOptions};

/// Hetzner, Cloudflare and the servers behind them, on loopback.
#[derive(Debug, Parser)]
#[command(name = "moorage-sim", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Stand in for cloudflared on a simulated server
    Connector(ConnectorOptions),
    /// Stand in for `OpenClaw` on a simulated server
    #[command(name = "openclaw-stand-in")]
    OpenClaw(OpenClaw),
    /// Become a program that dies with the simulator
    #[command(hide = true)]
    Guard(GuardOptions),
}

fn main() -> ExitCode {
    let called = std::env::args_os().next().unwrap_or_default();
    match Path::new(&called).file_name().and_then(OsStr::to_str) {
        Some("openclaw") => within_runtime(openclaw::run(OpenClaw::parse())),
        Some("agent-stand-in") => {
            within_runtime(report(agent_stand_in::run(AgentStandIn::parse())))
        }
        _ => match Cli::parse().command {
            Command::Connector(options) => within_runtime(report(connector::run(options))),
            Command::OpenClaw(arguments) => within_runtime(openclaw::run(arguments)),
            Command::Guard(options) => {
                let error = guard::run(&options);
                let program = options.command.first().cloned().unwrap_or_default();
                terminal::complain(&format!("cannot become {}: {error}", program.display()));
                ExitCode::FAILURE
            }
        },
    }
}

fn within_runtime(work: impl Future<Output = ExitCode>) -> ExitCode {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .init();
    match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime.block_on(work),
        Err(error) => {
            terminal::complain(&format!("cannot start: {error}"));
            ExitCode::FAILURE
        }
    }
}

async fn report<E: std::fmt::Display>(work: impl Future<Output = Result<(), E>>) -> ExitCode {
    match work.await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            terminal::complain(&format!("error: {error}"));
            ExitCode::FAILURE
        }
    }
}
