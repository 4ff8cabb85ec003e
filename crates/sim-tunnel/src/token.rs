//! The run token of a tunnel, as the API gives it and cloudflared takes it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

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
    #[serde(rename = "a")]
    pub account: String,
    #[serde(rename = "t")]
    pub tunnel: String,
    #[serde(rename = "s")]
    pub secret: TunnelSecret,
}

/// A run token that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum RunTokenError {
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
