//! Access applications of type `self_hosted`.

use axum::extract::Path;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::access_check::is_valid_pattern;
use super::access_policies::{self, Deleted, Policy, PolicyFields};
use super::envelope::{Answer, ApiError, Caller, JsonBody, now};
use super::state::{Account, Inner};
use crate::ids::{random_bytes, uuid};
use crate::query::QueryPairs;

/// Destinations that one application may have.
const MAX_DESTINATIONS: usize = 50;

/// An application, as kept and as answered.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct App {
    pub(crate) id: String,
    uid: String,
    aud: String,
    name: String,
    #[serde(rename = "type")]
    kind: &'static str,
    domain: String,
    self_hosted_domains: Vec<String>,
    pub(crate) destinations: Vec<Destination>,
    pub(crate) policies: Vec<AttachedPolicy>,
    session_duration: String,
    created_at: Timestamp,
    updated_at: Timestamp,
    /// Settings that mean nothing here; they come back as they were sent.
    #[serde(flatten)]
    other: Map<String, Value>,
}

/// A policy in its place within an application.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct AttachedPolicy {
    #[serde(flatten)]
    pub(crate) policy: Policy,
    pub(crate) precedence: u32,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Destination {
    #[serde(rename = "type", default = "public")]
    kind: String,
    pub(crate) uri: String,
}

fn public() -> String {
    "public".to_owned()
}

#[derive(Deserialize)]
pub(crate) struct AppFields {
    name: Option<String>,
    #[serde(rename = "type")]
    kind: String,
    domain: Option<String>,
    #[serde(default)]
    self_hosted_domains: Vec<String>,
    #[serde(default)]
    destinations: Vec<Destination>,
    #[serde(default)]
    policies: Vec<PolicyReference>,
    session_duration: Option<String>,
    #[serde(flatten)]
    other: Map<String, Value>,
}

/// A reusable policy by its id, or one that belongs to the application alone.
#[derive(Deserialize)]
#[serde(untagged)]
enum PolicyReference {
    Id(String),
    Placed { id: String, precedence: Option<u32> },
    Own(PolicyFields),
}

impl AppFields {
    fn into_app(
        self,
        account: &Account,
        zones: &[String],
        old: Option<&App>,
    ) -> Result<App, ApiError> {
        if self.kind != "self_hosted" {
            return Err(bad("only applications of type self_hosted are simulated"));
        }
        let mut destinations = self.destinations;
        if destinations.is_empty() {
            let domains = self.domain.iter().chain(&self.self_hosted_domains);
            destinations =
                domains.map(|uri| Destination { kind: public(), uri: uri.clone() }).collect();
            destinations.dedup_by(|a, b| a.uri == b.uri);
        }
        if destinations.is_empty() || destinations.len() > MAX_DESTINATIONS {
            return Err(bad("an application has 1 to 50 destinations"));
        }
        for destination in &destinations {
            let host = destination.uri.split('/').next().unwrap_or_default();
            let in_zone =
                zones.iter().any(|zone| host == zone || host.ends_with(&format!(".{zone}")));
            if destination.kind != "public" || !is_valid_pattern(host) || !in_zone {
                return Err(bad(&format!(
                    "domain does not belong to zone, or is not valid: {}",
                    destination.uri
                )));
            }
        }
        let policies = self
            .policies
            .into_iter()
            .enumerate()
            .map(|(index, reference)| {
                attach(account, reference, u32::try_from(index + 1).unwrap_or(u32::MAX))
            })
            .collect::<Result<Vec<_>, _>>()?;
        let domain = self.domain.unwrap_or_else(|| destinations[0].uri.clone());
        let id = old.map_or_else(uuid, |old| old.id.clone());
        Ok(App {
            uid: id.clone(),
            id,
            aud: old.map_or_else(|| hex::encode(random_bytes::<32>()), |old| old.aud.clone()),
            name: self.name.unwrap_or_else(|| domain.clone()),
            kind: "self_hosted",
            domain,
            self_hosted_domains: destinations
                .iter()
                .map(|destination| destination.uri.clone())
                .collect(),
            destinations,
            policies,
            session_duration: self.session_duration.unwrap_or_else(|| "24h".to_owned()),
            created_at: old.map_or_else(now, |old| old.created_at),
            updated_at: now(),
            other: self.other,
        })
    }
}

