//! Reusable Access policies.

use axum::extract::Path;
use http::StatusCode;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::envelope::{Answer, ApiError, Caller, JsonBody, now};
use super::state::Account;
use crate::ids::uuid;
use crate::query::QueryPairs;

/// A policy, as kept and as answered.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Policy {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) decision: Decision,
    pub(crate) include: Vec<Rule>,
    pub(crate) exclude: Vec<Rule>,
    pub(crate) require: Vec<Rule>,
    pub(crate) session_duration: String,
    pub(crate) reusable: bool,
    pub(crate) created_at: Timestamp,
    pub(crate) updated_at: Timestamp,
}

/// What a policy decides about those it meets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Decision {
    Allow,
    Deny,
    NonIdentity,
    Bypass,
}

/// One of some thirty kinds of rules; those that the edge understands are in `access_check`.
pub(crate) type Rule = Map<String, Value>;

/// What a write says about a policy.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct PolicyFields {
    name: String,
    decision: Decision,
    include: Vec<Rule>,
    #[serde(default)]
    exclude: Vec<Rule>,
    #[serde(default)]
    require: Vec<Rule>,
    session_duration: Option<String>,
}

/// A policy as the list shows it.
#[derive(Debug, Serialize)]
pub(crate) struct PolicyView {
    #[serde(flatten)]
    policy: Policy,
    app_count: usize,
}

#[derive(Debug, Serialize)]
pub(crate) struct Deleted {
    pub(crate) id: String,
}

impl PolicyFields {
    /// The policy that these fields make.
    pub(crate) fn into_policy(
        self,
        reusable: bool,
        old: Option<&Policy>,
    ) -> Result<Policy, ApiError> {
        if self.name.is_empty() || self.include.is_empty() {
            return Err(ApiError::bad(
                12130,
                "access.api.error.invalid_request: a policy needs a name and an include rule",
            ));
        }
        Ok(Policy {
            id: old.map_or_else(uuid, |old| old.id.clone()),
            name: self.name,
            decision: self.decision,
            include: self.include,
            exclude: self.exclude,
            require: self.require,
            session_duration: self.session_duration.unwrap_or_else(|| "24h".to_owned()),
            reusable,
            created_at: old.map_or_else(now, |old| old.created_at),
            updated_at: now(),
        })
    }
}

fn view(account: &Account, policy: &Policy) -> PolicyView {
    PolicyView { policy: policy.clone(), app_count: users(account, &policy.id) }
}

fn users(account: &Account, policy: &str) -> usize {
    account
        .apps
        .values()
        .filter(|app| app.policies.iter().any(|attached| attached.policy.id == policy))
        .count()
}

/// `GET …/access/policies`
pub(crate) async fn list(
    caller: Caller,
    Path(account): Path<String>,
    query: QueryPairs,
) -> Result<Answer<Vec<PolicyView>>, ApiError> {
    caller.access(&account, |account| {
        let policies = account.policies.values().map(|policy| view(account, policy)).collect();
        Answer::page(policies, &query, 50, 1000)
    })
}

/// `GET …/access/policies/{id}`
pub(crate) async fn get(
    caller: Caller,
    Path((account, id)): Path<(String, String)>,
) -> Result<Answer<PolicyView>, ApiError> {
    caller.access(&account, |account| {
        let policy = account.policies.get(&id).ok_or_else(not_found)?;
        Ok(Answer::ok(view(account, policy)))
    })
}

/// `POST …/access/policies`
pub(crate) async fn create(
    caller: Caller,
    Path(account): Path<String>,
    JsonBody(fields): JsonBody<PolicyFields>,
) -> Result<Answer<PolicyView>, ApiError> {
    let policy = fields.into_policy(true, None)?;
    caller.access(&account, |account| {
        if account.policies.len() >= account.limits.access_policies {
            return Err(ApiError::limit(
                "reusable Access policies",
                account.limits.access_policies,
            ));
        }
        account.policies.insert(policy.id.clone(), policy.clone());
        Ok(Answer::created(view(account, &policy)))
    })
}

/// `PUT …/access/policies/{id}`: applications that use it see the change.
pub(crate) async fn update(
    caller: Caller,
    Path((account, id)): Path<(String, String)>,
    JsonBody(fields): JsonBody<PolicyFields>,
) -> Result<Answer<PolicyView>, ApiError> {
    caller.access(&account, |account| {
        let policy =
            fields.into_policy(true, Some(account.policies.get(&id).ok_or_else(not_found)?))?;
        for attached in account.apps.values_mut().flat_map(|app| app.policies.iter_mut()) {
            if attached.policy.id == id {
                attached.policy = policy.clone();
            }
        }
        account.policies.insert(id, policy.clone());
        Ok(Answer::ok(view(account, &policy)))
    })
}

/// `DELETE …/access/policies/{id}`: refused while an application uses it.
pub(crate) async fn delete(
    caller: Caller,
    Path((account, id)): Path<(String, String)>,
) -> Result<Answer<Deleted>, ApiError> {
    caller.access(&account, |account| {
        if !account.policies.contains_key(&id) {
            return Err(not_found());
        }
        let apps = users(account, &id);
        if apps > 0 {
            // Status and code have no public source.
            let message =
                format!("access.api.error.conflict: the policy is used by {apps} applications");
            return Err(ApiError::new(StatusCode::CONFLICT, 12132, message));
        }
        account.policies.remove(&id);
        Ok(Answer::accepted(Deleted { id }))
    })
}

pub(crate) fn not_found() -> ApiError {
    ApiError::not_found(11022, "access.api.error.not_found: policy")
}
