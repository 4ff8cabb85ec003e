//! Refer and validate, as far as it needs no other instance: an instance with its pool and release
//! becomes what is [`Wanted`], or is refused with the field and the remedy.

use jiff::Timestamp;
use kube::ResourceExt as _;
use moorage_wire::{
    InstallationId, InstanceId,
    desired::{Artifact, Artifacts, Integration, IntegrationKind as WireKind},
};

use super::{
    Wanted,
    wanted::{Prospect, Release, Subject, narrow, placements},
};
use crate::{
    admission::{Denied, Rules},
    api::{
        HostingPoolSpec, OpenClawInstance, OpenClawReleaseSpec,
        annotation::{self, Mark, Rebuild},
        conditions::Reason,
        instance::{CredentialSpec, IntegrationRef, SealedTo},
        names::ReleaseName,
        release::{
            ApprovedIntegration, Architecture, IntegrationArtifact, IntegrationKind,
            PinnedArtifact, ReleaseArtifacts,
        },
    },
    cloudflare::AccountId,
    credentials::secret_source::{CredentialEntry, parse_entries},
    hetzner::FirewallId,
    master_key::GatewayGeneration,
    openclaw,
    pool::{Offer, Offers},
    problem::Problem,
};

/// A pool by its name.
#[derive(Debug, Clone, Copy)]
pub struct Pool<'a> {
    /// The name of the `HostingPool`.
    pub name: &'a str,
    pub spec: &'a HostingPoolSpec,
}

/// Who an instance is.
pub fn subject(
    instance: &OpenClawInstance,
    id: InstanceId,
    installation: InstallationId,
    pool: Pool<'_>,
) -> Subject {
    Subject {
        namespace: instance.namespace().unwrap_or_default(),
        name: instance.name_any(),
        uid: instance.uid().unwrap_or_default(),
        created: instance.creation_timestamp().map_or(Timestamp::MAX, |time| time.0),
        instance: id,
        installation,
        pool: pool.name.to_owned(),
        hostname: instance.spec.hostname.to_string(),
        domain: pool.spec.cloudflare.domain.to_string(),
        deletion_policy: instance.spec.deletion_policy,
    }
}

/// The name of the release that an instance asks for, or that its pool gives it.
///
/// # Errors
/// When neither names one.
pub fn release_name<'a>(
    instance: &'a OpenClawInstance,
    pool: Pool<'a>,
) -> Result<&'a str, Problem> {
    let named = instance.spec.release.as_ref().or(pool.spec.default_release.as_ref());
    named.map(ReleaseName::as_str).ok_or_else(|| {
        let message = format!(
            "spec.release is not set and HostingPool {} has no defaultRelease; set one of them",
            pool.name
        );
        Problem::whole(Reason::InvalidSpec, message)
    })
}

/// What an instance should be.
///
/// # Errors
/// When the pool does not take it or something in its spec cannot be.
pub fn wanted(
    instance: &OpenClawInstance,
    subject: Subject,
    pool: Pool<'_>,
    (firewall, offers): (FirewallId, &Offers),
    (release_name, release): (&str, &OpenClawReleaseSpec),
) -> Result<Wanted, Problem> {
    check_place(&subject, pool)?;
    check_release(release_name, pool)?;
    let spec = &instance.spec;
    let account = AccountId::parse(pool.spec.cloudflare.account_id.as_str()).map_err(|error| {
        let message = format!("HostingPool {}: spec.cloudflare.accountId is {error}", pool.name);
        Problem::whole(Reason::PoolNotReady, message)
    })?;
    let config = spec.config.parse().map_err(|problem| {
        Problem::whole(Reason::InvalidSpec, format!("spec.config: {problem}"))
    })?;
    let entries: Vec<_> = spec.credentials.iter().map(entry).collect();
    let (credentials, credential_refusals) = parse_entries(&entries);
    let types = credentials.iter().map(|one| (one.name.clone(), one.kind)).collect();
    let all = entries.iter().filter_map(|entry| entry.name.parse().ok()).collect();
    let named = openclaw::Named { all: &all, types: &types };
    openclaw::check(&config, named).map_err(|refusals| {
        let first = refusals.first().map_or(Reason::InvalidSpec, openclaw::ConfigRefusal::reason);
        Problem::whole(first, openclaw::told(&refusals))
    })?;
    let release = Release {
        name: release_name.to_owned(),
        artifacts: artifacts(release_name, release)?,
        architecture: architecture(release_name, release)?,
        integrations: integrations(&spec.integrations, release_name, release)?,
    };
    let spec_of_pool = &pool.spec.hetzner;
    let not_offered = |field: &str, unknown: &[String]| {
        let message = format!(
            "spec.server.{field}: HostingPool {} does not offer {}",
            pool.name,
            unknown.join(", ")
        );
        Problem::whole(Reason::InvalidSpec, message)
    };
    let types = narrow(&spec_of_pool.server_types, &spec.server.server_types)
        .map_err(|unknown| not_offered("serverTypes", &unknown))?;
    let locations = narrow(&spec_of_pool.locations, &spec.server.locations)
        .map_err(|unknown| not_offered("locations", &unknown))?;
    let prospect = |kind: &str, location: &str| {
        if offers.architecture(kind).is_some_and(|of| !release.runs_on(of)) {
            return Prospect::WrongArchitecture;
        }
        match offers.offer(kind, location) {
            Offer::Open => Prospect::Open,
            Offer::SoldOut => Prospect::SoldOut,
            Offer::NotOffered => Prospect::NotOffered,
        }
    };
    let annotations = instance.annotations();
    Ok(Wanted {
        subject,
        account,
        placements: placements(&types, &locations, prospect),
        firewall,
        image: spec_of_pool.image.to_string(),
        ipv4: spec.server.ipv4.unwrap_or(true),
        ssh: spec_of_pool.ssh.clone(),
        connector_protocol: pool.spec.cloudflare.connector_protocol,
        config,
        release,
        credentials,
        credential_refusals,
        approved_pairings: spec.access.approved_pairings.iter().map(ToString::to_string).collect(),
        gateway_generation: GatewayGeneration(spec.access.token_generation),
        dashboard_secret: spec.access.dashboard_secret_name.as_ref().map(ToString::to_string),
        retry: Mark::of(annotations, annotation::RETRY),
        rebuild: Rebuild::of(annotations),
    })
}

