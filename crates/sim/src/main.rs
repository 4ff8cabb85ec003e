//! `moorage-sim`: the simulator as a program.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand, ValueEnum};
use moorage_sim::{ListenAddresses, NoBackend, Simulator, Timings, VpsBackend, World};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// The clouds that Moorage talks to, on loopback.
#[derive(Parser)]
#[command(name = "moorage-sim", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve the Hetzner API, the Cloudflare API and the admin API until SIGTERM or SIGINT.
    ///
    /// It starts empty: make projects and accounts through the admin API
    /// (PUT /admin/hetzner/projects/NAME, PUT /admin/cloudflare/accounts/ID).
    Serve(Serve),
}

#[derive(Args)]
struct Serve {
    /// Address of the Hetzner API; port 0 takes any free port
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    listen_hetzner: SocketAddr,

    /// Address of the Cloudflare API
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    listen_cloudflare: SocketAddr,

    /// Address of the admin API, which has no password: keep it on loopback
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    listen_admin: SocketAddr,

    /// What stands behind a created server
    #[arg(long, value_enum, default_value_t = Backend::None)]
    backend: Backend,

    /// Written when everything listens: a JSON object with the URLs (hetzner, cloudflare, admin)
    #[arg(long, value_name = "FILE")]
    ready_file: Option<PathBuf>,

    /// How long a Hetzner action takes, and each step of a server's start, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 400)]
    action_ms: u64,

    /// How long a firewall stays in use after its last server is gone, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 2000)]
    firewall_release_ms: u64,

    /// Multiplies the periods of both rate limits: 0.01 turns five minutes into three seconds
    #[arg(long, value_name = "FACTOR", default_value_t = 1.0, value_parser = positive)]
    rate_limit_scale: f64,
}

#[derive(Clone, Copy, ValueEnum)]
enum Backend {
    /// Nothing: servers exist in the API only
    None,
}

fn positive(text: &str) -> Result<f64, String> {
    let factor: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if factor > 0.0 && factor.is_finite() {
        Ok(factor)
    } else {
        Err("must be greater than 0".to_owned())
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt()
        .with_env_filter(
            EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info")),
        )
        .with_writer(std::io::stderr)
        .init();
    match Cli::parse().command {
        Command::Serve(options) => serve(options).await,
    }
}

async fn serve(options: Serve) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    let backend: Arc<dyn VpsBackend> = match options.backend {
        Backend::None => Arc::new(NoBackend),
    };
    let timings = Timings {
        action: Duration::from_millis(options.action_ms),
        firewall_release: Duration::from_millis(options.firewall_release_ms),
        rate_limit_scale: options.rate_limit_scale,
    };
    let addresses = ListenAddresses {
        hetzner: options.listen_hetzner,
        cloudflare: options.listen_cloudflare,
        admin: options.listen_admin,
    };
    let simulator = Simulator::start(World::new(backend, timings), addresses).await?;
    let endpoints = simulator.endpoints();
    tracing::info!(
        hetzner = endpoints.hetzner,
        cloudflare = endpoints.cloudflare,
        admin = endpoints.admin,
        "serving"
    );
    if let Some(file) = &options.ready_file {
        write_atomically(file, &serde_json::to_vec(endpoints)?)
            .with_context(|| format!("cannot write the ready file {}", file.display()))?;
    }
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("stopping");
    simulator.shutdown().await;
    if let Some(file) = &options.ready_file {
        // Nobody is ready any more. Whoever removed the file already did the same.
        let _ = std::fs::remove_file(file);
    }
    Ok(())
}

/// Writes beside the file and renames, so that a reader sees all of it or nothing.
fn write_atomically(file: &Path, content: &[u8]) -> std::io::Result<()> {
    let mut beside = file.as_os_str().to_owned();
    beside.push(format!(".{}", std::process::id()));
    let beside = PathBuf::from(beside);
    let mut out = std::fs::File::create(&beside)?;
    out.write_all(content)?;
    out.sync_all()?;
    std::fs::rename(&beside, file)
}
