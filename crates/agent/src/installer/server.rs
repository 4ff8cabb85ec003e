//! The installer's listener: who may talk to it, and how long a request may be and take. What is done
//! is in [`super::verbs`].

use std::{io, sync::Arc, time::Duration};

use thiserror::Error;
use tokio::{
    io::AsyncWriteExt as _,
    net::{UnixListener, UnixStream, unix::UCred},
    task::JoinSet,
    time::timeout,
};

use super::{
    audit::audit,
    operator,
    protocol::{Answer, LONGEST_REQUEST, Reason, Request},
    settings::InstallerSettings,
    units::Units,
    update::{Surroundings, Updates},
    verbs::{Done, Verbs},
};
use crate::{
    artifacts::{ArtifactError, Store},
    conversation::{Client, accept_all, read_line},
    disk::{Disk, DiskError, to_json},
    listen::UnixSocket,
};

/// A client that does not send its request, or does not take its answer, in time is left.
const TRANSFER_PATIENCE: Duration = Duration::from_secs(10);
/// Only the agent's user opens it.
const SOCKET_MODE: u32 = 0o600;

/// Why an installer cannot run.
#[derive(Debug, Error)]
pub enum InstallerStartError {
    #[error("cannot listen: {0}")]
    Listen(#[from] io::Error),
    /// `/opt/moorage` cannot be used.
    #[error(transparent)]
    Artifact(#[from] ArtifactError),
    /// Its state cannot be used.
    #[error(transparent)]
    Disk(#[from] DiskError),
}

/// A running installer. Dropping it stops everything at once, as a crash would.
pub struct Installer {
    tasks: JoinSet<()>,
}

impl Installer {
    /// Cleans up what was interrupted, listens, and resumes an update that is under way. To be
    /// called in a runtime.
    pub fn start<U: Units>(
        settings: &InstallerSettings,
        disk: Disk,
        units: U,
    ) -> Result<Self, InstallerStartError> {
        let units = Arc::new(units);
        let store = Store::open(&disk, &settings.layout)?;
        let around = Surroundings {
            layout: settings.layout.clone(),
            trial_user: settings.trial_user,
            running: settings.running,
            socket: match &settings.listen {
                UnixSocket::Made(path) => path.clone(),
                UnixSocket::Systemd => settings.layout.installer_socket(),
            },
            timing: settings.timing.clone(),
        };
        let updates = Updates::open(disk.clone(), store.clone(), Arc::clone(&units), around)?;
        let updates = Arc::new(updates);
        if let Err(error) = operator::publish(&disk, &settings.layout) {
            // Tried again whenever the agent asks what is installed.
            tracing::error!(%error, "the worker cannot be told who the operator is");
        }
        let listener = settings.listen.open(SOCKET_MODE)?;
        let verbs = Verbs::new(settings, disk, store, units, Arc::clone(&updates));
        let mut tasks = JoinSet::new();
        tasks.spawn(serve(listener, Arc::new(verbs), settings.client));
        tasks.spawn(async move { updates.drive().await });
        tracing::info!(running = ?settings.running, "the installer listens");
        Ok(Self { tasks })
    }

    /// Runs until `shutdown`. What is under way is cut off there, which is fine at any point.
    pub async fn run_until(mut self, shutdown: impl Future<Output = ()>) {
        tokio::select! {
            () = shutdown => {}
            // They end only by a panic.
            Some(Err(error)) = self.tasks.join_next() => {
                if let Ok(panic) = error.try_into_panic() {
                    std::panic::resume_unwind(panic);
                }
            }
        }
    }
}

async fn serve<U: Units>(listener: UnixListener, verbs: Arc<Verbs<U>>, client: Client) {
    accept_all(&listener, |stream, slot| {
        let verbs = Arc::clone(&verbs);
        async move {
            let Some(_slot) = slot else {
                return refuse(stream, Reason::Busy, "too many requests at a time").await;
            };
            match stream.peer_cred() {
                Ok(peer) if peer.uid() == 0 || client.is(peer.uid()) => {
                    converse(stream, &verbs, peer).await;
                }
                Ok(peer) => {
                    tracing::warn!(target: "audit", uid = peer.uid(), pid = peer.pid(), "refused a stranger");
                    refuse(stream, Reason::Refused, "not for you").await;
                }
                Err(error) => tracing::warn!(%error, "a client of unknown user"),
            }
        }
    })
    .await;
}

async fn refuse(mut stream: UnixStream, reason: Reason, message: &str) {
    send(&mut stream, &Answer::failed(reason, message)).await;
}

async fn converse<U: Units>(mut stream: UnixStream, verbs: &Verbs<U>, peer: UCred) {
    let line = match timeout(TRANSFER_PATIENCE, read_line(&mut stream, LONGEST_REQUEST)).await {
        Ok(Ok(line)) => line,
        Ok(Err(error)) => {
            let why = match error.kind() {
                io::ErrorKind::InvalidData => "the request is too long",
                io::ErrorKind::UnexpectedEof => "the request is cut off",
                _ => return,
            };
            return refuse(stream, Reason::Refused, why).await;
        }
        Err(_) => {
            return refuse(stream, Reason::Refused, "the request did not arrive in time").await;
        }
    };
    // It may hold a token, so that no error repeats it.
    let Ok(request) = serde_json::from_slice::<Request>(&line) else {
        return refuse(stream, Reason::Refused, "the request is not understood").await;
    };
    drop(line);
    let description = request.describe();
    let Done { answer, afterwards } = verbs.perform(request).await;
    audit(&description, &answer, peer);
    send(&mut stream, &answer).await;
    drop(stream);
    if let Some(afterwards) = afterwards {
        verbs.afterwards(afterwards).await;
    }
}

async fn send(stream: &mut UnixStream, answer: &Answer) {
    let line = to_json(answer, b"\n");
    let sent = async {
        stream.write_all(&line).await?;
        stream.shutdown().await
    };
    if !matches!(timeout(TRANSFER_PATIENCE, sent).await, Ok(Ok(()))) {
        tracing::debug!("a client left before its answer");
    }
}