/// A pool may say which releases its instances run.
fn check_release(release: &str, pool: Pool<'_>) -> Result<(), Problem> {
    let allowed = &pool.spec.allowed_releases;
    if allowed.is_empty() || allowed.iter().any(|name| *name == *release) {
        return Ok(());
    }
    let message = format!(
        "spec.release: HostingPool {} does not allow {release}; name one of {}",
        pool.name,
        allowed.iter().map(ReleaseName::as_str).collect::<Vec<_>>().join(", ")
    );
    Err(Problem::whole(Reason::ReleaseNotAllowed, message))
}

/// Namespace and host name, as the pool has a say in them.
fn check_place(subject: &Subject, pool: Pool<'_>) -> Result<(), Problem> {
    let allowed = Rules::of(pool.spec, false).allow(&subject.namespace, &subject.hostname);
    allowed.map_err(|why| denied(why, subject, pool))
}

/// That things count which no instance has.
fn places_left(count: u32) -> String {
    if count == 0 {
        return String::new();
    }
    format!(
        "; {count} of these places are taken by servers, tunnels or DNS records that no instance has: deleted with deletionPolicy Retain, or without their finalizer"
    )
}

/// What an instance is told that is not admitted.
pub fn denied(why: Denied, subject: &Subject, pool: Pool<'_>) -> Problem {
    let (namespace, hostname, pool) = (&subject.namespace, &subject.hostname, pool.name);
    let (reason, message) = match why {
        Denied::NoPool => {
            let message = format!("There is no HostingPool {pool}; make it");
            return Problem::whole(Reason::PoolNotFound, message);
        }
        Denied::NamespaceNotAllowed => (
            Reason::NamespaceNotAllowed,
            format!(
                "HostingPool {pool} does not take instances of namespace {namespace}; add it to spec.allowedNamespaces of the pool"
            ),
        ),
        Denied::InvalidHostname => (
            Reason::InvalidSpec,
            "spec.hostname must be one DNS label of at most 58 characters that does not end in -mgmt"
                .to_owned(),
        ),
        Denied::HostnameReserved => (
            Reason::HostnameReserved,
            format!(
                "spec.hostname: {hostname} is reserved by HostingPool {pool}; make the instance with another"
            ),
        ),
        Denied::HostnameTaken => (
            Reason::HostnameTaken,
            format!(
                "spec.hostname: {hostname} belongs to another instance; make this one with another"
            ),
        ),
        Denied::NamespaceQuota { most, left } => (
            Reason::NamespaceQuotaExceeded,
            format!(
                "Namespace {namespace} may have {most} instances in HostingPool {pool}, and these places are taken{}. Delete one, or ask for a higher spec.maxInstancesPerNamespace of the pool",
                places_left(left)
            ),
        ),
        Denied::ServerRate(most) => {
            let message = format!(
                "{most} servers were begun for namespace {namespace} in HostingPool {pool} within the last hour, each with a tunnel and DNS records. Moorage retries automatically; find out what deletes and recreates instances"
            );
            return Problem::whole(Reason::ServerRateExceeded, message);
        }
        Denied::PoolFull { capacity, left } => (
            Reason::PoolFull,
            format!(
                "HostingPool {pool} is full with {capacity} instances{}. Raise spec.capacity, or use another pool",
                places_left(left)
            ),
        ),
        Denied::PoolClosed => {
            let message = format!(
                "HostingPool {pool} is being deleted and takes no new instances; make the instance in another"
            );
            return Problem::whole(Reason::PoolNotReady, message);
        }
        Denied::Resting => {
            let message = "The instance is suspended or being deleted; nothing is made for it";
            return Problem::whole(Reason::Suspended, message);
        }
    };
    Problem::whole(reason, message)
}

