//! `moorage release`: pins a version of OpenClaw, makes the files that servers install, and prints the
//! `OpenClawRelease` that approves them.

mod build;
mod integrations;
mod options;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::release::{Progress, ReleaseError, lock, npm::Npm};

use build::{BuildArgs, BundleArgs};
use integrations::LockPluginArgs;
use options::NpmArgs;

/// Make the artifacts and the manifest of an OpenClawRelease
///
/// A release is pinned once, with `lock`, in a folder that is kept in Git; `build` makes the files that
/// servers install out of it, the same bytes every time, and prints the manifest that approves them.
#[derive(Args)]
#[command(
    after_help = "Example:\n  moorage release lock --openclaw VERSION --node VERSION\n  moorage release build --openclaw VERSION --cloudflared ./cloudflared --agent ./moorage-agent \\\n    --base-url https://releases.example.com/ --output out > release.yaml"
)]
pub struct ReleaseArgs {
    #[command(subcommand)]
    command: ReleaseCommand,
}

#[derive(Subcommand)]
enum ReleaseCommand {
    Lock(LockArgs),
    LockPlugin(Box<LockPluginArgs>),
    Bundle(BundleArgs),
    Build(Box<BuildArgs>),
}

/// Pin a version of OpenClaw with its whole dependency tree, and Node.js
///
/// Asks the npm registry which packages make up OpenClaw today and writes package.json,
/// package-lock.json and programs.yaml. Look at the result and commit it. To pin cloudflared too, add it
/// to programs.yaml in the form that node has there.
#[derive(Args)]
struct LockArgs {
    /// Exact version of OpenClaw
    #[arg(long, value_name = "VERSION")]
    openclaw: String,
    /// Exact version of Node.js, one that this OpenClaw runs on (`npm view openclaw@VERSION engines`)
    #[arg(long, value_name = "VERSION")]
    node: String,
    /// The folder to make; releases/<version of OpenClaw> by default
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
    #[command(flatten)]
    npm: NpmArgs,
}

/// Runs the command. The caller prints what it gives.
pub async fn run(args: ReleaseArgs, progress: Progress<'_>) -> Result<String, ReleaseError> {
    match args.command {
        ReleaseCommand::Lock(args) => args.run(progress).await,
        ReleaseCommand::LockPlugin(args) => args.run(progress).await,
        ReleaseCommand::Bundle(args) => args.run(progress).await,
        ReleaseCommand::Build(args) => args.run(progress).await,
    }
}

impl LockArgs {
    async fn run(self, progress: Progress<'_>) -> Result<String, ReleaseError> {
        let npm: Npm = self.npm.find()?;
        let folder = self.output.unwrap_or_else(|| PathBuf::from("releases").join(&self.openclaw));
        let request = lock::Request {
            openclaw: &self.openclaw,
            node: &self.node,
            folder: &folder,
            npm: &npm,
        };
        request.run(progress).await?;
        Ok(format!("{}\n", folder.display()))
    }
}
