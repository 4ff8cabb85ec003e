//! `moorage cleanup`: finds everything of one installation in the clouds, and removes it. For a cluster,
//! or a master key, that is lost: no cluster is asked. What belongs to an installation, and how one object
//! is removed, is said in [`crate::orphans::find`].

mod removal;
mod render;
#[cfg(test)]
mod tests;

use std::{io, path::PathBuf, sync::Arc};

use clap::Args;
use moorage_wire::InstallationId;
use thiserror::Error;
use url::Url;

use super::status::OutputFormat;
use crate::{
    cloud::{ApiToken, BudgetRegistry, ClientConfig, Cloud, CloudError, ConfigError, Priority},
    cloudflare::{AccountId, CloudflareClient, ZoneId},
    hetzner::HetznerClient,
    orphans::{
        Found,
        find::{self, Place},
    },
};

pub use removal::Pace;
use removal::{Outcome, Removal, is_kept};

/// Exit code where something of the installation is (still) in the clouds.
pub const SOMETHING_LEFT: u8 = 3;

/// List or remove everything of an installation in the clouds
///
/// For a lost cluster, or a master key that was lost without a backup: asks Hetzner and Cloudflare for
/// everything that carries the id of one installation, and touches nothing else. Without --delete it only
/// lists. Retained servers, and the pool objects that they need (such as the firewall), are kept unless you
/// say --retained. One Hetzner project, Cloudflare account and zone at a time: repeat it for each that pools
/// of the installation used. If its operator still runs, delete its instances instead: it would recreate
/// what is removed here.
///
/// Exit code 0: nothing is left except what is listed as kept; 3: something is left, or was only listed;
/// 1: an error.
#[derive(Args)]
#[allow(clippy::struct_excessive_bools, reason = "they are flags")]
#[command(
    after_help = "Example:\n  moorage cleanup --installation 0123456789abcdef \\\n    --hetzner-token-file hetzner.token --cloudflare-token-file cloudflare.token \\\n    --account 0123… --zone 4567…"
)]
pub struct CleanupArgs {
    /// The installation id: label moorage.dev/installation of any server
    #[arg(long, value_name = "ID", value_parser = installation)]
    installation: InstallationId,
    /// File with an API token of the Hetzner project
    #[arg(long, value_name = "FILE")]
    hetzner_token_file: PathBuf,
    /// File with an API token of the Cloudflare account
    #[arg(long, value_name = "FILE")]
    cloudflare_token_file: PathBuf,
    /// The Cloudflare account
    #[arg(long, value_name = "ID", value_parser = |text: &str| AccountId::parse(text))]
    account: AccountId,
    /// The Cloudflare zone
    #[arg(long, value_name = "ID", value_parser = |text: &str| ZoneId::parse(text))]
    zone: ZoneId,
    /// Only list, which is what happens anyway
    #[arg(long, conflicts_with = "delete")]
    dry_run: bool,
    /// Delete what is listed, after you have typed the installation id
    #[arg(long)]
    delete: bool,
    /// Do not ask
    #[arg(long, requires = "delete")]
    yes: bool,
    /// Also what was left behind by deletionPolicy: Retain
    #[arg(long)]
    retained: bool,
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

fn installation(text: &str) -> Result<InstallationId, String> {
    text.parse().map_err(|_| "expected 16 hexadecimal digits".to_owned())
}

/// Why it ended early.
#[derive(Debug, Error)]
pub enum CleanupError {
    #[error("--{option} {}: {source}", .path.display())]
    File {
        option: &'static str,
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// What is in a token's file.
    #[error("--{option} {} holds no API token: {problem}", .path.display())]
    Token { option: &'static str, path: PathBuf, problem: String },
    #[error(transparent)]
    Client(#[from] ConfigError),
    #[error("the objects cannot be listed: {0}")]
    List(#[source] CloudError),
    /// The person does not want to.
    #[error("nothing was deleted: what was typed is not the installation id")]
    NotConfirmed,
    /// It cannot be printed.
    #[error("the list cannot be written as JSON: {0}")]
    Unprintable(#[from] serde_json::Error),
}

/// The person in front of it.
pub trait Person {
    /// Shows how far it is.
    fn progress(&self, line: &str);
    /// Shows something and gives what is typed.
    ///
    /// # Errors
    /// If nobody can be asked.
    fn ask(&self, question: &str) -> io::Result<String>;
}

/// What to print, and how to exit.
pub struct Report {
    pub text: String,
    /// Whether something is left.
    pub left: bool,
}

/// Runs the command.
///
/// # Errors
/// If the clouds cannot be listed, or the person does not confirm.
pub async fn run(args: CleanupArgs, person: &(dyn Person + Sync)) -> Result<Report, CleanupError> {
    let (hetzner, cloudflare) = clients(&args).await?;
    let place = Place {
        hetzner: &hetzner,
        cloudflare: &cloudflare,
        zone: &args.zone,
        installation: args.installation,
    };
    let found = listed(&place).await?;
    let chosen = |one: &&Found| !is_kept(one, &found, args.retained);
    let targets: Vec<Found> = found.iter().filter(chosen).cloned().collect();
    let outcomes = if args.delete && !targets.is_empty() {
        confirm(&args, &found, person)?;
        let progress = |line: &str| person.progress(line);
        let removal = Removal { place: &place, pace: Pace::default(), progress: &progress };
        removal.run(&targets).await
    } else {
        targets.iter().map(|_| Outcome::Present).collect()
    };
    let left = outcomes.iter().any(|outcome| *outcome != Outcome::Deleted);
    let mut rows: Vec<_> = targets.iter().zip(&outcomes).collect();
    let kept: Vec<_> = found.iter().filter(|one| !chosen(one)).collect();
    rows.extend(kept.iter().map(|one| (*one, &Outcome::Kept)));
    let text = match args.output {
        OutputFormat::Text => render::text(&rows, args.delete),
        OutputFormat::Json => render::json(args.installation, &rows)?,
    };
    Ok(Report { text, left })
}

async fn listed(place: &Place<'_>) -> Result<Vec<Found>, CleanupError> {
    let mut found = place.of_instances(Priority::Normal).await.map_err(CleanupError::List)?;
    found.extend(place.of_pools(Priority::Normal).await.map_err(CleanupError::List)?);
    found.sort_by_key(Found::key);
    // Prices are for people; without them the list is as good.
    if let Ok(catalogue) = place.hetzner.server_types(Priority::Normal).await {
        find::price(found.iter_mut(), &catalogue);
    }
    Ok(found)
}

fn confirm(args: &CleanupArgs, found: &[Found], person: &dyn Person) -> Result<(), CleanupError> {
    if args.yes {
        return Ok(());
    }
    let rows: Vec<_> = found
        .iter()
        .map(|one| {
            let kept = is_kept(one, found, args.retained);
            (one, if kept { &Outcome::Kept } else { &Outcome::Present })
        })
        .collect();
    let question = format!(
        "{}Servers go with all that is on them, and nothing of it comes back. To delete everything of this installation, type its id: ",
        render::text(&rows, false)
    );
    let typed = person.ask(&question).unwrap_or_default();
    if typed.trim() == args.installation.to_string() {
        Ok(())
    } else {
        Err(CleanupError::NotConfirmed)
    }
}

async fn clients(args: &CleanupArgs) -> Result<(HetznerClient, CloudflareClient), CleanupError> {
    let roots = match &args.cloud_ca {
        Some(path) => Some(read("cloud-ca", path).await?),
        None => None,
    };
    let budgets = Arc::new(BudgetRegistry::default());
    let config = |cloud, url: &Url, token| ClientConfig {
        extra_root_certificates: roots.clone(),
        ..ClientConfig::new(url.clone(), token, budgets.budget(cloud, "cleanup"))
    };
    let token = token("hetzner-token-file", &args.hetzner_token_file).await?;
    let hetzner = HetznerClient::new(config(Cloud::Hetzner, &args.hetzner_endpoint, token))?;
    let token = self::token("cloudflare-token-file", &args.cloudflare_token_file).await?;
    let config = config(Cloud::Cloudflare, &args.cloudflare_endpoint, token);
    Ok((hetzner, CloudflareClient::new(config, args.account.clone())?))
}

async fn read(option: &'static str, path: &PathBuf) -> Result<Vec<u8>, CleanupError> {
    let failed = |source| CleanupError::File { option, path: path.clone(), source };
    tokio::fs::read(path).await.map_err(failed)
}

async fn token(option: &'static str, path: &PathBuf) -> Result<ApiToken, CleanupError> {
    let bytes = read(option, path).await?;
    ApiToken::parse(bytes).map_err(|error| {
        let (path, problem) = (path.clone(), error.to_string());
        CleanupError::Token { option, path, problem }
    })
}
