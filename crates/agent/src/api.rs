//! The agent's API: which call there is, what it needs, and how every answer leaves. A request goes
//! through the gates in a fixed order; only what passed both of them reaches a call.

mod answer;
mod calls;
mod enrolment;
mod gates;
mod handover;

use std::{net::IpAddr, sync::Arc, time::Duration};

use http::{HeaderMap, Method, Request, Response, StatusCode, request::Parts};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Body, Bytes};
use moorage_wire::{CredentialName, Sha256, path, problem::ProblemCode, signature::AnswerParts};
use tokio::time::timeout;

use self::answer::{Answer, refuse};
use crate::{core::Core, disk::DiskError, identity::Keys};

const LARGEST_DESIRED_STATE: usize = 1024 * 1024;
const LARGEST_CREDENTIAL: usize = 128 * 1024;
const LARGEST_OTHER_BODY: usize = 1024;

/// The error of a body that is being read.
type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// A call behind both gates.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Call {
    Enrolment,
    Report,
    PutDesired,
    PutCredential(CredentialName),
    BeginHandOver,
    EndHandOver,
    None,
}

impl Call {
    fn of(method: &Method, path: &str) -> Self {
        match (method, path) {
            (&Method::GET, path::ENROLMENT) => Self::Enrolment,
            (&Method::GET, path::REPORT) => Self::Report,
            (&Method::PUT, path::DESIRED) => Self::PutDesired,
            (&Method::PUT, path::HANDOVER) => Self::BeginHandOver,
            (&Method::DELETE, path::HANDOVER) => Self::EndHandOver,
            (&Method::PUT, path) => path
                .strip_prefix(path::CREDENTIALS)
                .and_then(|rest| rest.strip_prefix('/'))
                .and_then(|name| name.parse().ok())
                .map_or(Self::None, Self::PutCredential),
            _ => Self::None,
        }
    }

    fn largest_body(&self) -> usize {
        match self {
            Self::PutDesired => LARGEST_DESIRED_STATE,
            Self::PutCredential(_) => LARGEST_CREDENTIAL,
            Self::Enrolment
            | Self::Report
            | Self::BeginHandOver
            | Self::EndHandOver
            | Self::None => LARGEST_OTHER_BODY,
        }
    }
}

/// Answers one request that came from `client`, in bounded time.
pub(crate) async fn handle<B>(
    core: Arc<Core>,
    request: Request<B>,
    client: IpAddr,
) -> Response<Full<Bytes>>
where
    B: Body<Data = Bytes> + Send,
    B::Error: Into<BodyError>,
{
    let patience = core.settings.timing.request_timeout;
    match timeout(patience, respond(&core, request, client)).await {
        Ok(response) => response,
        Err(_) => refuse(ProblemCode::Timeout, "the request took too long; repeat it").plain(None),
    }
}

async fn respond<B>(core: &Arc<Core>, request: Request<B>, client: IpAddr) -> Response<Full<Bytes>>
where
    B: Body<Data = Bytes> + Send,
    B::Error: Into<BodyError>,
{
    let (head, body) = request.into_parts();
    if head.method == Method::GET && head.uri.path() == path::HEALTHZ {
        return Answer::text("ok").plain(None);
    }
    let call = Call::of(&head.method, head.uri.path());
    if call == Call::Enrolment && !core.is_enrolled() {
        let nonce = gates::is_bearer_valid(core, &head.headers).then(|| core.give_nonce());
        let answer = enrolment::open(core, head.uri.query().unwrap_or_default());
        return answer.plain(nonce.as_deref());
    }
    if let Err(refusal) = gates::check_bearer(core, &head.headers, client) {
        return refusal.plain(None);
    }
    let mut next_nonce = core.give_nonce();
    core.replenish_nonces();
    let Some(keys) = core.keys() else {
        return enrolment::not_ready().plain(Some(&next_nonce));
    };
    let read_timeout = core.settings.timing.read_timeout;
    let body = match read_body(body, call.largest_body(), read_timeout).await {
        Ok(body) => body,
        Err(refusal) => return refusal.plain(Some(&next_nonce)),
    };
    let request = gates::Message { head: &head, body: &body };
    let passed = match gates::check_signature(core, &keys, &call, &request).await {
        Ok(passed) => passed,
        Err(refusal) => return refusal.plain(Some(&next_nonce)),
    };
    let answer = calls::perform(core, &keys, call, &request, &passed.caller).await;
    audit(core, &head, &body, answer.status);
    if answer.needs_newest_nonce {
        next_nonce = core.give_newest_nonce().await;
    }
    signed(core, &keys, &answer, &passed.nonce, &next_nonce)
}

