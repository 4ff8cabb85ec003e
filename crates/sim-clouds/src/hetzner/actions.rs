//! Reading actions, by id and by resource.

use std::time::Instant;

use axum::Json;
use axum::extract::Path;
use serde::Serialize;

use super::model::Action;
use super::page::{self, Meta};
use super::servers::OneAction;
use super::{ApiError, Call};
use crate::query::QueryPairs;

#[derive(Serialize)]
pub(crate) struct ActionList {
    actions: Vec<Action>,
    #[serde(skip_serializing_if = "Option::is_none")]
    meta: Option<Meta>,
}

/// `GET /actions?id=…&id=…`: the ids are required since 2025-01-30.
pub(crate) async fn list(call: Call, query: QueryPairs) -> Result<Json<ActionList>, ApiError> {
    let ids: Vec<u64> = query
        .all("id")
        .map(|text| text.parse().map_err(|_| ApiError::invalid("id", format!("'{text}' is no id"))))
        .collect::<Result<_, _>>()?;
    if ids.is_empty() {
        return Err(ApiError::gone(
            "listing arbitrary actions is no longer possible, give their ids",
        ));
    }
    let now = Instant::now();
    let project = call.project();
    let actions = ids
        .iter()
        .filter_map(|id| project.actions.get(id))
        .map(|action| action.view(now))
        .collect();
    Ok(Json(ActionList { actions, meta: None }))
}

/// `GET /servers/actions`
pub(crate) async fn list_of_servers(
    call: Call,
    query: QueryPairs,
) -> Result<Json<ActionList>, ApiError> {
    of_resources(&call, &query, "server", None)
}

/// `GET /firewalls/actions`
pub(crate) async fn list_of_firewalls(
    call: Call,
    query: QueryPairs,
) -> Result<Json<ActionList>, ApiError> {
    of_resources(&call, &query, "firewall", None)
}

/// `GET /servers/{id}/actions`
pub(crate) async fn list_of_server(
    call: Call,
    Path(id): Path<String>,
    query: QueryPairs,
) -> Result<Json<ActionList>, ApiError> {
    of_resources(&call, &query, "server", Some(number(&id)?))
}

/// `GET /firewalls/{id}/actions`
pub(crate) async fn list_of_firewall(
    call: Call,
    Path(id): Path<String>,
    query: QueryPairs,
) -> Result<Json<ActionList>, ApiError> {
    of_resources(&call, &query, "firewall", Some(number(&id)?))
}

fn of_resources(
    call: &Call,
    query: &QueryPairs,
    kind: &str,
    id: Option<u64>,
) -> Result<Json<ActionList>, ApiError> {
    let now = Instant::now();
    let wanted: Vec<&str> = query.all("status").collect();
    let project = call.project();
    let actions = project
        .actions
        .values()
        .filter(|action| {
            action
                .resources
                .iter()
                .any(|resource| resource.kind == kind && id.is_none_or(|id| id == resource.id))
        })
        .map(|action| action.view(now))
        .filter(|action| {
            let status = serde_json::to_value(action.status).unwrap_or_default();
            wanted.is_empty() || wanted.iter().any(|wanted| status == *wanted)
        })
        .collect();
    let (actions, meta) = page::cut(actions, query)?;
    Ok(Json(ActionList { actions, meta: Some(meta) }))
}

/// `GET /actions/{id}` and its siblings below `/servers` and `/firewalls`.
pub(crate) async fn get(call: Call, Path(id): Path<String>) -> Result<Json<OneAction>, ApiError> {
    one(&call, number(&id)?)
}

/// `GET /servers/{id}/actions/{action}` and the same below `/firewalls`.
pub(crate) async fn get_of_resource(
    call: Call,
    Path((resource, action)): Path<(String, String)>,
) -> Result<Json<OneAction>, ApiError> {
    let (resource, action) = (number(&resource)?, number(&action)?);
    let belongs =
        call.project().actions.get(&action).is_some_and(|action| {
            action.resources.iter().any(|candidate| candidate.id == resource)
        });
    if belongs { one(&call, action) } else { Err(ApiError::not_found("action", action)) }
}

fn one(call: &Call, id: u64) -> Result<Json<OneAction>, ApiError> {
    let project = call.project();
    let action = project.actions.get(&id).ok_or_else(|| ApiError::not_found("action", id))?;
    Ok(Json(OneAction { action: action.view(Instant::now()) }))
}

fn number(text: &str) -> Result<u64, ApiError> {
    text.parse().map_err(|_| ApiError::not_found("action", format!("'{text}'")))
}
