//! A browser in front of OpenClaw's gateway: a WebSocket through the simulated edge, with the identity of
//! a device and OpenClaw's own protocol on it (version 4). What is asked of the gateway is the test's
//! business.

use std::{path::Path, sync::Arc, time::Duration};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use futures::{SinkExt as _, StreamExt as _};
use moorage_wire::Sha256;
use serde::Deserialize;
use serde_json::{Value, json};
use thiserror::Error;
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{
        self, ClientConfig, RootCertStore,
        pki_types::{CertificateDer, ServerName, pem::PemObject as _},
    },
};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{self, ClientRequestBuilder, Message},
};

use crate::SimulatorEndpoints;

/// The longest that the gateway may take for one answer: it shares its processor with others.
const PATIENCE: Duration = Duration::from_secs(60);
/// A browser client that is not the gateway's own page, which would have to be of the same build.
const CLIENT: &str = "webchat-ui";
const MODE: &str = "webchat";
const PLATFORM: &str = "linux";
const ROLE: &str = "operator";
/// What the owner of a dashboard may do.
const SCOPES: [&str; 4] =
    ["operator.admin", "operator.read", "operator.write", "operator.approvals"];

/// The identity of a browser, which the gateway pairs with. Recreated, it is unknown there.
#[derive(Debug)]
pub struct Device(Ed25519KeyPair);

impl Device {
    /// A device that no gateway has seen.
    ///
    /// # Panics
    /// If the machine has no randomness.
    pub fn new() -> Self {
        Self(Ed25519KeyPair::generate().expect("there is randomness"))
    }

    /// The id by which the gateway lists it.
    pub fn id(&self) -> String {
        Sha256::of(self.0.public_key().as_ref()).to_string()
    }

    /// The proof that goes with a connection: bound to all that the connection asks for.
    fn proof(&self, challenge: &Challenge, token: &str) -> Value {
        let id = self.id();
        let (scopes, at) = (SCOPES.join(","), challenge.ts.to_string());
        let signed = [
            "v3",
            &id,
            CLIENT,
            MODE,
            ROLE,
            &scopes,
            &at,
            token,
            &challenge.nonce,
            PLATFORM,
            "", // The family of the device, which a browser does not say.
        ]
        .join("|");
        json!({
            "id": id,
            "publicKey": URL_SAFE_NO_PAD.encode(self.0.public_key()),
            "signature": URL_SAFE_NO_PAD.encode(self.0.sign(signed.as_bytes())),
            "signedAt": challenge.ts,
            "nonce": challenge.nonce,
        })
    }
}

impl Default for Device {
    fn default() -> Self {
        Self::new()
    }
}

/// What the gateway says first.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Challenge {
    pub nonce: String,
    /// The gateway's clock, in milliseconds since 1970.
    pub ts: u64,
}

/// A request that the gateway refuses.
#[derive(Debug, Clone, Error)]
#[error("{code}: {message} ({details})")]
pub struct GatewayRefusal {
    /// The kind of refusal, such as `INVALID_REQUEST`.
    pub code: String,
    /// For people.
    pub message: String,
    /// More, by kind: of a connection the `code` (`AUTH_TOKEN_MISMATCH`, `PAIRING_REQUIRED`), and the
    /// `requestId` of a pairing that waits for approval.
    pub details: Value,
}

impl GatewayRefusal {
    /// `details.code`, which tells the refusals of a connection apart; empty if there is none.
    pub fn detail(&self) -> &str {
        self.details["code"].as_str().unwrap_or_default()
    }
}

/// Why there is no answer, or none that was wished for.
#[derive(Debug, Error)]
pub enum GatewayError {
    /// The edge cannot be reached, or its certificate is not trusted.
    #[error("the edge cannot be reached: {0}")]
    Edge(#[from] std::io::Error),
    /// The authority's file cannot be used.
    #[error("the authority of the edge cannot be used: {0}")]
    Authority(String),
    /// The WebSocket was not opened, or broke.
    #[error("WebSocket: {0}")]
    Socket(Box<tungstenite::Error>),
    /// The other side closed it, or it ended.
    #[error("the WebSocket ended: {0}")]
    Ended(String),
    #[error("there was no {0} within a minute")]
    Silent(String),
    /// Not the gateway's protocol.
    #[error("this is not what a gateway says: {0}")]
    Nonsense(String),
    /// The gateway does not do it.
    #[error("the gateway refuses {method}: {refusal}")]
    Refused { method: String, refusal: GatewayRefusal },
}

impl From<tungstenite::Error> for GatewayError {
    fn from(error: tungstenite::Error) -> Self {
        // It is large, and answers are handed on often.
        Self::Socket(Box::new(error))
    }
}

impl GatewayError {
    /// The gateway's own refusal, if it is one.
    pub fn refusal(&self) -> Option<&GatewayRefusal> {
        match self {
            Self::Refused { refusal, .. } => Some(refusal),
            _ => None,
        }
    }
}

/// One WebSocket to a gateway.
#[derive(Debug)]
pub struct GatewayClient {
    socket: WebSocketStream<TlsStream<TcpStream>>,
    challenge: Challenge,
    asked: u64,
    pings: u32,
}

impl GatewayClient {
    /// Opens a WebSocket to the dashboard of that host name through the edge, as its page does, and waits
    /// for the gateway's challenge.
    pub async fn dial(clouds: &SimulatorEndpoints, host: &str) -> Result<Self, GatewayError> {
        let tcp = TcpStream::connect(clouds.edge).await?;
        let name = ServerName::try_from(host.to_owned()).map_err(std::io::Error::other)?;
        let tls = trusting(&clouds.edge_ca)?.connect(name, tcp).await?;
        let uri = format!("wss://{host}/").parse();
        let uri = uri.map_err(|_| GatewayError::Nonsense(format!("`{host}` is no host name")))?;
        // The gateway lets in pages of its own origin alone.
        let request =
            ClientRequestBuilder::new(uri).with_header("Origin", format!("https://{host}"));
        let (socket, _) = client_async(request, tls).await?;
        let challenge = Challenge { nonce: String::new(), ts: 0 };
        let mut client = Self { socket, challenge, asked: 0, pings: 0 };
        let said = client.event("connect.challenge").await?;
        client.challenge = serde_json::from_value(said.clone())
            .map_err(|_| GatewayError::Nonsense(said.to_string()))?;
        Ok(client)
    }

