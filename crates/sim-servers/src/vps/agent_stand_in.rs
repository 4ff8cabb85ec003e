//! A program that can be started like the agent and does nothing but answer `/healthz` and echo
//! requests: for tests of the backend, the edge and the connector without the agent.

use std::net::SocketAddr;
use std::path::PathBuf;

use axum::Router;
use axum::routing::get;
use http::HeaderMap;

/// The agent's command line, as far as the backend uses it.
#[derive(Debug, clap::Parser)]
#[command(name = "agent-stand-in", about = "Stands in for moorage-agent in tests of the simulator")]
pub struct AgentStandIn {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Answer on the agent's address
    Serve(ServeOptions),
}

#[derive(Debug, clap::Args)]
struct ServeOptions {
    #[arg(long)]
    root: PathBuf,
    #[arg(long)]
    listen: String,
    #[arg(long)]
    gateway: SocketAddr,
    #[arg(long)]
    cloudflared_metrics: SocketAddr,
    #[arg(long)]
    installer_socket: PathBuf,
    #[arg(long)]
    programs: String,
    #[arg(long)]
    openclaw_bin: PathBuf,
}

/// Serves until it is killed.
pub async fn run(arguments: AgentStandIn) -> std::io::Result<()> {
    let Verb::Serve(options) = arguments.verb;
    let address = options.listen.strip_prefix("tcp:").unwrap_or(&options.listen);
    let listener = tokio::net::TcpListener::bind(address).await?;
    tracing::info!(?options, "the agent's stand-in listens");
    let echo = async |headers: HeaderMap| {
        let mut lines: Vec<_> = headers
            .iter()
            .map(|(name, value)| format!("{name}: {}", String::from_utf8_lossy(value.as_bytes())))
            .collect();
        lines.sort();
        lines.join("\n")
    };
    let router = Router::new().route("/healthz", get(async || "ok")).route("/echo", get(echo));
    axum::serve(listener, router).await
}
