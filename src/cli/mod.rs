//! The command line: one file for each command, and what they share.

#![allow(clippy::doc_markdown, reason = "the comments of commands are their help")]

pub mod cleanup;
pub mod cluster_certificates;
pub mod cluster_error;
pub mod cluster_reader;
pub mod crds;
pub mod doctor;
pub mod plan;
pub mod policies;
pub mod reasons;
pub mod release;
pub mod run;
pub mod seal;
pub mod status;

use clap::{Parser, Subcommand};

/// Moorage gives each customer a locked-down OpenClaw server
///
/// One OpenClawInstance in the cluster becomes one Hetzner server that only a Cloudflare Tunnel
/// reaches.
#[derive(Parser)]
#[command(name = "moorage", version, propagate_version = true)]
pub struct Cli {
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Subcommand)]
// A comment on one of them would replace the help of the command's own file.
pub enum Command {
    Run(Box<run::RunArgs>),
    Crds(crds::CrdsArgs),
    AdmissionPolicies(policies::PoliciesArgs),
    Reasons(reasons::ReasonsArgs),
    Seal(Box<seal::SealArgs>),
    Plan(Box<plan::PlanArgs>),
    Release(Box<release::ReleaseArgs>),
    Status(Box<status::StatusArgs>),
    Cleanup(Box<cleanup::CleanupArgs>),
    Doctor(Box<doctor::DoctorArgs>),
}

#[cfg(test)]
mod tests {
    use super::Cli;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_explains_itself_at_length() {
        for command in Cli::command().get_subcommands() {
            let name = command.get_name();
            assert!(command.get_about().is_some(), "{name}");
            assert!(command.get_long_about().is_some(), "{name}");
        }
    }
}
