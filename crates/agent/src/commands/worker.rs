//! `moorage-agent worker`: its flags, and those that say how OpenClaw is run.

use std::{net::SocketAddr, path::PathBuf};

use anyhow::Context as _;
use clap::Args;
use moorage_agent::{Layout, Listen, OpenClawProgram, conversation::Client, worker};

/// Where OpenClaw's gateway is unless told otherwise.
pub(crate) const GATEWAY: &str = "127.0.0.1:18789";

/// How OpenClaw's command line is run.
#[derive(Args)]
pub(crate) struct OpenClaw {
    /// OpenClaw's program. [default: <ROOT>/opt/moorage/openclaw/current/bin/openclaw]
    #[arg(long, env = "MOORAGE_AGENT_OPENCLAW_BIN")]
    openclaw_bin: Option<PathBuf>,
    /// The Node.js that runs OpenClaw's program; without it, a program that --openclaw-bin names is run
    /// as it is. [default: <ROOT>/opt/moorage/node/current/bin/node]
    #[arg(long, env = "MOORAGE_AGENT_NODE_BIN")]
    node_bin: Option<PathBuf>,
}

impl OpenClaw {
    pub(crate) fn program(self, layout: &Layout) -> OpenClawProgram {
        if let Some(openclaw) = self.openclaw_bin {
            return OpenClawProgram { openclaw, node: self.node_bin };
        }
        let managed = OpenClawProgram::managed(layout);
        OpenClawProgram { node: self.node_bin.or(managed.node), ..managed }
    }
}

#[derive(Args)]
pub(crate) struct Worker {
    /// The folder that all paths are below.
    #[arg(long, env = "MOORAGE_AGENT_ROOT", default_value = "/")]
    root: PathBuf,
    /// Where to answer.
    #[arg(
        long,
        env = "MOORAGE_WORKER_LISTEN",
        value_name = "systemd|unix:/PATH",
        default_value = "systemd"
    )]
    listen: Listen,
    /// The user that may ask, by name or number: the agent's.
    #[arg(long, env = "MOORAGE_WORKER_CLIENT", default_value = "moorage", value_name = "USER")]
    client: Client,
    /// The address of OpenClaw's gateway.
    #[arg(long, env = "MOORAGE_AGENT_GATEWAY", default_value = GATEWAY)]
    gateway: SocketAddr,
    #[command(flatten)]
    openclaw: OpenClaw,
    /// What to log, as a tracing filter.
    #[arg(long, env = "MOORAGE_AGENT_LOG", default_value = "info")]
    pub(crate) log: String,
}

impl Worker {
    pub(crate) async fn run(self, shutdown: impl Future<Output = ()>) -> anyhow::Result<()> {
        let layout = Layout::new(self.root);
        let program = self.openclaw.program(&layout);
        tokio::select! {
            served = worker::serve(&self.listen, self.client, layout, program, self.gateway) => {
                served.context("the worker cannot go on")
            }
            () = shutdown => Ok(()),
        }
    }
}
