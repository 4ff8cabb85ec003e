//! `moorage plan`: what the operator would do for an instance, without doing any of it.

mod render;
#[cfg(test)]
mod tests;

use std::{io, path::PathBuf, time::Duration};

use clap::{ArgGroup, Args};
use jiff::Timestamp;
use kube::ResourceExt as _;
use moorage_wire::{InstallationId, Secret, sealing::SealingCertificate, signature::AgentKey};
use thiserror::Error;

use super::cluster_reader::{ClusterReader, ReadError};
use crate::hetzner::FirewallId;
use crate::{
    api::{FINALIZER, Guarded, HostingPool, OpenClawInstance},
    cluster::BoundSecret,
    credentials::{bundle::secrets_of, refusal::Refusal},
    instance::{
        Observed, Wanted,
        deletion::{self, Remains},
        forecast::forecast,
        from_status,
        observed::AgentKeys,
        placeholders,
        plan::Timing,
        refer::{self, Pool},
    },
    ownership,
    pool::Offers,
    problem::Problem,
};

use render::Report;

/// A look at this moment: nothing that is only checked now and then is due.
const TIMING: Timing = Timing { report: Duration::MAX, routes: Duration::MAX };

/// Print what the operator would do for an instance
///
/// Plans from what is in the cluster alone: the manifest (or the instance NAME), its pool, its release,
/// its status and its Secrets, as far as your kubeconfig may read them. No cloud and no server is asked,
/// because their tokens and keys are the operator's: ids and conditions in the status are taken as
/// facts. Nothing is written, and other instances are not looked at, so that a taken host name or a full
/// pool shows only when the operator looks itself.
#[derive(Args)]
#[command(
    group = ArgGroup::new("instance").required(true).args(["file", "name"]),
    after_help = "Examples:\n  moorage plan -f ada.yaml\n  moorage plan -n tenants ada"
)]
pub struct PlanArgs {
    /// Manifest of the instance, as you would apply it; - for standard input
    #[arg(long, short, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Name of an instance in the cluster
    name: Option<String>,
    /// Its namespace; that of the manifest, then that of the kubeconfig, by default
    #[arg(long, short, value_name = "NS")]
    namespace: Option<String>,
}

/// Why there is no plan.
#[derive(Debug, Error)]
pub enum PlanError {
    #[error("{file} cannot be read: {source}")]
    UnreadableFile { file: String, source: io::Error },
    /// What is in the file.
    #[error("{file} is not the manifest of one OpenClawInstance: {why}")]
    NotAnInstance { file: String, why: String },
    /// The manifest and the command line disagree.
    #[error(
        "the manifest is for namespace {manifest}, --namespace says {option}; make them the same"
    )]
    TwoNamespaces { manifest: String, option: String },
    /// Something that is needed does not exist.
    #[error("there is no {0}")]
    Missing(String),
    /// The cluster did not answer, or refused.
    #[error("{what} cannot be read: {source}")]
    Unreadable { what: String, source: ReadError },
}

/// Runs the command. The caller prints what it gives.
pub async fn run(args: PlanArgs, cluster: &dyn ClusterReader) -> Result<String, PlanError> {
    let manifest = args
        .file
        .as_ref()
        .map(|file| read_manifest(file, args.namespace.as_deref()))
        .transpose()?;
    let namespace = manifest.as_ref().and_then(kube::ResourceExt::namespace).or(args.namespace);
    let namespace = namespace.unwrap_or_else(|| cluster.namespace().to_owned());
    let name = manifest.as_ref().map(kube::ResourceExt::name_any).or(args.name).unwrap_or_default();
    let what = format!("OpenClawInstance {namespace}/{name}");
    let live = found(&what, cluster.instance(&namespace, &name).await)?;
    let asked = match (manifest, &live) {
        (Some(manifest), live) => merged(manifest, live.as_ref(), &namespace),
        (None, Some(live)) => live.clone(),
        (None, None) => return Err(PlanError::Missing(what)),
    };
    let report = report(&asked, live.as_ref(), cluster, Timestamp::now()).await?;
    Ok(report.to_string())
}

