//! What runs when the installer does not start any more: `moorage-roll-back.service`, with the
//! binary of the version before. It rolls an update of the agent back and starts the installer, which
//! does the rest. Other failures of the installer are left to `moorage-installer-again.service`.

use jiff::Timestamp;
use moorage_wire::Program;
use thiserror::Error;

use super::{
    units::{Service, UnitError, Units},
    update::{
        machine::{Event, Phase},
        read_record,
    },
};
use crate::{
    artifacts::{ArtifactError, Store},
    disk::{Disk, DiskError},
    layout::Layout,
};

/// Why nothing was rolled back although it should be.
#[derive(Debug, Error)]
pub enum RollBackError {
    /// The record cannot be written.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The links cannot be changed.
    #[error(transparent)]
    Artifact(#[from] ArtifactError),
    /// The old installer does not start either.
    #[error(transparent)]
    Unit(#[from] UnitError),
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The version before is the current one again, and the installer was started from it.
    RolledBack,
    /// It was the current one already: it is the old installer that does not start. Whoever starts it
    /// again takes more time than this.
    BackBefore,
    /// No update is under way: the installer fails for another reason.
    NothingToRollBack,
}

/// Takes an update of the agent back, if one is under way.
pub async fn roll_back<U: Units>(
    disk: &Disk,
    layout: &Layout,
    units: &U,
) -> Result<Outcome, RollBackError> {
    let store = Store::at(disk, layout);
    let before = read_record(disk, layout)?;
    let record = before.clone().after(Event::InstallerFailed, Timestamp::now());
    let Some(update) = &record.update else { return Ok(Outcome::NothingToRollBack) };
    let Phase::RollingBack { failure } = update.phase else {
        return Ok(Outcome::NothingToRollBack);
    };
    if record == before && store.current(Program::Agent) == Some(update.old) {
        return Ok(Outcome::BackBefore);
    }
    tracing::error!(new = %update.new, old = %update.old, ?failure, "the installer does not start: going back");
    disk.write_json(&layout.agent_updates(), &record)?;
    store.restore(Program::Agent, update.old)?;
    units.restart(Service::Installer).await?;
    Ok(Outcome::RolledBack)
}
