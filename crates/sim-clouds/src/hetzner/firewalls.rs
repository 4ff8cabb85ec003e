//! Firewalls: their rules and what they are applied to. No packet is filtered here.

use std::collections::BTreeMap;
use std::time::Instant;

use axum::Json;
use http::StatusCode;
use serde::{Deserialize, Serialize};

use super::body::{JsonBody, PathId};
use super::firewall_actions::{Target, attach, begin, not_found};
use super::firewall_rules::check_rules;
use super::labels::{self, Labels};
use super::model::{Action, AppliedTo, AppliedToServer, Firewall, Rule, SelectorRef, ServerRef};
use super::page::{self, Key, Listed, Meta};
use super::project::{FirewallRecord, now_in_seconds};
use super::{ApiError, Call, Project, validate};
use crate::query::QueryPairs;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CreateFirewall {
    name: String,
    labels: Option<Labels>,
    rules: Option<Vec<Rule>>,
    apply_to: Option<Vec<Target>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct UpdateFirewall {
    name: Option<String>,
    labels: Option<Labels>,
}

#[derive(Serialize)]
pub(crate) struct OneFirewall {
    firewall: Firewall,
}

#[derive(Serialize)]
pub(crate) struct CreatedFirewall {
    firewall: Firewall,
    actions: Vec<Action>,
}

#[derive(Serialize)]
pub(crate) struct FirewallList {
    firewalls: Vec<Firewall>,
    meta: Meta,
}

impl Listed for Firewall {
    fn key(&self) -> Key<'_> {
        Key { id: self.id, name: &self.name, labels: Some(&self.labels) }
    }
}

/// Every firewall of the project.
pub(crate) fn dump(project: &Project) -> Vec<Firewall> {
    project.firewalls.values().map(|record| view(project, record)).collect()
}

/// `GET /firewalls`
pub(crate) async fn list(call: Call, query: QueryPairs) -> Result<Json<FirewallList>, ApiError> {
    let (firewalls, meta) = page::cut(page::choose(dump(&call.project()), &query)?, &query)?;
    Ok(Json(FirewallList { firewalls, meta }))
}

/// `GET /firewalls/{id}`
pub(crate) async fn get(call: Call, PathId(id): PathId) -> Result<Json<OneFirewall>, ApiError> {
    let project = call.project();
    let record = project.firewalls.get(&id).ok_or_else(|| not_found(id))?;
    Ok(Json(OneFirewall { firewall: view(&project, record) }))
}

/// `POST /firewalls`
pub(crate) async fn create(
    call: Call,
    JsonBody(request): JsonBody<CreateFirewall>,
) -> Result<(StatusCode, Json<CreatedFirewall>), ApiError> {
    validate::plain_name(&request.name)?;
    request.labels.as_ref().map_or(Ok(()), labels::check)?;
    let rules = request.rules.unwrap_or_default();
    check_rules(&rules)?;
    let mut project = call.project();
    if project.firewalls.values().any(|other| other.name == request.name) {
        return Err(ApiError::taken("name is already used"));
    }
    let id = call.next_id();
    let mut record = FirewallRecord {
        id,
        name: request.name,
        labels: request.labels.unwrap_or_default(),
        created: now_in_seconds(),
        rules,
        servers: BTreeMap::new(),
        selectors: Vec::new(),
        held_until: None,
    };
    let step = call.world.timings.action;
    let targets = request.apply_to.unwrap_or_default();
    attach(&mut record, &project, &targets, Instant::now() + step)?;
    project.firewalls.insert(id, record.clone());
    let mut actions = vec![begin(&call, &mut project, "set_firewall_rules", id, None, step)];
    for target in &targets {
        actions.push(begin(&call, &mut project, "apply_firewall", id, Some(target), step));
    }
    let firewall = view(&project, &record);
    Ok((StatusCode::CREATED, Json(CreatedFirewall { firewall, actions })))
}

/// `PUT /firewalls/{id}`
pub(crate) async fn update(
    call: Call,
    PathId(id): PathId,
    JsonBody(request): JsonBody<UpdateFirewall>,
) -> Result<Json<OneFirewall>, ApiError> {
    request.labels.as_ref().map_or(Ok(()), labels::check)?;
    request.name.as_deref().map_or(Ok(()), validate::plain_name)?;
    let mut project = call.project();
    let taken = |name: &String| {
        project.firewalls.values().any(|other| other.id != id && other.name == *name)
    };
    if request.name.as_ref().is_some_and(taken) {
        return Err(ApiError::taken("name is already used"));
    }
    let record = project.firewalls.get_mut(&id).ok_or_else(|| not_found(id))?;
    record.name = request.name.unwrap_or_else(|| record.name.clone());
    record.labels = request.labels.unwrap_or_else(|| record.labels.clone());
    let record = record.clone();
    Ok(Json(OneFirewall { firewall: view(&project, &record) }))
}

/// `DELETE /firewalls/{id}`: refused while it is applied to anything, and for a while after its
/// last server is gone.
pub(crate) async fn delete(call: Call, PathId(id): PathId) -> Result<StatusCode, ApiError> {
    let mut project = call.project();
    let record = project.firewalls.get(&id).ok_or_else(|| not_found(id))?;
    let held = record.held_until.is_some_and(|until| until > Instant::now());
    if held || !record.servers.is_empty() || !record.selectors.is_empty() {
        return Err(ApiError::in_use("firewall", id));
    }
    project.firewalls.remove(&id);
    Ok(StatusCode::NO_CONTENT)
}

fn view(project: &Project, record: &FirewallRecord) -> Firewall {
    let servers =
        record.servers.keys().map(|id| AppliedTo::Server { server: ServerRef { id: *id } });
    let selectors = record.selectors.iter().map(|(text, selector, _)| AppliedTo::LabelSelector {
        label_selector: SelectorRef { selector: text.clone() },
        applied_to_resources: project
            .servers
            .values()
            .filter(|server| selector.selects(&server.labels))
            .map(|server| AppliedToServer { kind: "server", server: ServerRef { id: server.id } })
            .collect(),
    });
    Firewall {
        id: record.id,
        name: record.name.clone(),
        labels: record.labels.clone(),
        created: record.created,
        rules: record.rules.clone(),
        applied_to: servers.chain(selectors).collect(),
    }
}
