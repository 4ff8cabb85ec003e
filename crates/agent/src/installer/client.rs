//! The agent's side of the installer's socket.

use std::{path::PathBuf, time::Duration};

use thiserror::Error;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::UnixStream,
    time::timeout,
};
use zeroize::Zeroizing;

use super::protocol::{Answer, Request, Unit};

/// A stop waits for the unit's own `TimeoutStopSec`, which is 330 s for OpenClaw.
const PATIENCE: Duration = Duration::from_secs(400);
const STATUS_PATIENCE: Duration = Duration::from_secs(5);
const LONGEST_ANSWER: u64 = 64 * 1024;

/// Why the installer did not do what it was asked for.
#[derive(Debug, Error)]
pub enum InstallerError {
    /// Nobody answers on its socket.
    #[error("the installer does not answer on {}: {source}", socket.display())]
    Absent {
        /// Its socket.
        socket: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// It took too long.
    #[error("the installer did not answer in time")]
    Timeout,
    /// It refused or failed.
    #[error("the installer failed: {0}")]
    Failed(String),
}

/// Whether a unit runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnitStatus {
    /// Whether its process runs.
    pub running: bool,
    /// How often it was started since boot.
    pub starts: u32,
}

/// Talks to the installer; one connection per request.
#[derive(Debug, Clone)]
pub struct InstallerClient {
    socket: PathBuf,
}

impl InstallerClient {
    /// A client for the installer that listens on `socket`.
    pub fn new(socket: PathBuf) -> Self {
        Self { socket }
    }

    /// Asks whether a unit runs.
    pub async fn status(&self, unit: Unit) -> Result<UnitStatus, InstallerError> {
        match self.call(&Request::Status { unit }, STATUS_PATIENCE).await? {
            Answer::Status { running, starts } => Ok(UnitStatus { running, starts }),
            Answer::Failed { message } => Err(InstallerError::Failed(message)),
            Answer::Done => Err(InstallerError::Failed("it gave no status".to_owned())),
        }
    }

    /// Has something done.
    pub async fn perform(&self, request: &Request) -> Result<(), InstallerError> {
        match self.call(request, PATIENCE).await? {
            Answer::Failed { message } => Err(InstallerError::Failed(message)),
            Answer::Done | Answer::Status { .. } => Ok(()),
        }
    }

    async fn call(&self, request: &Request, patience: Duration) -> Result<Answer, InstallerError> {
        let absent = |source| InstallerError::Absent { socket: self.socket.clone(), source };
        match timeout(patience, self.exchange(request)).await {
            Ok(answer) => answer.map_err(absent),
            Err(_) => Err(InstallerError::Timeout),
        }
    }

    async fn exchange(&self, request: &Request) -> std::io::Result<Answer> {
        let mut stream = UnixStream::connect(&self.socket).await?;
        // The line may hold a tunnel token.
        let mut line = Zeroizing::new(serde_json::to_vec(request)?);
        line.push(b'\n');
        stream.write_all(&line).await?;
        let mut answer = String::new();
        BufReader::new(stream.take(LONGEST_ANSWER)).read_line(&mut answer).await?;
        serde_json::from_str(&answer).map_err(|error| {
            let column = error.column();
            std::io::Error::other(format!("its answer is not understood (column {column})"))
        })
    }
}
