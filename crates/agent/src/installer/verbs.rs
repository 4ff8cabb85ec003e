//! The verbs, carried out.

use std::sync::Arc;

use moorage_wire::{Program, Sha256, bootstrap::Bootstrap, handover::HandOver};
use thiserror::Error;
use tokio::sync::Mutex;
use zeroize::Zeroizing;

use super::{
    client::UnitStatus,
    enrolment_key, operator,
    order::{OrderError, VerifiedOrder},
    protocol::{Answer, Inventory, Reason, Request, Unit},
    settings::InstallerSettings,
    token::{self, TokenError},
    units::{Down, Service, UnitError, Units},
    update::{UpdateError, Updates, blocking, trial::TrialError},
};
use crate::{
    artifacts::{ArtifactError, Shelf, Store},
    disk::{Disk, DiskError},
    handover::{self, HandOverError},
    layout::Layout,
    signed::SignedCall,
};

/// What is done once the answer is sent, since it ends who asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Afterwards {
    Stop,
    Restart,
    GoDown(Down),
    /// The update is resumed.
    Update,
}

/// What a request led to.
pub(super) struct Done {
    pub(super) answer: Answer,
    pub(super) afterwards: Option<Afterwards>,
}

impl From<Answer> for Done {
    fn from(answer: Answer) -> Self {
        Self { answer, afterwards: None }
    }
}