fn attach(
    account: &Account,
    reference: PolicyReference,
    place: u32,
) -> Result<AttachedPolicy, ApiError> {
    let reusable =
        |id: &str| account.policies.get(id).cloned().ok_or_else(access_policies::not_found);
    match reference {
        PolicyReference::Id(id) => Ok(AttachedPolicy { policy: reusable(&id)?, precedence: place }),
        PolicyReference::Placed { id, precedence } => {
            Ok(AttachedPolicy { policy: reusable(&id)?, precedence: precedence.unwrap_or(place) })
        }
        PolicyReference::Own(fields) => {
            Ok(AttachedPolicy { policy: fields.into_policy(false, None)?, precedence: place })
        }
    }
}

/// The domains of the account's zones.
fn zones_of(inner: &Inner, account: &str) -> Vec<String> {
    inner
        .zones
        .values()
        .filter(|zone| zone.account == account)
        .map(|zone| zone.name.clone())
        .collect()
}

/// `GET …/access/apps`
pub(crate) async fn list(
    caller: Caller,
    Path(account): Path<String>,
    query: QueryPairs,
) -> Result<Answer<Vec<App>>, ApiError> {
    caller.access(&account, |account| {
        let among = |name: &str, value: &str| query.get(name).is_none_or(|wanted| wanted == value);
        let apps = account.apps.values();
        let apps = apps.filter(|app| {
            among("name", &app.name) && among("domain", &app.domain) && among("aud", &app.aud)
        });
        Answer::page(apps.cloned().collect(), &query, 50, 1000)
    })
}

/// `GET …/access/apps/{id}`
pub(crate) async fn get(
    caller: Caller,
    Path((account, id)): Path<(String, String)>,
) -> Result<Answer<App>, ApiError> {
    caller.access(&account, |account| {
        account.apps.get(&id).cloned().map(Answer::ok).ok_or_else(not_found)
    })
}

/// `POST …/access/apps`
pub(crate) async fn create(
    caller: Caller,
    Path(account): Path<String>,
    JsonBody(fields): JsonBody<AppFields>,
) -> Result<Answer<App>, ApiError> {
    let zones = zones_of(&caller.inner(), &account);
    caller.access(&account, |account| {
        if account.apps.len() >= account.limits.access_apps {
            return Err(ApiError::limit("Access applications", account.limits.access_apps));
        }
        let app = fields.into_app(account, &zones, None)?;
        let taken = |other: &App| {
            other
                .destinations
                .iter()
                .any(|theirs| app.destinations.iter().any(|ours| ours.uri == theirs.uri))
        };
        if account.apps.values().any(taken) {
            return Err(ApiError::new(
                http::StatusCode::CONFLICT,
                11010,
                "access.api.error.application_already_exists",
            ));
        }
        account.apps.insert(app.id.clone(), app.clone());
        Ok(Answer::created(app))
    })
}

/// `PUT …/access/apps/{id}`
pub(crate) async fn update(
    caller: Caller,
    Path((account, id)): Path<(String, String)>,
    JsonBody(fields): JsonBody<AppFields>,
) -> Result<Answer<App>, ApiError> {
    let zones = zones_of(&caller.inner(), &account);
    caller.access(&account, |account| {
        let old = account.apps.get(&id).ok_or_else(not_found)?;
        let app = fields.into_app(account, &zones, Some(old))?;
        account.apps.insert(id, app.clone());
        Ok(Answer::ok(app))
    })
}

/// `DELETE …/access/apps/{id}`
pub(crate) async fn delete(
    caller: Caller,
    Path((account, id)): Path<(String, String)>,
) -> Result<Answer<Deleted>, ApiError> {
    caller.access(&account, |account| {
        account.apps.remove(&id).ok_or_else(not_found)?;
        Ok(Answer::accepted(Deleted { id }))
    })
}

fn bad(message: &str) -> ApiError {
    ApiError::bad(12130, format!("access.api.error.invalid_request: {message}"))
}

fn not_found() -> ApiError {
    ApiError::not_found(11021, "access.api.error.unknown_application: application")
}
