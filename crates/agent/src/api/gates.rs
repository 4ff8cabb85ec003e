//! The two gates: a bearer token, whose refusal is cheap and says nothing, then the operator's
//! signature over a nonce that the agent gave.

use std::{net::IpAddr, sync::Arc};

use http::{
    HeaderMap,
    header::{AUTHORIZATION, IF_MATCH},
    request::Parts,
};
use moorage_wire::{
    OperatorPublicKey, Sha256,
    problem::ProblemCode,
    signature::{self, Peers, RequestParts, SignatureError},
};

use super::{
    Call,
    answer::{Answer, refuse},
    internal,
};
use crate::{
    core::{Core, blocking},
    identity::Keys,
    lockout::Verdict,
};

/// The address of the client at Cloudflare's edge. Only cloudflared reaches the agent's socket, and
/// the edge overwrites whatever a client sends under this name.
const CLIENT_ADDRESS: &str = "cf-connecting-ip";

/// A request that was read.
pub(super) struct Message<'a> {
    pub(super) head: &'a Parts,
    pub(super) body: &'a [u8],
}

impl Message<'_> {
    /// `If-Match`, if it is readable text.
    pub(super) fn if_match(&self) -> Option<&str> {
        self.head.headers.get(IF_MATCH)?.to_str().ok()
    }

    fn parts(&self) -> RequestParts<'_> {
        RequestParts {
            method: self.head.method.as_str(),
            path: self.head.uri.path(),
            query: self.head.uri.query().unwrap_or_default(),
            if_match: self.if_match(),
            body: self.body,
        }
    }
}

/// Whether the request carries the bearer token. Hashes are compared, in constant time.
pub(super) fn is_bearer_valid(core: &Core, headers: &HeaderMap) -> bool {
    let token = headers.get(AUTHORIZATION).map_or(&b""[..], |value| value.as_bytes());
    let token = token.strip_prefix(b"Bearer ").unwrap_or_default();
    core.obeyed().knows_bearer(&Sha256::of(token))
}

/// The first gate. A valid token passes whatever happened before; all else is refused alike.
pub(super) fn check_bearer(core: &Core, headers: &HeaderMap, peer: IpAddr) -> Result<(), Answer> {
    if is_bearer_valid(core, headers) {
        return Ok(());
    }
    let client = client_address(headers).unwrap_or(peer);
    match core.count_failure(client) {
        Verdict::Counted => {
            Err(refuse(ProblemCode::Unauthorized, "a valid bearer token is required"))
        }
        Verdict::LockedOut(wait) => {
            tracing::warn!(target: "audit", %client, seconds = wait.as_secs(), "locked out after too many wrong bearer tokens");
            Err(too_many().retry_after(wait))
        }
        Verdict::StillLockedOut(wait) => Err(too_many().retry_after(wait)),
    }
}

fn too_many() -> Answer {
    refuse(ProblemCode::TooManyRequests, "too many wrong bearer tokens; see Retry-After")
}

fn client_address(headers: &HeaderMap) -> Option<IpAddr> {
    headers.get(CLIENT_ADDRESS)?.to_str().ok()?.trim().parse().ok()
}

/// A call that passed the second gate.
pub(super) struct Passed {
    /// What the answer is bound to.
    pub(super) nonce: String,
    /// Which of the operator's keys signed it.
    pub(super) caller: OperatorPublicKey,
}

/// The second gate. The first call that names this
/// agent's key confirms the agent.
pub(super) async fn check_signature(
    core: &Arc<Core>,
    keys: &Keys,
    call: &Call,
    message: &Message<'_>,
) -> Result<Passed, Answer> {
    let headers = &message.head.headers;
    if signature::claimed_nonce(headers).is_err() {
        return Err(bad_nonce());
    }
    let peers = core.peers(keys);
    let obeyed = core.obeyed().keys();
    let verify = |peers: &Peers| {
        let by = |key: &OperatorPublicKey| {
            let nonce = signature::verify_request(key, peers, headers, &message.parts())?;
            Ok(Passed { nonce: nonce.to_owned(), caller: *key })
        };
        let refused = Err(SignatureError::Invalid);
        obeyed.iter().map(by).find(Result::is_ok).unwrap_or(refused)
    };
    let named = verify(&peers);
    // An operator that lost its memory may ask for the key without naming it, and nothing else.
    let is_named = named.is_ok();
    let passed = match (named, call) {
        (Err(_), Call::Enrolment) => verify(&Peers { agent: None, ..peers }),
        (named, _) => named,
    };
    let refusal = "the request is not signed by this instance's operator for this agent and epoch";
    let passed = passed.map_err(|_| refuse(ProblemCode::BadSignature, refusal))?;
    if !core.take_nonce(&passed.nonce) {
        return Err(bad_nonce());
    }
    if is_named {
        if !core.is_enrolled() {
            blocking(core, Core::confirm).await.map_err(|error| internal(&error))?;
        }
        core.confirmation.operator_called();
    }
    Ok(passed)
}

fn bad_nonce() -> Answer {
    let message =
        "the nonce is missing, used or expired: repeat with the one of moorage-next-nonce";
    refuse(ProblemCode::BadNonce, message)
}
