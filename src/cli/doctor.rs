//! `moorage doctor`: asks the clouds themselves whether Moorage can work with them. What is checked, and how a
//! verdict comes about, is in [`crate::doctor`].

mod manifests;
mod render;
mod target;
#[cfg(test)]
mod tests;

use std::{io, path::PathBuf};

use clap::{ArgGroup, Args};
use thiserror::Error;
use url::Url;

use super::status::OutputFormat;
use crate::{
    cloud::ConfigError,
    cloudflare::{AccountId, ZoneId},
    doctor::{Verdict, look::look, web::Web, worst},
};

/// Exit code where the command line, or a file that it names, is wrong. The parser of the command line has
/// the same.
pub const USAGE: u8 = 2;

/// Ask the clouds whether Moorage can work with them
///
/// Looks at this machine (certificate authorities, clock, the way to both APIs), a Hetzner project (token,
/// server types in each location, image, room, SSH keys), a Cloudflare account and zone (token and its
/// permissions, zone, Zero Trust, limits, certificate and settings of the edge), and at the files of a release
/// (over IPv4 and IPv6), and says pass, warn, fail or unknown for each, with what to do. Unknown is what the
/// token may not see: Moorage itself does not need those permissions. Nothing is changed anywhere.
///
/// Needs no cluster: give token files, and either -f with the manifests of a pool and a release, or the
/// options below.
///
/// Exit code 0: nothing fails; 1: something fails; 2: the command line or a file that it names is wrong.
#[derive(Args)]
#[command(
    group = ArgGroup::new("tokens").args(["hetzner_token_file", "cloudflare_token_file"]).multiple(true).required(true),
    after_help = "Examples:\n  moorage doctor -f pool.yaml -f release.yaml \\\n    --hetzner-token-file hetzner.token --cloudflare-token-file cloudflare.token\n  moorage doctor --hetzner-token-file hetzner.token --server-type cx33,cpx32 --location fsn1,nbg1\n  moorage doctor --cloudflare-token-file cloudflare.token --account-id 0123… --zone-id 4567… -o json"
)]
pub struct DoctorArgs {
    /// Manifest of a HostingPool or an OpenClawRelease, as you would apply it; may be given more than once
    #[arg(long, short, value_name = "FILE")]
    file: Vec<PathBuf>,
    /// File with an API token of the Hetzner project
    #[arg(long, value_name = "FILE")]
    hetzner_token_file: Option<PathBuf>,
    /// File with an API token of the Cloudflare account
    #[arg(long, value_name = "FILE")]
    cloudflare_token_file: Option<PathBuf>,
    /// Server types, in order of preference; those of the pool, or cx33,cpx32, by default
    #[arg(long, value_name = "TYPE,…", value_delimiter = ',')]
    server_type: Vec<String>,
    /// Locations, in order of preference; those of the pool, or fsn1,nbg1,hel1, by default
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    location: Vec<String>,
    /// The image that servers boot; that of the pool, or debian-13, by default
    #[arg(long, value_name = "NAME")]
    image: Option<String>,
    /// The Cloudflare account; that of the pool by default
    #[arg(long, value_name = "ID", value_parser = |text: &str| AccountId::parse(text))]
    account_id: Option<AccountId>,
    /// The Cloudflare zone; that of the pool by default
    #[arg(long, value_name = "ID", value_parser = |text: &str| ZoneId::parse(text))]
    zone_id: Option<ZoneId>,
    /// The domain of instances; that of the pool, or the zone's own, by default
    #[arg(long, value_name = "DOMAIN")]
    domain: Option<String>,
    /// Address of a file that servers will fetch, beside those of releases; may be given more than once
    #[arg(long, value_name = "URL")]
    release_url: Vec<Url>,
    /// How to print it
    #[arg(long, short, value_name = "FORMAT", default_value = "text")]
    output: OutputFormat,
    /// Root of Hetzner's API
    #[arg(long, value_name = "URL", default_value = "https://api.hetzner.cloud/v1")]
    hetzner_endpoint: Url,
    /// Root of Cloudflare's API
    #[arg(long, value_name = "URL", default_value = "https://api.cloudflare.com/client/v4")]
    cloudflare_endpoint: Url,
    /// PEM certificates to trust at the clouds' APIs beside the system's
    #[arg(long, value_name = "FILE")]
    cloud_ca: Option<PathBuf>,
}

/// Why nothing was looked at.
#[derive(Debug, Error)]
pub enum DoctorError {
    /// A file.
    #[error("--{option} {}: {source}", .path.display())]
    File {
        /// The option.
        option: &'static str,
        /// Its value.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// What is in a token's file.
    #[error("--{option} {} holds no API token: {problem}", .path.display())]
    Token {
        /// The option.
        option: &'static str,
        /// Its value.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// What is in a manifest.
    #[error("{} cannot be read: {why}", .path.display())]
    Manifest {
        /// Its path.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// Two pools.
    #[error("the manifests hold more than one HostingPool; give one")]
    TwoPools,
    /// An option is missing.
    #[error("--{missing} is needed with --{with}, or a HostingPool with -f")]
    Missing {
        /// What is missing.
        missing: &'static str,
        /// What needs it.
        with: &'static str,
    },
    /// A client.
    #[error(transparent)]
    Client(#[from] ConfigError),
    /// It cannot be printed.
    #[error("the findings cannot be written as JSON: {0}")]
    Unprintable(#[from] serde_json::Error),
}

/// What to print, and how to exit.
pub struct Report {
    /// For standard output.
    pub text: String,
    /// Whether something fails.
    pub failed: bool,
}

/// Runs the command. `progress` is told what takes a while.
///
/// # Errors
/// If the command line does not say what to look at.
pub async fn run(
    args: DoctorArgs,
    progress: &(dyn Fn(&str) + Sync),
) -> Result<Report, DoctorError> {
    let (target, roots) = target::of(&args).await?;
    let web = Web::new(roots);
    let findings = look(&target, &web, progress).await;
    let failed = worst(&findings) == Verdict::Fail;
    let text = match args.output {
        OutputFormat::Text => render::text(&findings),
        OutputFormat::Json => render::json(&findings)?,
    };
    Ok(Report { text, failed })
}