/// The manifest, checked to be one of ours before its spec is read.
fn read_manifest(file: &PathBuf, namespace: Option<&str>) -> Result<OpenClawInstance, PlanError> {
    let shown = file.display().to_string();
    let text =
        if shown == "-" { io::read_to_string(io::stdin()) } else { std::fs::read_to_string(file) };
    let text = text.map_err(|source| PlanError::UnreadableFile { file: shown.clone(), source })?;
    parse_manifest(&shown, &text, namespace)
}

fn parse_manifest(
    file: &str,
    text: &str,
    namespace: Option<&str>,
) -> Result<OpenClawInstance, PlanError> {
    let refuse = |why: String| PlanError::NotAnInstance { file: file.to_owned(), why };
    let document: serde_json::Value =
        serde_saphyr::from_str(text).map_err(|error| refuse(error.to_string()))?;
    let said = |field: &str| {
        document.get(field).and_then(serde_json::Value::as_str).unwrap_or("nothing").to_owned()
    };
    if (said("apiVersion").as_str(), said("kind").as_str())
        != ("moorage.dev/v1alpha1", "OpenClawInstance")
    {
        return Err(refuse(format!(
            "its apiVersion is {} and its kind {}",
            said("apiVersion"),
            said("kind")
        )));
    }
    let read = Guarded::<OpenClawInstance>::read(&document.to_string());
    let instance = read.0.map_err(|unreadable| refuse(unreadable.error))?;
    if instance.metadata.name.is_none() {
        return Err(refuse("it has no metadata.name".to_owned()));
    }
    match (instance.namespace(), namespace) {
        (Some(manifest), Some(option)) if manifest != option => {
            Err(PlanError::TwoNamespaces { manifest, option: option.to_owned() })
        }
        _ => Ok(instance),
    }
}

/// The live object as it would be after the manifest was applied.
fn merged(
    manifest: OpenClawInstance,
    live: Option<&OpenClawInstance>,
    namespace: &str,
) -> OpenClawInstance {
    let Some(live) = live else {
        let mut new = OpenClawInstance { status: None, ..manifest };
        new.metadata.namespace = Some(namespace.to_owned());
        return new;
    };
    let mut asked = OpenClawInstance { spec: manifest.spec, ..live.clone() };
    asked.annotations_mut().extend(manifest.metadata.annotations.unwrap_or_default());
    asked
}

fn found<T>(what: &str, read: Result<Option<T>, ReadError>) -> Result<Option<T>, PlanError> {
    read.map_err(|source| PlanError::Unreadable { what: what.to_owned(), source })
}

async fn report(
    asked: &OpenClawInstance,
    live: Option<&OpenClawInstance>,
    cluster: &dyn ClusterReader,
    now: Timestamp,
) -> Result<Report, PlanError> {
    let pool_name = &asked.spec.pool;
    let what = format!("HostingPool {pool_name}");
    let pool = found(&what, cluster.pool(pool_name).await)?.ok_or(PlanError::Missing(what))?;
    let mut report = Report::new(asked);
    if asked.spec.suspend {
        report.refused("spec.suspend is true: nothing is written anywhere until it is false");
        return Ok(report);
    }
    let wanted = match wanted(asked, &pool, cluster).await? {
        Ok(wanted) => wanted,
        Err(refused) => {
            report.refused(&format!("{}: {}", refused.reason, refused.message));
            return Ok(report);
        }
    };
    let applied = match live {
        Some(live) if is_settled(live) => self::wanted(live, &pool, cluster).await?.ok(),
        _ => None,
    };
    let Some(keys) = keys(asked, &pool) else {
        report.refused(&format!("HostingPool {pool_name} has no sealing certificate in its status yet: is the operator running?"));
        return Ok(report);
    };
    let status = asked.status.clone().unwrap_or_default();
    let mut observed = from_status::observed(&wanted, applied.as_ref(), &status, &keys, now);
    report.release(&wanted.release.name);
    read_credentials(&wanted, cluster, &mut observed, &mut report).await;
    if asked.metadata.deletion_timestamp.is_some() {
        report.deletion(deletion_steps(&wanted, &observed));
        return Ok(report);
    }
    if !asked.finalizers().iter().any(|held| held == FINALIZER) {
        report.claim();
    }
    report.forecast(&forecast(&wanted, observed, TIMING, &keys));
    Ok(report)
}

