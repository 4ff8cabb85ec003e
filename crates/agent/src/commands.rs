//! The subcommands of the program, and the options that several of them have.

pub(crate) mod installer;
pub(crate) mod serve;
pub(crate) mod worker;

use clap::Args;
use moorage_agent::{Client, UnixSocket};

/// A service that only processes of the same server talk to.
#[derive(Args)]
pub(crate) struct PrivateService {
    /// Where to answer.
    #[arg(
        long,
        env = "MOORAGE_AGENT_LISTEN",
        value_name = "systemd|unix:/PATH",
        default_value = "systemd"
    )]
    listen: UnixSocket,
    /// The user that may ask, by name or number: the agent's.
    #[arg(long, env = "MOORAGE_AGENT_CLIENT", default_value = "moorage", value_name = "USER")]
    client: Client,
}
