//! A request to an agent: what is signed, where it goes, and what the gates before the agent ask for.

use std::{error::Error as _, time::Duration};

use aws_lc_rs::rand;
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use moorage_wire::{
    AgentPublicKey, PlainText,
    signature::{Peers, RequestParts},
};
use url::Url;
use zeroize::Zeroizing;

use crate::agent::{AgentError, AgentRoute, Reached, ServerKeys};

const CALL_TIMEOUT: Duration = Duration::from_secs(20);
const ACCESS_CLIENT_ID: HeaderName = HeaderName::from_static("cf-access-client-id");
const ACCESS_CLIENT_SECRET: HeaderName = HeaderName::from_static("cf-access-client-secret");

/// One request, before it is signed.
pub(super) struct Call<'a> {
    pub(super) method: Method,
    pub(super) path: &'a str,
    pub(super) if_match: Option<String>,
    pub(super) body: Vec<u8>,
    pub(super) timeout: Duration,
}

impl<'a> Call<'a> {
    pub(super) fn get(path: &'a str) -> Self {
        Self { method: Method::GET, path, if_match: None, body: Vec::new(), timeout: CALL_TIMEOUT }
    }

    pub(super) fn put(path: &'a str, body: Vec<u8>) -> Self {
        Self { method: Method::PUT, body, ..Self::get(path) }
    }

    pub(super) fn parts(&self) -> RequestParts<'_> {
        RequestParts {
            method: self.method.as_str(),
            path: self.path,
            query: "",
            if_match: self.if_match.as_deref(),
            body: &self.body,
        }
    }
}

/// One server, and the way to it.
#[derive(Clone, Copy)]
pub(super) struct Target<'a> {
    pub(super) route: &'a AgentRoute,
    pub(super) keys: &'a ServerKeys,
    /// `None` only while its key is being learnt.
    pub(super) agent: Option<AgentPublicKey>,
}

impl Target<'_> {
    pub(super) fn peers(&self) -> Peers {
        Peers { instance: self.keys.instance, epoch: self.keys.epoch, agent: self.agent }
    }
}

/// What Access and the agent's first gate ask for.
pub(super) fn gates(route: &AgentRoute, keys: &ServerKeys) -> Result<HeaderMap, AgentError> {
    let access = &route.access;
    let bearer = keys.bearer.secret().expose();
    let bearer = Zeroizing::new([b"Bearer ", bearer].concat());
    // A service token that no header can hold is one that Access cannot have given.
    let id = HeaderValue::from_str(&access.client_id).map_err(|_| AgentError::AccessDenied)?;
    let secret = sensitive(access.client_secret.expose()).ok_or(AgentError::AccessDenied)?;
    let bearer = sensitive(&bearer)
        .ok_or_else(|| AgentError::Malformed("the bearer token is not text".into()))?;
    Ok(HeaderMap::from_iter([
        (ACCESS_CLIENT_ID, id),
        (ACCESS_CLIENT_SECRET, secret),
        (header::AUTHORIZATION, bearer),
    ]))
}

fn sensitive(text: &[u8]) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_bytes(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

pub(super) fn ascii(text: &str) -> Result<HeaderValue, AgentError> {
    HeaderValue::from_str(text).map_err(|error| AgentError::Malformed(error.to_string()))
}

pub(super) fn address(route: &AgentRoute, path: &str, query: &str) -> Result<Url, AgentError> {
    let invalid = || AgentError::unreachable(format!("{:?} is not a host name", route.host));
    let mut url = Url::parse(&format!("https://{}{path}", route.host)).map_err(|_| invalid())?;
    // A name that brings a path, a user or a query along would send the tokens elsewhere.
    if url.path() != path || url.query().is_some() || !url.username().is_empty() {
        return Err(invalid());
    }
    url.set_query(Some(query).filter(|query| !query.is_empty()));
    Ok(url)
}

/// Without the URL, and with every cause: "error sending request" alone helps nobody.
pub(super) fn unreachable(error: &reqwest::Error) -> AgentError {
    let mut causes = Vec::new();
    let mut source = error.source();
    while let Some(cause) = source {
        causes.push(cause.to_string());
        source = cause.source();
    }
    if error.is_timeout() {
        causes.insert(0, "no answer in time".to_owned());
    }
    let reached = if error.is_connect() { Reached::Nothing } else { Reached::Somewhere };
    AgentError::Unreachable { reached, detail: <PlainText>::new(&causes.join(": ")).to_string() }
}

/// 128 random bits: a challenge, or a nonce that the agent will refuse and replace.
pub(super) fn random_hex() -> Result<String, AgentError> {
    let mut bytes = [0; 16];
    let failed = |_| AgentError::unreachable("the operating system gives no randomness");
    rand::fill(&mut bytes).map_err(failed)?;
    Ok(format!("{:032x}", u128::from_be_bytes(bytes)))
}
