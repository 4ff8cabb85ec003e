//! Another version of OpenClaw or of its Node.js in place of one that works. A journal says how far
//! it came, so that a power cut at any point ends on the new version or back on the old one, with the
//! data that belongs to it: an older OpenClaw cannot read what a newer one has migrated.

use std::sync::Arc;

use jiff::Timestamp;
use moorage_wire::{
    DesiredState, Failure, Program, Sha256,
    failure::{FailureCode, Stage as FailedStage},
    report::{Backup, FailureReason, Rollback},
};
use serde::{Deserialize, Serialize};

use super::{
    Trouble, accept,
    openclaw::{self, Gate, wait_for_health},
    prepare, refuse,
};
use crate::{
    core::{Core, blocking},
    desired::{Document, LastGood, Pair},
    disk::DiskError,
    failure::DocumentFailure,
    worker::protocol::Validation,
};

/// So often a trial that is interrupted is begun again.
const ATTEMPTS: u32 = 3;
/// Room beside a backup and a copy of the state, bytes: databases grow when they are migrated.
const MARGIN: u64 = 256 * 1024 * 1024;

/// An update that is under way.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Journal {
    /// The document that asks for it, as it was when the update began.
    digest: Sha256,
    state: DesiredState,
    /// What works, and comes back if need be.
    from: LastGood,
    stage: Stage,
}

/// How far an update is. Each stage can be begun again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", rename_all_fields = "camelCase", tag = "stage")]
enum Stage {
    /// The old version runs or is stopped; nothing of it has changed.
    Preparing,
    /// There is a copy of the data, and the new version is being tried.
    Trying { attempts: u32 },
    /// The old version and its data come back.
    RollingBack { failure: DocumentFailure },
}

/// Notes that `document` asks for another version than `from` has; [`advance`] does it.
pub(super) async fn begin(
    core: &Arc<Core>,
    document: &Document,
    from: &LastGood,
) -> Result<(), Trouble> {
    let journal = Journal {
        digest: document.digest,
        state: document.state.clone(),
        from: from.clone(),
        stage: Stage::Preparing,
    };
    save(core, &journal).await
}

/// The documents that an update needs to come to its end, on the new version or back on the old one.
pub(super) fn documents(core: &Core) -> Result<Vec<Sha256>, DiskError> {
    let journal = core.disk.read_json::<Journal>(&core.settings.layout.update())?;
    Ok(journal.into_iter().flat_map(|journal| [journal.digest, journal.from.digest]).collect())
}

/// Resumes the update that is under way, if there is one, and carries it to its end.
pub(super) async fn advance(core: &Arc<Core>) -> Result<(), Trouble> {
    let path = core.settings.layout.update();
    while let Some(mut journal) = core.disk.read_json::<Journal>(&path)? {
        match journal.stage.clone() {
            Stage::Preparing if core.desired().digest() != Some(journal.digest) => {
                // Nothing has changed yet, and it is not wanted any more.
                finish(core).await?;
            }
            Stage::Preparing => {
                if let Err(trouble) = make_safe(core).await {
                    // The next try may be long in coming, and the machine may have just booted.
                    openclaw::keep(core, &journal.from).await?;
                    return Err(trouble);
                }
                journal.stage = Stage::Trying { attempts: 0 };
                save(core, &journal).await?;
            }
            Stage::Trying { .. } if is_accepted(core, &journal) => finish(core).await?,
            Stage::Trying { attempts } if attempts >= ATTEMPTS => {
                let why = format!("its trial was interrupted {ATTEMPTS} times");
                let failure = Failure::new(FailedStage::Start, FailureCode::Interrupted);
                let failure = failure.with_detail(&format!("{ATTEMPTS} times"));
                give_up(core, journal, &why, failure).await?;
            }
            Stage::Trying { attempts } => {
                journal.stage = Stage::Trying { attempts: attempts + 1 };
                save(core, &journal).await?;
                match try_out(core, &journal).await {
                    Ok(None) => finish(core).await?,
                    Ok(Some(failure)) => {
                        journal.stage = Stage::RollingBack { failure };
                        save(core, &journal).await?;
                    }
                    // A program that does not even run shows itself as trouble.
                    Err(trouble) if attempts + 1 >= ATTEMPTS => {
                        let failure = trouble.failure();
                        give_up(core, journal, &trouble.to_string(), failure).await?;
                    }
                    Err(trouble) => return Err(trouble),
                }
            }
            Stage::RollingBack { failure } => {
                roll_back(core, &journal, failure).await?;
                finish(core).await?;
            }
        }
    }
    Ok(())
}

/// Whether the new version was found to work, and only the end of the update is missing.
fn is_accepted(core: &Core, journal: &Journal) -> bool {
    core.desired().last_good().is_some_and(|good| good.digest == journal.digest)
}

async fn give_up(
    core: &Arc<Core>,
    mut journal: Journal,
    why: &str,
    failure: Failure,
) -> Result<(), Trouble> {
    let message = format!("{}: {why}", name(&journal));
    let failure = failure.of(program(&journal)).in_update();
    let failure = DocumentFailure::new(FailureReason::Unhealthy, message, failure);
    journal.stage = Stage::RollingBack { failure };
    save(core, &journal).await
}

