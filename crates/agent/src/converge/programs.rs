//! Bringing the programs of a release to the server: fetched by this process, verified and installed
//! by the installer under the operator's own signature. A server that does not answer is asked again,
//! less and less often; a file that is not the pinned one fails the document, and is looked at again
//! later, since somebody may repair it. Nothing here touches what runs, but for the agent itself.

use std::{path::PathBuf, sync::Arc};

use moorage_wire::{
    Failure, Program,
    desired::Artifact,
    failure::{FailureCode, Stage},
    report::FailureReason,
};

use super::{Trouble, refuse, trouble::Subject};
use crate::{
    artifacts::fetch::{Fetcher, Patience},
    core::{Core, blocking},
    desired::Document,
    failure::DocumentFailure,
    installer::{
        client::InstallerError,
        protocol::{Reason, SignedCall},
    },
    report::{agent_failure, failure_of_agent},
};

/// Has both programs of OpenClaw installed, without making them current; why not, if the document is
/// to blame.
pub(super) async fn provide_openclaw(
    core: &Arc<Core>,
    document: &Document,
) -> Result<Option<DocumentFailure>, Trouble> {
    for kind in [Program::Node, Program::Openclaw] {
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
    program: Program,
) -> Result<Option<DocumentFailure>, Trouble> {
    let artifact = program.pinned(&document.state.artifacts);
    let subject = Subject::Program(program);
    if core.installer.inventory().await?.has(program, artifact.sha256) {
        return Ok(None);
    }
    let file = match fetch(core, &subject, artifact).await? {
        Ok(file) => file,
        Err(failure) => return Ok(Some(failure)),
    };
    let order = order_of(core, document)?;
    let installed = core.installer.install(&order, program, &file).await;
    clean_after(core, installed.as_ref().err()).await?;
    match installed {
        Ok(()) => {
            let version = &artifact.version;
            tracing::info!(target: "audit", kind = ?program, version, sha256 = %artifact.sha256, "installed");
            Ok(None)
        }
        Err(error) => blame(&subject, artifact, error).map(Some),
    }
}

/// Has this agent replaced if the document pins another one; whether it is the pinned one. When a
/// replacement begins, this process is about to end.
pub(super) async fn update_agent(core: &Arc<Core>, document: &Document) -> Result<bool, Trouble> {
    let program = Program::Agent;
    let artifact = program.pinned(&document.state.artifacts);
    let subject = Subject::Program(program);
    let inventory = core.installer.inventory().await?;
    if inventory.agent_update.is_some() {
        return Ok(false);
    }
    if inventory.active(program) == Some(artifact.sha256) {
        return Ok(true);
    }
    let mut failed = inventory.failed_agents.iter();
    let failed = failed
        .find(|failed| failed.sha256 == artifact.sha256 && failed.retry == document.state.retry);
    let failure = if let Some(failed) = failed {
        let message = format!("the agent {}: {}", artifact.version, agent_failure(failed.reason));
        let failure = failure_of_agent(failed.reason);
        DocumentFailure::new(FailureReason::Unhealthy, message, failure)
    } else {
        let file = match fetch(core, &subject, artifact).await? {
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
            Err(error) => blame(&subject, artifact, error)?,
        }
    };
    refuse(core, document.digest, failure).await?;
    Ok(false)
}

/// The file of an artifact, or what is wrong with the document that pins it. A new document, or a
/// credential that changed, comes first.
pub(super) async fn fetch(
    core: &Arc<Core>,
    subject: &Subject,
    artifact: &Artifact,
) -> Result<Result<PathBuf, DocumentFailure>, Trouble> {
    let folder = core.settings.layout.downloads();
    blocking(core, {
        let folder = folder.clone();
        move |core| core.disk.create_folder(&folder)
    })
    .await?;
    let trouble = |error| Trouble::Fetch { subject: subject.clone(), error };
    let fetcher = Fetcher::new(Patience::default()).map_err(trouble)?;
    let outcome = tokio::select! {
        outcome = fetcher.ensure(artifact, &folder) => outcome,
        () = core.wake_reconcile.notified() => return Err(Trouble::Interrupted),
    };
    match outcome {
        Ok(file) => Ok(Ok(file)),
        Err(error) if error.is_retryable() => Err(trouble(error)),
        Err(error) => {
            let message = format!("{} {}: {error}", artifact.version, artifact.sha256);
            let failure = subject.blame(error.failure());
            Ok(Err(DocumentFailure::new(FailureReason::Artifact, message, failure)))
        }
    }
}

pub(super) fn order_of(core: &Core, document: &Document) -> Result<Arc<SignedCall>, Trouble> {
    let order = core.desired().order();
    // Another document may have come in the meantime.
    let order = order.filter(|order| order.digest() == Some(document.digest));
    let missing = "the operator's signature over the desired state is not here: put it again";
    order.ok_or_else(|| {
        let failure = Failure::new(Stage::Preparation, FailureCode::Deferred);
        Trouble::other(missing, failure.with_detail(missing))
    })
}

/// A file that was taken, or is no good, is not needed any more.
pub(super) async fn clean_after(
    core: &Core,
    error: Option<&InstallerError>,
) -> Result<(), Trouble> {
    if error.is_none_or(|error| !error.is_transient()) {
        let cleaned = Fetcher::clean(&core.settings.layout.downloads(), &[]).await;
        cleaned.map_err(|error| Trouble::other(error.to_string(), error.failure()))?;
    }
    Ok(())
}

/// Whether the document is to blame for a refusal of the installer.
pub(super) fn blame(
    subject: &Subject,
    artifact: &Artifact,
    error: InstallerError,
) -> Result<DocumentFailure, Trouble> {
    let failure = subject.blame(error.failure());
    match error.reason() {
        Some(Reason::BadArtifact | Reason::Refused | Reason::BadOrder) => {
            let message = format!("{} {}: {error}", artifact.version, artifact.sha256);
            Ok(DocumentFailure::new(FailureReason::Artifact, message, failure))
        }
        Some(Reason::FailedBefore) => {
            let message = format!("{}: {error}", artifact.version);
            Ok(DocumentFailure::new(FailureReason::Unhealthy, message, failure.in_update()))
        }
        _ => Err(Trouble::Installer(error)),
    }
}
