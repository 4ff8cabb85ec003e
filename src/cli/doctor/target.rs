//! What to look at, from options and manifests: options go before manifests.

use std::{path::PathBuf, sync::Arc};

use super::{
    DoctorArgs, DoctorError,
    cluster::{self, FromCluster},
    manifests::{self, Manifests},
};
use crate::{
    api::{HostingPoolSpec, OpenClawRelease, release::PinnedArtifact},
    cloud::{ApiToken, BudgetRegistry, ClientConfig, Cloud},
    cloudflare::{AccountId, CloudflareClient, ZoneId},
    doctor::{
        CloudflareTarget, Finding, HetznerTarget, Target, artifacts::Artifact, cloudflare, hetzner,
        write::Ways,
    },
    hetzner::HetznerClient,
};

const DEFAULT_TYPES: [&str; 2] = ["cx33", "cpx32"];
const DEFAULT_LOCATIONS: [&str; 3] = ["fsn1", "nbg1", "hel1"];
const DEFAULT_IMAGE: &str = "debian-13";

/// What to look at.
pub(super) struct Chosen {
    pub(super) target: Target,
    /// PEM certificates to trust at the clouds' APIs beside the system's.
    pub(super) roots: Option<Vec<u8>>,
    /// What was found out while it was chosen.
    pub(super) findings: Vec<Finding>,
}

/// Where a pool, its releases and tokens come from.
#[derive(Default)]
struct Source {
    pool: Option<HostingPoolSpec>,
    releases: Vec<OpenClawRelease>,
    hetzner: Option<ApiToken>,
    cloudflare: Option<ApiToken>,
    findings: Vec<Finding>,
}

async fn source(args: &DoctorArgs) -> Result<Source, DoctorError> {
    if let Some(name) = &args.pool {
        let FromCluster { pool, releases, hetzner, cloudflare, findings } =
            cluster::read(name, &args.operator_namespace).await?;
        return Ok(Source { pool: Some(pool), releases, hetzner, cloudflare, findings });
    }
    let Manifests { pool, releases } = manifests::read(&args.file)?;
    let hetzner = match &args.hetzner_token_file {
        Some(path) => Some(token("hetzner-token-file", path).await?),
        None => None,
    };
    let cloudflare = match &args.cloudflare_token_file {
        Some(path) => Some(token("cloudflare-token-file", path).await?),
        None => None,
    };
    Ok(Source { pool, releases, hetzner, cloudflare, findings: Vec::new() })
}

/// From the cluster, or from files and options.
pub(super) async fn of(args: &DoctorArgs) -> Result<Chosen, DoctorError> {
    let roots = match &args.cloud_ca {
        Some(path) => Some(read("cloud-ca", path).await?),
        None => None,
    };
    let Source { pool, releases, hetzner, cloudflare, findings } = source(args).await?;
    let pool = pool.as_ref();
    let budgets = BudgetRegistry::default();
    let config = |cloud, url: &url::Url, token| ClientConfig {
        extra_root_certificates: roots.clone(),
        ..ClientConfig::new(url.clone(), token, Arc::clone(&budgets.budget(cloud, "doctor")))
    };
    let mut target = Target { artifacts: artifacts(args, &releases), ..Target::default() };
    if let Some(token) = hetzner {
        target.hetzner = Some(HetznerTarget {
            client: HetznerClient::new(config(Cloud::Hetzner, &args.hetzner_endpoint, token))?,
            endpoint: args.hetzner_endpoint.clone(),
            wanted: of_hetzner(args, pool),
        });
    }
    if let Some(token) = cloudflare {
        let (account, zone) = place(args, pool)?;
        let config = config(Cloud::Cloudflare, &args.cloudflare_endpoint, token);
        let domain = pool.map(|pool| pool.cloudflare.domain.to_string());
        target.cloudflare = Some(CloudflareTarget {
            client: CloudflareClient::new(config, account.clone())?,
            endpoint: args.cloudflare_endpoint.clone(),
            zone,
            wanted: cloudflare::Wanted { account, domain: args.domain.clone().or(domain) },
        });
    }
    for release in &releases {
        let architecture = release.spec.artifacts.openclaw.architecture.to_string();
        if !target.released.contains(&architecture) {
            target.released.push(architecture);
        }
    }
    Ok(Chosen { target, roots, findings })
}

