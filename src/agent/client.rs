//! The real agents, over HTTPS through Cloudflare's edge. Every call is one connection: with
//! thousands of instances and a question every few minutes, kept connections would only cost memory.
//!
//! How the edge is dialled is in `dialing`, what a request consists of in `request`, what an answer means in
//! `answer`, whether it is this server's in `proof`, and the nonces that make requests fresh in `nonces`.

mod answer;
mod dialing;
mod nonces;
mod proof;
mod request;
#[cfg(test)]
mod tests;

pub(crate) use answer::is_challenge;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use moorage_wire::{
    AgentPublicKey, CredentialName, Receipt, Report, Sha256,
    credential::SealedCredential,
    enrolment::{AgentIdentity, EnrolmentAnswer},
    handover::HandOver,
    path,
    problem::ProblemCode,
    signature::sign_request,
};
use thiserror::Error;

pub use dialing::EdgeDialing;

use self::{
    answer::{Answer, unsigned_refusal},
    dialing::EdgeResolver,
    nonces::Nonces,
    proof::{check_receipt, identity_in},
    request::{Call, Target, address, ascii, gates, random_hex, unreachable},
};
use super::{AgentApi, AgentError, AgentRoute, ServerKeys};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A small VPS takes its time to open an RSA envelope, to sync its disk and to reload its secrets.
const CREDENTIAL_TIMEOUT: Duration = Duration::from_secs(60);
/// A report names hundreds of consumed ciphertexts, about 150 bytes each, and older agents all of them.
const LARGEST_ANSWER: usize = 4 * 1024 * 1024;
/// Twice as long as those that agents give.
const LONGEST_NONCE: usize = 128;

/// Speaks to agents through the edge.
pub struct EdgeAgentClient {
    http: reqwest::Client,
    resolver: Arc<EdgeResolver>,
    nonces: Nonces,
}

/// Why a client cannot be made.
#[derive(Debug, Error)]
pub enum EdgeClientError {
    /// The certificates of `--edge-ca`.
    #[error("the edge's extra root certificates are not PEM certificates: {0}")]
    RootCertificates(#[source] reqwest::Error),
    /// The TLS stack.
    #[error("the HTTPS client for the edge cannot be made: {0}")]
    Client(#[source] reqwest::Error),
}

impl EdgeAgentClient {
    /// A client that dials like this.
    pub fn new(dialing: &EdgeDialing) -> Result<Self, EdgeClientError> {
        let resolver = Arc::new(EdgeResolver::new(dialing.address));
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("moorage/", env!("CARGO_PKG_VERSION")))
            .https_only(true)
            .http1_only()
            .no_proxy()
            .pool_max_idle_per_host(0)
            .connect_timeout(CONNECT_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .referer(false)
            .dns_resolver(Arc::clone(&resolver));
        if let Some(pem) = &dialing.extra_roots {
            let certificates = reqwest::Certificate::from_pem_bundle(pem)
                .map_err(EdgeClientError::RootCertificates)?;
            builder = builder.tls_certs_merge(certificates);
        }
        let http = builder.build().map_err(EdgeClientError::Client)?;
        Ok(Self { http, resolver, nonces: Nonces::default() })
    }

    /// A signed call whose answer is the agent's, verified. A nonce that the agent no longer takes
    /// is replaced once; it refuses such a request before it looks at anything else.
    async fn signed(&self, target: Target<'_>, call: &Call<'_>) -> Result<Answer, AgentError> {
        let nonce = match self.nonces.take(target.keys) {
            Some(nonce) => nonce,
            None => random_hex()?,
        };
        match self.signed_once(target, call, &nonce).await {
            Err(AgentError::Refused(problem)) if problem.code == ProblemCode::BadNonce => {
                let Some(fresh) = self.nonces.take(target.keys) else {
                    return Err(AgentError::Refused(problem));
                };
                self.signed_once(target, call, &fresh).await
            }
            answered => answered,
        }
    }

    async fn signed_once(
        &self,
        target: Target<'_>,
        call: &Call<'_>,
        nonce: &str,
    ) -> Result<Answer, AgentError> {
        let peers = target.peers();
        let mut headers = sign_request(&target.keys.operator, &peers, nonce, &call.parts())
            .map_err(|_| AgentError::Malformed("it gave a nonce that is none".into()))?;
        if let Some(tag) = &call.if_match {
            headers.insert(header::IF_MATCH, ascii(tag)?);
        }
        let answer = self.exchange(target, call, "", headers).await?;
        if !answer.is_signed() {
            return Err(unsigned_refusal(&answer));
        }
        let key = match target.agent {
            Some(key) => key,
            None => identity_in(&answer, target.keys)?.public_key,
        };
        answer.verify(&key, &peers, nonce)?;
        answer.into_success()
    }

    /// The request on the wire, and the whole answer, whatever it is. Keeps the nonce that it gives.
    async fn exchange(
        &self,
        target: Target<'_>,
        call: &Call<'_>,
        query: &str,
        headers: HeaderMap,
    ) -> Result<Answer, AgentError> {
        let route = target.route;
        let url = address(route, call.path, query)?;
        let host = url.host_str().unwrap_or_default();
        let _dialled = self.resolver.route(host, route.anchor.as_deref());
        let mut request = self
            .http
            .request(call.method.clone(), url)
            .timeout(call.timeout)
            .headers(headers)
            .headers(gates(route, target.keys)?)
            .header(header::ACCEPT, "application/json");
        if call.method == Method::PUT {
            let json = HeaderValue::from_static("application/json");
            request = request.header(header::CONTENT_TYPE, json).body(call.body.clone());
        }
        let mut response = request.send().await.map_err(|error| unreachable(&error))?;
        let (status, headers) = (response.status(), std::mem::take(response.headers_mut()));
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| unreachable(&error))? {
            if body.len() + chunk.len() > LARGEST_ANSWER {
                let message = format!("it is larger than {LARGEST_ANSWER} bytes");
                return Err(AgentError::Malformed(message));
            }
            body.extend_from_slice(&chunk);
        }
        let answer = Answer { status, headers, body };
        if let Some(nonce) = answer.next_nonce().filter(|nonce| nonce.len() <= LONGEST_NONCE) {
            self.nonces.keep(target.keys, nonce.to_owned());
        }
        Ok(answer)
    }

    /// What the agent says before anyone is enrolled; `None` if it wants a signature.
    async fn open_enrolment(
        &self,
        target: Target<'_>,
    ) -> Result<Option<AgentIdentity>, AgentError> {
        let challenge = random_hex()?;
        let query = format!("challenge={challenge}");
        let call = Call::get(path::ENROLMENT);
        let answer = self.exchange(target, &call, &query, HeaderMap::new()).await?;
        if answer.status != StatusCode::OK || answer.is_html() {
            return match unsigned_refusal(&answer) {
                AgentError::Refused(problem) if problem.code == ProblemCode::BadNonce => Ok(None),
                error => Err(error),
            };
        }
        let enrolment: EnrolmentAnswer = answer.json()?;
        let (instance, epoch) = (target.keys.instance, target.keys.epoch);
        enrolment
            .verify(&target.keys.enrolment, &challenge, instance, epoch)
            .map_err(|error| AgentError::NotAuthentic(error.to_string()))?;
        Ok(Some(enrolment.identity))
    }
}

#[async_trait]
impl AgentApi for EdgeAgentClient {
    fn looks_names_up(&self) -> bool {
        self.resolver.looks_names_up()
    }

