//! `POST /firewalls/{id}/actions/…`: rules, and what they are applied to.

use std::time::{Duration, Instant};

use axum::Json;
use http::StatusCode;
use serde::{Deserialize, Serialize};

use super::body::{JsonBody, PathId};
use super::firewall_rules::check_rules;
use super::labels::Selector;
use super::model::{Action, Resource, Rule, SelectorRef, ServerRef};
use super::project::FirewallRecord;
use super::{ApiError, Call, Project};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SetRules {
    rules: Vec<Rule>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Apply {
    apply_to: Vec<Target>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Remove {
    remove_from: Vec<Target>,
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum Target {
    Server { server: ServerRef },
    LabelSelector { label_selector: SelectorRef },
}

#[derive(Serialize)]
pub(crate) struct Actions {
    actions: Vec<Action>,
}

/// `POST /firewalls/{id}/actions/set_rules`
pub(crate) async fn set_rules(
    call: Call,
    PathId(id): PathId,
    JsonBody(request): JsonBody<SetRules>,
) -> Result<(StatusCode, Json<Actions>), ApiError> {
    check_rules(&request.rules)?;
    let mut project = call.project();
    let record = project.firewalls.get_mut(&id).ok_or_else(|| not_found(id))?;
    if call.action_failure.is_none() {
        record.rules = request.rules;
    }
    let step = call.world.timings.action;
    let mut actions = vec![begin(&call, &mut project, "set_firewall_rules", id, None, step)];
    let covered = project.firewalls[&id].servers.keys().copied().collect::<Vec<_>>();
    for server in covered {
        let target = Target::Server { server: ServerRef { id: server } };
        actions.push(begin(&call, &mut project, "apply_firewall", id, Some(&target), step));
    }
    Ok((StatusCode::CREATED, Json(Actions { actions })))
}

/// `POST /firewalls/{id}/actions/apply_to_resources`
pub(crate) async fn apply(
    call: Call,
    PathId(id): PathId,
    JsonBody(request): JsonBody<Apply>,
) -> Result<(StatusCode, Json<Actions>), ApiError> {
    let step = call.world.timings.action;
    let mut project = call.project();
    let mut record = project.firewalls.get(&id).cloned().ok_or_else(|| not_found(id))?;
    attach(&mut record, &project, &request.apply_to, Instant::now() + step)?;
    if call.action_failure.is_none() {
        project.firewalls.insert(id, record);
    }
    let actions = request
        .apply_to
        .iter()
        .map(|target| begin(&call, &mut project, "apply_firewall", id, Some(target), step));
    let actions = actions.collect();
    Ok((StatusCode::CREATED, Json(Actions { actions })))
}

/// `POST /firewalls/{id}/actions/remove_from_resources`
pub(crate) async fn remove(
    call: Call,
    PathId(id): PathId,
    JsonBody(request): JsonBody<Remove>,
) -> Result<(StatusCode, Json<Actions>), ApiError> {
    let step = call.world.timings.action;
    let mut project = call.project();
    let record = project.firewalls.get_mut(&id).ok_or_else(|| not_found(id))?;
    for target in &request.remove_from {
        let applied = match target {
            Target::Server { server } => record.servers.contains_key(&server.id),
            Target::LabelSelector { label_selector } => {
                record.selectors.iter().any(|(text, ..)| *text == label_selector.selector)
            }
        };
        if !applied {
            return Err(ApiError::unprocessable(
                "firewall_resource_not_found",
                "the firewall is not applied to that",
            ));
        }
    }
    if call.action_failure.is_none() {
        for target in &request.remove_from {
            match target {
                Target::Server { server } => drop(record.servers.remove(&server.id)),
                Target::LabelSelector { label_selector } => {
                    record.selectors.retain(|(text, ..)| *text != label_selector.selector);
                }
            }
        }
        // The removal is asynchronous, too.
        record.held_until = Some(Instant::now() + step).max(record.held_until);
    }
    let actions = request
        .remove_from
        .iter()
        .map(|target| begin(&call, &mut project, "remove_firewall", id, Some(target), step));
    let actions = actions.collect();
    Ok((StatusCode::CREATED, Json(Actions { actions })))
}

/// Applies a firewall to `targets`; it covers them from that moment.
pub(crate) fn attach(
    record: &mut FirewallRecord,
    project: &Project,
    targets: &[Target],
    from: Instant,
) -> Result<(), ApiError> {
    for target in targets {
        match target {
            Target::Server { server } => {
                if !project.servers.contains_key(&server.id) {
                    return Err(ApiError::invalid(
                        "apply_to",
                        format!("server {} not found", server.id),
                    ));
                }
                if record.servers.insert(server.id, from).is_some() {
                    return Err(ApiError::unprocessable(
                        "firewall_already_applied",
                        "the firewall is already applied to that server",
                    ));
                }
                let others = project.firewalls.values().filter(|other| other.id != record.id);
                if others.filter(|other| other.servers.contains_key(&server.id)).count() >= 5 {
                    return Err(ApiError::invalid(
                        "apply_to",
                        "a server can have at most 5 firewalls",
                    ));
                }
            }
            Target::LabelSelector { label_selector } => {
                let selector = Selector::parse(&label_selector.selector)?;
                record.selectors.push((label_selector.selector.clone(), selector, from));
            }
        }
    }
    Ok(())
}

/// Notes an action on a firewall and, maybe, a server.
pub(crate) fn begin(
    call: &Call,
    project: &mut Project,
    command: &'static str,
    firewall: u64,
    target: Option<&Target>,
    takes: Duration,
) -> Action {
    let mut resources = vec![Resource { id: firewall, kind: "firewall" }];
    if let Some(Target::Server { server }) = target {
        resources.insert(0, Resource { id: server.id, kind: "server" });
    }
    project.begin(call.next_id(), command, resources, takes, call.action_failure.clone())
}

pub(crate) fn not_found(id: u64) -> ApiError {
    ApiError::not_found("firewall with ID", format!("'{id}'"))
}
