//! What Cloudflare's refusals mean: the HTTP status first, for the same code number means
//! different things in different products; then the codes of the products in use here.

use http::{HeaderMap, StatusCode};
use serde::Deserialize;

use crate::cloud::transport::{Dialect, Refusal};
use crate::cloud::{Cloud, Conflict, ErrorKind, InvalidField};

pub(super) static DIALECT: Dialect = Dialect { cloud: Cloud::Cloudflare, refusal, remaining };

#[derive(Deserialize)]
struct Envelope {
    #[serde(rename = "success")]
    _success: bool,
    #[serde(default)]
    errors: Option<Vec<ApiError>>,
}

#[derive(Deserialize)]
pub(super) struct ApiError {
    #[serde(default)]
    pub(super) code: i64,
    #[serde(default)]
    message: Option<String>,
}

/// Codes that name one failure wherever they occur in the endpoints in use.
mod code {
    /// A tunnel of this name is live.
    pub(super) const TUNNEL_NAME_TAKEN: i64 = 1013;
    /// The tunnel has connections.
    pub(super) const TUNNEL_IN_USE: i64 = 1022;
    /// The path names no endpoint: a wrong base URL or a malformed id, not a missing object.
    pub(super) const NO_ROUTE: [i64; 2] = [7000, 7003];
    /// With status 400: authentication failed, or the `Authorization` header cannot be read.
    pub(super) const AUTHENTICATION: [i64; 4] = [10000, 6003, 6111, 9106];
    /// Access: the account has no Zero Trust organization (`access.api.error.not_enabled`). Other
    /// products use the number for failures of their own.
    pub(super) const NOT_ENABLED: i64 = 9999;
    /// With status 403: "Invalid access token", or a resource that the token must not see.
    pub(super) const NO_ACCESS: i64 = 9109;
    /// The record to change or delete does not exist.
    pub(super) const RECORD_MISSING: i64 = 81044;
    /// The zone takes no more records.
    pub(super) const RECORD_QUOTA: i64 = 81045;
    /// Another A, AAAA or CNAME record has the host name.
    pub(super) const HOST_EXISTS: i64 = 81053;
    /// An identical record exists.
    pub(super) const RECORD_EXISTS: [i64; 2] = [81057, 81058];
}

fn refusal(refused: &Refusal<'_>) -> (ErrorKind, String) {
    match serde_json::from_slice::<Envelope>(refused.body) {
        Ok(envelope) => {
            let errors = envelope.errors.unwrap_or_default();
            (with_envelope(refused, &errors), message(refused.status, &errors))
        }
        Err(_) => refused.without_document(),
    }
}

fn with_envelope(refused: &Refusal<'_>, errors: &[ApiError]) -> ErrorKind {
    let has = |code: i64| errors.iter().any(|error| error.code == code);
    let has_any = |codes: &[i64]| codes.iter().any(|&code| has(code));
    match refused.status {
        StatusCode::TOO_MANY_REQUESTS => ErrorKind::RateLimited { retry_after: refused.pause },
        status if status.is_server_error() => ErrorKind::Transient { maybe_applied: refused.write },
        _ if not_enabled(errors) => ErrorKind::NotEnabled,
        StatusCode::UNAUTHORIZED => ErrorKind::Unauthorized,
        StatusCode::FORBIDDEN if invalid_token(errors) => ErrorKind::Unauthorized,
        StatusCode::FORBIDDEN if limit_reached(errors) => ErrorKind::QuotaExceeded,
        StatusCode::FORBIDDEN => ErrorKind::Forbidden { read_only: false },
        StatusCode::GONE => ErrorKind::Gone,
        StatusCode::REQUEST_TIMEOUT => ErrorKind::Transient { maybe_applied: refused.write },
        _ if has(code::HOST_EXISTS) => ErrorKind::Conflict(Conflict::HostExists),
        _ if has_any(&code::RECORD_EXISTS) => ErrorKind::Conflict(Conflict::RecordExists),
        _ if has(code::TUNNEL_NAME_TAKEN) => ErrorKind::Conflict(Conflict::NameTaken),
        _ if has(code::TUNNEL_IN_USE) => ErrorKind::ResourceInUse,
        _ if has(code::RECORD_QUOTA) => ErrorKind::QuotaExceeded,
        _ if has(code::RECORD_MISSING) => ErrorKind::NotFound,
        _ if has_any(&code::NO_ROUTE) => invalid(errors),
        StatusCode::NOT_FOUND => ErrorKind::NotFound,
        StatusCode::CONFLICT => ErrorKind::Conflict(Conflict::NameTaken),
        StatusCode::BAD_REQUEST if has_any(&code::AUTHENTICATION) => ErrorKind::Unauthorized,
        status if status.is_client_error() && limit_reached(errors) => ErrorKind::QuotaExceeded,
        status if status.is_client_error() => invalid(errors),
        _ => ErrorKind::Malformed { maybe_applied: refused.write },
    }
}

fn not_enabled(errors: &[ApiError]) -> bool {
    errors.iter().any(|error| {
        let message = error.message.as_deref().unwrap_or_default();
        error.code == code::NOT_ENABLED && message.contains("not_enabled")
    })
}

fn invalid_token(errors: &[ApiError]) -> bool {
    errors.iter().any(|error| {
        let message = error.message.as_deref().unwrap_or_default();
        error.code == code::NO_ACCESS && message.to_ascii_lowercase().contains("access token")
    })
}

/// The account limits of tunnels and Access share no code; their messages agree on these words.
fn limit_reached(errors: &[ApiError]) -> bool {
    errors.iter().filter_map(|error| error.message.as_deref()).any(|message| {
        let message = message.to_ascii_lowercase();
        ["limit", "quota", "maximum number"].iter().any(|word| message.contains(word))
            && ["reached", "exceeded"].iter().any(|word| message.contains(word))
    })
}

fn invalid(errors: &[ApiError]) -> ErrorKind {
    let fields = errors.iter().map(|error| InvalidField {
        name: format!("code {}", error.code),
        messages: error.message.clone().into_iter().collect(),
    });
    ErrorKind::InvalidInput { fields: fields.collect() }
}

fn message(status: StatusCode, errors: &[ApiError]) -> String {
    let errors: Vec<String> = errors
        .iter()
        .map(|error| format!("{}: {}", error.code, error.message.as_deref().unwrap_or_default()))
        .collect();
    format!("{} {}", status.as_u16(), errors.join("; "))
}

/// Nothing: Cloudflare's `Ratelimit` header does not follow the budget of five minutes. It says
/// `"default";r=1199;t=1` call after call, until the call that is refused.
fn remaining(_: &HeaderMap) -> Option<u32> {
    None
}
