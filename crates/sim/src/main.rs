//! `moorage-sim`: the simulator as a program. Called as `openclaw`, `npm` or `agent-stand-in` (by a
//! symlink) or `cloudflared` (by a copy), it is the stand-in of that name.

use std::ffi::OsStr;
use std::io::{IsTerminal as _, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand, ValueEnum};
use moorage_sim_clouds::edge::{Edge, EdgeAddresses};
use moorage_sim_clouds::{
    CloudflareState, ListenAddresses, NoBackend, Simulator, Timings, VpsBackend, World,
};
use moorage_sim_servers::connector::{self, Cloudflared, ConnectorOptions};
use moorage_sim_servers::openclaw::npm::{self, Npm};
use moorage_sim_servers::openclaw::{self, OpenClaw};
use moorage_sim_servers::terminal;
use moorage_sim_servers::vps::agent_stand_in::{self, AgentStandIn};
use moorage_sim_servers::vps::guard::{self, GuardOptions};
use moorage_sim_servers::vps::nspawn::inside::{self, ExecOptions};
use moorage_sim_servers::vps::nspawn::launch::{self, LaunchOptions};
use moorage_sim_servers::vps::nspawn::qemu::{self, MachineOptions};
use moorage_sim_servers::vps::nspawn::{Acceleration, NspawnBackend, NspawnOptions};
use moorage_sim_servers::vps::{ProcessBackend, ProcessOptions, StateDir};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// The clouds that Moorage talks to, and the servers behind them, on loopback.
#[derive(Parser)]
#[command(name = "moorage-sim", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve the Hetzner API, the Cloudflare API, the edge and the admin API until SIGTERM or SIGINT.
    ///
    /// It starts empty: make projects and accounts through the admin API
    /// (PUT /admin/hetzner/projects/NAME, PUT /admin/cloudflare/accounts/ID).
    Serve(Box<Serve>),
    /// Stand in for cloudflared on a simulated server
    #[command(version = connector::VERSION)]
    Connector(ConnectorOptions),
    /// Stand in for OpenClaw on a simulated server
    #[command(name = "openclaw-stand-in")]
    OpenClaw(OpenClaw),
    /// Run a program inside a server of the nspawn backend, or look around in it
    Exec(ExecOptions),
    /// Become the container of a server
    #[command(hide = true)]
    LaunchContainer(LaunchOptions),
    /// Become the virtual machine of a server
    #[command(hide = true)]
    LaunchMachine(MachineOptions),
    /// Become a program that dies with the simulator
    #[command(hide = true)]
    Guard(GuardOptions),
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

    /// Address of the edge for visitors (TLS)
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    listen_edge: SocketAddr,

    /// Address of the edge for connectors (TLS); cloudflared takes it as --edge, given twice, and the
    /// ready file's edgeCa as --cacert
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    listen_connectors: SocketAddr,

    /// Serve both clouds by TLS, as api.hetzner.test and api.cloudflare.test with certificates of the edge's
    /// authority; whoever calls them has to know the address
    #[arg(long)]
    tls: bool,

    /// What stands behind a created server
    #[arg(long, value_enum, default_value_t = Backend::None)]
    backend: Backend,

    /// Where ca.pem and ca-key.pem of the edge and the servers' folders go; without it a folder in the temporary
    /// directory, removed at the end
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,

    /// The agent that servers of the process backend run; without it the moorage-agent beside this program
    #[arg(long, value_name = "FILE")]
    agent_bin: Option<PathBuf>,

    /// How long a server of the process backend takes to boot, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 300)]
    boot_delay_ms: u64,

    /// The root filesystem that servers of the nspawn backend boot from, made by hack/lab.sh
    #[arg(long, value_name = "DIR", env = "MOORAGE_ROOTFS")]
    rootfs: Option<PathBuf>,

    /// The folder that servers of the nspawn backend see as `http://artifacts.moorage.test/`
    #[arg(long, value_name = "DIR")]
    artifacts: Option<PathBuf>,

    /// The npm registry that servers of the nspawn backend reach as `https://registry.npmjs.org/`
    #[arg(
        long,
        value_name = "URL",
        env = "MOORAGE_NPM_REGISTRY",
        default_value = "https://registry.npmjs.org/"
    )]
    npm_registry: String,

    /// Size of the disk of a server of the nspawn backend, in MB; its file is sparse
    #[arg(long, value_name = "MB", default_value_t = 8192)]
    disk_mb: u64,

    /// How servers of the nspawn backend run that have a kernel of their own; hack/lab.sh tries it
    #[arg(long, value_enum, env = "MOORAGE_LAB_ACCELERATION", default_value_t = Acceleration::Tcg)]
    acceleration: Acceleration,

    /// Written when everything listens: a JSON object with URLs (hetzner, cloudflare, admin),
    /// addresses (edge, connectorEdge) and the file of the edge's authority (edgeCa)
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
    /// Processes of the agent, a connector and a stand-in for OpenClaw, on an address per server
    Process,
    /// Debian in a container, booted by its own systemd from the user-data; needs root
    Nspawn,
}