    /// The challenge that came first.
    pub fn challenge(&self) -> &Challenge {
        &self.challenge
    }

    /// How many pings of the gateway were seen (and answered) so far. They are seen while something else
    /// is waited for.
    pub fn pings(&self) -> u32 {
        self.pings
    }

    /// Introduces itself as a device of the owner with the gateway's token, and gives the `hello-ok`.
    pub async fn connect(&mut self, device: &Device, token: &str) -> Result<Value, GatewayError> {
        let params = json!({
            "minProtocol": 4,
            "maxProtocol": 4,
            "client": {
                "id": CLIENT, "version": "2026.9.6", "platform": PLATFORM, "mode": MODE,
            },
            "role": ROLE,
            "scopes": SCOPES,
            "caps": [],
            "auth": {"token": token},
            "userAgent": "moorage-testbed",
            "device": device.proof(&self.challenge, token),
        });
        let hello = self.call("connect", params).await?;
        if hello["type"] == "hello-ok" {
            return Ok(hello);
        }
        Err(GatewayError::Nonsense(hello.to_string()))
    }

    /// Calls a method and gives what it answers. Events that come in between are passed over.
    pub async fn call(&mut self, method: &str, params: Value) -> Result<Value, GatewayError> {
        self.asked += 1;
        let id = self.asked.to_string();
        let frame = json!({"type": "req", "id": id, "method": method, "params": params});
        let sent = timeout(PATIENCE, self.socket.send(Message::text(frame.to_string()))).await;
        sent.map_err(|_| GatewayError::Silent(format!("room for {method}")))??;
        let what = format!("answer to {method}");
        let answer =
            self.frame(&what, |frame| frame["type"] == "res" && frame["id"] == *id).await?;
        if answer["ok"] == true {
            return Ok(answer["payload"].clone());
        }
        let text = |key: &str| answer["error"][key].as_str().unwrap_or_default().to_owned();
        let (code, message) = (text("code"), text("message"));
        let refusal = GatewayRefusal { code, message, details: answer["error"]["details"].clone() };
        Err(GatewayError::Refused { method: method.to_owned(), refusal })
    }

    /// Waits for an event and gives what it carries.
    pub async fn event(&mut self, name: &str) -> Result<Value, GatewayError> {
        let frame =
            self.frame(name, |frame| frame["type"] == "event" && frame["event"] == name).await?;
        Ok(frame["payload"].clone())
    }

    /// Waits until the other side has ended the WebSocket, and says how.
    pub async fn ended(&mut self) -> Result<String, GatewayError> {
        match self.frame("end of the WebSocket", |_| false).await {
            Err(GatewayError::Ended(how)) => Ok(how),
            // A connection that is cut has no end of its own.
            Err(GatewayError::Socket(error)) => Ok(error.to_string()),
            Err(other) => Err(other),
            Ok(_) => unreachable!("no frame is wanted"),
        }
    }

    /// Reads until a frame is the wanted one.
    async fn frame(
        &mut self,
        what: &str,
        wanted: impl Fn(&Value) -> bool,
    ) -> Result<Value, GatewayError> {
        let read = async {
            loop {
                match self.socket.next().await {
                    None => return Err(GatewayError::Ended("without a word".to_owned())),
                    Some(Err(error)) => return Err(error.into()),
                    Some(Ok(Message::Close(frame))) => {
                        let how = frame.map(|frame| frame.to_string()).unwrap_or_default();
                        return Err(GatewayError::Ended(how));
                    }
                    // Answered by the library.
                    Some(Ok(Message::Ping(_))) => self.pings += 1,
                    Some(Ok(Message::Text(text))) => {
                        let frame: Value = serde_json::from_str(&text)
                            .map_err(|_| GatewayError::Nonsense(text.to_string()))?;
                        if wanted(&frame) {
                            return Ok(frame);
                        }
                    }
                    Some(Ok(_)) => {}
                }
            }
        };
        let read = timeout(PATIENCE, read).await;
        read.unwrap_or_else(|_| Err(GatewayError::Silent(what.to_owned())))
    }
}

/// A TLS client that trusts the edge's authority alone.
fn trusting(authority: &Path) -> Result<TlsConnector, GatewayError> {
    let unusable = |error: &dyn std::fmt::Display| GatewayError::Authority(error.to_string());
    let mut roots = RootCertStore::empty();
    let pem = CertificateDer::from_pem_file(authority).map_err(|error| unusable(&error))?;
    roots.add(pem).map_err(|error| unusable(&error))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| unusable(&error))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}
