//! Cloudflare's envelope, its errors, its pages, and what every handler gets from the gate.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::request::Parts;
use jiff::{Timestamp, Unit};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::CloudflareState;
use super::state::{Account, Grant, Inner, Zone};
use crate::query::QueryPairs;

#[derive(Debug, Serialize)]
struct Envelope<T> {
    success: bool,
    errors: Vec<ErrorItem>,
    messages: Vec<ErrorItem>,
    result: Option<T>,
    #[serde(skip_serializing_if = "Option::is_none")]
    result_info: Option<ResultInfo>,
}

#[derive(Debug, Clone, Serialize)]
struct ErrorItem {
    code: u64,
    message: String,
}

/// `result_info` of a list.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct ResultInfo {
    page: usize,
    per_page: usize,
    count: usize,
    total_count: usize,
    total_pages: usize,
}

/// A successful answer, which is sent in Cloudflare's envelope.
pub(crate) struct Answer<T> {
    status: StatusCode,
    result: Option<T>,
    info: Option<ResultInfo>,
}

impl<T> Answer<T> {
    pub(crate) fn ok(result: T) -> Self {
        Self { status: StatusCode::OK, result: Some(result), info: None }
    }

    pub(crate) fn created(result: T) -> Self {
        Self { status: StatusCode::CREATED, ..Self::ok(result) }
    }

    pub(crate) fn accepted(result: T) -> Self {
        Self { status: StatusCode::ACCEPTED, ..Self::ok(result) }
    }
}

impl<T> Answer<Vec<T>> {
    /// The page of `items` that `query` asks for.
    pub(crate) fn page(
        items: Vec<T>,
        query: &QueryPairs,
        default: usize,
        most: usize,
    ) -> Result<Self, ApiError> {
        let number = |name: &str, default: usize, most: usize| {
            let Some(text) = query.get(name) else {
                return Ok(default);
            };
            // The vendor's own SDK sends these numbers as floats.
            let number =
                text.parse::<f64>().ok().filter(|number| number.fract() == 0.0 && *number >= 1.0);
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            let number = number.map(|number| number as usize).filter(|number| *number <= most);
            number.ok_or_else(|| ApiError::invalid(format!("{name} must be between 1 and {most}")))
        };
        let page = number("page", 1, 1 << 30)?;
        let per_page = number("per_page", default, most)?;
        let total_count = items.len();
        let result: Vec<T> = items.into_iter().skip((page - 1) * per_page).take(per_page).collect();
        let info = ResultInfo {
            page,
            per_page,
            count: result.len(),
            total_count,
            total_pages: total_count.div_ceil(per_page),
        };
        Ok(Self { status: StatusCode::OK, result: Some(result), info: Some(info) })
    }
}

impl<T: Serialize> IntoResponse for Answer<T> {
    fn into_response(self) -> Response {
        let envelope = Envelope {
            success: true,
            errors: Vec::new(),
            messages: Vec::new(),
            result: self.result,
            result_info: self.info,
        };
        (self.status, Json(envelope)).into_response()
    }
}

/// An error as the API answers it. Codes without a public source are marked where they are made.
#[derive(Debug, Clone)]
pub(crate) struct ApiError {
    status: StatusCode,
    code: u64,
    message: String,
}

