//! How the agent refuses: a small JSON document in the spirit of RFC 9457 with a code that the
//! operator can act on and a sentence that a person can. Never a value of a credential.

use serde::{Deserialize, Serialize};

use crate::plain_text::PlainText;

/// Why the agent refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProblemCode {
    /// 401: the bearer token is missing or wrong.
    Unauthorized,
    /// 401: the signature is missing, wrong, or made for another instance, epoch or agent.
    BadSignature,
    /// 401: the nonce is not one that the agent gave, or was used; the answer carries a fresh one.
    BadNonce,
    /// 429: too many failures or requests from this client address; see `Retry-After`.
    TooManyRequests,
    /// 400: the body is not the document that this call takes.
    InvalidBody,
    /// 413: the body is larger than this call takes.
    BodyTooLarge,
    /// 412: the agent's desired state has another digest than `If-Match` names.
    DigestMismatch,
    /// 422: the envelope cannot be opened with the agent's sealing key and the given label.
    CannotUnseal,
    /// 422: the plaintext is not of the format of its type.
    InvalidFormat,
    /// 409: this ciphertext was consumed and has been replaced or removed since; `receipt` proves it.
    AlreadyConsumed,
    /// 404: no such call.
    NotFound,
    /// 408: the request did not arrive in time.
    Timeout,
    /// 500: the agent could not do it; the journal says more.
    Internal,
    /// A code of a newer agent.
    #[serde(other)]
    Unknown,
}

/// The body of every refusal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Problem {
    /// What the operator acts on.
    pub code: ProblemCode,
    /// For people: what happened and what to do next.
    pub message: PlainText,
    /// For [`ProblemCode::AlreadyConsumed`]: the receipt that was given for this ciphertext.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receipt: Option<crate::receipt::Receipt>,
}
