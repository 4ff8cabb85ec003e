//! Answers before they are signed, and refusals with the status that belongs to their code.

use std::time::Duration;

use http::{
    HeaderValue, Response, StatusCode,
    header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER},
};
use http_body_util::Full;
use hyper::body::Bytes;
use moorage_wire::{
    Receipt,
    problem::{Problem, ProblemCode},
    signature::NEXT_NONCE,
};
use serde::Serialize;

#[derive(Debug, Clone)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) body: Bytes,
    content_type: &'static str,
    retry_after: Option<Duration>,
    /// Whether the nonce for the next request must be one that the worker makes now.
    pub(super) needs_newest_nonce: bool,
}

impl Answer {
    pub(super) fn json(status: StatusCode, document: &impl Serialize) -> Self {
        let body = serde_json::to_vec(document).expect("answers have text keys only");
        Self {
            status,
            body: body.into(),
            content_type: "application/json",
            retry_after: None,
            needs_newest_nonce: false,
        }
    }

    /// Plain text, 200.
    pub(super) fn text(text: &'static str) -> Self {
        Self {
            status: StatusCode::OK,
            body: Bytes::from_static(text.as_bytes()),
            content_type: "text/plain; charset=utf-8",
            retry_after: None,
            needs_newest_nonce: false,
        }
    }

    /// Says when to come back, in whole seconds and at least one.
    pub(super) fn retry_after(self, wait: Duration) -> Self {
        Self { retry_after: Some(wait), ..self }
    }

    /// Comes with a nonce that the worker takes.
    pub(super) fn with_newest_nonce(self) -> Self {
        Self { needs_newest_nonce: true, ..self }
    }

    pub(super) fn with_status(self, status: StatusCode) -> Self {
        Self { status, ..self }
    }

    /// The HTTP response, without a signature.
    pub(super) fn plain(&self, next_nonce: Option<&str>) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::new(self.body.clone()));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(self.content_type));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(wait) = self.retry_after {
            let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds.max(1)));
        }
        if let Some(nonce) = next_nonce.and_then(|nonce| HeaderValue::from_str(nonce).ok()) {
            headers.insert(NEXT_NONCE, nonce);
        }
        response
    }
}

pub(super) fn refuse(code: ProblemCode, message: &str) -> Answer {
    refusal(code, message, None)
}

/// The refusal of a consumed ciphertext, with its receipt.
pub(super) fn already_consumed(message: &str, receipt: Receipt) -> Answer {
    refusal(ProblemCode::AlreadyConsumed, message, Some(receipt))
}

fn refusal(code: ProblemCode, message: &str, receipt: Option<Receipt>) -> Answer {
    let problem = Problem { code, message: message.into(), receipt };
    let answer = Answer::json(status_of(code), &problem);
    Answer { content_type: "application/problem+json", ..answer }
}

fn status_of(code: ProblemCode) -> StatusCode {
    match code {
        ProblemCode::Unauthorized | ProblemCode::BadSignature | ProblemCode::BadNonce => {
            StatusCode::UNAUTHORIZED
        }
        ProblemCode::TooManyRequests => StatusCode::TOO_MANY_REQUESTS,
        ProblemCode::InvalidBody => StatusCode::BAD_REQUEST,
        ProblemCode::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        ProblemCode::DigestMismatch => StatusCode::PRECONDITION_FAILED,
        ProblemCode::CannotUnseal | ProblemCode::InvalidFormat => StatusCode::UNPROCESSABLE_ENTITY,
        ProblemCode::AlreadyConsumed => StatusCode::CONFLICT,
        ProblemCode::NotFound => StatusCode::NOT_FOUND,
        ProblemCode::Timeout => StatusCode::REQUEST_TIMEOUT,
        ProblemCode::Internal | ProblemCode::Unknown => StatusCode::INTERNAL_SERVER_ERROR,
    }
}
