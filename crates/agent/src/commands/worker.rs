//! `moorage-agent worker`: its flags, and those that say how OpenClaw is run.

use std::{net::SocketAddr, path::PathBuf};

use anyhow::Context as _;
use clap::Args;
use moorage_agent::{GATEWAY, Layout, OpenClawProgram, worker};

use super::PrivateService;

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
    #[command(flatten)]
    service: PrivateService,
    /// The address of OpenClaw's gateway.
    #[arg(long, env = "MOORAGE_AGENT_GATEWAY", default_value_t = GATEWAY)]
    gateway: SocketAddr,
    #[command(flatten)]
    openclaw: OpenClaw,
}

impl Worker {
    pub(crate) async fn run(
        self,
        layout: Layout,
        shutdown: impl Future<Output = ()>,
    ) -> anyhow::Result<()> {
        let PrivateService { listen, client } = self.service;
        let program = self.openclaw.program(&layout);
        tokio::select! {
            served = worker::serve(&listen, client, layout, program, self.gateway) => {
                served.context("the worker failed")
            }
            () = shutdown => Ok(()),
        }
    }
}
