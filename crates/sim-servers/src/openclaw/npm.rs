//! A stand-in for the npm that comes with OpenClaw: what the registry says of a package. It is published
//! unless its name contains `unpublished`, and has an integrity, made of its name and version.

use std::io;
use std::process::ExitCode;

use aws_lc_rs::digest::{SHA512, digest};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::Value;

use super::TITLE;
use crate::terminal;

/// The command line of `npm`, as far as the agent uses it.
#[derive(Debug, clap::Parser)]
#[command(name = "npm", version = "11.21.2", about = "npm stand-in (simulator)")]
pub struct Npm {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// What the registry says of a package
    View {
        /// `<name>@<version>`
        package: String,
        /// Only `dist.integrity` is known
        #[arg(value_parser = ["dist.integrity"])]
        field: String,
        /// Answer as JSON
        #[arg(long)]
        json: bool,
    },
}

/// Does what the command line says.
pub fn run(npm: &Npm) -> ExitCode {
    let Verb::View { package, field: _, json: _ } = &npm.verb;
    if let Err(error) = published(package) {
        terminal::complain(&format!("{TITLE}: {error}"));
        return ExitCode::FAILURE;
    }
    terminal::say(&Value::from(integrity(package)).to_string());
    ExitCode::SUCCESS
}

/// Whether the registry has it.
pub(super) fn published(name: &str) -> io::Result<()> {
    if name.contains("unpublished") {
        return Err(io::Error::other("no such package"));
    }
    Ok(())
}

/// That of `<name>@<version>`.
pub(super) fn integrity(package: &str) -> String {
    format!("sha512-{}", STANDARD.encode(digest(&SHA512, package.as_bytes())))
}
