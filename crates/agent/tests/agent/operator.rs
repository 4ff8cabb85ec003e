//! A small operator: signs, verifies, and keeps the nonce of the last answer.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, StatusCode,
    header::{AUTHORIZATION, HOST, IF_MATCH},
};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Bytes, client::conn::http1};
use hyper_util::rt::TokioIo;
use moorage_agent::Agent;
use moorage_wire::{
    CredentialType, DesiredState, Epoch, InstanceId, Receipt, Report, Secret, Sha256,
    bootstrap::Bootstrap,
    credential::{Binding, SealedCredential},
    desired::{Artifact, Artifacts},
    enrolment::{AgentIdentity, EnrolmentAnswer, EnrolmentKey},
    path,
    problem::{Problem, ProblemCode},
    report::ConvergenceState,
    sealing::SealingCertificate,
    signature::{self, AnswerParts, NEXT_NONCE, OperatorKey, Peers, RequestParts},
};
use serde_json::Value;
use tokio::net::TcpStream;

use crate::world::eventually;

pub(crate) const BEARER: &str = "bearer-token-of-256-bits";
pub(crate) const CHALLENGE: &str = "0123456789abcdef0123456789abcdef";

pub(crate) fn instance() -> InstanceId {
    InstanceId::from_bytes([1; 16])
}

pub(crate) fn epoch() -> Epoch {
    Epoch::from_bytes([2; 8])
}

pub(crate) fn enrolment_key() -> EnrolmentKey {
    EnrolmentKey::new(Secret::from([0x5a; 32]))
}

pub(crate) fn operator_key() -> OperatorKey {
    OperatorKey::from_seed(&Secret::from([7; 32]))
}

