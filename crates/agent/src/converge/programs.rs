//! Bringing the programs of a release to the server: fetched by this process, verified and installed
//! by the installer under the operator's own signature. A server that does not answer is asked again,
//! less and less often; a file that is not the pinned one fails the document, and is looked at again
//! later, since somebody may repair it. Nothing here touches what runs, but for the agent itself.

use std::{path::PathBuf, sync::Arc};

use moorage_wire::{desired::Artifact, report::FailureReason};

use super::{Failure, Trouble, refuse};
use crate::{
    artifacts::fetch::{Fetcher, Patience},
    core::{Core, blocking},
    desired::Document,
    installer::{
        client::InstallerError,
        protocol::{ArtifactKind, Reason, SignedCall},
    },
    report::agent_failure,
};

/// Has both programs of OpenClaw installed, without making them current; why not, if the document is
/// to blame.
pub(super) async fn provide_openclaw(
    core: &Arc<Core>,
    document: &Document,
) -> Result<Option<Failure>, Trouble> {
    for kind in [ArtifactKind::Node, ArtifactKind::Openclaw] {
        if let Some(failure) = provide(core, document, kind).await? {
            return Ok(Some(failure));
        }
    }
    Ok(None)
}

/// Has one program installed that is not the agent.
pub(super) async fn provide(
    core: &Arc<Core>,
    document: &Document,
    kind: ArtifactKind,
) -> Result<Option<Failure>, Trouble> {
    let artifact = kind.of(&document.state.artifacts);
    if core.installer.inventory().await?.has(kind, artifact.sha256) {
        return Ok(None);
    }
    let file = match fetch(core, artifact).await? {
        Ok(file) => file,
        Err(failure) => return Ok(Some(failure)),
    };
    let order = order_of(core, document)?;
    let installed = core.installer.install(&order, kind, &file).await;
    clean_after(core, installed.as_ref().err()).await?;
    match installed {
        Ok(()) => {
            let version = &artifact.version;
            tracing::info!(target: "audit", ?kind, version, sha256 = %artifact.sha256, "installed");
            Ok(None)
        }
        Err(error) => blame(artifact, error).map(Some),
    }
}

/// Has this agent replaced if the document pins another one; whether it is the pinned one. When a
/// replacement begins, this process is about to end.
pub(super) async fn update_agent(core: &Arc<Core>, document: &Document) -> Result<bool, Trouble> {
    let kind = ArtifactKind::Agent;
    let artifact = kind.of(&document.state.artifacts);
    let inventory = core.installer.inventory().await?;
    if inventory.agent_update.is_some() {
        return Ok(false);
    }
    if inventory.active(kind) == Some(artifact.sha256) {
        return Ok(true);
    }
    let mut failed = inventory.failed_agents.iter();
    let failed = failed
        .find(|failed| failed.sha256 == artifact.sha256 && failed.retry == document.state.retry);
    let failure = if let Some(failed) = failed {
        let message = format!("the agent {}: {}", artifact.version, agent_failure(failed.reason));
        Failure::new(FailureReason::Unhealthy, message)
    } else {
        let file = match fetch(core, artifact).await? {
            Ok(file) => file,
            Err(failure) => {
                refuse(core, document.digest, failure).await?;
                return Ok(false);
            }
        };
        let order = order_of(core, document)?;
        let version = &artifact.version;
        tracing::info!(target: "audit", version, sha256 = %artifact.sha256, "the agent is replaced");
        let updated = core.installer.update_agent(&order, &file).await;
        clean_after(core, updated.as_ref().err()).await?;
        match updated {
            Ok(()) => return Ok(false),
            Err(error) => blame(artifact, error)?,
        }
    };
    refuse(core, document.digest, failure).await?;
    Ok(false)
}

/// The file of an artifact, or what is wrong with the document that pins it. A new document, or a
/// credential that changed, comes first.
pub(super) async fn fetch(
    core: &Arc<Core>,
    artifact: &Artifact,
) -> Result<Result<PathBuf, Failure>, Trouble> {
    let folder = core.settings.layout.downloads();
    blocking(core, {
        let folder = folder.clone();
        move |core| core.disk.create_folder(&folder)
    })
    .await?;
    let fetcher = Fetcher::new(Patience::default()).map_err(Trouble::Fetch)?;
    let outcome = tokio::select! {
        outcome = fetcher.ensure(artifact, &folder) => outcome,
        () = core.wake_reconcile.notified() => return Err(Trouble::Interrupted),
    };
    match outcome {
        Ok(file) => Ok(Ok(file)),
        Err(error) if error.is_retryable() => Err(Trouble::Fetch(error)),
        Err(error) => {
            let message = format!("{} {}: {error}", artifact.version, artifact.sha256);
            Ok(Err(Failure::new(FailureReason::Artifact, message)))
        }
    }
}

pub(super) fn order_of(core: &Core, document: &Document) -> Result<Arc<SignedCall>, Trouble> {
    let order = core.desired().order();
    // Another document may have come in the meantime.
    let order = order.filter(|order| order.digest() == Some(document.digest));
    let missing = "the operator's signature over the desired state is not here: put it again";
    order.ok_or_else(|| Trouble::Other(missing.to_owned()))
}

/// A file that was taken, or is no good, is not needed any more.
pub(super) async fn clean_after(
    core: &Core,
    error: Option<&InstallerError>,
) -> Result<(), Trouble> {
    if error.is_none_or(|error| !error.is_transient()) {
        Fetcher::clean(&core.settings.layout.downloads(), &[]).await.map_err(Trouble::Fetch)?;
    }
    Ok(())
}

/// Whether the document is to blame for a refusal of the installer.
pub(super) fn blame(artifact: &Artifact, error: InstallerError) -> Result<Failure, Trouble> {
    match error.reason() {
        Some(Reason::BadArtifact | Reason::Refused | Reason::BadOrder) => {
            let message = format!("{} {}: {error}", artifact.version, artifact.sha256);
            Ok(Failure::new(FailureReason::Artifact, message))
        }
        Some(Reason::FailedBefore) => {
            Ok(Failure::new(FailureReason::Unhealthy, format!("{}: {error}", artifact.version)))
        }
        _ => Err(Trouble::Installer(error)),
    }
}
