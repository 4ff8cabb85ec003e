//! Firewalls: their rules and what they are applied to. No packet is filtered here.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use axum::Json;
use http::StatusCode;
use serde::{Deserialize, Serialize};

use super::body::{JsonBody, PathId};
use super::labels::{self, Labels, Selector};
use super::model::{
    Action, AppliedTo, AppliedToServer, Direction, Firewall, Protocol, Resource, Rule, SelectorRef,
    ServerRef,
};
use super::page::{self, Listed, Meta};
use super::project::{FirewallRecord, now_in_seconds};
use super::{ApiError, Call, Project, validate};
use crate::query::QueryPairs;

const MAX_RULES: usize = 50;

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

#[derive(Serialize)]
pub(crate) struct Actions {
    actions: Vec<Action>,
}

impl Listed for Firewall {
    fn id(&self) -> u64 {
        self.id
    }
    fn name(&self) -> &str {
        &self.name
    }
    fn labels(&self) -> Option<&Labels> {
        Some(&self.labels)
    }
}

/// Every firewall of the project.
pub(crate) fn dump(project: &Project) -> Vec<Firewall> {
    project
        .firewalls
        .values()
        .map(|record| view(project, record))
        .collect()
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
    Ok(Json(OneFirewall {
        firewall: view(&project, record),
    }))
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
    if project
        .firewalls
        .values()
        .any(|other| other.name == request.name)
    {
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
    let mut actions = vec![begin(
        &call,
        &mut project,
        "set_firewall_rules",
        id,
        None,
        step,
    )];
    for target in &targets {
        actions.push(begin(
            &call,
            &mut project,
            "apply_firewall",
            id,
            Some(target),
            step,
        ));
    }
    let firewall = view(&project, &record);
    Ok((
        StatusCode::CREATED,
        Json(CreatedFirewall { firewall, actions }),
    ))
}

/// `PUT /firewalls/{id}`
pub(crate) async fn update(
    call: Call,
    PathId(id): PathId,
    JsonBody(request): JsonBody<UpdateFirewall>,
) -> Result<Json<OneFirewall>, ApiError> {
    request.labels.as_ref().map_or(Ok(()), labels::check)?;
    request
        .name
        .as_deref()
        .map_or(Ok(()), validate::plain_name)?;
    let mut project = call.project();
    let taken = |name: &String| {
        project
            .firewalls
            .values()
            .any(|other| other.id != id && other.name == *name)
    };
    if request.name.as_ref().is_some_and(taken) {
        return Err(ApiError::taken("name is already used"));
    }
    let record = project
        .firewalls
        .get_mut(&id)
        .ok_or_else(|| not_found(id))?;
    record.name = request.name.unwrap_or_else(|| record.name.clone());
    record.labels = request.labels.unwrap_or_else(|| record.labels.clone());
    let record = record.clone();
    Ok(Json(OneFirewall {
        firewall: view(&project, &record),
    }))
}

/// `DELETE /firewalls/{id}`: refused while it is applied to anything, and for a while after its
/// last server is gone.
pub(crate) async fn delete(call: Call, PathId(id): PathId) -> Result<StatusCode, ApiError> {
    let mut project = call.project();
    let record = project.firewalls.get(&id).ok_or_else(|| not_found(id))?;
    let held = record
        .held_until
        .is_some_and(|until| until > Instant::now());
    if held || !record.servers.is_empty() || !record.selectors.is_empty() {
        return Err(ApiError::in_use("firewall", id));
    }
    project.firewalls.remove(&id);
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /firewalls/{id}/actions/set_rules`
pub(crate) async fn set_rules(
    call: Call,
    PathId(id): PathId,
    JsonBody(request): JsonBody<SetRules>,
) -> Result<(StatusCode, Json<Actions>), ApiError> {
    check_rules(&request.rules)?;
    let mut project = call.project();
    let record = project
        .firewalls
        .get_mut(&id)
        .ok_or_else(|| not_found(id))?;
    if call.action_failure.is_none() {
        record.rules = request.rules;
    }
    let step = call.world.timings.action;
    let mut actions = vec![begin(
        &call,
        &mut project,
        "set_firewall_rules",
        id,
        None,
        step,
    )];
    let covered = project.firewalls[&id]
        .servers
        .keys()
        .copied()
        .collect::<Vec<_>>();
    for server in covered {
        let target = Target::Server {
            server: ServerRef { id: server },
        };
        actions.push(begin(
            &call,
            &mut project,
            "apply_firewall",
            id,
            Some(&target),
            step,
        ));
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
    let mut record = project
        .firewalls
        .get(&id)
        .cloned()
        .ok_or_else(|| not_found(id))?;
    attach(
        &mut record,
        &project,
        &request.apply_to,
        Instant::now() + step,
    )?;
    if call.action_failure.is_none() {
        project.firewalls.insert(id, record);
    }
    let actions = request.apply_to.iter().map(|target| {
        begin(
            &call,
            &mut project,
            "apply_firewall",
            id,
            Some(target),
            step,
        )
    });
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
    let record = project
        .firewalls
        .get_mut(&id)
        .ok_or_else(|| not_found(id))?;
    for target in &request.remove_from {
        let applied = match target {
            Target::Server { server } => record.servers.contains_key(&server.id),
            Target::LabelSelector { label_selector } => record
                .selectors
                .iter()
                .any(|(text, ..)| *text == label_selector.selector),
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
                    record
                        .selectors
                        .retain(|(text, ..)| *text != label_selector.selector);
                }
            }
        }
        // The removal is asynchronous, too.
        record.held_until = Some(Instant::now() + step).max(record.held_until);
    }
    let actions = request.remove_from.iter().map(|target| {
        begin(
            &call,
            &mut project,
            "remove_firewall",
            id,
            Some(target),
            step,
        )
    });
    let actions = actions.collect();
    Ok((StatusCode::CREATED, Json(Actions { actions })))
}

fn attach(
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
                let others = project
                    .firewalls
                    .values()
                    .filter(|other| other.id != record.id);
                if others
                    .filter(|other| other.servers.contains_key(&server.id))
                    .count()
                    >= 5
                {
                    return Err(ApiError::invalid(
                        "apply_to",
                        "a server can have at most 5 firewalls",
                    ));
                }
            }
            Target::LabelSelector { label_selector } => {
                let selector = Selector::parse(&label_selector.selector)?;
                record
                    .selectors
                    .push((label_selector.selector.clone(), selector, from));
            }
        }
    }
    Ok(())
}

fn begin(
    call: &Call,
    project: &mut Project,
    command: &'static str,
    firewall: u64,
    target: Option<&Target>,
    takes: Duration,
) -> Action {
    let mut resources = vec![Resource {
        id: firewall,
        kind: "firewall",
    }];
    if let Some(Target::Server { server }) = target {
        resources.insert(
            0,
            Resource {
                id: server.id,
                kind: "server",
            },
        );
    }
    project.begin(
        call.next_id(),
        command,
        resources,
        takes,
        call.action_failure.clone(),
    )
}

fn check_rules(rules: &[Rule]) -> Result<(), ApiError> {
    if rules.len() > MAX_RULES {
        return Err(ApiError::invalid(
            "rules",
            format!("at most {MAX_RULES} rules are allowed"),
        ));
    }
    for rule in rules {
        let has_ports = matches!(rule.protocol, Protocol::Tcp | Protocol::Udp);
        if has_ports != rule.port.is_some() {
            return Err(ApiError::invalid(
                "rules",
                "'port' belongs to tcp and udp rules, and only to them",
            ));
        }
        if rule.port.as_deref().is_some_and(|port| !is_port(port)) {
            return Err(ApiError::invalid(
                "rules",
                "'port' must be a port, a range of ports or 'any'",
            ));
        }
        let addresses = match rule.direction {
            Direction::In => &rule.source_ips,
            Direction::Out => &rule.destination_ips,
        };
        if addresses.is_empty()
            || addresses.len() > 100
            || !addresses.iter().all(|text| is_network(text))
        {
            return Err(ApiError::invalid(
                "rules",
                "a rule needs 1 to 100 addresses in CIDR notation",
            ));
        }
        if rule
            .description
            .as_ref()
            .is_some_and(|text| text.len() > 255)
        {
            return Err(ApiError::invalid(
                "rules",
                "'description' has at most 255 characters",
            ));
        }
    }
    Ok(())
}

fn is_port(text: &str) -> bool {
    let port = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0);
    match text.split_once('-') {
        Some((from, to)) => port(from)
            .zip(port(to))
            .is_some_and(|(from, to)| from <= to),
        None => text == "any" || port(text).is_some(),
    }
}

fn is_network(text: &str) -> bool {
    let Some((address, bits)) = text.split_once('/') else {
        return false;
    };
    let most = match address.parse() {
        Ok(std::net::IpAddr::V4(_)) => 32,
        Ok(std::net::IpAddr::V6(_)) => 128,
        Err(_) => return false,
    };
    bits.parse::<u8>().is_ok_and(|bits| bits <= most)
}

fn view(project: &Project, record: &FirewallRecord) -> Firewall {
    let servers = record.servers.keys().map(|id| AppliedTo::Server {
        server: ServerRef { id: *id },
    });
    let selectors = record
        .selectors
        .iter()
        .map(|(text, selector, _)| AppliedTo::LabelSelector {
            label_selector: SelectorRef {
                selector: text.clone(),
            },
            applied_to_resources: project
                .servers
                .values()
                .filter(|server| selector.selects(&server.labels))
                .map(|server| AppliedToServer {
                    kind: "server",
                    server: ServerRef { id: server.id },
                })
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

fn not_found(id: u64) -> ApiError {
    ApiError::not_found("firewall with ID", format!("'{id}'"))
}
