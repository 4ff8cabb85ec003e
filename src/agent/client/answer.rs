//! What an answer means: the agent's, if it is signed; else a refusal of its first gate, or the word
//! of somebody on the way.

use http::{HeaderMap, StatusCode, header};
use moorage_wire::{
    AgentPublicKey,
    problem::{Problem, ProblemCode},
    signature::{AnswerParts, NEXT_NONCE, Peers, SIGNATURE, verify_answer},
};
use serde::de::DeserializeOwned;

use crate::agent::{AgentError, Reached};

/// Where Access sends those whom it does not know.
const ACCESS_LOGIN_DOMAIN: &str = ".cloudflareaccess.com";

/// What the edge did instead of passing a request on: `challenge` where it takes the caller for a bot.
const MITIGATED: &str = "cf-mitigated";
/// Pages of the edge for programs: "access denied by browser integrity check" and "by a rule of the WAF".
const BLOCKED: [&str; 2] = ["error code: 1010", "error code: 1020"];

/// A whole answer.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
}

impl Answer {
    fn header(&self, name: impl header::AsHeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    pub(super) fn next_nonce(&self) -> Option<&str> {
        self.header(NEXT_NONCE)
    }

    pub(super) fn is_signed(&self) -> bool {
        self.headers.contains_key(SIGNATURE)
    }

    pub(super) fn is_html(&self) -> bool {
        self.header(header::CONTENT_TYPE).is_some_and(|kind| kind.starts_with("text/html"))
    }

    /// The agent's reason, if this is a refusal of it.
    fn problem(&self) -> Option<Problem> {
        if self.status.is_success() {
            return None;
        }
        serde_json::from_slice(&self.body).ok()
    }

    /// Checks that the answer is the agent's, and to the request with `nonce`.
    pub(super) fn verify(
        &self,
        key: &AgentPublicKey,
        peers: &Peers,
        nonce: &str,
    ) -> Result<(), AgentError> {
        let next_nonce = self.next_nonce().unwrap_or_default();
        let parts = AnswerParts { status: self.status.as_u16(), next_nonce, body: &self.body };
        verify_answer(key, peers, nonce, &self.headers, &parts)
            .map_err(|error| AgentError::NotAuthentic(error.to_string()))
    }

    /// The answer, if the agent did what it was asked for. Only for one that was verified.
    pub(super) fn into_success(self) -> Result<Self, AgentError> {
        if self.status.is_success() {
            return Ok(self);
        }
        match self.problem() {
            Some(problem) => Err(AgentError::Refused(Box::new(problem))),
            None => Err(AgentError::Malformed(format!("{} without a reason", self.status))),
        }
    }

    /// The document in the body.
    pub(super) fn json<T: DeserializeOwned>(&self) -> Result<T, AgentError> {
        serde_json::from_slice(&self.body).map_err(|error| AgentError::Malformed(error.to_string()))
    }

    fn is_challenge(&self) -> bool {
        let start = String::from_utf8_lossy(&self.body[..self.body.len().min(4096)]);
        self.headers.contains_key(MITIGATED)
            || self.status == StatusCode::FORBIDDEN
                && BLOCKED.iter().any(|page| start.contains(page))
    }

    fn is_of_access(&self) -> bool {
        let login = |location: &str| location.contains(ACCESS_LOGIN_DOMAIN);
        matches!(self.status, StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED)
            || self.status.is_redirection() && self.header(header::LOCATION).is_some_and(login)
    }
}

/// The agent refuses so before it knows who asks, or before it has a nonce to bind an answer to.
/// Nothing irreversible follows from these.
fn may_be_unsigned(code: ProblemCode) -> bool {
    matches!(
        code,
        ProblemCode::Unauthorized
            | ProblemCode::BadSignature
            | ProblemCode::BadNonce
            | ProblemCode::TooManyRequests
            | ProblemCode::BodyTooLarge
    )
}

/// What an answer means that nobody signed.
pub(super) fn unsigned_refusal(answer: &Answer) -> AgentError {
    let status = answer.status;
    if let Some(problem) = answer.problem() {
        return match problem.code {
            _ if status == StatusCode::SERVICE_UNAVAILABLE => AgentError::NotReady,
            code if may_be_unsigned(code) => AgentError::Refused(Box::new(problem)),
            // A request that came too slowly, ended early, or met a full disk: look again.
            ProblemCode::Timeout | ProblemCode::InvalidBody | ProblemCode::Internal => {
                AgentError::unreachable(format!("{status}: {}", problem.message))
            }
            code => AgentError::NotAuthentic(format!("it refuses ({code:?}) without a signature")),
        };
    }
    if answer.is_challenge() {
        return AgentError::Challenged;
    }
    if answer.is_of_access() {
        return AgentError::AccessDenied;
    }
    if status.is_success() && !answer.is_html() {
        return AgentError::NotAuthentic("it is not signed".to_owned());
    }
    on_the_way(status)
}

/// What somebody on the way means by a status.
fn on_the_way(status: StatusCode) -> AgentError {
    let (reached, meaning) = match status.as_u16() {
        530 => (
            Reached::Edge,
            "no cloudflared is connected to the tunnel yet, or the name has no tunnel",
        ),
        502 | 503 => {
            (Reached::Connector, "cloudflared does not reach the agent, or the edge has trouble")
        }
        504 | 522 | 524 => (Reached::Somewhere, "the tunnel does not answer in time"),
        404 => (Reached::Somewhere, "the tunnel does not route this name yet"),
        429 => (Reached::Somewhere, "the edge limits the rate of requests"),
        _ => (Reached::Somewhere, "an answer of the edge, not of the agent"),
    };
    AgentError::Unreachable { reached, detail: format!("HTTP {}: {meaning}", status.as_u16()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn answer(status: u16, kind: &'static str, body: &str) -> Answer {
        let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, kind.parse().unwrap())]);
        Answer { status: StatusCode::from_u16(status).unwrap(), headers, body: body.into() }
    }