/// Why a verb failed.
#[derive(Debug, Error)]
enum Failure {
    #[error(transparent)]
    Order(#[from] OrderError),
    #[error(transparent)]
    Artifact(#[from] ArtifactError),
    #[error(transparent)]
    Update(#[from] UpdateError),
    #[error(transparent)]
    Unit(#[from] UnitError),
    #[error(transparent)]
    Token(#[from] TokenError),
    #[error(transparent)]
    HandOver(#[from] HandOverError),
    #[error(transparent)]
    Disk(#[from] DiskError),
    #[error("there is no bootstrap document to check orders with")]
    NoBootstrap,
    #[error("the agent has a verb of its own: update-agent")]
    NotThisWay,
    #[error("the order pins no integration with the SHA-256 {0}")]
    NotPinned(Sha256),
}

impl Failure {
    fn reason(&self) -> Reason {
        match self {
            Self::Order(_) | Self::NotPinned(_) | Self::HandOver(HandOverError::Signature(_)) => {
                Reason::BadOrder
            }
            Self::Artifact(error) | Self::Update(UpdateError::Artifact(error)) => {
                artifact_reason(error)
            }
            Self::Update(UpdateError::Busy) => Reason::Busy,
            Self::Update(UpdateError::FailedBefore(_)) => Reason::FailedBefore,
            Self::Update(UpdateError::Trial(TrialError::Program(_))) => Reason::BadArtifact,
            Self::Update(UpdateError::Disk(error))
            | Self::Token(TokenError::Disk(error))
            | Self::HandOver(HandOverError::Disk(error))
            | Self::Disk(error) => disk_reason(error),
            Self::Token(TokenError::Form) | Self::NotThisWay => Reason::Refused,
            Self::Update(UpdateError::NoCurrent | UpdateError::Trial(TrialError::Machine(_)))
            | Self::Unit(_)
            | Self::HandOver(HandOverError::NoBootstrap)
            | Self::NoBootstrap => Reason::System,
        }
    }
}

fn artifact_reason(error: &ArtifactError) -> Reason {
    match error {
        _ if error.is_disk_full() => Reason::DiskFull,
        ArtifactError::NotAFile { .. } => Reason::Refused,
        ArtifactError::WrongBytes { .. } => Reason::WrongBytes,
        ArtifactError::TooLarge { .. }
        | ArtifactError::Archive(_)
        | ArtifactError::NoProgram { .. } => Reason::BadArtifact,
        ArtifactError::NotInstalled => Reason::NotInstalled,
        ArtifactError::Io { .. } => Reason::System,
    }
}

fn disk_reason(error: &DiskError) -> Reason {
    if error.is_disk_full() { Reason::DiskFull } else { Reason::System }
}

/// The verbs of one server.
pub(super) struct Verbs<U> {
    layout: Layout,
    token_group: Option<u32>,
    disk: Disk,
    store: Store,
    units: Arc<U>,
    updates: Arc<Updates<U>>,
    /// One change at a time for each kind of artifact.
    changing: [Mutex<()>; Program::ALL.len()],
    changing_integrations: Mutex<()>,
}

impl<U: Units> Verbs<U> {
    pub(super) fn new(
        settings: &InstallerSettings,
        disk: Disk,
        store: Store,
        units: Arc<U>,
        updates: Arc<Updates<U>>,
    ) -> Self {
        let (layout, token_group) = (settings.layout.clone(), settings.token_group);
        Self {
            layout,
            token_group,
            disk,
            store,
            units,
            updates,
            changing: Default::default(),
            changing_integrations: Mutex::default(),
        }
    }

    /// Does what is asked for.
    pub(super) async fn perform(&self, request: Request) -> Done {
        match self.attempt(request).await {
            Ok(done) => done,
            Err(failure) => Answer::failed(failure.reason(), failure.to_string()).into(),
        }
    }

    async fn attempt(&self, request: Request) -> Result<Done, Failure> {
        let after = |afterwards| Ok(Done { answer: Answer::Done, afterwards: Some(afterwards) });
        match request {
            Request::Status { unit } => {
                let UnitStatus { running, starts, failure } =
                    self.units.status(unit.into()).await?;
                return Ok(Answer::Status { running, starts, failure }.into());
            }
            Request::Installed => return Ok(Answer::Installed(self.inventory().await?).into()),
            Request::Stop { unit: Unit::Agent } => return after(Afterwards::Stop),
            Request::Restart { unit: Unit::Agent } => return after(Afterwards::Restart),
            Request::PowerOff => return after(Afterwards::GoDown(Down::PowerOff)),
            Request::Reboot => return after(Afterwards::GoDown(Down::Reboot)),
            Request::UpdateAgent { order, file } => {
                let order = self.verify(&order)?;
                let _only_one = self.changing(Program::Agent).lock().await;
                let begun = self.updates.begin(&order, &file).await;
                // Begun or half begun: the record knows.
                return match begun {
                    Ok(()) => after(Afterwards::Update),
                    Err(error) => {
                        self.updates.wake();
                        Err(error.into())
                    }
                };
            }
            Request::Start { unit } => self.units.start(unit.into()).await?,
            Request::Stop { unit } => self.units.stop(unit.into()).await?,
            Request::Restart { unit } => self.units.restart(unit.into()).await?,
            Request::WriteTunnelToken { token } => self.write_token(Zeroizing::new(token)).await?,
            Request::Install { order, kind, file } => {
                let order = self.verify(&order)?;
                self.install(order, kind, file).await?;
            }
            Request::InstallIntegration { order, sha256, file } => {
                let order = self.verify(&order)?;
                self.install_integration(order, sha256, file).await?;
            }
            Request::RetainIntegrations { keep } => {
                let _only_one = self.changing_integrations.lock().await;
                let store = self.store.clone();
                blocking(move || store.retain_integrations(&keep)).await?;
            }
            Request::Activate { kind, sha256 } => self.activate(kind, sha256).await?,
            Request::ConfirmAgent => self.updates.confirm().await?,
            Request::EraseEnrolmentKey => self.erase_enrolment_key().await?,
            Request::HandOver { document } => self.hand_over(*document).await?,
        }
        Ok(Answer::Done.into())
    }

    /// Does what ends who asked.
    pub(super) async fn afterwards(&self, afterwards: Afterwards) {
        let done = match afterwards {
            Afterwards::Stop => self.units.stop(Service::Agent).await,
            Afterwards::Restart => self.units.restart(Service::Agent).await,
            Afterwards::GoDown(how) => self.units.down(how).await,
            Afterwards::Update => {
                self.updates.wake();
                Ok(())
            }
        };
        if let Err(error) = done {
            tracing::error!(%error, ?afterwards, "it was announced, but failed");
        }
    }

    /// What user-data left says whose orders are followed. Read each time: it is small.
    fn verify(&self, order: &SignedCall) -> Result<VerifiedOrder, Failure> {
        let bootstrap: Option<Bootstrap> = self.disk.read_json(&self.layout.bootstrap())?;
        let operator = bootstrap.ok_or(Failure::NoBootstrap)?.operator();
        Ok(VerifiedOrder::of(order, &operator)?)
    }

    async fn inventory(&self) -> Result<Inventory, Failure> {
        // The agent asks for this at every look, so that what is missing does not stay so.
        if let Err(error) = operator::publish(&self.disk, &self.layout) {
            tracing::error!(%error, "the worker cannot be told who the operator is");
        }
        let mut inventory = Inventory {
            artifacts: self.store.list()?,
            integrations: self.store.integrations()?,
            ..Inventory::default()
        };
        self.updates.describe(&mut inventory).await;
        Ok(inventory)
    }

    async fn write_token(&self, token: Zeroizing<String>) -> Result<(), Failure> {
        let (disk, path, group) = (self.disk.clone(), self.layout.tunnel_token(), self.token_group);
        Ok(blocking(move || token::write(&disk, &path, &token, group)).await?)
    }

    async fn erase_enrolment_key(&self) -> Result<(), Failure> {
        let (disk, layout) = (self.disk.clone(), self.layout.clone());
        Ok(blocking(move || enrolment_key::erase(&disk, &layout)).await?)
    }

    async fn hand_over(&self, document: HandOver) -> Result<(), Failure> {
        let (disk, layout) = (self.disk.clone(), self.layout.clone());
        let taken = blocking(move || {
            handover::put_in_force(&disk, &layout, &document)?;
            Ok::<_, HandOverError>(operator::publish(&disk, &layout)?)
        });
        Ok(taken.await?)
    }

    async fn install(
        &self,
        order: VerifiedOrder,
        kind: Program,
        file: std::path::PathBuf,
    ) -> Result<(), Failure> {
        if kind == Program::Agent {
            return Err(Failure::NotThisWay);
        }
        let _only_one = self.changing(kind).lock().await;
        let store = self.store.clone();
        Ok(blocking(move || store.install(kind, kind.pinned(&order.artifacts), &file)).await?)
    }

    async fn install_integration(
        &self,
        order: VerifiedOrder,
        sha256: Sha256,
        file: std::path::PathBuf,
    ) -> Result<(), Failure> {
        let mut pinned = order.integrations.into_iter();
        let pinned = pinned.find(|one| one.sha256 == sha256).ok_or(Failure::NotPinned(sha256))?;
        let _only_one = self.changing_integrations.lock().await;
        let store = self.store.clone();
        Ok(blocking(move || store.install(Shelf::Integrations, &pinned, &file)).await?)
    }

    async fn activate(&self, kind: Program, sha256: Sha256) -> Result<(), Failure> {
        if kind == Program::Agent {
            return Err(Failure::NotThisWay);
        }
        let _only_one = self.changing(kind).lock().await;
        let store = self.store.clone();
        let activated = blocking(move || {
            store.activate(kind, sha256)?;
            // What is in use matters; what is left over goes next time.
            if let Err(error) = store.prune(kind) {
                tracing::warn!(%error, "old versions stay");
            }
            Ok::<_, ArtifactError>(())
        });
        Ok(activated.await?)
    }

    fn changing(&self, kind: Program) -> &Mutex<()> {
        &self.changing[kind as usize]
    }
}
