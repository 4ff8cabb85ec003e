//! How a connector of the simulator registers: one JSON line each way on a plain TCP connection.
//! This is a stand-in of the simulator's own, in place of TLS and cloudflared's Cap'n Proto control
//! stream. After the accepting line the connection is HTTP/2 with the edge as client.

use std::io;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use tokio::io::{
    AsyncBufRead, AsyncBufReadExt as _, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _,
};

use super::ingress::ConfigurationPush;

/// Longest line that either side accepts, in bytes. Large enough for every rule document that
/// Cloudflare takes.
const LINE_LIMIT: u64 = 1 << 20;

/// Bytes that travel as standard base64 and stay out of logs.
#[derive(Clone, PartialEq, Eq)]
pub struct TunnelSecret(pub Vec<u8>);

impl std::fmt::Debug for TunnelSecret {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("TunnelSecret(redacted)")
    }
}

impl Serialize for TunnelSecret {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for TunnelSecret {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        STANDARD.decode(text).map(Self).map_err(|_| serde::de::Error::custom("not standard base64"))
    }
}

/// The run token of a tunnel: standard base64 of `{"a","t","s"}`, as cloudflared takes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunToken {
    /// The account.
    #[serde(rename = "a")]
    pub account: String,
    /// The tunnel's id.
    #[serde(rename = "t")]
    pub tunnel: String,
    /// The tunnel's secret.
    #[serde(rename = "s")]
    pub secret: TunnelSecret,
}

/// A run token that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum RunTokenError {
    /// Not base64.
    #[error("it is not standard base64")]
    Base64,
    /// Not the expected JSON.
    #[error("it does not hold an account, a tunnel and a secret")]
    Fields,
}

impl RunToken {
    /// Reads a token as the file holds it.
    pub fn parse(text: &str) -> Result<Self, RunTokenError> {
        let json = STANDARD.decode(text.trim()).map_err(|_| RunTokenError::Base64)?;
        serde_json::from_slice(&json).map_err(|_| RunTokenError::Fields)
    }

    /// The token as one line of text.
    pub fn encode(&self) -> String {
        let json = serde_json::json!({
            "a": self.account,
            "t": self.tunnel,
            "s": STANDARD.encode(&self.secret.0),
        });
        STANDARD.encode(json.to_string())
    }
}

/// The first line, from the connector.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Who it is.
    #[serde(flatten)]
    pub token: RunToken,
    /// The id of the connector process, a UUID.
    pub connector: String,
}

/// The second line, from the edge.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "result")]
pub enum Welcome {
    /// HTTP/2 follows.
    Accepted {
        /// The id of this connection.
        connection: String,
        /// The rules, unless the tunnel has none yet.
        push: Option<ConfigurationPush>,
    },
    /// The edge closes the connection.
    Refused {
        /// Begins with `Unauthorized` when the token is wrong; the connector then keeps trying.
        cause: String,
    },
}

/// Reads one line of JSON. The reader may have read on: go on with it, not with what is below it.
pub async fn read_line<T, R>(reader: &mut R) -> io::Result<T>
where
    T: serde::de::DeserializeOwned,
    R: AsyncBufRead + Unpin,
{
    let mut line = String::new();
    let read = (&mut *reader).take(LINE_LIMIT).read_line(&mut line).await?;
    if read == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    serde_json::from_str(&line).map_err(|error| {
        // The category alone: the text of a parse error may quote what was sent.
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!("malformed line: {:?} error", error.classify()),
        )
    })
}

/// Writes one line of JSON.
pub async fn write_line<T, W>(writer: &mut W, message: &T) -> io::Result<()>
where
    T: Serialize,
    W: AsyncWrite + Unpin,
{
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    writer.write_all(&line).await?;
    writer.flush().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_token_has_the_format_of_cloudflared() {
        let text = STANDARD.encode(r#"{"a":"acc","t":"tun","s":"AAEC"}"#);
        let token = RunToken::parse(&format!("{text}\n")).unwrap();
        assert_eq!(
            token,
            RunToken {
                account: "acc".into(),
                tunnel: "tun".into(),
                secret: TunnelSecret(vec![0, 1, 2])
            }
        );
        assert_eq!(RunToken::parse(&token.encode()).unwrap(), token);
        assert!(matches!(RunToken::parse("%"), Err(RunTokenError::Base64)));
        assert!(matches!(RunToken::parse("e30="), Err(RunTokenError::Fields)));
        assert!(!format!("{token:?}").contains("[0, 1, 2]"));
    }
}
