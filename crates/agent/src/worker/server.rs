//! The worker's socket: one request per connection, from the agent's user alone.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use thiserror::Error;
use tokio::{
    io::AsyncWriteExt as _,
    net::{UnixListener, UnixStream},
    time::timeout,
};

use super::{
    Trust, Worker, failed,
    protocol::{Answer, LONGEST_REQUEST, Request},
};
use crate::{
    conversation::{Client, accept_all, read_line},
    disk::{Disk, DiskError, to_json},
    layout::Layout,
    listen::UnixSocket,
    settings::OpenClawProgram,
};

/// The agent's user, who may ask, is not the worker's.
const SOCKET_MODE: u32 = 0o660;
const READ_PATIENCE: Duration = Duration::from_secs(10);

/// Why a worker cannot run.
#[derive(Debug, Error)]
pub enum ServeError {
    /// The folders cannot be made.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The socket is taken or not allowed.
    #[error("cannot listen on {listen:?}: {source}")]
    Listen {
        /// As the settings have it.
        listen: UnixSocket,
        /// What the operating system said.
        source: io::Error,
    },
}

/// Serves `client` until dropped.
pub async fn serve(
    listen: &UnixSocket,
    client: Client,
    layout: Layout,
    program: OpenClawProgram,
    gateway: SocketAddr,
) -> Result<(), ServeError> {
    let worker = Worker::new(Disk::default(), layout, program, gateway, Trust::Published);
    worker.prepare()?;
    let listener = listen
        .open(SOCKET_MODE)
        .map_err(|source| ServeError::Listen { listen: listen.clone(), source })?;
    tracing::info!(?listen, "listening");
    listen_on(&listener, client, &Arc::new(worker)).await;
    Ok(())
}

/// Serves until dropped.
pub(crate) async fn listen_on(listener: &UnixListener, client: Client, worker: &Arc<Worker>) {
    accept_all(listener, |stream, slot| {
        let worker = Arc::clone(worker);
        async move {
            if let Err(error) = converse(stream, client, &worker, slot.is_some()).await {
                tracing::warn!(%error, "a conversation ended early");
            }
            drop(slot);
        }
    })
    .await;
}

async fn converse(
    mut stream: UnixStream,
    client: Client,
    worker: &Arc<Worker>,
    has_slot: bool,
) -> io::Result<()> {
    let user = stream.peer_cred()?.uid();
    if !client.is(user) {
        return Err(io::Error::other(format!("user {user} may not ask")));
    }
    if !has_slot {
        let message = "too many requests at a time".to_owned();
        let answer = Answer::Failed { message, failure: None };
        return stream.write_all(&to_json(&answer, b"\n")).await;
    }
    let request = {
        let Ok(line) = timeout(READ_PATIENCE, read_line(&mut stream, LONGEST_REQUEST)).await else {
            return Err(io::ErrorKind::TimedOut.into());
        };
        serde_json::from_slice::<Request>(&line?)
    };
    let answer = match request {
        Ok(Request::File(request)) => {
            let worker = Arc::clone(worker);
            let answer = tokio::task::spawn_blocking(move || worker.file(request)).await;
            answer.unwrap_or_else(|error| failed(&error))
        }
        Ok(Request::Program(request)) => worker.program(request).await,
        // Its text may repeat what it is about.
        Err(error) => {
            let message = format!("not understood: see column {}", error.column());
            Answer::Failed { message, failure: None }
        }
    };
    stream.write_all(&to_json(&answer, b"\n")).await
}
