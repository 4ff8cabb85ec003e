//! Access service tokens. The secret is answered by create and rotate, and never again.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use axum::extract::Path;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::envelope::{Answer, ApiError, Caller, JsonBody, now};
use super::state::Account;
use crate::ids::{hex32, random_bytes, uuid};
use crate::query::QueryPairs;

#[derive(Debug)]
pub(crate) struct ServiceToken {
    pub(crate) id: String,
    pub(crate) client_id: String,
    name: String,
    hours: u32,
    secret: String,
    /// The secret before the last rotation, and until when it opens.
    previous: Option<(String, Timestamp)>,
    secret_version: u32,
    created_at: Timestamp,
    updated_at: Timestamp,
    expires_at: Timestamp,
}

#[derive(Debug, Serialize)]
pub(crate) struct ServiceTokenView {
    id: String,
    client_id: String,
    name: String,
    duration: String,
    client_secret_version: u32,
    created_at: Timestamp,
    updated_at: Timestamp,
    expires_at: Timestamp,
}

#[derive(Debug, Serialize)]
pub(crate) struct WithSecret {
    #[serde(flatten)]
    token: ServiceTokenView,
    client_secret: String,
}

#[derive(Deserialize)]
pub(crate) struct CreateToken {
    name: String,
    duration: Option<String>,
}

#[derive(Deserialize)]
pub(crate) struct UpdateToken {
    name: Option<String>,
    duration: Option<String>,
}

#[derive(Deserialize)]
pub(crate) struct Rotate {
    previous_client_secret_expires_at: Option<Timestamp>,
}

impl ServiceToken {
    pub(crate) fn view(&self) -> ServiceTokenView {
        ServiceTokenView {
            id: self.id.clone(),
            client_id: self.client_id.clone(),
            name: self.name.clone(),
            duration: format!("{}h", self.hours),
            client_secret_version: self.secret_version,
            created_at: self.created_at,
            updated_at: self.updated_at,
            expires_at: self.expires_at,
        }
    }

    /// Whether `secret` opens at that moment.
    pub(crate) fn accepts(&self, secret: &str, at: Timestamp) -> bool {
        let same =
            |known: &str| verify_slices_are_equal(known.as_bytes(), secret.as_bytes()).is_ok();
        let previous =
            self.previous.as_ref().is_some_and(|(known, until)| at < *until && same(known));
        at < self.expires_at && (same(&self.secret) || previous)
    }

    fn with_secret(&self) -> WithSecret {
        WithSecret { token: self.view(), client_secret: self.secret.clone() }
    }

    fn extend(&mut self) {
        self.expires_at = expiry(self.hours);
        self.updated_at = now();
    }
}

/// `POST …/access/service_tokens`
pub(crate) async fn create(
    caller: Caller,
    Path(account): Path<String>,
    JsonBody(request): JsonBody<CreateToken>,
) -> Result<Answer<WithSecret>, ApiError> {
    let hours = request.duration.as_deref().map_or(Ok(8760), parse_hours)?;
    caller.access(&account, |account| {
        if account.service_tokens.len() >= account.limits.service_tokens {
            return Err(ApiError::limit("service tokens", account.limits.service_tokens));
        }
        let token = ServiceToken {
            id: uuid(),
            client_id: format!("{}.access", hex32()),
            name: request.name,
            hours,
            secret: hex::encode(random_bytes::<32>()),
            previous: None,
            secret_version: 1,
            created_at: now(),
            updated_at: now(),
            expires_at: expiry(hours),
        };
        let answer = token.with_secret();
        account.service_tokens.insert(token.id.clone(), token);
        Ok(Answer::created(answer))
    })
}

/// `GET …/access/service_tokens`
pub(crate) async fn list(
    caller: Caller,
    Path(account): Path<String>,
    query: QueryPairs,
) -> Result<Answer<Vec<ServiceTokenView>>, ApiError> {
    caller.access(&account, |account| {
        let tokens = account
            .service_tokens
            .values()
            .filter(|token| query.get("name").is_none_or(|name| name == token.name));
        Answer::page(tokens.map(ServiceToken::view).collect(), &query, 50, 1000)
    })
}

/// `GET …/access/service_tokens/{id}`
pub(crate) async fn get(
    caller: Caller,
    Path((account, id)): Path<(String, String)>,
) -> Result<Answer<ServiceTokenView>, ApiError> {
    caller.access(&account, |account| Ok(Answer::ok(find(account, &id)?.view())))
}

/// `PUT …/access/service_tokens/{id}`
pub(crate) async fn update(
    caller: Caller,
    Path((account, id)): Path<(String, String)>,
    JsonBody(request): JsonBody<UpdateToken>,
) -> Result<Answer<ServiceTokenView>, ApiError> {
    let hours = request.duration.as_deref().map(parse_hours).transpose()?;
    caller.access(&account, |account| {
        let token = find(account, &id)?;
        token.name = request.name.unwrap_or_else(|| token.name.clone());
        token.hours = hours.unwrap_or(token.hours);
        token.extend();
        Ok(Answer::ok(token.view()))
    })
}

/// `DELETE …/access/service_tokens/{id}`
pub(crate) async fn delete(
    caller: Caller,
    Path((account, id)): Path<(String, String)>,
) -> Result<Answer<ServiceTokenView>, ApiError> {
    caller.access(&account, |account| {
        account
            .service_tokens
            .remove(&id)
            .map(|token| Answer::ok(token.view()))
            .ok_or_else(not_found)
    })
}

/// `POST …/access/service_tokens/{id}/rotate`: the old secret opens until the given moment, by
/// default no longer.
pub(crate) async fn rotate(
    caller: Caller,
    Path((account, id)): Path<(String, String)>,
    JsonBody(request): JsonBody<Rotate>,
) -> Result<Answer<WithSecret>, ApiError> {
    caller.access(&account, |account| {
        let token = find(account, &id)?;
        let fresh = hex::encode(random_bytes::<32>());
        let old = std::mem::replace(&mut token.secret, fresh);
        token.previous = request.previous_client_secret_expires_at.map(|until| (old, until));
        token.secret_version += 1;
        token.updated_at = now();
        Ok(Answer::ok(token.with_secret()))
    })
}

/// `POST …/access/service_tokens/{id}/refresh`: counts the duration from now.
pub(crate) async fn refresh(
    caller: Caller,
    Path((account, id)): Path<(String, String)>,
) -> Result<Answer<ServiceTokenView>, ApiError> {
    caller.access(&account, |account| {
        let token = find(account, &id)?;
        token.extend();
        Ok(Answer::ok(token.view()))
    })
}

fn find<'a>(account: &'a mut Account, id: &str) -> Result<&'a mut ServiceToken, ApiError> {
    account.service_tokens.get_mut(id).ok_or_else(not_found)
}

fn not_found() -> ApiError {
    ApiError::not_found(12109, "access.api.error.not_found: service token")
}

fn expiry(hours: u32) -> Timestamp {
    now().saturating_add(SignedDuration::from_hours(i64::from(hours))).unwrap_or(Timestamp::MAX)
}

/// Durations are whole hours; `forever` is about as long as a century.
fn parse_hours(text: &str) -> Result<u32, ApiError> {
    if text == "forever" {
        return Ok(876_000);
    }
    let hours =
        text.strip_suffix('h').and_then(|hours| hours.parse().ok()).filter(|hours| *hours > 0);
    hours.ok_or_else(|| {
        ApiError::bad(12130, "access.api.error.invalid_request: duration must look like 8760h")
    })
}
