//! Making the running gateway read its secrets again, and seeing that it did: after a change of its
//! own token it has to refuse the old one and take the new one. `openclaw secrets reload` alone is no
//! proof, and cannot even do it: it shows the gateway the new token, which that does not know yet.

use std::{net::SocketAddr, time::Duration};

use moorage_wire::credential::GATEWAY_TOKEN;
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use zeroize::Zeroizing;

use super::{
    WorkError, Worker,
    program::client_config,
    protocol::{Reload, Stale},
};
use crate::secret_text::SecretText;

const PATIENCE: Duration = Duration::from_secs(10);
/// Enough for the status line.
const LONGEST_STATUS: u64 = 512;

const REFUSES_NEW: Reload = Reload::RestartNeeded { because: Stale::RefusesNew };

/// What the gateway makes of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Opinion {
    Taken,
    Refused,
}

impl Worker {
    pub(super) async fn reload_secrets(&self) -> Result<Reload, WorkError> {
        let _busy = self.busy.lock().await;
        let live = self.live_config()?;
        let config = self.layout.openclaw_config();
        let token = self.secrets.gateway_token()?.filter(|_| refers_to_token(live.as_ref()));
        let Some(token) = token else {
            self.program.reload_secrets(&config, None).await?;
            return Ok(Reload::Done);
        };
        let previous = self.secrets.previous_gateway_token().filter(|previous| *previous != token);
        if ask(self.gateway, &token).await? == Opinion::Taken {
            self.program.reload_secrets(&config, None).await?;
        } else {
            // Without one that it takes it cannot even be told to reload.
            let Some(previous) = &previous else { return Ok(REFUSES_NEW) };
            if ask(self.gateway, previous).await? == Opinion::Refused {
                return Ok(REFUSES_NEW);
            }
            self.reload_with(live.as_ref(), previous).await?;
        }
        if ask(self.gateway, &token).await? == Opinion::Refused {
            return Ok(REFUSES_NEW);
        }
        if let Some(previous) = &previous
            && ask(self.gateway, previous).await? == Opinion::Taken
        {
            return Ok(Reload::RestartNeeded { because: Stale::TakesOld });
        }
        self.secrets.forget_previous_gateway_token(&token);
        Ok(Reload::Done)
    }

    /// The command line gets the token in its environment, which only this user can read; nothing of
    /// it is on a command line or in a file.
    async fn reload_with(&self, live: Option<&Value>, token: &SecretText) -> Result<(), WorkError> {
        let path = self.layout.client_config();
        self.disk.write_json(&path, &client_config(live.unwrap_or(&Value::Null)))?;
        let reloaded = self.program.reload_secrets(&path, Some(token)).await;
        self.disk.remove(&path)?;
        Ok(reloaded?)
    }
}

/// Whether the gateway's token is the one that is delivered.
fn refers_to_token(config: Option<&Value>) -> bool {
    let id = config.and_then(|config| config.pointer("/gateway/auth/token/id"));
    id.and_then(Value::as_str).and_then(|id| id.strip_prefix('/')) == Some(GATEWAY_TOKEN)
}

/// Shows a token to a call that needs one and, without a body, does nothing.
async fn ask(gateway: SocketAddr, token: &SecretText) -> Result<Opinion, WorkError> {
    let status = match timeout(PATIENCE, status(gateway, token)).await {
        Ok(Ok(status)) => status,
        Ok(Err(error)) => {
            return Err(WorkError::Other(format!("the gateway does not answer: {error}")));
        }
        Err(_) => return Err(WorkError::Other("the gateway does not answer in time".to_owned())),
    };
    match status {
        401 => Ok(Opinion::Refused),
        200 | 400 => Ok(Opinion::Taken),
        other => Err(WorkError::Other(format!("the gateway answers {other} to a token"))),
    }
}

/// Written by hand so that the only buffer with the token is overwritten afterwards.
async fn status(gateway: SocketAddr, token: &SecretText) -> std::io::Result<u16> {
    let head = format!(
        "POST /tools/invoke HTTP/1.1\r\nHost: {gateway}\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: 2\r\nAuthorization: Bearer "
    );
    let capacity = head.len() + token.expose().len() + 8;
    let mut request = Zeroizing::new(Vec::with_capacity(capacity));
    request.extend_from_slice(head.as_bytes());
    request.extend_from_slice(token.expose().as_bytes());
    request.extend_from_slice(b"\r\n\r\n{}");
    let mut stream = TcpStream::connect(gateway).await?;
    stream.write_all(&request).await?;
    let mut answer = Vec::new();
    let mut stream = stream.take(LONGEST_STATUS);
    while !answer.contains(&b'\n') {
        if stream.read_buf(&mut answer).await? == 0 {
            break;
        }
    }
    let line = String::from_utf8_lossy(&answer);
    let status = line.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok());
    status.ok_or_else(|| std::io::Error::other("its answer is no HTTP"))
}
