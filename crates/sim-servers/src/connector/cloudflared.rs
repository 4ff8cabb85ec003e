//! The connector in cloudflared's place on a server of the lab: the command line and the environment
//! that the server's unit gives cloudflared, as far as they say anything to the connector.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use super::{ConnectorOptions, GRACE_MS, VERSION};

/// As cloudflared: waits of up to 10 s between its tries.
const RETRY_BASE_MS: u64 = 300;

/// The simulator's connector, standing in for cloudflared
#[derive(Debug, Parser)]
#[command(name = "cloudflared", version = VERSION)]
pub struct Cloudflared {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Connect to the edge
    Tunnel(Tunnel),
}

#[derive(Debug, Args)]
struct Tunnel {
    /// Does nothing: there are no updates of a stand-in
    #[arg(long)]
    no_autoupdate: bool,
    /// Does nothing: the edge is given by its address
    #[arg(long)]
    edge_ip_version: Option<String>,
    /// Where the simulated edge listens; the first counts
    #[arg(long, env = "TUNNEL_EDGE", value_delimiter = ',', required = true)]
    edge: Vec<SocketAddr>,
    /// PEM file with the authority of the edge
    #[arg(long, env = "TUNNEL_CACERT")]
    cacert: PathBuf,
    /// Where to serve /ready, /healthcheck and /config
    #[arg(long, env = "TUNNEL_METRICS")]
    metrics: SocketAddr,
    #[command(subcommand)]
    command: TunnelCommand,
}

#[derive(Debug, Subcommand)]
enum TunnelCommand {
    /// Until SIGTERM or SIGINT
    Run {
        /// File with the tunnel's run token
        #[arg(long, env = "TUNNEL_TOKEN_FILE")]
        token_file: PathBuf,
    },
}

impl From<Cloudflared> for ConnectorOptions {
    fn from(arguments: Cloudflared) -> Self {
        let Command::Tunnel(tunnel) = arguments.command;
        let TunnelCommand::Run { token_file } = tunnel.command;
        Self {
            token_file,
            edge: tunnel.edge[0],
            cacert: tunnel.cacert,
            metrics: tunnel.metrics,
            map: Vec::new(),
            retry_base_ms: RETRY_BASE_MS,
            grace_ms: GRACE_MS,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_unit_gives_cloudflared_is_understood() {
        let unit = "cloudflared tunnel --no-autoupdate --edge-ip-version auto --metrics 127.0.0.1:20241 \
                    --edge 198.51.100.2:7844,198.51.100.2:7844 --cacert /etc/edge.pem run --token-file /etc/token";
        let options =
            ConnectorOptions::from(Cloudflared::try_parse_from(unit.split_whitespace()).unwrap());
        assert_eq!(options.edge, "198.51.100.2:7844".parse().unwrap());
        assert_eq!(options.metrics, "127.0.0.1:20241".parse().unwrap());
        assert_eq!(options.token_file, PathBuf::from("/etc/token"));
        assert_eq!(options.cacert, PathBuf::from("/etc/edge.pem"));
    }

    #[test]
    fn a_stand_in_knows_no_edge_by_itself() {
        let lonely = "cloudflared tunnel --metrics 127.0.0.1:1 --cacert /etc/edge.pem run --token-file /etc/token";
        assert!(Cloudflared::try_parse_from(lonely.split_whitespace()).is_err());
    }
}
