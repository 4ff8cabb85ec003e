//! Hetzner's error envelope and the errors that are made here.

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde::Serialize;
use serde_json::Value;

/// An error as the API answers it.
#[derive(Debug, Clone)]
pub(crate) struct ApiError {
    status: StatusCode,
    code: String,
    message: String,
    fields: Vec<FieldError>,
}

#[derive(Debug, Clone, Serialize)]
struct FieldError {
    name: String,
    messages: Vec<String>,
}

#[derive(Serialize)]
struct Envelope {
    error: ErrorBody,
}

#[derive(Serialize)]
struct ErrorBody {
    code: String,
    message: String,
    details: Option<Details>,
}

#[derive(Serialize)]
struct Details {
    fields: Vec<FieldError>,
}

impl ApiError {
    fn new(status: StatusCode, code: &str, message: impl Into<String>) -> Self {
        Self { status, code: code.to_owned(), message: message.into(), fields: Vec::new() }
    }

    pub(crate) fn unauthorized() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", "the token you provided is invalid")
    }

    pub(crate) fn read_only() -> Self {
        Self::new(StatusCode::FORBIDDEN, "token_readonly", "the token is only allowed to read")
    }

    pub(crate) fn not_found(kind: &str, which: impl std::fmt::Display) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", format!("{kind} {which} not found"))
    }

    pub(crate) fn method_not_allowed() -> Self {
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "method_not_allowed",
            "this endpoint does not know that method",
        )
    }

    pub(crate) fn gone(message: &str) -> Self {
        Self::new(StatusCode::GONE, "deprecated_api_endpoint", message)
    }

    pub(crate) fn malformed_json() -> Self {
        Self::new(StatusCode::BAD_REQUEST, "json_error", "the request body is not valid JSON")
    }

    /// 422 with the field at fault.
    pub(crate) fn invalid(field: &str, message: impl Into<String>) -> Self {
        let message = message.into();
        let mut error = Self::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "invalid_input",
            format!("invalid input in field '{field}': {message}"),
        );
        error.fields.push(FieldError { name: field.to_owned(), messages: vec![message] });
        error
    }

    pub(crate) fn taken(message: &str) -> Self {
        Self::new(StatusCode::CONFLICT, "uniqueness_error", message)
    }

    pub(crate) fn quota(message: &str) -> Self {
        Self::new(StatusCode::FORBIDDEN, "resource_limit_exceeded", message)
    }

    pub(crate) fn out_of_stock(message: impl Into<String>) -> Self {
        Self::new(StatusCode::PRECONDITION_FAILED, "resource_unavailable", message)
    }

    pub(crate) fn locked(kind: &str) -> Self {
        Self::new(StatusCode::LOCKED, "locked", format!("{kind} is locked by another action"))
    }

    pub(crate) fn protected(what: &str) -> Self {
        Self::new(StatusCode::LOCKED, "protected", format!("{what} is protected"))
    }

    pub(crate) fn in_use(kind: &str, id: u64) -> Self {
        let message = format!("{kind} with ID {id} is still in use");
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "resource_in_use", message)
    }

    pub(crate) fn unprocessable(code: &str, message: &str) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, code, message)
    }

    /// Hetzner names the token that ran into the limit, in full.
    pub(crate) fn rate_limited(limit: u32, token: &str) -> Self {
        let message = format!("limit of {limit} requests per hour reached for token {token}");
        Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limit_exceeded", message)
    }

    /// The error of a `status` fault; code and message default to what Hetzner says.
    pub(crate) fn injected(
        status: StatusCode,
        code: Option<Value>,
        message: Option<String>,
        token: &str,
    ) -> Self {
        let (usual_code, usual_message) = match status.as_u16() {
            401 => ("unauthorized", "unable to authenticate"),
            403 => ("resource_limit_exceeded", "server limit exceeded"),
            404 => ("not_found", "resource not found"),
            409 => ("conflict", "the resource has changed during the request, please retry"),
            412 => ("resource_unavailable", "error during placement"),
            422 => ("invalid_input", "invalid input"),
            423 => ("locked", "resource is locked by another action"),
            429 => return Self::rate_limited(3600, token).renamed(code, message),
            502 => ("bad_gateway", "bad gateway"),
            503 => ("unavailable", "the service is unavailable"),
            504 => ("timeout", "the request timed out"),
            _ => ("server_error", "an internal error occurred"),
        };
        Self::new(status, usual_code, usual_message).renamed(code, message)
    }

    fn renamed(mut self, code: Option<Value>, message: Option<String>) -> Self {
        match code {
            Some(Value::String(code)) => self.code = code,
            Some(other) => self.code = other.to_string(),
            None => {}
        }
        self.message = message.unwrap_or(self.message);
        self
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let details = (!self.fields.is_empty()).then_some(Details { fields: self.fields });
        let body = ErrorBody { code: self.code, message: self.message, details };
        (self.status, Json(Envelope { error: body })).into_response()
    }
}