impl ApiError {
    pub(crate) fn new(status: StatusCode, code: u64, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into() }
    }

    /// 400 with a code.
    pub(crate) fn bad(code: u64, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, message)
    }

    /// 400 for a value out of bounds (1004 is what the DNS API says; elsewhere it is a guess).
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::bad(1004, message)
    }

    pub(crate) fn not_found(code: u64, what: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, code, format!("{what} not found"))
    }

    pub(crate) fn no_route() -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            7003,
            "could not route to that path, perhaps an object identifier is invalid",
        )
    }

    pub(crate) fn method_not_allowed() -> Self {
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            10405,
            "method not allowed for this authentication scheme",
        )
    }

    /// A token nobody knows. The answer differs from product to product.
    pub(crate) fn unknown_token(path: &str) -> Self {
        if path.starts_with("/user/tokens") {
            Self::new(StatusCode::UNAUTHORIZED, 1000, "Invalid API Token")
        } else if path.starts_with("/zones") {
            Self::new(StatusCode::FORBIDDEN, 9109, "Invalid access token")
        } else {
            Self::new(StatusCode::UNAUTHORIZED, 10000, "Authentication error")
        }
    }

    /// A known token without the right to that account or zone.
    pub(crate) fn forbidden() -> Self {
        Self::new(StatusCode::FORBIDDEN, 10000, "Authentication error")
    }

    /// Access without a Zero Trust organization.
    pub(crate) fn not_enabled() -> Self {
        Self::new(StatusCode::BAD_REQUEST, 9999, "access.api.error.not_enabled")
    }

    pub(crate) fn rate_limited() -> Self {
        let message = "Please wait and consider throttling your request speed";
        Self::new(StatusCode::TOO_MANY_REQUESTS, 10100, message)
    }

    /// An account limit. The code has no public source.
    pub(crate) fn limit(what: &str, limit: usize) -> Self {
        Self::new(
            StatusCode::FORBIDDEN,
            10037,
            format!("the account has reached its limit of {limit} {what}"),
        )
    }

    /// The error of a `status` fault; code and message default to what Cloudflare says.
    pub(crate) fn injected(
        status: StatusCode,
        code: Option<Value>,
        message: Option<String>,
    ) -> Self {
        let mut error = match status.as_u16() {
            401 | 403 => Self::new(status, 10000, "Authentication error"),
            404 => Self::new(
                status,
                7003,
                "could not route to that path, perhaps an object identifier is invalid",
            ),
            409 => Self::new(status, 1013, "You already have a tunnel with this name"),
            429 => Self::rate_limited(),
            503 => Self::new(status, 10013, "the service is temporarily unavailable"),
            _ => Self::new(status, 10001, "an unknown error occurred"),
        };
        error.code = code.and_then(|code| code.as_u64()).unwrap_or(error.code);
        error.message = message.unwrap_or(error.message);
        error
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let envelope = Envelope::<()> {
            success: false,
            errors: vec![ErrorItem { code: self.code, message: self.message }],
            messages: Vec::new(),
            result: None,
            result_info: None,
        };
        (self.status, Json(envelope)).into_response()
    }
}

/// A request that has passed the gate.
#[derive(Clone)]
pub(crate) struct Caller {
    pub(crate) state: CloudflareState,
    pub(crate) grant: Grant,
}

impl Caller {
    /// Works on an account that the caller may use.
    pub(crate) fn account<T>(
        &self,
        id: &str,
        work: impl FnOnce(&mut Account) -> Result<T, ApiError>,
    ) -> Result<T, ApiError> {
        let mut inner = self.inner();
        let account = inner.accounts.get_mut(id).filter(|_| self.grant.accounts.contains(id));
        work(account.ok_or_else(ApiError::forbidden)?)
    }

    /// The same for what Zero Trust has, which refuses all calls until the account has an organization.
    pub(crate) fn access<T>(
        &self,
        id: &str,
        work: impl FnOnce(&mut Account) -> Result<T, ApiError>,
    ) -> Result<T, ApiError> {
        self.account(id, |account| {
            if account.zero_trust { work(account) } else { Err(ApiError::not_enabled()) }
        })
    }

    /// Works on a zone of an account that the caller may use.
    pub(crate) fn zone<T>(
        &self,
        id: &str,
        work: impl FnOnce(&mut Zone) -> Result<T, ApiError>,
    ) -> Result<T, ApiError> {
        let mut inner = self.inner();
        let zone =
            inner.zones.get_mut(id).filter(|zone| self.grant.accounts.contains(&zone.account));
        work(zone.ok_or_else(ApiError::forbidden)?)
    }

    pub(crate) fn inner(&self) -> parking_lot::MutexGuard<'_, Inner> {
        self.state.inner.lock()
    }
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, ApiError> {
        parts.extensions.get::<Self>().cloned().ok_or_else(ApiError::forbidden)
    }
}

/// A JSON body. Cloudflare ignores fields it does not know. An empty body counts as `{}`.
pub(crate) struct JsonBody<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for JsonBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let bytes = Bytes::from_request(request, state)
            .await
            .map_err(|_| ApiError::bad(6007, "Malformed JSON in request body"))?;
        let bytes: &[u8] = if bytes.is_empty() { b"{}" } else { &bytes };
        serde_json::from_slice(bytes).map(Self).map_err(|error| {
            if error.is_data() {
                ApiError::invalid(format!("invalid request body: {error}"))
            } else {
                ApiError::bad(6007, "Malformed JSON in request body")
            }
        })
    }
}

/// Now, in the microseconds that the API tells time in.
pub(crate) fn now() -> Timestamp {
    let time = Timestamp::now();
    time.round(Unit::Microsecond).unwrap_or(time)
}
