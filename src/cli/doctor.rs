//! `moorage doctor`: asks the clouds themselves whether Moorage can work with them. What is checked, and how a
//! verdict comes about, is in [`crate::doctor`].

mod cluster;
mod manifests;
mod render;
mod target;
#[cfg(test)]
mod tests;

use std::{io, net::SocketAddr, path::PathBuf};

use clap::{ArgGroup, Args};
use thiserror::Error;
use tokio_util::sync::CancellationToken;
use url::Url;

use super::{cleanup::Person, cluster_error::ClusterReadError, status::OutputFormat};
use target::Chosen;

use crate::{
    cloud::ConfigError,
    cloudflare::{AccountId, ZoneId},
    doctor::{
        Verdict,
        look::look,
        web::Web,
        worst,
        write::{Allowed, Run},
    },
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
/// token may not see: Moorage itself does not need those permissions. Nothing is
/// changed anywhere, unless you say --write or --spend.
///
/// Needs no cluster: give token files, and either -f with the manifests of a pool and a release, or the
/// options below.
///
/// With --pool, pool, tokens and releases are those of the cluster of your kubeconfig, and the cluster itself is
/// looked at: version, custom resources, admission policies, the operator's way out, your permissions.
///
/// Exit code 0: nothing fails; 1: something fails; 2: the command line or a file that it names is wrong.
#[derive(Args)]
#[command(
    group = ArgGroup::new("tokens").args(["hetzner_token_file", "cloudflare_token_file", "pool"]).multiple(true).required(true),
    after_help = "Examples:\n  moorage doctor -f pool.yaml -f release.yaml \\\n    --hetzner-token-file hetzner.token --cloudflare-token-file cloudflare.token\n  moorage doctor --hetzner-token-file hetzner.token --server-type cx33,cpx32 --location fsn1,nbg1\n  moorage doctor --pool eu-1 --write\n  moorage doctor --cloudflare-token-file cloudflare.token --account-id 0123… --zone-id 4567… -o json"
)]
pub struct DoctorArgs {
    /// A HostingPool of the cluster, with its tokens and releases
    #[arg(long, value_name = "NAME", conflicts_with_all = ["file", "hetzner_token_file", "cloudflare_token_file"])]
    pool: Option<String>,
    /// Namespace of the operator, where the tokens of --pool are
    #[arg(long, value_name = "NS", default_value = "moorage-system")]
    operator_namespace: String,
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
    /// Also make what Moorage makes (a firewall, a tunnel with routes, a DNS record, an Access application,
    /// policy and service token, all called moorage-doctor-…), look what comes of it, and delete it again,
    /// also after a failure or Ctrl-C. What earlier runs have left is deleted first. Costs nothing
    #[arg(long)]
    write: bool,
    /// Also make the cheapest wanted server, time it, and delete it again. Costs an hour of it, some cents
    #[arg(long)]
    spend: bool,
    /// Do not ask before --write and --spend
    #[arg(long)]
    yes: bool,
    /// Dial Cloudflare's edge at this address instead of looking names up
    #[arg(long, value_name = "ADDRESS:PORT")]
    edge_address: Option<SocketAddr>,
    /// PEM certificates to trust at the edge beside the system's
    #[arg(long, value_name = "FILE")]
    edge_ca: Option<PathBuf>,
    /// Ask this name server for the DNS record of --write instead of the zone's own
    #[arg(long, value_name = "ADDRESS:PORT")]
    name_server: Option<SocketAddr>,
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

/// Exit code of a program that an interruption ends before its deletions.
const INTERRUPTED: i32 = 130;

/// Why nothing was looked at.
#[derive(Debug, Error)]
pub enum DoctorError {
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
    #[error("{} cannot be read: {why}", .path.display())]
    Manifest {
        /// Its path.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
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
    /// The person does not want to.
    #[error("nothing was made: confirm with yes, or give --yes")]
    NotConfirmed,
    /// The signals of an interruption cannot be had.
    #[error("signals cannot be received: {0}")]
    Signals(#[source] io::Error),
    /// The pool cannot be read.
    #[error(transparent)]
    Cluster(#[from] ClusterReadError),
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

/// Runs the command.
///
/// # Errors
/// If the command line does not say what to look at, or the person does not confirm.
pub async fn run(args: DoctorArgs, person: &(dyn Person + Sync)) -> Result<Report, DoctorError> {
    let Chosen { target, roots, mut findings } = target::of(&args).await?;
    let allowed = Allowed { write: args.write, spend: args.spend };
    let stop = if args.write || args.spend {
        confirm(&args, person)?;
        stop_on_signals()?
    } else {
        CancellationToken::new()
    };
    let ways = target::ways(&args).await?;
    let progress = |line: &str| person.progress(line);
    findings.extend(look(&target, &Web::new(roots), &progress).await);
    if args.write || args.spend {
        findings.extend(Run::new(&target, &ways, &stop, &progress).run(allowed).await);
    }
    let failed = worst(&findings) == Verdict::Fail;
    let text = match args.output {
        OutputFormat::Text => render::text(&findings),
        OutputFormat::Json => render::json(&findings)?,
    };
    Ok(Report { text, failed })
}

fn confirm(args: &DoctorArgs, person: &dyn Person) -> Result<(), DoctorError> {
    if args.yes {
        return Ok(());
    }
    let what = match (args.write, args.spend) {
        (true, true) => "objects called moorage-doctor-… and a server, which costs some cents,",
        (_, true) => "a server, which costs some cents,",
        _ => "objects called moorage-doctor-…, which cost nothing,",
    };
    let question = format!(
        "This makes {what} and deletes them again. What earlier runs have left is deleted as well. To go on, type yes: "
    );
    let typed = person.ask(&question).unwrap_or_default();
    if typed.trim() == "yes" { Ok(()) } else { Err(DoctorError::NotConfirmed) }
}

/// The first interruption ends the run with its deletions; the second one ends the program.
fn stop_on_signals() -> Result<CancellationToken, DoctorError> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).map_err(DoctorError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(DoctorError::Signals)?;
    let stop = CancellationToken::new();
    let token = stop.clone();
    tokio::spawn(async move {
        let mut again = false;
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if again {
                std::process::exit(INTERRUPTED);
            }
            again = true;
            token.cancel();
        }
    });
    Ok(stop)
}
