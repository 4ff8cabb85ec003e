//! Updates of the agent, carried out: the record on disk, the links, the restarts, the watch over the
//! new one. What follows from what is decided in [`machine`].

pub mod machine;
pub(super) mod trial;
mod watch;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use moorage_wire::{Program, Sha256};
use thiserror::Error;
use tokio::{
    sync::{Mutex, Notify},
    time::sleep,
};

use self::{
    machine::{Event, Phase, Record, Refusal, Step},
    trial::TrialError,
};
use super::{
    client::InstallerClient,
    order::VerifiedOrder,
    protocol::{AgentFailure, Inventory},
    units::{Service, UnitError, Units},
};
use crate::{
    accounts::User,
    artifacts::{ArtifactError, Store, executable},
    disk::{Disk, DiskError},
    layout::Layout,
};

const AGENT: Program = Program::Agent;
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LONGEST_RETRY: Duration = Duration::from_secs(60);

/// How patient an update is. The defaults are right for a server; tests shorten them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpdateTiming {
    /// For the new binary to say its version.
    pub trial: Duration,
    /// For the new agent to answer on its socket. While the machine boots, it is restarted when it is
    /// over.
    pub socket: Duration,
    /// For a signed call of the operator to reach it; the socket's time ends with it.
    pub confirmation: Duration,
    /// Between two looks at its socket.
    pub poll: Duration,
    /// For systemd to end this process when the installer restarts itself.
    pub own_end: Duration,
}

impl Default for UpdateTiming {
    fn default() -> Self {
        Self {
            trial: Duration::from_secs(10),
            socket: Duration::from_secs(10),
            confirmation: Duration::from_secs(300),
            poll: Duration::from_millis(200),
            own_end: Duration::from_secs(30),
        }
    }
}

