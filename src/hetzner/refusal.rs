//! What Hetzner's refusals mean. Source: the API documentation's section on errors, and its
//! rate limit headers.

use http::{HeaderMap, StatusCode};
use serde::Deserialize;

use crate::cloud::transport::{Dialect, Refusal};
use crate::cloud::{Cloud, CloudError, Conflict, ErrorKind, InvalidField};

pub(super) static DIALECT: Dialect = Dialect { cloud: Cloud::Hetzner, refusal, remaining };

#[derive(Deserialize)]
struct Envelope {
    error: Body,
}

#[derive(Deserialize)]
struct Body {
    code: String,
    #[serde(default)]
    message: Option<String>,
    #[serde(default)]
    details: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct Details {
    #[serde(default)]
    fields: Vec<Field>,
    #[serde(default)]
    limits: Vec<LimitName>,
}

#[derive(Deserialize)]
struct LimitName {
    name: String,
}

#[derive(Deserialize)]
struct Field {
    name: String,
    #[serde(default)]
    messages: Vec<String>,
}

fn refusal(refused: &Refusal<'_>) -> (ErrorKind, String) {
    let Ok(Envelope { error }) = serde_json::from_slice(refused.body) else {
        return refused.without_document();
    };
    let kind = kind(refused, &error);
    let (status, limits) = (refused.status.as_u16(), limits(&error));
    (kind, format!("{status} {}: {}{limits}", error.code, error.message.unwrap_or_default()))
}

/// The limits that are reached, where the message does not name them already.
fn limits(error: &Body) -> String {
    let details = error.details.clone().unwrap_or_default();
    let Ok(Details { limits, .. }) = serde_json::from_value(details) else {
        return String::new();
    };
    let names: Vec<_> = limits.into_iter().map(|limit| limit.name).collect();
    if names.is_empty() { String::new() } else { format!(" ({})", names.join(", ")) }
}

/// The code refines the status; an unknown code leaves what the status says.
fn kind(refused: &Refusal<'_>, error: &Body) -> ErrorKind {
    let maybe_applied = refused.write;
    match error.code.as_str() {
        "unauthorized" => ErrorKind::Unauthorized,
        "token_readonly" => ErrorKind::Forbidden { read_only: true },
        "maintenance" => ErrorKind::Maintenance,
        "resource_limit_exceeded" | "primary_ip_limit" => ErrorKind::QuotaExceeded,
        "uniqueness_error" => ErrorKind::Conflict(Conflict::NameTaken),
        "conflict" => ErrorKind::Conflict(Conflict::Concurrent),
        "firewall_already_applied" => ErrorKind::Conflict(Conflict::AlreadyDone),
        "resource_unavailable" | "placement_error" => ErrorKind::OutOfStock,
        "resource_in_use" | "must_remove_from_resources" => ErrorKind::ResourceInUse,
        "locked" => ErrorKind::Locked,
        "protected" => ErrorKind::Protected,
        "service_error" | "server_error" | "unavailable" | "timeout" => {
            ErrorKind::Transient { maybe_applied }
        }
        _ => by_status(refused, error),
    }
}

fn by_status(refused: &Refusal<'_>, error: &Body) -> ErrorKind {
    match refused.status {
        StatusCode::UNAUTHORIZED => ErrorKind::Unauthorized,
        StatusCode::FORBIDDEN => ErrorKind::Forbidden { read_only: false },
        StatusCode::NOT_FOUND if error.code == "not_found" => ErrorKind::NotFound,
        StatusCode::CONFLICT => ErrorKind::Conflict(Conflict::Concurrent),
        StatusCode::GONE => ErrorKind::Gone,
        StatusCode::PRECONDITION_FAILED => ErrorKind::OutOfStock,
        StatusCode::LOCKED => ErrorKind::Locked,
        StatusCode::TOO_MANY_REQUESTS => ErrorKind::RateLimited { retry_after: refused.pause },
        StatusCode::REQUEST_TIMEOUT => ErrorKind::Transient { maybe_applied: refused.write },
        status if status.is_server_error() => ErrorKind::Transient { maybe_applied: refused.write },
        status if status.is_client_error() => ErrorKind::InvalidInput { fields: fields(error) },
        _ => ErrorKind::Malformed { maybe_applied: refused.write },
    }
}

fn fields(error: &Body) -> Vec<InvalidField> {
    let details = error.details.clone().unwrap_or_default();
    let Ok(Details { fields, .. }) = serde_json::from_value(details) else {
        return Vec::new();
    };
    fields
        .into_iter()
        .map(|field| InvalidField { name: field.name, messages: field.messages })
        .collect()
}

/// Whether a server that was refused may be made with another type or in another location: what was asked
/// for is sold out, not offered there, not offered any more, or not known at all.
pub fn blames_the_place(error: &CloudError) -> bool {
    matches!(error.kind, ErrorKind::OutOfStock | ErrorKind::NotFound)
        || blames_the_type(error)
        || names(error, "location", "location")
        || names(error, "datacenter", "datacenter")
}

/// Whether it is the server type that is refused, whatever the location.
pub fn blames_the_type(error: &CloudError) -> bool {
    let there = names(error, "location", "location");
    names(error, "server_type", "server type") && !there
}

/// Whether a field is named as invalid: as such, or in words where no field is.
fn names(error: &CloudError, field: &str, word: &str) -> bool {
    let ErrorKind::InvalidInput { fields } = &error.kind else { return false };
    if fields.is_empty() {
        return error.message().contains(word) || error.message().contains(field);
    }
    fields.iter().any(|invalid| invalid.name == field)
}

fn remaining(headers: &HeaderMap) -> Option<u32> {
    headers.get("ratelimit-remaining")?.to_str().ok()?.trim().parse().ok()
}