/// Removes the copy of an update whose end was cut off.
pub(super) async fn clean_up(core: &Arc<Core>) -> Result<(), Trouble> {
    if core.disk.read(&core.settings.layout.update())?.is_none() {
        core.openclaw.drop_snapshot().await?;
    }
    Ok(())
}

fn name(journal: &Journal) -> String {
    let program = program(journal);
    format!("{} {}", program.title(), program.pinned(&journal.state.artifacts).version)
}

/// Which of the two has another version; OpenClaw if both have.
fn program(journal: &Journal) -> Program {
    let openclaw = journal.state.artifacts.openclaw.sha256;
    let is_same = journal.from.programs.is_some_and(|from| from.openclaw == openclaw);
    if is_same { Program::Node } else { Program::Openclaw }
}

/// Backs up the running OpenClaw, stops it and copies its data.
async fn make_safe(core: &Arc<Core>) -> Result<(), Trouble> {
    let (free, used) = core.openclaw.room().await?;
    let needed = used.saturating_mul(2).saturating_add(MARGIN);
    if free < needed {
        let message = format!(
            "an update of OpenClaw needs {needed} bytes on the disk for a backup and a copy of its data, and {free} bytes are free"
        );
        // In steps, so that it is not another figure at every attempt.
        let room = format!("{} MiB have to be free", needed.div_ceil(MARGIN) * (MARGIN >> 20));
        let failure = Failure::new(FailedStage::Preparation, FailureCode::NoSpace);
        return Err(Trouble::other(message, failure.of(Program::Openclaw).with_detail(&room)));
    }
    let bytes = core.openclaw.back_up().await?;
    let made = Backup { at: Timestamp::now(), bytes };
    blocking(core, move |core| core.disk.write_json(&core.settings.layout.backup(), &made)).await?;
    openclaw::stop(core).await?;
    Ok(core.openclaw.take_snapshot().await?)
}

/// Switches to the new version and sees whether it works; why not, if it does not.
async fn try_out(core: &Arc<Core>, journal: &Journal) -> Result<Option<DocumentFailure>, Trouble> {
    let document = Document { digest: journal.digest, state: journal.state.clone() };
    let programs = Some(Pair::of(&document.state.artifacts));
    // A version of which something runs yet must not see the new data.
    openclaw::stop(core).await?;
    openclaw::switch(core, programs).await?;
    let text = match prepare(core, &document).await {
        // OpenClaw is stopped, so a registry is not waited for.
        Err(trouble @ Trouble::Integration(_)) => {
            let message = format!("{}: {trouble}", name(journal));
            let failure = trouble.failure();
            let reason = FailureReason::Integration;
            return Ok(Some(DocumentFailure::new(reason, message, failure)));
        }
        text => text?,
    };
    let failure = match core.openclaw.validate(document.digest).await? {
        Validation::Invalid { issues } => DocumentFailure::rejected(issues),
        Validation::Valid => {
            openclaw::bring_into_use(core, document.digest, &text, programs).await?;
            match wait_for_health(core, None).await {
                Gate::Healthy => {
                    accept(core, &document, text, programs).await?;
                    return Ok(None);
                }
                Gate::Unhealthy(why) => {
                    DocumentFailure::new(FailureReason::Unhealthy, why.message, why.failure)
                }
                // Not without a document to wait for; and if it were, the trial is not over.
                Gate::Superseded => return Err(Trouble::Interrupted),
            }
        }
    };
    let message = format!("{}: {}", name(journal), failure.message);
    let fields = failure.failure.map(|fields| fields.of(program(journal)).in_update());
    Ok(Some(DocumentFailure { message, failure: fields, ..failure }))
}

/// Puts package and data back.
async fn roll_back(
    core: &Arc<Core>,
    journal: &Journal,
    failure: DocumentFailure,
) -> Result<(), Trouble> {
    openclaw::stop(core).await?;
    core.openclaw.restore_snapshot().await?;
    openclaw::keep(core, &journal.from).await?;
    let program = program(journal);
    let rollback = Rollback {
        what: program.into(),
        from: program.pinned(&journal.state.artifacts).sha256,
        to: journal.from.programs.map(|programs| match program {
            Program::Node => programs.node,
            _ => programs.openclaw,
        }),
        reason: failure.message.as_str().into(),
        failure: failure.failure.clone(),
        at: Timestamp::now(),
    };
    note_rollback(core, rollback).await?;
    refuse(core, journal.digest, failure).await
}

/// Remembers a rollback for the report.
pub(super) async fn note_rollback(core: &Arc<Core>, rollback: Rollback) -> Result<(), DiskError> {
    tracing::warn!(target: "audit", what = ?rollback.what, reason = %rollback.reason, "rolled back");
    blocking(core, move |core| {
        core.disk.write_json(&core.settings.layout.last_rollback(), &rollback)
    })
    .await
}

async fn save(core: &Arc<Core>, journal: &Journal) -> Result<(), Trouble> {
    let journal = journal.clone();
    Ok(blocking(core, move |core| core.disk.write_json(&core.settings.layout.update(), &journal))
        .await?)
}

/// Ends the update. The journal is removed first: a copy that is left behind is replaced by the next
/// one, but a journal without its copy would be resumed.
async fn finish(core: &Arc<Core>) -> Result<(), Trouble> {
    blocking(core, |core| core.disk.remove(&core.settings.layout.update())).await?;
    Ok(core.openclaw.drop_snapshot().await?)
}
