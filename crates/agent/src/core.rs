//! What the parts of a running agent share: its settings, its keys once they are made, and its state
//! behind locks that are held only for synchronous work, never across an await.

use std::{
    collections::VecDeque,
    fs::File,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use jiff::Timestamp;
use moorage_wire::{
    Sha256,
    bootstrap::{Bootstrap, EnrolmentKeyText},
    enrolment::EnrolmentKey,
    report::FailedPairing,
    signature::Peers,
};
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;

use crate::{
    audits::Audits,
    desired::Desired,
    disk::{Disk, DiskError},
    failure::Trouble,
    handover::Obeyed,
    identity::{self, IdentityError, Keys},
    installer::{client::InstallerClient, confirmation::Confirmation},
    lockout::{Lockout, Verdict},
    nonces::Nonces,
    settings::{Programs, Settings},
    vault::Vault,
    worker::{OpenClaw, Trust, Worker},
};

/// Fewer of the worker's nonces than this, and it is asked for more.
const FEW_NONCES: usize = 4;
/// So many at a time.
const NONCES: u64 = 8;

pub(crate) struct Core {
    pub(crate) settings: Settings,
    pub(crate) disk: Disk,
    /// As it was at the start, without the one-time key. Whom the agent obeys is in [`Self::obeyed`].
    pub(crate) bootstrap: Bootstrap,
    pub(crate) installer: InstallerClient,
    pub(crate) openclaw: OpenClaw,
    /// Whether the operator reached this process, for the installer.
    pub(crate) confirmation: Confirmation,
    /// The desired state is to be looked at.
    pub(crate) wake_reconcile: Notify,
    /// The tunnel is to be looked at.
    pub(crate) wake_tunnel: Notify,
    /// A value changed that a running `OpenClaw` has not read yet.
    pub(crate) secrets_changed: AtomicBool,
    /// Held while a desired state is replaced.
    pub(crate) replacing: tokio::sync::Mutex<()>,
    keys: Mutex<Option<Arc<Keys>>>,
    /// The worker's nonces, to be given to the operator. It takes no others for what it writes.
    worker_nonces: Mutex<VecDeque<String>>,
    is_asking_for_nonces: AtomicBool,
    enrolment: Mutex<Enrolment>,
    nonces: Mutex<Nonces>,
    lockout: Mutex<Lockout>,
    vault: Mutex<Vault>,
    desired: Mutex<Desired>,
    obeyed: Mutex<Obeyed>,
    notes: Mutex<Notes>,
    /// Held as long as anything of this agent runs.
    _lock: File,
}

/// Whether the operator has confirmed this agent.
struct Enrolment {
    confirmed: bool,
    /// The one-time key, until then.
    key: Option<Arc<EnrolmentKey>>,
}

/// Facts for the report that are learnt along the way.
#[derive(Debug, Clone, Default)]
pub(crate) struct Notes {
    /// OpenClaw's version, as it says itself.
    pub(crate) openclaw_version: Option<String>,
    /// Why its secrets could not be reloaded.
    pub(crate) reload_trouble: Option<Trouble>,
    /// `OpenClaw` was restarted because its gateway did not know its new token.
    pub(crate) restarted_for_secrets: bool,
    /// The document whose pairing approvals were passed on.
    pub(crate) pairings_of: Option<Sha256>,
    /// Approved requests that failed.
    pub(crate) failed_pairings: Vec<FailedPairing>,
    /// OpenClaw's own security audits.
    pub(crate) audits: Audits,
    /// Why the tunnel's token could not be changed.
    pub(crate) tunnel_trouble: Option<Trouble>,
}

impl Core {
    /// Reads all state. Makes no keys yet: see [`Self::make_keys`].
    /// `lock_file` is locked already: one state, one agent.
    pub(crate) fn open(
        settings: Settings,
        disk: Disk,
        lock_file: File,
    ) -> Result<Self, IdentityError> {
        let layout = &settings.layout;
        disk.create_folder(&layout.state())?;
        disk.sweep(&layout.state())?;
        let mut bootstrap = identity::read_bootstrap(&disk, layout)?;
        let openclaw = openclaw_of(&settings, &disk)?;
        let confirmed = identity::is_enrolled(&disk, layout)?;
        let key = EnrolmentKey::from_text(&bootstrap.enrolment_key).ok().filter(|_| !confirmed);
        bootstrap.enrolment_key = EnrolmentKeyText::erased();
        let core = Self {
            installer: InstallerClient::new(settings.installer_socket.clone()),
            confirmation: Confirmation::default(),
            wake_reconcile: Notify::new(),
            wake_tunnel: Notify::new(),
            secrets_changed: AtomicBool::new(true),
            replacing: tokio::sync::Mutex::default(),
            keys: Mutex::default(),
            worker_nonces: Mutex::default(),
            is_asking_for_nonces: AtomicBool::new(false),
            enrolment: Mutex::new(Enrolment { confirmed, key: key.map(Arc::new) }),
            nonces: Mutex::default(),
            lockout: Mutex::default(),
            vault: Mutex::new(Vault::open(&disk, layout, openclaw.clone())?),
            desired: Mutex::new(Desired::open(&disk, layout)?),
            obeyed: Mutex::new(Obeyed::open(&disk, layout, &bootstrap)?),
            notes: Mutex::default(),
            openclaw,
            bootstrap,
            disk,
            settings,
            _lock: lock_file,
        };
        Ok(core)
    }

    /// Loads or makes the keys; up to seconds of work.
    pub(crate) fn make_keys(&self) -> Result<(), IdentityError> {
        let layout = &self.settings.layout;
        let bootstrap = identity::read_bootstrap(&self.disk, layout)?;
        let confirmed = self.is_enrolled();
        let keys = Keys::load_or_make(&self.disk, layout, &bootstrap, confirmed, &self.openclaw)?;
        *self.keys.lock() = Some(Arc::new(keys));
        Ok(())
    }

    /// Gives the worker the key that is its, if an older agent made this agent's keys.
    pub(crate) fn hand_key_over(&self) -> Result<(), IdentityError> {
        if !self.keys().is_some_and(|keys| keys.is_to_hand_over) {
            return Ok(());
        }
        let layout = &self.settings.layout;
        let bootstrap = identity::read_bootstrap(&self.disk, layout)?;
        if let Some(keys) = Keys::hand_over(&self.disk, layout, &bootstrap, &self.openclaw)? {
            tracing::info!(target: "audit", "the worker has the key that credentials are sealed to");
            *self.keys.lock() = Some(Arc::new(keys));
        }
        Ok(())
    }

    /// The keys, once they are made.
    pub(crate) fn keys(&self) -> Option<Arc<Keys>> {
        self.keys.lock().clone()
    }

    /// The one-time key, until the operator has confirmed the agent.
    pub(crate) fn enrolment_key(&self) -> Option<Arc<EnrolmentKey>> {
        self.enrolment.lock().key.clone()
    }

    /// Whether the operator has confirmed the agent.
    pub(crate) fn is_enrolled(&self) -> bool {
        self.enrolment.lock().confirmed
    }

    /// The operator named this agent's key in a signed call: the one-time key is used.
    pub(crate) fn confirm(&self) -> Result<(), DiskError> {
        let mut enrolment = self.enrolment.lock();
        if enrolment.confirmed {
            return Ok(());
        }
        let layout = &self.settings.layout;
        identity::confirm(&self.disk, layout, Timestamp::now())?;
        *enrolment = Enrolment { confirmed: true, key: None };
        tracing::info!(target: "audit", instance = %self.bootstrap.instance_id, "enrolled");
        // The one-time key is erased by the loop.
        self.wake_reconcile.notify_one();
        Ok(())
    }

    /// The two ends that every signed message is bound to.
    pub(crate) fn peers(&self, keys: &Keys) -> Peers {
        Peers {
            instance: self.bootstrap.instance_id,
            epoch: self.bootstrap.epoch,
            agent: Some(keys.signing.public_key()),
        }
    }

    /// A fresh nonce: one of the worker's, while it answers.
    pub(crate) fn give_nonce(&self) -> String {
        let made = self.worker_nonces.lock().pop_front();
        self.nonces.lock().give(made, Instant::now())
    }

    /// Asks the worker for nonces, beside everything else, when few are left.
    pub(crate) fn replenish_nonces(self: &Arc<Self>) {
        let enough = self.worker_nonces.lock().len() >= FEW_NONCES;
        if enough || self.is_asking_for_nonces.swap(true, Ordering::SeqCst) {
            return;
        }
        let core = Arc::clone(self);
        tokio::spawn(async move {
            core.ask_for_nonces().await;
            core.is_asking_for_nonces.store(false, Ordering::SeqCst);
        });
    }

    /// Asks the worker for nonces, and waits for them.
    pub(crate) async fn ask_for_nonces(self: &Arc<Self>) {
        match blocking(self, |core| core.openclaw.nonces(NONCES)).await {
            Ok(nonces) => self.worker_nonces.lock().extend(nonces),
            Err(error) => tracing::debug!(%error, "no nonces from the worker"),
        }
    }

    /// A nonce that the worker takes for certain, after it refused another one.
    pub(crate) async fn give_newest_nonce(self: &Arc<Self>) -> String {
        self.worker_nonces.lock().clear();
        self.ask_for_nonces().await;
        self.give_nonce()
    }

    /// Uses a nonce up; whether it was good.
    pub(crate) fn take_nonce(&self, nonce: &str) -> bool {
        self.nonces.lock().take(nonce, Instant::now())
    }

    /// Counts a wrong bearer token.
    pub(crate) fn count_failure(&self, client: IpAddr) -> Verdict {
        self.lockout.lock().failed(client, Instant::now())
    }

    /// The credentials. Writes to disk: call it off the async threads.
    pub(crate) fn vault(&self) -> MutexGuard<'_, Vault> {
        self.vault.lock()
    }

    /// The desired state. Writes to disk: call it off the async threads.
    pub(crate) fn desired(&self) -> MutexGuard<'_, Desired> {
        self.desired.lock()
    }

    /// The operators that are obeyed. Changes write to disk: make them off the async threads.
    pub(crate) fn obeyed(&self) -> MutexGuard<'_, Obeyed> {
        self.obeyed.lock()
    }

    /// Facts for the report.
    pub(crate) fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock()
    }

    /// A value changed that a running `OpenClaw` has to read.
    pub(crate) fn note_changed_secrets(&self) {
        self.secrets_changed.store(true, Ordering::SeqCst);
        self.wake_reconcile.notify_one();
    }
}

/// The way to OpenClaw's files, which are made here if they are this process's own.
fn openclaw_of(settings: &Settings, disk: &Disk) -> Result<OpenClaw, DiskError> {
    match &settings.programs {
        Programs::Managed { worker_socket } => Ok(OpenClaw::Socket(worker_socket.clone())),
        Programs::External => {
            let (layout, program) = (settings.layout.clone(), settings.openclaw.clone());
            let gateway = settings.gateway;
            let worker = Worker::new(disk.clone(), layout, program, gateway, Trust::Bootstrap);
            worker.prepare()?;
            Ok(OpenClaw::InProcess(Arc::new(worker)))
        }
    }
}

/// Runs synchronous work (disk, RSA) off the async threads.
pub(crate) async fn blocking<T: Send + 'static>(
    core: &Arc<Core>,
    work: impl FnOnce(&Core) -> T + Send + 'static,
) -> T {
    let core = Arc::clone(core);
    match tokio::task::spawn_blocking(move || work(&core)).await {
        Ok(result) => result,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