/// An entry of `spec.credentials`, to be parsed.
pub fn entry(credential: &CredentialSpec) -> CredentialEntry<'_> {
    CredentialEntry {
        name: &credential.name,
        r#type: &credential.r#type,
        secret_ref: credential
            .secret_ref
            .as_ref()
            .map(|secret| (secret.name.as_str(), secret.key.as_str())),
        sealed: credential.sealed.as_deref(),
        sealed_to_agent: credential.sealed_to == SealedTo::Agent,
    }
}

fn artifacts(name: &str, release: &OpenClawReleaseSpec) -> Result<Artifacts, Problem> {
    let artifact = |what: &str, pinned: &PinnedArtifact| {
        let sha256 = pinned.sha256.parse().map_err(|error| {
            let message = format!("OpenClawRelease {name}: spec.artifacts.{what}.sha256: {error}");
            Problem::whole(Reason::InvalidSpec, message)
        })?;
        Ok(Artifact {
            version: pinned.version.to_string(),
            url: pinned.url.to_string(),
            sha256,
            size: pinned.size,
        })
    };
    let pinned = &release.artifacts;
    Ok(Artifacts {
        release: name.to_owned(),
        openclaw: artifact("openclaw", &pinned.openclaw)?,
        node: artifact("node", &pinned.node)?,
        cloudflared: artifact("cloudflared", &pinned.cloudflared)?,
        agent: artifact("agent", &pinned.agent)?,
    })
}

/// That of all four programs.
fn architecture(name: &str, release: &OpenClawReleaseSpec) -> Result<Architecture, Problem> {
    let ReleaseArtifacts { openclaw, node, cloudflared, agent } = &release.artifacts;
    let architecture = openclaw.architecture;
    if [node, cloudflared, agent].iter().any(|pinned| pinned.architecture != architecture) {
        let message = format!(
            "OpenClawRelease {name}: spec.artifacts are for different architectures; use a release whose programs run on one machine"
        );
        return Err(Problem::whole(Reason::InvalidSpec, message));
    }
    Ok(architecture)
}

fn integrations(
    asked: &[IntegrationRef],
    name: &str,
    release: &OpenClawReleaseSpec,
) -> Result<Vec<Integration>, Problem> {
    let approved = |asked: &IntegrationRef| {
        let approved = release.integrations.iter().find(|known| known.name == asked.name);
        let approved = approved.ok_or_else(|| {
            let message = format!("spec.integrations: OpenClawRelease {name} does not approve {}; remove it, or use a release that does", asked.name);
            Problem::whole(Reason::IntegrationNotApproved, message)
        })?;
        let kind = match approved.kind {
            IntegrationKind::Plugin => WireKind::Plugin,
            IntegrationKind::Skill => WireKind::Skill,
        };
        let packed = approved.artifact.as_ref();
        let artifact = packed.map(|file| packed_integration(name, approved, file)).transpose()?;
        Ok(Integration {
            kind,
            name: approved.name.to_string(),
            version: approved.version.to_string(),
            integrity: approved.integrity.as_ref().map(ToString::to_string),
            unpinned: artifact.is_none() && approved.allow_unpinned == Some(true),
            artifact,
        })
    };
    asked.iter().map(approved).collect()
}

fn packed_integration(
    release: &str,
    approved: &ApprovedIntegration,
    file: &IntegrationArtifact,
) -> Result<Artifact, Problem> {
    let sha256 = file.sha256.parse().map_err(|error| {
        let message = format!(
            "OpenClawRelease {release}: the artifact of {} has no SHA-256: {error}",
            approved.name
        );
        Problem::whole(Reason::InvalidSpec, message)
    })?;
    let version = approved.version.to_string();
    Ok(Artifact { version, url: file.url.to_string(), sha256, size: file.size })
}
