//! How the command line reaches the running gateway: a socket of the stand-in's own in the state
//! folder (the real one uses its WebSocket). One JSON line each way.

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::io::BufReader;
use tokio::net::{UnixListener, UnixStream};

use crate::json_lines::{read_line, write_line};

/// In the state folder. Reached by a relative name from there, for paths of sockets are short.
const SOCKET: &str = "stand-in.sock";
/// How long a client may hold up the others, of which the gateway answers one at a time.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the gateway may take to answer: more than one client that says nothing holds it up.
const TIMEOUT: Duration = Duration::from_secs(30);

/// What a client sends.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Call {
    /// The gateway's token, as the client's configuration has it.
    pub(super) token: Option<String>,
    pub(super) command: Command,
}

/// What the gateway can be asked.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", rename_all_fields = "kebab-case", tag = "command")]
pub(super) enum Command {
    /// Read all secrets again.
    ReloadSecrets,
    /// Which configuration is on disk, and which is in use.
    GetConfig,
    /// Pending and paired devices.
    ListDevices,
    /// Let a pending device in.
    ApproveDevice { request_id: String },
}

/// What the gateway answers.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Answer {
    /// Done, with what there is to say.
    Done(Value),
    Failed(String),
}

/// Makes the gateway's end. The working folder becomes the state folder.
pub(super) fn bind(state_dir: &Path) -> io::Result<UnixListener> {
    std::env::set_current_dir(state_dir)?;
    match std::fs::remove_file(SOCKET) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(SOCKET)?;
    std::fs::set_permissions(SOCKET, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Answers whoever connects, until it is dropped.
pub(super) async fn serve(listener: UnixListener, mut perform: impl FnMut(Call) -> Answer) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let mut stream = BufReader::new(stream);
        let exchange = async {
            let call = read_line(&mut stream).await?;
            write_line(&mut stream, &perform(call)).await
        };
        if let Ok(Err(error)) = tokio::time::timeout(CLIENT_TIMEOUT, exchange).await {
            tracing::debug!(%error, "a client of the control socket left");
        }
    }
}

/// Asks the gateway whose state folder this is. The working folder becomes the state folder.
pub(super) async fn ask(state_dir: &Path, call: &Call) -> io::Result<Value> {
    let exchange = async {
        std::env::set_current_dir(state_dir)?;
        let stream = UnixStream::connect(SOCKET).await?;
        let mut stream = BufReader::new(stream);
        write_line(&mut stream, call).await?;
        read_line::<Answer, _>(&mut stream).await
    };
    let unreachable = |why: String| {
        let place = state_dir.display();
        io::Error::other(format!("cannot reach the gateway of {place}: {why}; is it running?"))
    };
    match tokio::time::timeout(TIMEOUT, exchange).await {
        Ok(Ok(Answer::Done(value))) => Ok(value),
        Ok(Ok(Answer::Failed(message))) => Err(io::Error::other(message)),
        Ok(Err(error)) => Err(unreachable(error.to_string())),
        Err(_) => Err(unreachable("no answer".to_owned())),
    }
}