async fn read_body<B>(body: B, limit: usize, patience: Duration) -> Result<Bytes, Answer>
where
    B: Body<Data = Bytes> + Send,
    B::Error: Into<BodyError>,
{
    let too_large = || {
        let message = format!("the body is larger than the {limit} bytes that this call takes");
        refuse(ProblemCode::BodyTooLarge, &message)
    };
    if body.size_hint().lower() > limit as u64 {
        return Err(too_large());
    }
    match timeout(patience, Limited::new(body, limit).collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => Err(too_large()),
        Ok(Err(_)) => Err(refuse(ProblemCode::InvalidBody, "the body ended too early")),
        Err(_) => Err(refuse(ProblemCode::Timeout, "the body did not arrive in time; repeat it")),
    }
}

fn signed(
    core: &Core,
    keys: &Keys,
    answer: &Answer,
    nonce: &str,
    next_nonce: &str,
) -> Response<Full<Bytes>> {
    let parts = AnswerParts { status: answer.status.as_u16(), next_nonce, body: &answer.body };
    let headers: HeaderMap =
        moorage_wire::signature::sign_answer(&keys.signing, &core.peers(keys), nonce, &parts);
    let mut response = answer.plain(Some(next_nonce));
    response.headers_mut().extend(headers);
    response
}

/// One line per call that could have changed something. The body is named by its digest only.
fn audit(core: &Core, head: &Parts, body: &[u8], outcome: StatusCode) {
    if head.method == Method::GET {
        return;
    }
    tracing::info!(
        target: "audit",
        instance = %core.bootstrap.instance_id,
        method = %head.method,
        path = head.uri.path(),
        outcome = outcome.as_u16(),
        sha256 = %Sha256::of(body),
    );
}

/// A file that cannot be written. That the disk is full is what its owner can help.
fn disk_trouble(error: &DiskError) -> Answer {
    if error.is_disk_full() {
        tracing::error!(%error, "a call failed");
        let message = "the server's disk is full (No space left on device): free some space";
        return refuse(ProblemCode::Internal, message);
    }
    internal(error)
}

/// Whatever kept a call from its end goes to the journal, not into the answer.
fn internal(error: &dyn std::fmt::Display) -> Answer {
    tracing::error!(%error, "a call failed");
    let message = "the agent could not do it; its journal says more";
    refuse(ProblemCode::Internal, message)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(Method::GET, "/v1/report", Call::Report)]
    #[case(Method::PUT, "/v1/report", Call::None)]
    #[case(Method::PUT, "/v1/desired", Call::PutDesired)]
    #[case(Method::PUT, "/v1/credentials/a-b", Call::PutCredential("a-b".parse().unwrap()))]
    #[case(Method::PUT, "/v1/credentials/", Call::None)]
    #[case(Method::PUT, "/v1/credentials/../desired", Call::None)]
    #[case(Method::PUT, "/v1/credentials/A", Call::None)]
    #[case(Method::PUT, "/v1/credentialsx", Call::None)]
    #[case(Method::DELETE, "/v1/desired", Call::None)]
    #[case(Method::PUT, "/v1/handover", Call::BeginHandOver)]
    #[case(Method::DELETE, "/v1/handover", Call::EndHandOver)]
    #[case(Method::GET, "/v1/handover", Call::None)]
    fn calls_are_known_by_method_and_path(
        #[case] method: Method,
        #[case] path: &str,
        #[case] call: Call,
    ) {
        assert_eq!(Call::of(&method, path), call);
    }
}