fn positive(text: &str) -> Result<f64, String> {
    let factor: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if factor > 0.0 && factor.is_finite() {
        Ok(factor)
    } else {
        Err("must be greater than 0".to_owned())
    }
}

fn main() -> ExitCode {
    let called = std::env::args_os().next().unwrap_or_default();
    match Path::new(&called).file_name().and_then(OsStr::to_str) {
        Some("openclaw") => within_runtime(openclaw::run(OpenClaw::parse())),
        Some("npm") => npm::run(&Npm::parse()),
        Some("agent-stand-in") => {
            within_runtime(report(agent_stand_in::run(AgentStandIn::parse())))
        }
        Some("cloudflared") => within_runtime(report(connector::run(Cloudflared::parse().into()))),
        _ => match Cli::parse().command {
            Command::Serve(options) => within_runtime(report(serve(*options))),
            Command::Connector(options) => within_runtime(report(connector::run(options))),
            Command::OpenClaw(arguments) => within_runtime(openclaw::run(arguments)),
            Command::Exec(options) => not_become("the program", &inside::run(options)),
            Command::LaunchContainer(options) => {
                not_become("the container", &launch::run(&options))
            }
            Command::LaunchMachine(options) => {
                not_become("the virtual machine", &qemu::run(&options))
            }
            Command::Guard(options) => {
                let error = guard::run(&options);
                let program = options.command.first().cloned().unwrap_or_default();
                not_become(&program.to_string_lossy(), &error)
            }
        },
    }
}

fn not_become(what: &str, error: &std::io::Error) -> ExitCode {
    terminal::complain(&format!("cannot become {what}: {error}"));
    ExitCode::FAILURE
}

fn within_runtime(work: impl Future<Output = ExitCode>) -> ExitCode {
    tracing_subscriber::fmt()
        .with_env_filter(
            EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info")),
        )
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .init();
    match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(work),
        Err(error) => {
            terminal::complain(&format!("error: cannot start: {error}"));
            ExitCode::FAILURE
        }
    }
}

async fn report<E: Into<anyhow::Error>>(work: impl Future<Output = Result<(), E>>) -> ExitCode {
    match work.await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            terminal::complain(&format!("error: {:#}", error.into()));
            ExitCode::FAILURE
        }
    }
}

async fn serve(options: Serve) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    let state_dir = StateDir::open(options.state_dir.as_deref())?;
    let cloudflare = CloudflareState::default();
    let edge_addresses =
        EdgeAddresses { visitors: options.listen_edge, connectors: options.listen_connectors };
    let edge = Edge::start(Arc::new(cloudflare.clone()), edge_addresses, state_dir.path()).await?;
    let backend = backend(&options, &edge, state_dir.path()).await?;
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
    let world = World::behind_edge(cloudflare, backend, timings);
    let tls = options.tls.then(|| edge.tls());
    let simulator = Simulator::start(world, addresses, tls).await?.with_edge(&edge);
    let endpoints = simulator.endpoints();
    tracing::info!(
        hetzner = endpoints.hetzner,
        cloudflare = endpoints.cloudflare,
        admin = endpoints.admin,
        edge = %edge.visitors(),
        state_dir = %state_dir.path().display(),
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
    edge.shutdown().await;
    if let Some(file) = &options.ready_file {
        // Nobody is ready any more. Whoever removed the file already did the same.
        let _ = std::fs::remove_file(file);
    }
    Ok(())
}

async fn backend(
    options: &Serve,
    edge: &Edge,
    state_dir: &Path,
) -> anyhow::Result<Arc<dyn VpsBackend>> {
    let sim_bin = std::env::current_exe().context("cannot find this program's own file")?;
    Ok(match options.backend {
        Backend::None => Arc::new(NoBackend),
        Backend::Process => {
            let beside = sim_bin.with_file_name("moorage-agent");
            Arc::new(ProcessBackend::new(ProcessOptions {
                state_dir: state_dir.to_owned(),
                sim_bin,
                agent_bin: options.agent_bin.clone().unwrap_or(beside),
                connector_edge: edge.connectors(),
                edge_ca: std::path::absolute(edge.ca_file())
                    .context("cannot find the authority of the edge")?,
                boot_delay: Duration::from_millis(options.boot_delay_ms),
            })?)
        }
        Backend::Nspawn => {
            let rootfs = options.rootfs.clone();
            let options = NspawnOptions {
                state_dir: state_dir.to_owned(),
                sim_bin,
                rootfs: rootfs.context("the nspawn backend needs --rootfs; see hack/lab.sh")?,
                artifacts: options.artifacts.clone(),
                connector_edge: edge.connectors(),
                edge_ca: edge.ca_file().to_owned(),
                tls: edge.tls(),
                npm_registry: options.npm_registry.clone(),
                disk_bytes: options.disk_mb << 20,
                acceleration: options.acceleration,
            };
            Arc::new(NspawnBackend::start(options).await?)
        }
    })
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