/// What user-data leaves on the server.
pub(crate) fn bootstrap() -> Bootstrap {
    Bootstrap {
        instance_id: instance(),
        epoch: epoch(),
        operator_key: operator_key().public_key(),
        bearer_sha256: Sha256::of(BEARER.as_bytes()),
        enrolment_key: enrolment_key().to_text(),
    }
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Reply {
    pub(crate) fn json<T: serde::de::DeserializeOwned>(&self) -> T {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub(crate) fn problem(&self) -> ProblemCode {
        self.json::<Problem>().code
    }

    pub(crate) fn nonce(&self) -> Option<String> {
        self.headers.get(NEXT_NONCE).map(|nonce| nonce.to_str().unwrap().to_owned())
    }
}

pub(crate) struct Operator {
    address: SocketAddr,
    pub(crate) key: OperatorKey,
    pub(crate) peers: Peers,
    pub(crate) identity: Option<AgentIdentity>,
    nonce: Option<String>,
}

impl Operator {
    pub(crate) fn of(agent: &Agent) -> Self {
        let peers = Peers { instance: instance(), epoch: epoch(), agent: None };
        let address = agent.address().unwrap();
        Self { address, key: operator_key(), peers, identity: None, nonce: None }
    }

    /// Keeps what it learnt, and talks to a restarted agent.
    pub(crate) fn follow(&mut self, agent: &Agent) {
        self.address = agent.address().unwrap();
        self.nonce = None;
    }

    /// Waits until a restarted agent has loaded its keys.
    pub(crate) async fn wait_until_ready(&self) {
        eventually("the agent is ready", || async {
            let reply = self.send(Method::GET, path::REPORT, &Self::bearer(), b"").await.ok()?;
            (reply.status == StatusCode::UNAUTHORIZED).then_some(())
        })
        .await;
    }

    /// Asks until the answer is the one that is waited for.
    pub(crate) async fn report_when(
        &mut self,
        what: &str,
        condition: impl Fn(&Report) -> bool,
    ) -> Report {
        let begin = Instant::now();
        loop {
            let report = self.report().await;
            if condition(&report) {
                return report;
            }
            assert!(begin.elapsed() < Duration::from_secs(60), "never {what}: {report:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// One request as it is.
    pub(crate) async fn send(
        &self,
        method: Method,
        target: &str,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Result<Reply, String> {
        let text = |error: &dyn std::fmt::Display| error.to_string();
        let stream = TcpStream::connect(self.address).await.map_err(|error| text(&error))?;
        let handshake = http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = handshake.map_err(|error| text(&error))?;
        let connection = tokio::spawn(connection);
        let mut request = http::Request::builder().method(method).uri(target);
        request = request.header(HOST, "ada-mgmt.example.com");
        request.headers_mut().unwrap().extend(headers.clone());
        let request = request.body(Full::new(Bytes::copy_from_slice(body))).unwrap();
        let reply = async {
            let (head, body) =
                sender.send_request(request).await.map_err(|error| text(&error))?.into_parts();
            let body = body.collect().await.map_err(|error| text(&error))?.to_bytes();
            Ok(Reply { status: head.status, headers: head.headers, body })
        };
        let reply = reply.await;
        connection.abort();
        reply
    }

    pub(crate) fn bearer() -> HeaderMap {
        let value = HeaderValue::from_str(&format!("Bearer {BEARER}")).unwrap();
        HeaderMap::from_iter([(AUTHORIZATION, value)])
    }

    /// The headers of a signed request.
    pub(crate) fn sign(&self, nonce: &str, parts: &RequestParts<'_>) -> HeaderMap {
        let mut headers = Self::bearer();
        headers.extend(signature::sign_request(&self.key, &self.peers, nonce, parts).unwrap());
        if let Some(digest) = parts.if_match {
            headers.insert(IF_MATCH, digest.parse().unwrap());
        }
        headers
    }

    /// A nonce to sign with: the one of the last answer, or one that is asked for.
    pub(crate) async fn nonce(&mut self) -> Result<String, String> {
        if let Some(nonce) = self.nonce.take() {
            return Ok(nonce);
        }
        let reply = self.send(Method::GET, path::REPORT, &Self::bearer(), b"").await?;
        reply.nonce().ok_or_else(|| format!("no nonce in {reply:?}"))
    }

    /// A signed call whose answer is verified. A nonce that is not taken is replaced once, as the operator
    /// does.
    pub(crate) async fn try_call(
        &mut self,
        method: Method,
        path: &str,
        if_match: Option<&str>,
        body: &[u8],
    ) -> Result<Reply, String> {
        let reply = self.call_once(method.clone(), path, if_match, body).await?;
        let refused = reply.status == StatusCode::UNAUTHORIZED;
        if refused && reply.problem() == ProblemCode::BadNonce {
            return self.call_once(method, path, if_match, body).await;
        }
        Ok(reply)
    }

    async fn call_once(
        &mut self,
        method: Method,
        path: &str,
        if_match: Option<&str>,
        body: &[u8],
    ) -> Result<Reply, String> {
        let nonce = self.nonce().await?;
        let parts = RequestParts { method: method.as_str(), path, query: "", if_match, body };
        let headers = self.sign(&nonce, &parts);
        let reply = self.send(method.clone(), path, &headers, body).await?;
        let next_nonce = reply.nonce().ok_or_else(|| format!("no next nonce in {reply:?}"))?;
        let parts = AnswerParts {
            status: reply.status.as_u16(),
            next_nonce: &next_nonce,
            body: &reply.body,
        };
        let key = self.identity.as_ref().map(|identity| identity.public_key);
        if let Some(key) = key {
            signature::verify_answer(&key, &self.peers, &nonce, &reply.headers, &parts)
                .map_err(|error| format!("{error}: {reply:?}"))?;
        }
        self.nonce = Some(next_nonce);
        Ok(reply)
    }

    /// The operator with another master key.
    pub(crate) fn successor(seed: u8) -> Successor {
        let key = OperatorKey::from_seed(&Secret::from([seed; 32]));
        Successor { key, bearer: format!("bearer-token-{seed}") }
    }

    pub(crate) async fn call(
        &mut self,
        method: Method,
        path: &str,
        if_match: Option<&str>,
        body: &[u8],
    ) -> Reply {
        self.try_call(method, path, if_match, body).await.unwrap()
    }

    /// Learns the agent's keys and confirms them with the first signed call.
    pub(crate) async fn enrol(&mut self) {
        let target = format!("{}?challenge={CHALLENGE}", path::ENROLMENT);
        let reply = eventually("the agent answers its enrolment", || async {
            let reply = self.send(Method::GET, &target, &HeaderMap::new(), b"").await.unwrap();
            (reply.status == StatusCode::OK).then_some(reply)
        })
        .await;
        let answer: EnrolmentAnswer = reply.json();
        answer.verify(&enrolment_key(), CHALLENGE, instance(), epoch()).unwrap();
        self.peers.agent = Some(answer.identity.public_key);
        self.identity = Some(answer.identity);
        self.report().await;
    }

    pub(crate) async fn report(&mut self) -> Report {
        let reply = self.call(Method::GET, path::REPORT, None, b"").await;
        assert_eq!(reply.status, StatusCode::OK, "{reply:?}");
        reply.json()
    }

    pub(crate) fn seal(&self, name: &str, kind: CredentialType, value: &str) -> SealedCredential {
        let source_sha256 = Sha256::of(format!("customer's ciphertext of {value}").as_bytes());
        let binding = Binding::Courier { source_sha256 };
        let label = binding.label(instance(), epoch(), &name.parse().unwrap(), kind);
        let identity = self.identity.as_ref().unwrap();
        let pem = match &identity.tunnel_certificate {
            Some(own) if kind == CredentialType::TunnelToken => &own.certificate,
            _ => &identity.sealing_certificate,
        };
        let certificate = SealingCertificate::parse(pem).unwrap();
        let envelope = certificate.seal(&Secret::from(value.to_owned()), &label).unwrap();
        SealedCredential { r#type: kind, envelope, binding }
    }

    pub(crate) async fn put_credential(
        &mut self,
        name: &str,
        kind: CredentialType,
        value: &str,
    ) -> Reply {
        let body = serde_json::to_vec(&self.seal(name, kind, value)).unwrap();
        self.call(Method::PUT, &format!("{}/{name}", path::CREDENTIALS), None, &body).await
    }

    /// Delivers a credential and checks the receipt.
    pub(crate) async fn deliver(
        &mut self,
        name: &str,
        kind: CredentialType,
        value: &str,
    ) -> Receipt {
        let reply = self.put_credential(name, kind, value).await;
        assert_eq!(reply.status, StatusCode::OK, "{reply:?}");
        let receipt: Receipt = reply.json();
        receipt.verify(&self.identity.as_ref().unwrap().public_key).unwrap();
        receipt
    }

    /// Puts a document over the one that the agent has.
    pub(crate) async fn put_desired(&mut self, desired: &DesiredState) {
        let has = self.report().await.desired.digest;
        let tag = has.map_or("\"none\"".to_owned(), |digest| format!("\"{digest}\""));
        let reply = self.call(Method::PUT, path::DESIRED, Some(&tag), &desired.to_bytes()).await;
        assert_eq!(reply.status, StatusCode::ACCEPTED, "{reply:?}");
        assert_eq!(&reply.body[..], b"{}");
    }

    /// Waits until the report says `state` of `desired`.
    pub(crate) async fn wait_for(
        &mut self,
        desired: &DesiredState,
        state: ConvergenceState,
    ) -> Report {
        let digest = Some(desired.digest());
        let what = format!("{state:?}");
        self.report_when(&what, |report| {
            report.desired.digest == digest && report.desired.state == state
        })
        .await
    }
}

/// The keys of an operator that takes over.
pub(crate) struct Successor {
    pub(crate) key: OperatorKey,
    pub(crate) bearer: String,
}

impl Successor {
    /// A signed call of the successor; nothing of the answer is verified.
    pub(crate) async fn call(
        &self,
        operator: &Operator,
        method: Method,
        path: &str,
        body: &[u8],
    ) -> Reply {
        let value = HeaderValue::from_str(&format!("Bearer {}", self.bearer)).unwrap();
        let bearer = HeaderMap::from_iter([(AUTHORIZATION, value)]);
        let first = operator.send(Method::GET, path::REPORT, &bearer, b"").await.unwrap();
        let Some(nonce) = first.nonce() else { return first };
        let parts = RequestParts { method: method.as_str(), path, query: "", if_match: None, body };
        let mut headers = bearer;
        let signed = signature::sign_request(&self.key, &operator.peers, &nonce, &parts);
        headers.extend(signed.unwrap());
        operator.send(method, path, &headers, body).await.unwrap()
    }
}

/// A document with this configuration and these credentials.
pub(crate) fn desired(config: Value, credentials: &[&str]) -> DesiredState {
    let artifact = || Artifact {
        version: "1".into(),
        url: "https://artifacts.example.com/a".into(),
        sha256: Sha256::of(b""),
        size: 1,
    };
    DesiredState {
        config,
        credentials: credentials.iter().map(|name| name.parse().unwrap()).collect(),
        artifacts: Artifacts {
            release: "2026.9.6-1".into(),
            openclaw: artifact(),
            node: artifact(),
            cloudflared: artifact(),
            agent: artifact(),
        },
        integrations: Vec::new(),
        approved_pairings: std::collections::BTreeSet::new(),
        retry: None,
    }
}

/// A header for a request.
pub(crate) fn header(name: &'static str, value: &str) -> (HeaderName, HeaderValue) {
    (HeaderName::from_static(name), value.parse().unwrap())
}