/// An update that is not begun, or a confirmation that is not taken.
#[derive(Debug, Error)]
pub enum UpdateError {
    /// Another one is under way.
    #[error("another update of the agent is not decided yet")]
    Busy,
    /// The same version was rolled back before, for this.
    #[error("this agent failed before ({0:?}); annotate moorage.dev/retry to try it again")]
    FailedBefore(AgentFailure),
    /// There is none to go back to.
    #[error("there is no current agent to go back to")]
    NoCurrent,
    /// The binary does not do.
    #[error(transparent)]
    Trial(#[from] TrialError),
    /// It is not what was ordered, or the disk failed.
    #[error(transparent)]
    Artifact(#[from] ArtifactError),
    /// The record cannot be written.
    #[error(transparent)]
    Disk(#[from] DiskError),
}

/// What keeps a step from its end; the step is retried.
#[derive(Debug, Error)]
enum Trouble {
    #[error(transparent)]
    Artifact(#[from] ArtifactError),
    #[error(transparent)]
    Disk(#[from] DiskError),
    #[error(transparent)]
    Unit(#[from] UnitError),
    #[error("the installer does not answer on its own socket: {0}")]
    Itself(#[from] super::client::InstallerError),
    #[error("the installer did not restart")]
    StillHere,
}

/// What updates need to know about their server.
pub struct Surroundings {
    /// The paths on the server.
    pub layout: Layout,
    /// The user that tries new agents.
    pub trial_user: Option<User>,
    /// The version of this very process, if it is an installed one.
    pub running: Option<Sha256>,
    /// The installer's own socket.
    pub socket: PathBuf,
    /// How patient to be.
    pub timing: UpdateTiming,
}

/// The updates of one server's agent.
pub struct Updates<U> {
    disk: Disk,
    store: Store,
    units: Arc<U>,
    around: Surroundings,
    record: Mutex<Record>,
    /// There may be something to do.
    wake: Notify,
    /// The record was changed by a verb.
    changed: Notify,
}

/// The record of a server. One that cannot be read is set aside: a machine that comes up without its
/// memory is better than none.
pub(super) fn read_record(disk: &Disk, layout: &Layout) -> Result<Record, DiskError> {
    let path = layout.agent_updates();
    match disk.read_json(&path) {
        Err(error @ DiskError::Damaged { .. }) => {
            tracing::error!(%error, "the record of agent updates is set aside");
            let aside = path.with_extension("damaged");
            std::fs::rename(&path, &aside).map_err(|source| DiskError::Io {
                action: "set aside",
                path,
                source,
            })?;
            Ok(Record::default())
        }
        read => Ok(read?.unwrap_or_default()),
    }
}

impl<U: Units> Updates<U> {
    /// Reads the record of the last update.
    pub fn open(
        disk: Disk,
        store: Store,
        units: Arc<U>,
        around: Surroundings,
    ) -> Result<Self, DiskError> {
        disk.create_folder(&around.layout.installer_state())?;
        disk.sweep(&around.layout.installer_state())?;
        let record = Mutex::new(read_record(&disk, &around.layout)?);
        let (wake, changed) = (Notify::new(), Notify::new());
        Ok(Self { disk, store, units, around, record, wake, changed })
    }

    /// Adds what is known about agents.
    pub async fn describe(&self, inventory: &mut Inventory) {
        let record = self.record.lock().await;
        inventory.agent_update = record.update.as_ref().map(|update| update.new);
        inventory.failed_agents.clone_from(&record.failed);
    }

    /// Verifies, installs and tries the agent that `order` pins and makes it the current one. The
    /// rest happens after [`Self::wake`]. What is the current one, or on its way, is left alone. One
    /// call at a time: the caller sees to that.
    pub async fn begin(&self, order: &VerifiedOrder, file: &Path) -> Result<(), UpdateError> {
        let artifact = &order.artifacts.agent;
        let new = artifact.sha256;
        {
            let record = self.record.lock().await;
            if record.update.as_ref().is_some_and(|update| update.current() == new) {
                return Ok(());
            }
            record.check(new, order.retry.as_deref()).map_err(|refusal| match refusal {
                Refusal::Busy => UpdateError::Busy,
                Refusal::FailedBefore(failure) => UpdateError::FailedBefore(failure),
            })?;
        }
        let old = self.store.current(AGENT).filter(|old| self.store.has(AGENT, *old));
        let old = old.ok_or(UpdateError::NoCurrent)?;
        if old == new {
            return Ok(());
        }
        let installing = (self.store.clone(), artifact.clone(), file.to_owned());
        blocking(move || installing.0.install(AGENT, &installing.1, &installing.2)).await?;
        self.try_out(order).await?;
        let mut record = self.record.lock().await;
        let begun = record.clone().begin(new, old, order.retry.clone());
        self.save(&mut record, begun)?;
        tracing::info!(%old, %new, "the agent is being updated");
        self.store.activate(AGENT, new)?;
        let switched = record.clone().after(Event::Switched, Timestamp::now());
        Ok(self.save(&mut record, switched)?)
    }

    /// Has the installed agent say its version. One that does not goes again.
    async fn try_out(&self, order: &VerifiedOrder) -> Result<(), UpdateError> {
        let artifact = &order.artifacts.agent;
        let program = self.store.version(AGENT, artifact.sha256).join(executable(AGENT));
        let (user, patience) = (self.around.trial_user, self.around.timing.trial);
        let trial = trial::says_its_version(&program, &artifact.version, user, patience).await;
        let Err(error) = trial else { return Ok(()) };
        if matches!(error, TrialError::Program(_)) {
            let mut record = self.record.lock().await;
            let (retry, now) = (order.retry.clone(), Timestamp::now());
            let mut failed = record.clone();
            failed.remember(artifact.sha256, AgentFailure::Trial, retry, now);
            self.save(&mut record, failed)?;
        }
        self.store.remove(AGENT, artifact.sha256)?;
        Err(error.into())
    }

    /// Continues what [`Self::begin`] began; to be called when its answer has been sent.
    pub fn wake(&self) {
        self.wake.notify_one();
    }

    /// The agent that runs now was reached by a signed call.
    pub async fn confirm(&self) -> Result<(), UpdateError> {
        let mut record = self.record.lock().await;
        match record.update.as_ref().map(|update| update.phase) {
            // It may still be the old one that asks.
            Some(Phase::Switching | Phase::Restarting) => return Err(UpdateError::Busy),
            Some(Phase::Watching { .. }) => {}
            None | Some(Phase::RollingBack { .. } | Phase::Settling { .. }) => return Ok(()),
        }
        let confirmed = record.clone().after(Event::Confirmed, Timestamp::now());
        self.save(&mut record, confirmed)?;
        tracing::info!("the new agent is confirmed");
        self.changed.notify_one();
        Ok(())
    }

    /// Carries updates out, for ever. To be run once the installer listens.
    pub async fn drive(&self) {
        let mut wait = FIRST_RETRY;
        let mut resumed = false;
        loop {
            let moved = async {
                if !resumed {
                    self.happened(Event::Resumed).await?;
                }
                resumed = true;
                self.advance().await
            };
            match moved.await {
                Ok(true) => wait = FIRST_RETRY,
                Ok(false) => self.wake.notified().await,
                Err(error) => {
                    tracing::warn!(%error, "an update of the agent is interrupted, retrying in {wait:?}");
                    sleep(wait).await;
                    wait = (wait * 2).min(LONGEST_RETRY);
                }
            }
        }
    }

    /// Does one step; whether there was one.
    async fn advance(&self) -> Result<bool, Trouble> {
        let step = self.record.lock().await.next(self.around.running);
        let event = match step {
            Step::Rest => return Ok(false),
            Step::Switch { new } => match self.store.activate(AGENT, new) {
                Err(ArtifactError::NotInstalled) => Event::Silent,
                activated => activated.map(|()| Event::Switched)?,
            },
            Step::RestartAgent => match self.units.restart(Service::Agent).await {
                Ok(()) => Event::Restarted,
                Err(error @ UnitError::Bus { .. }) => return Err(error.into()),
                Err(error) => {
                    tracing::warn!(%error, "the new agent does not start");
                    Event::Silent
                }
            },
            Step::Watch => match self.watch().await {
                Some(event) => event,
                None => return Ok(true),
            },
            Step::RollBack { old } => self.roll_back(old).await?,
            Step::RestartInstaller => return self.restart_itself().await,
            Step::Settle => {
                self.refresh_worker().await;
                InstallerClient::new(self.around.socket.clone()).inventory().await?;
                Event::Settled
            }
        };
        self.happened(event).await?;
        if event == Event::Settled {
            tracing::info!(current = ?self.store.current(AGENT), "the update of the agent is over");
            self.store.prune(AGENT)?;
        }
        Ok(true)
    }

    async fn roll_back(&self, old: Sha256) -> Result<Event, Trouble> {
        tracing::warn!(%old, "the agent is rolled back");
        self.store.restore(AGENT, old)?;
        match self.units.restart(Service::Agent).await {
            Ok(()) => {}
            Err(error @ UnitError::Bus { .. }) => return Err(error.into()),
            // There is nothing better than the old one.
            Err(error) => tracing::error!(%error, "the old agent does not start"),
        }
        Ok(Event::RolledBack)
    }

    async fn refresh_worker(&self) {
        // It starts when it is asked for something, from the current version.
        if let Err(error) = self.units.refresh(Service::Worker).await {
            tracing::warn!(%error, "the worker is not restarted");
        }
    }

    async fn restart_itself(&self) -> Result<bool, Trouble> {
        self.refresh_worker().await;
        self.happened(Event::RestartingItself).await?;
        tracing::info!("the installer restarts itself");
        self.units.restart(Service::Installer).await?;
        sleep(self.around.timing.own_end).await;
        Err(Trouble::StillHere)
    }

    async fn happened(&self, event: Event) -> Result<(), DiskError> {
        let mut record = self.record.lock().await;
        let next = record.clone().after(event, Timestamp::now());
        self.save(&mut record, next)
    }

    /// On disk first, then in memory. The file is small enough to write here.
    fn save(&self, record: &mut Record, next: Record) -> Result<(), DiskError> {
        if *record == next {
            return Ok(());
        }
        self.disk.write_json(&self.around.layout.agent_updates(), &next)?;
        *record = next;
        Ok(())
    }
}

/// Runs long synchronous work off the async threads.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