    async fn enrol(
        &self,
        route: &AgentRoute,
        keys: &ServerKeys,
    ) -> Result<AgentIdentity, AgentError> {
        let target = Target { route, keys, agent: None };
        if let Some(identity) = self.open_enrolment(target).await? {
            return Ok(identity);
        }
        // The open call gave a nonce, so this one is not refused for the lack of one.
        let answer = self.signed(target, &Call::get(path::ENROLMENT)).await?;
        identity_in(&answer, keys)
    }

    async fn report(
        &self,
        route: &AgentRoute,
        keys: &ServerKeys,
        agent: AgentPublicKey,
    ) -> Result<Report, AgentError> {
        let target = Target { route, keys, agent: Some(agent) };
        self.signed(target, &Call::get(path::REPORT)).await?.json()
    }

    async fn put_desired(
        &self,
        route: &AgentRoute,
        keys: &ServerKeys,
        agent: AgentPublicKey,
        document: Vec<u8>,
        replaces: Option<Sha256>,
    ) -> Result<(), AgentError> {
        let target = Target { route, keys, agent: Some(agent) };
        let tag = replaces.map_or("\"none\"".to_owned(), |digest| format!("\"{digest}\""));
        let call = Call { if_match: Some(tag), ..Call::put(path::DESIRED, document) };
        self.signed(target, &call).await.map(|_| ())
    }

    async fn put_credential(
        &self,
        route: &AgentRoute,
        keys: &ServerKeys,
        agent: AgentPublicKey,
        name: &CredentialName,
        sealed: &SealedCredential,
    ) -> Result<Receipt, AgentError> {
        let target = Target { route, keys, agent: Some(agent) };
        let body = serde_json::to_vec(sealed)
            .map_err(|error| AgentError::Malformed(format!("the request: {error}")))?;
        let path = format!("{}/{name}", path::CREDENTIALS);
        let call = Call { timeout: CREDENTIAL_TIMEOUT, ..Call::put(&path, body) };
        match self.signed(target, &call).await {
            Ok(answer) => {
                let receipt = answer.json()?;
                check_receipt(target, agent, name, sealed, &receipt)?;
                Ok(receipt)
            }
            Err(AgentError::Refused(problem)) => {
                if let Some(receipt) = &problem.receipt {
                    check_receipt(target, agent, name, sealed, receipt)?;
                }
                Err(AgentError::Refused(problem))
            }
            Err(error) => Err(error),
        }
    }

    async fn begin_hand_over(
        &self,
        route: &AgentRoute,
        keys: &ServerKeys,
        agent: AgentPublicKey,
        word: &HandOver,
    ) -> Result<(), AgentError> {
        let target = Target { route, keys, agent: Some(agent) };
        let body = serde_json::to_vec(word)
            .map_err(|error| AgentError::Malformed(format!("the request: {error}")))?;
        self.signed(target, &Call::put(path::HANDOVER, body)).await.map(|_| ())
    }

    async fn end_hand_over(
        &self,
        route: &AgentRoute,
        keys: &ServerKeys,
        agent: AgentPublicKey,
    ) -> Result<(), AgentError> {
        let target = Target { route, keys, agent: Some(agent) };
        let call = Call { method: Method::DELETE, ..Call::get(path::HANDOVER) };
        self.signed(target, &call).await.map(|_| ())
    }
}
