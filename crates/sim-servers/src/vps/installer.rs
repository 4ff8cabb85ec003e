//! Plays the installer of a server: its protocol on its socket, its verbs on the supervised units.

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use moorage_agent::Disk;
use moorage_agent::installer::protocol::{Answer, Reason, Request, Unit};
use moorage_agent::installer::token;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;

use super::unit::SupervisedUnit;

/// Longest request, in bytes.
const REQUEST_LIMIT: u64 = 16 * 1024;
/// How long a client may take to send its request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// The units of a server.
#[derive(Debug)]
pub(super) struct Units {
    pub(super) agent: SupervisedUnit,
    pub(super) cloudflared: SupervisedUnit,
    pub(super) openclaw: SupervisedUnit,
}

impl Units {
    /// All of them, in the order in which they are stopped.
    pub(super) fn all(&self) -> [(Unit, &SupervisedUnit); 3] {
        [
            (Unit::Agent, &self.agent),
            (Unit::Openclaw, &self.openclaw),
            (Unit::Cloudflared, &self.cloudflared),
        ]
    }

    fn get(&self, unit: Unit) -> &SupervisedUnit {
        match unit {
            Unit::Agent => &self.agent,
            Unit::Cloudflared => &self.cloudflared,
            Unit::Openclaw => &self.openclaw,
        }
    }
}

/// Makes the socket, mode 0600.
pub(super) fn bind(path: &Path) -> io::Result<UnixListener> {
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Serves until it is dropped.
pub(super) async fn serve(listener: UnixListener, units: Arc<Units>, token_file: PathBuf) {
    let token_file: Arc<Path> = token_file.into();
    let mut conversations = JoinSet::new();
    loop {
        tokio::select! {
            Some(_) = conversations.join_next(), if !conversations.is_empty() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    conversations.spawn(converse(stream, units.clone(), token_file.clone()));
                }
                Err(error) => {
                    tracing::warn!(%error, "the installer cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }
}

async fn converse(stream: UnixStream, units: Arc<Units>, token_file: Arc<Path>) {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    let mut limited = (&mut stream).take(REQUEST_LIMIT);
    let request = match tokio::time::timeout(REQUEST_TIMEOUT, limited.read_line(&mut line)).await {
        Ok(Ok(0) | Err(_)) | Err(_) => return,
        Ok(Ok(_)) => serde_json::from_str::<Request>(&line),
    };
    let (answer, afterwards) = match request {
        // The text of a parse error may quote a token.
        Err(error) => (failed(&format!("malformed request: {:?} error", error.classify())), None),
        // The agent cannot hear the answer once it is stopped, so it hears it before.
        Ok(
            request
            @ (Request::Restart { unit: Unit::Agent } | Request::Stop { unit: Unit::Agent }),
        ) => (Answer::Done, Some(request)),
        Ok(request) => (perform(request, &units, &token_file).await, None),
    };
    if send(&mut stream, &answer).await.is_err() {
        tracing::debug!("a client of the installer left before its answer");
    }
    drop(stream);
    if let Some(request) = afterwards
        && let Answer::Failed { message, .. } = perform(request, &units, &token_file).await
    {
        tracing::warn!(message, "the agent's own request failed");
    }
}

async fn send(stream: &mut BufReader<UnixStream>, answer: &Answer) -> io::Result<()> {
    let mut line = serde_json::to_vec(answer)?;
    line.push(b'\n');
    stream.write_all(&line).await?;
    stream.shutdown().await
}

async fn perform(request: Request, units: &Units, token_file: &Path) -> Answer {
    let done = match request {
        Request::Status { unit } => {
            let unit = units.get(unit);
            let (running, starts) = (unit.process().is_some(), unit.starts());
            return Answer::Status { running, starts, failure: unit.failure() };
        }
        Request::Start { unit } => units.get(unit).start().await,
        Request::Stop { unit } => units.get(unit).stop().await,
        Request::Restart { unit } => units.get(unit).restart().await,
        Request::WriteTunnelToken { token } => {
            token::write(&Disk::default(), token_file, &token, None).map_err(io::Error::other)
        }
        Request::Install { .. }
        | Request::InstallIntegration { .. }
        | Request::RetainIntegrations { .. }
        | Request::Activate { .. }
        | Request::Installed
        | Request::UpdateAgent { .. }
        | Request::ConfirmAgent
        | Request::EraseEnrolmentKey
        | Request::HandOver { .. }
        | Request::PowerOff
        | Request::Reboot => {
            return Answer::failed(Reason::Refused, "not on this backend: programs are external");
        }
    };
    match done {
        Ok(()) => Answer::Done,
        Err(error) => failed(&error.to_string()),
    }
}

fn failed(message: &str) -> Answer {
    Answer::failed(Reason::System, message)
}