/// How names and the edge are reached.
pub(super) async fn ways(args: &DoctorArgs) -> Result<Ways, DoctorError> {
    let edge_roots = match &args.edge_ca {
        Some(path) => Some(read("edge-ca", path).await?),
        None => None,
    };
    Ok(Ways { edge: args.edge_address, edge_roots, name_server: args.name_server })
}

fn of_hetzner(args: &DoctorArgs, pool: Option<&HostingPoolSpec>) -> hetzner::Wanted {
    let pool = pool.map(|pool| &pool.hetzner);
    let chosen = |option: &[String], of_pool: Option<Vec<String>>, default: &[&str]| {
        if !option.is_empty() {
            return option.to_vec();
        }
        of_pool.unwrap_or_else(|| default.iter().map(|name| (*name).to_owned()).collect())
    };
    let types = pool.map(|pool| pool.server_types.iter().map(ToString::to_string).collect());
    let locations = pool.map(|pool| pool.locations.iter().map(ToString::to_string).collect());
    let image = args.image.clone().or_else(|| pool.map(|pool| pool.image.to_string()));
    hetzner::Wanted {
        server_types: chosen(&args.server_type, types, &DEFAULT_TYPES),
        locations: chosen(&args.location, locations, &DEFAULT_LOCATIONS),
        image: image.unwrap_or_else(|| DEFAULT_IMAGE.to_owned()),
        ssh_keys: pool.map(|pool| pool.ssh.as_ref().map_or(0, |ssh| ssh.keys.len())),
    }
}

/// The account and the zone.
fn place(
    args: &DoctorArgs,
    pool: Option<&HostingPoolSpec>,
) -> Result<(AccountId, ZoneId), DoctorError> {
    let missing = |missing| DoctorError::Missing { missing, with: "cloudflare-token-file" };
    // Names in a manifest were checked when it was read, more strictly than here.
    let account = args
        .account_id
        .clone()
        .or_else(|| pool.and_then(|pool| AccountId::parse(&*pool.cloudflare.account_id).ok()));
    let zone = args
        .zone_id
        .clone()
        .or_else(|| pool.and_then(|pool| ZoneId::parse(&*pool.cloudflare.zone_id).ok()));
    Ok((account.ok_or(missing("account-id"))?, zone.ok_or(missing("zone-id"))?))
}

fn artifacts(args: &DoctorArgs, releases: &[OpenClawRelease]) -> Vec<Artifact> {
    let of_options = args.release_url.iter().map(|url| Artifact {
        name: url.path_segments().and_then(Iterator::last).unwrap_or("/").to_owned(),
        url: url.to_string(),
        size: None,
    });
    let of_releases = releases.iter().flat_map(|release| {
        let artifacts = &release.spec.artifacts;
        let pinned = |name, artifact: &PinnedArtifact| Artifact {
            name: format!("{name} {}", artifact.architecture),
            url: artifact.url.to_string(),
            size: Some(artifact.size),
        };
        [
            pinned("openclaw", &artifacts.openclaw),
            pinned("node", &artifacts.node),
            pinned("cloudflared", &artifacts.cloudflared),
            pinned("agent", &artifacts.agent),
        ]
    });
    of_releases.chain(of_options).collect()
}

async fn read(option: &'static str, path: &PathBuf) -> Result<Vec<u8>, DoctorError> {
    let failed = |source| DoctorError::File { option, path: path.clone(), source };
    tokio::fs::read(path).await.map_err(failed)
}

async fn token(option: &'static str, path: &PathBuf) -> Result<ApiToken, DoctorError> {
    let bytes = read(option, path).await?;
    ApiToken::parse(bytes).map_err(|error| {
        let (path, problem) = (path.clone(), error.to_string());
        DoctorError::Token { option, path, problem }
    })
}
