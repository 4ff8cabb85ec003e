//! Bringing packed integrations to the server, as the programs are brought: fetched by this process,
//! verified and unpacked by the installer under the operator's signature, or by this process where one
//! user owns everything. The worker hands them to OpenClaw.

use std::{collections::BTreeSet, path::Path, sync::Arc};

use moorage_wire::{
    Sha256,
    desired::{Artifact, Integration},
    report::FailureReason,
};

use super::{
    Trouble,
    programs::{blame, clean_after, fetch, order_of},
    trouble::Subject,
};
use crate::{
    artifacts::{ArtifactError, Shelf, Store},
    core::{Core, blocking},
    desired::Document,
    failure::DocumentFailure,
    installer::protocol::{Reason, Request},
};

/// Has the artifacts of all integrations of the document unpacked; why not, if the document is to blame.
pub(super) async fn provide(
    core: &Arc<Core>,
    document: &Document,
) -> Result<Option<DocumentFailure>, Trouble> {
    let packed = artifacts(&document.state.integrations);
    if packed.clone().next().is_none() {
        return Ok(None);
    }
    let installed = installed(core).await?;
    for (name, artifact) in packed.filter(|(_, artifact)| !installed.contains(&artifact.sha256)) {
        let subject = Subject::Integration(name.to_owned());
        let file = match fetch(core, &subject, artifact).await? {
            Ok(file) => file,
            Err(failure) => return Ok(Some(failure)),
        };
        if let Some(failure) = install(core, document, (&subject, artifact), &file).await? {
            return Ok(Some(failure));
        }
        let Artifact { version, sha256, .. } = artifact;
        tracing::info!(target: "audit", version, %sha256, "an integration's artifact is here");
    }
    Ok(None)
}

/// Removes the artifacts of all others.
pub(super) async fn retain(core: &Arc<Core>, wanted: &[Integration]) -> Result<(), Trouble> {
    let keep: BTreeSet<_> = artifacts(wanted).map(|(_, artifact)| artifact.sha256).collect();
    if installed(core).await?.is_subset(&keep) {
        return Ok(());
    }
    if core.settings.programs.are_managed() {
        return Ok(core.installer.perform(&Request::RetainIntegrations { keep }).await?);
    }
    Ok(blocking(core, move |core| store(core)?.retain_integrations(&keep)).await?)
}

fn artifacts(integrations: &[Integration]) -> impl Iterator<Item = (&str, &Artifact)> + Clone {
    integrations.iter().filter_map(|one| Some((one.name.as_str(), one.artifact.as_ref()?)))
}

async fn installed(core: &Arc<Core>) -> Result<BTreeSet<Sha256>, Trouble> {
    if core.settings.programs.are_managed() {
        return Ok(core.installer.inventory().await?.integrations);
    }
    let integrations = |core: &Core| Store::at(&core.disk, &core.settings.layout).integrations();
    Ok(blocking(core, integrations).await?)
}

async fn install(
    core: &Arc<Core>,
    document: &Document,
    (subject, artifact): (&Subject, &Artifact),
    file: &Path,
) -> Result<Option<DocumentFailure>, Trouble> {
    if core.settings.programs.are_managed() {
        let order = order_of(core, document)?;
        let installed = core.installer.install_integration(&order, artifact.sha256, file).await;
        clean_after(core, installed.as_ref().err()).await?;
        return match installed {
            Ok(()) => Ok(None),
            // An installer that is older than this agent: it follows within minutes.
            Err(error) if error.reason() == Some(Reason::Refused) => Err(error.into()),
            Err(error) => blame(subject, artifact, error).map(Some),
        };
    }
    let (pinned, from) = (artifact.clone(), file.to_owned());
    let installed =
        blocking(core, move |core| store(core)?.install(Shelf::Integrations, &pinned, &from)).await;
    clean_after(core, None).await?;
    match installed {
        Ok(()) => Ok(None),
        Err(error @ ArtifactError::Io { .. }) => Err(error.into()),
        Err(error) => {
            let message = format!("{} {}: {error}", artifact.version, artifact.sha256);
            let failure = subject.blame(error.failure());
            Ok(Some(DocumentFailure::new(FailureReason::Artifact, message, failure)))
        }
    }
}

fn store(core: &Core) -> Result<Store, ArtifactError> {
    Store::open(&core.disk, &core.settings.layout)
}