    fn name(error: &AgentError) -> &'static str {
        match error {
            AgentError::Unreachable { reached: Reached::Edge, .. } => "no connector",
            AgentError::Unreachable { reached: Reached::Connector, .. } => "no agent",
            AgentError::Unreachable { .. } => "unreachable",
            AgentError::Challenged => "challenged",
            AgentError::AccessDenied => "access denied",
            AgentError::NotReady => "not ready",
            AgentError::NotAuthentic(_) => "not authentic",
            AgentError::Refused(_) => "refused",
            AgentError::Malformed(_) => "malformed",
        }
    }

    #[rstest]
    #[case::no_tunnel(530, "text/html", "<html>error 1033", "no connector")]
    #[case::no_agent(502, "text/html; charset=UTF-8", "<html>", "no agent")]
    #[case::edge_busy(503, "text/plain", "busy", "no agent")]
    #[case::slow(504, "text/html", "<html>", "unreachable")]
    #[case::no_route(404, "text/plain", "", "unreachable")]
    #[case::page(200, "text/html", "<html>a page", "unreachable")]
    #[case::access(403, "text/html", "<html>Forbidden", "access denied")]
    #[case::browser_check(403, "text/plain", "error code: 1010", "challenged")]
    #[case::firewall_rule(403, "text/html", "<title>error code: 1020</title>", "challenged")]
    #[case::unsigned(200, "application/json", "{}", "not authentic")]
    #[case::no_body(202, "application/json", "", "not authentic")]
    #[case::making_keys(503, PROBLEM, r#"{"code":"internal","message":"keys"}"#, "not ready")]
    #[case::bearer(401, PROBLEM, r#"{"code":"unauthorized","message":"m"}"#, "refused")]
    #[case::nonce(401, PROBLEM, r#"{"code":"bad-nonce","message":"m"}"#, "refused")]
    #[case::lockout(429, PROBLEM, r#"{"code":"too-many-requests","message":"m"}"#, "refused")]
    #[case::slow_body(408, PROBLEM, r#"{"code":"timeout","message":"m"}"#, "unreachable")]
    #[case::conflict(409, PROBLEM, r#"{"code":"already-consumed","message":"m"}"#, "not authentic")]
    #[case::digest(412, PROBLEM, r#"{"code":"digest-mismatch","message":"m"}"#, "not authentic")]
    #[case::format(422, PROBLEM, r#"{"code":"invalid-format","message":"m"}"#, "not authentic")]
    #[case::newer(418, PROBLEM, r#"{"code":"teapot","message":"m"}"#, "not authentic")]
    fn an_unsigned_answer_is_never_more_than_a_refusal(
        #[case] status: u16,
        #[case] kind: &'static str,
        #[case] body: &str,
        #[case] meaning: &str,
    ) {
        assert_eq!(name(&unsigned_refusal(&answer(status, kind, body))), meaning);
    }

    #[rstest]
    #[case(403)]
    #[case(401)]
    #[case(503)]
    fn a_challenge_is_not_taken_for_a_refusal_of_access(#[case] status: u16) {
        let mut challenge = answer(status, "text/html", "<title>Just a moment...</title>");
        challenge.headers.insert(MITIGATED, "challenge".parse().unwrap());
        assert_eq!(unsigned_refusal(&challenge), AgentError::Challenged);
    }

    const PROBLEM: &str = "application/problem+json";

    #[test]
    fn a_redirect_to_the_login_of_access_is_a_denial() {
        let mut redirect = answer(302, "text/html", "");
        let login = "https://team.cloudflareaccess.com/cdn-cgi/access/login/ada-mgmt.example.com";
        redirect.headers.insert(header::LOCATION, login.parse().unwrap());
        assert_eq!(unsigned_refusal(&redirect), AgentError::AccessDenied);
    }
}