/// Whether the status speaks of the spec that it stands beside.
fn is_settled(live: &OpenClawInstance) -> bool {
    let observed = live.status.as_ref().and_then(|status| status.observed_generation);
    observed.is_some() && observed == live.metadata.generation
}

async fn wanted(
    instance: &OpenClawInstance,
    pool: &HostingPool,
    cluster: &dyn ClusterReader,
) -> Result<Result<Wanted, Problem>, PlanError> {
    let name = pool.name_any();
    let firewall =
        FirewallId(pool.status.as_ref().and_then(|status| status.firewall_id).unwrap_or_default());
    let pool = Pool { name: &name, spec: &pool.spec };
    let release = match refer::release_name(instance, pool) {
        Ok(release) => release,
        Err(refused) => return Ok(Err(refused)),
    };
    let what = format!("OpenClawRelease {release}");
    let Some(found) = found(&what, cluster.release(release).await)? else {
        return Err(PlanError::Missing(what));
    };
    // Neither id shows in a step, so that of the installation, which is the operator's, can be any.
    let installation = InstallationId::from_bytes([0; 8]);
    let namespace = instance.namespace().unwrap_or_default();
    let id = ownership::instance_id(installation, &namespace, &instance.name_any());
    let subject = refer::subject(instance, id, installation, pool);
    // Without Hetzner's catalogue no server type is known to be of another architecture.
    let given = (firewall, &Offers::default());
    Ok(refer::wanted(instance, subject, pool, given, (release, &found.spec)))
}

/// The agent's keys; those of an agent that is not there yet are stood in for.
fn keys(instance: &OpenClawInstance, pool: &HostingPool) -> Option<AgentKeys> {
    let known = instance.status.as_ref().and_then(|status| status.agent.as_ref());
    let known = known.and_then(|agent| {
        let certificate = SealingCertificate::parse(&agent.sealing_certificate).ok()?;
        Some(AgentKeys { public_key: agent.public_key.parse().ok()?, certificate })
    });
    let placeholders = || {
        let certificate = pool.status.as_ref()?.sealing_certificate.as_ref()?;
        let public_key = AgentKey::from_seed(&Secret::from([0; 32])).public_key();
        Some(AgentKeys { public_key, certificate: SealingCertificate::parse(certificate).ok()? })
    };
    known.or_else(placeholders)
}

/// The Secrets that the instance refers to. One that may not be read is told, and taken for absent.
async fn read_credentials(
    wanted: &Wanted,
    cluster: &dyn ClusterReader,
    observed: &mut Observed,
    report: &mut Report,
) {
    for name in secrets_of(&wanted.credentials) {
        let view = match cluster.secret(&wanted.subject.namespace, name).await {
            Ok(view) => view,
            Err(error) => {
                report.note(format!(
                    "Secret {name} cannot be read, so it is planned as if it did not exist: {error}"
                ));
                None
            }
        };
        observed.take_secret(wanted, name, view.as_ref());
    }
    observed.take_inline(wanted);
}

fn deletion_steps(wanted: &Wanted, observed: &Observed) -> Vec<String> {
    let is_there = |bundle: &&crate::credentials::bundle::Bundle| {
        !bundle.values.values().all(|value| {
            matches!(
                value,
                Err(Refusal::NotFound { .. }
                    | Refusal::SecretNotBound { .. }
                    | Refusal::WrongSecretType { .. })
            )
        })
    };
    let bound = |bundle: &crate::credentials::bundle::Bundle| BoundSecret {
        name: bundle.secret.clone(),
        version: bundle.version.clone().unwrap_or_else(placeholders::version),
        created: Timestamp::MIN,
    };
    let remains = Remains {
        servers: observed.server.present().cloned().into_iter().collect(),
        tunnels: observed.tunnel.clone().into_iter().collect(),
        records: observed.records.clone(),
        secrets: observed.bundles.iter().filter(is_there).map(bound).collect(),
        confirmed: false,
    };
    deletion::forecast(&wanted.subject, &observed.status, remains)
}
