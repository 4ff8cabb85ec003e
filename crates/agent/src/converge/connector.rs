//! Another version of cloudflared in place of one that is connected. Nobody can reach the server
//! without it, so the old one is restored when the new one does not connect, whichever process crashed
//! in between.

use std::{sync::Arc, time::Instant};

use jiff::Timestamp;
use moorage_wire::{
    Failure, Program, Sha256,
    failure::{FailureCode, Stage},
    report::{FailureReason, Rollback},
};
use serde::{Deserialize, Serialize};
use tokio::time::sleep;

use super::{Trouble, programs, refuse, update::note_rollback};
use crate::{
    connector::is_connected,
    core::{Core, blocking},
    desired::Document,
    failure::DocumentFailure,
    installer::protocol::{Request, Unit},
};

const PROGRAM: Program = Program::Cloudflared;

/// A version that is being tried.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Trial {
    /// The document that asks for it.
    document: Sha256,
    version: String,
    to: Sha256,
    from: Option<Sha256>,
}

/// Tries the version that the document pins, if it is another one.
pub(super) async fn update(core: &Arc<Core>, document: &Document) -> Result<(), Trouble> {
    let artifact = PROGRAM.pinned(&document.state.artifacts);
    let from = core.installer.inventory().await?.active(PROGRAM);
    if from == Some(artifact.sha256) {
        return Ok(());
    }
    if let Some(failure) = programs::provide(core, document, PROGRAM).await? {
        return refuse(core, document.digest, failure).await;
    }
    let rotating = blocking(core, |core| core.vault().tunnel().is_rotating()).await;
    if rotating || !is_connected(core).await {
        // Whether the new version works could not be told.
        let message =
            "cloudflared is updated once it is connected and its token is not being changed";
        let failure = Failure::new(Stage::Preparation, FailureCode::Deferred).of(PROGRAM);
        return Err(Trouble::other(message, failure.with_detail(message)));
    }
    let trial = Trial {
        document: document.digest,
        version: artifact.version.clone(),
        to: artifact.sha256,
        from,
    };
    blocking(core, move |core| {
        core.disk.write_json(&core.settings.layout.connector_update(), &trial)
    })
    .await?;
    settle(core).await
}

/// Ends the trial that is under way, if there is one.
pub(super) async fn settle(core: &Arc<Core>) -> Result<(), Trouble> {
    let path = core.settings.layout.connector_update();
    let Some(trial) = core.disk.read_json::<Trial>(&path)? else { return Ok(()) };
    run(core, trial.to).await?;
    if !connects(core).await {
        let seconds = core.settings.timing.connect_deadline.as_secs();
        let message = format!("cloudflared {} did not connect within {seconds} s", trial.version);
        let failure = Failure::new(Stage::Health, FailureCode::DeadlineExceeded).of(PROGRAM);
        let failure = failure.in_update().with_detail(&format!("{seconds} s"));
        if let Some(from) = trial.from {
            run(core, from).await?;
        }
        let rollback = Rollback {
            what: PROGRAM.into(),
            from: trial.to,
            to: trial.from,
            reason: message.as_str().into(),
            failure: Some(failure.clone()),
            at: Timestamp::now(),
        };
        note_rollback(core, rollback).await?;
        let failure = DocumentFailure::new(FailureReason::Unhealthy, message, failure);
        refuse(core, trial.document, failure).await?;
    }
    Ok(blocking(core, move |core| core.disk.remove(&path)).await?)
}

async fn run(core: &Core, sha256: Sha256) -> Result<(), Trouble> {
    core.installer.activate(PROGRAM, sha256).await?;
    Ok(core.installer.perform(&Request::Restart { unit: Unit::Cloudflared }).await?)
}

async fn connects(core: &Core) -> bool {
    let timing = &core.settings.timing;
    let begin = Instant::now();
    while begin.elapsed() < timing.connect_deadline {
        if is_connected(core).await {
            return true;
        }
        sleep(timing.health_poll).await;
    }
    false
}
