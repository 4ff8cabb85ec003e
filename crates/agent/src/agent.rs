//! A running agent: its listener, its two loops and the making of its keys, as one thing that can be
//! started, waited for and dropped.

use std::{
    fs::File,
    io,
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use rustix::fs::{FlockOperation, flock};
use thiserror::Error;
use tokio::{task::JoinSet, time::sleep};
use tokio_util::sync::CancellationToken;

use crate::{
    connector, converge,
    core::{Core, blocking},
    disk::{Disk, DiskError},
    identity::IdentityError,
    listen::{Listen, Listener},
    server,
    settings::Settings,
};

/// A predecessor that is just ending holds the state for so long at most.
const LOCK_PATIENCE: Duration = Duration::from_secs(10);

/// Why an agent cannot run.
#[derive(Debug, Error)]
pub enum StartError {
    /// Its state cannot be used.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// Another agent uses the state.
    #[error("another agent is running with the state in {}", folder.display())]
    Locked {
        /// The folder that another agent has locked.
        folder: PathBuf,
    },
    /// The socket or address is taken or not allowed.
    #[error("cannot listen on {listen:?}: {source}")]
    Listen {
        /// As the settings have it.
        listen: Listen,
        /// What the operating system said.
        source: io::Error,
    },
}

impl From<DiskError> for StartError {
    fn from(error: DiskError) -> Self {
        Self::Identity(error.into())
    }
}

/// A running agent. Dropping it stops everything at once, as a crash would.
#[derive(Debug)]
pub struct Agent {
    address: Option<SocketAddr>,
    stop: CancellationToken,
    tasks: JoinSet<Result<(), StartError>>,
}

impl Agent {
    /// Reads the state, listens, and begins to converge. Keys are made in the background.
    pub async fn start(settings: Settings, disk: Disk) -> Result<Self, StartError> {
        disk.create_folder(&settings.layout.state())?;
        let lock = take_lock(&settings).await?;
        let listen = settings.listen.clone();
        let opened = tokio::task::spawn_blocking(move || Core::open(settings, disk, lock)).await;
        let core = match opened {
            Ok(core) => Arc::new(core?),
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        };
        let listener = Listener::open(&listen)
            .await
            .map_err(|source| StartError::Listen { listen: listen.clone(), source })?;
        let address = listener.address();
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        tasks.spawn({
            let (core, stop) = (Arc::clone(&core), stop.clone());
            async move {
                server::serve(core, listener, stop).await;
                Ok(())
            }
        });
        tasks.spawn(prepare_and_work(core));
        tracing::info!(?listen, ?address, "listening");
        Ok(Self { address, stop, tasks })
    }

    /// The address that it listens on, if that is TCP.
    pub fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// Runs until `shutdown`, then lets requests under way end.
    pub async fn run_until(mut self, shutdown: impl Future<Output = ()>) -> Result<(), StartError> {
        tokio::pin!(shutdown);
        loop {
            let ended = tokio::select! {
                () = &mut shutdown, if !self.stop.is_cancelled() => {
                    self.stop.cancel();
                    continue;
                }
                ended = self.tasks.join_next() => ended,
            };
            match ended {
                // The server is the only task that returns, at a shutdown.
                None | Some(Ok(Ok(()))) => return Ok(()),
                Some(Ok(Err(error))) => return Err(error),
                Some(Err(error)) => std::panic::resume_unwind(error.into_panic()),
            }
        }
    }
}

/// Makes the keys, then converges for ever.
async fn prepare_and_work(core: Arc<Core>) -> Result<(), StartError> {
    let begin = Instant::now();
    core.ask_for_nonces().await;
    while let Err(error) = blocking(&core, Core::make_keys).await {
        if !matches!(error, IdentityError::Worker(_)) {
            return Err(error.into());
        }
        tracing::warn!(%error, "the keys cannot be made yet");
        sleep(core.settings.timing.retry_after_failure).await;
    }
    tracing::info!(milliseconds = begin.elapsed().as_millis(), "keys are ready");
    let confirm = async {
        if core.settings.programs.are_managed() {
            core.confirmation.run(&core.installer).await;
        }
    };
    tokio::join!(converge::run(Arc::clone(&core)), connector::run(Arc::clone(&core)), confirm);
    Ok(())
}

async fn take_lock(settings: &Settings) -> Result<File, StartError> {
    let folder = settings.layout.state();
    let path = settings.layout.lock();
    let file =
        File::create(&path).map_err(|source| DiskError::Io { action: "open", path, source })?;
    let begin = Instant::now();
    while flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        if begin.elapsed() >= LOCK_PATIENCE {
            return Err(StartError::Locked { folder });
        }
        sleep(Duration::from_millis(50)).await;
    }
    Ok(file)
}
