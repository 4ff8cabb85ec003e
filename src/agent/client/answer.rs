//! What an answer means: the agent's, if it is signed; else a refusal of its first gate, or the word
//! of somebody on the way.

use http::{HeaderMap, StatusCode, header};
use moorage_wire::{
    AgentPublicKey, PlainText,
    problem::{Problem, ProblemCode},
    signature::{AnswerParts, NEXT_NONCE, Peers, SIGNATURE, verify_answer},
};
use serde::de::DeserializeOwned;
use serde_json::error::Category;

use crate::agent::{AgentError, Reached};

/// Where Access sends those whom it does not know.
const ACCESS_LOGIN_DOMAIN: &str = ".cloudflareaccess.com";

/// What the edge did instead of passing a request on: `challenge` where it takes the caller for a bot.
const MITIGATED: &str = "cf-mitigated";
/// Pages of the edge for programs: "access denied by browser integrity check" and "by a rule of the WAF".
const BLOCKED: [&str; 2] = ["error code: 1010", "error code: 1020"];

/// An answer of the agent, read to its end.
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
        serde_json::from_slice(&self.body).map_err(|error| {
            // The library's words quote the answer, and differ from one answer to the next.
            let words = <PlainText>::new(&error.to_string());
            tracing::debug!(error = %words, "an answer of an agent cannot be read");
            let what = match error.classify() {
                Category::Data => "it is not the document that this operator reads",
                Category::Eof => "it ends too early",
                Category::Syntax | Category::Io => "it is not JSON",
            };
            AgentError::Malformed(what.to_owned())
        })
    }

    fn is_of_access(&self) -> bool {
        let login = |location: &str| location.contains(ACCESS_LOGIN_DOMAIN);
        matches!(self.status, StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED)
            || self.status.is_redirection() && self.header(header::LOCATION).is_some_and(login)
    }
}

/// Whether the edge takes the caller for a bot. WAF and Bot Fight Mode answer so.
pub(crate) fn is_challenge(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> bool {
    let start = String::from_utf8_lossy(&body[..body.len().min(4096)]);
    headers.contains_key(MITIGATED)
        || status == StatusCode::FORBIDDEN && BLOCKED.iter().any(|page| start.contains(page))
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

/// Said in place of what stands in such a refusal: anybody on the way can have written that.
fn words_of(code: ProblemCode) -> &'static str {
    match code {
        ProblemCode::Unauthorized => "it does not know the bearer token",
        ProblemCode::BadSignature => "it does not take the signature for the operator's",
        ProblemCode::BadNonce => "it does not take the nonce",
        ProblemCode::TooManyRequests => "it had too many requests or failures from this address",
        _ => "the request is larger than it takes",
    }
}

/// What an answer means that nobody signed.
pub(super) fn unsigned_refusal(answer: &Answer) -> AgentError {
    let status = answer.status;
    if let Some(problem) = answer.problem() {
        return match problem.code {
            _ if status == StatusCode::SERVICE_UNAVAILABLE => AgentError::NotReady,
            code if may_be_unsigned(code) => {
                let message = words_of(code).into();
                AgentError::Refused(Box::new(Problem { code, message, receipt: None }))
            }
            // A request that came too slowly, ended early, or met a full disk: look again.
            ProblemCode::Timeout | ProblemCode::InvalidBody | ProblemCode::Internal => {
                AgentError::unreachable(status.to_string())
            }
            code => AgentError::NotAuthentic(format!("it refuses ({code:?}) without a signature")),
        };
    }
    if is_challenge(answer.status, &answer.headers, &answer.body) {
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

    #[rstest]
    #[case(401, "unauthorized")]
    #[case(429, "too-many-requests")]
    #[case(408, "timeout")]
    fn an_unsigned_refusal_has_none_of_its_own_words(#[case] status: u16, #[case] code: &str) {
        let body = serde_json::json!({"code": code, "message": "forged\u{1b}[2J".repeat(10_000)});
        let error = unsigned_refusal(&answer(status, PROBLEM, &body.to_string())).to_string();
        assert!(error.len() < 200 && !error.contains("forged"), "{error:?}");
    }

    #[rstest]
    #[case(r#""\u001b[2Jforged""#)]
    #[case(r#"{"code": "internal", "message": ["forged"]}"#)]
    #[case(r#"{"forged": "#)]
    fn an_unreadable_answer_is_not_quoted(#[case] body: &str) {
        let error = answer(200, "application/json", body).json::<Problem>().unwrap_err();
        assert!(!error.to_string().contains("forged"), "{error}");
        let other = body.replace("forged", "else");
        assert_eq!(answer(200, "application/json", &other).json::<Problem>(), Err(error));
    }
}
