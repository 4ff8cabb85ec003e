//! Servers: create, list, get, update, delete. What presses their buttons is in `server_actions`.

use std::time::Instant;

use axum::Json;
use serde::{Deserialize, Serialize};

use super::body::{JsonBody, PathId};
use super::labels::{self, Labels};
use super::model::{
    Action, AppliedFirewall, DnsPtr, FirewallStatus, Ipv4, Ipv6, PublicNet, Resource, Server,
    ServerStatus, ServerType,
};
use super::page::{self, Key, Listed, Meta};
use super::project::{ServerRecord, Timeline};
use super::{ApiError, Call, Project, catalogue, validate};
use crate::query::QueryPairs;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct UpdateServer {
    name: Option<String>,
    labels: Option<Labels>,
}

#[derive(Serialize)]
pub(crate) struct OneServer {
    server: Server,
}

#[derive(Serialize)]
pub(crate) struct ServerList {
    servers: Vec<Server>,
    meta: Meta,
}

#[derive(Serialize)]
pub(crate) struct OneAction {
    pub(crate) action: Action,
}

impl Listed for &ServerRecord {
    fn key(&self) -> Key<'_> {
        Key { id: self.id, name: &self.name, labels: Some(&self.labels) }
    }
}

/// `GET /servers`
pub(crate) async fn list(call: Call, query: QueryPairs) -> Result<Json<ServerList>, ApiError> {
    let wanted: Vec<ServerStatus> = query
        .all("status")
        .map(|text| {
            serde_json::from_value(text.into())
                .map_err(|_| ApiError::invalid("status", format!("unknown status '{text}'")))
        })
        .collect::<Result<_, _>>()?;
    let now = Instant::now();
    let project = call.project();
    let of_status =
        |record: &&ServerRecord| wanted.is_empty() || wanted.contains(&record.timeline.at(now));
    let records = project.servers.values().filter(of_status).collect();
    let (records, meta) = page::cut(page::choose(records, &query)?, &query)?;
    // Only the page is drawn up: lists of thousands are read page by page.
    let servers = records.into_iter().map(|record| view(&call, &project, record)).collect();
    Ok(Json(ServerList { servers, meta }))
}

/// `GET /servers/{id}`
pub(crate) async fn get(call: Call, PathId(id): PathId) -> Result<Json<OneServer>, ApiError> {
    let project = call.project();
    let record = project.servers.get(&id).ok_or_else(|| not_found(id))?;
    Ok(Json(OneServer { server: view(&call, &project, record) }))
}

/// `PUT /servers/{id}`
pub(crate) async fn update(
    call: Call,
    PathId(id): PathId,
    JsonBody(request): JsonBody<UpdateServer>,
) -> Result<Json<OneServer>, ApiError> {
    let mut project = call.project();
    if let Some(name) = &request.name {
        validate::server_name(name)?;
        if project.servers.values().any(|other| other.id != id && other.name == *name) {
            return Err(ApiError::taken("server name is already used"));
        }
    }
    request.labels.as_ref().map_or(Ok(()), labels::check)?;
    let record = project.servers.get_mut(&id).ok_or_else(|| not_found(id))?;
    record.name = request.name.unwrap_or_else(|| record.name.clone());
    record.labels = request.labels.unwrap_or_else(|| record.labels.clone());
    let record = record.clone();
    Ok(Json(OneServer { server: view(&call, &project, &record) }))
}

/// `DELETE /servers/{id}`
pub(crate) async fn delete(call: Call, PathId(id): PathId) -> Result<Json<OneAction>, ApiError> {
    let action = begin_deletion(&call, id)?;
    if call.action_failure.is_none() {
        call.behind(action.id, |backend| async move { backend.delete(id).await }).await;
    }
    Ok(Json(OneAction { action }))
}

fn begin_deletion(call: &Call, id: u64) -> Result<Action, ApiError> {
    let timings = call.world.timings;
    let now = Instant::now();
    let mut project = call.project();
    let record = project.servers.get_mut(&id).ok_or_else(|| not_found(id))?;
    if record.protection.delete {
        return Err(ApiError::protected("server deletion"));
    }
    if call.action_failure.is_none() && record.gone_at.is_none() {
        let gone_at = now + timings.action;
        record.gone_at = Some(gone_at);
        record.timeline = Timeline::new(now, ServerStatus::Deleting);
        let record = record.clone();
        for firewall in project.firewalls.values_mut() {
            if firewall.covers(&record).is_some() {
                firewall.held_until =
                    Some(gone_at + timings.firewall_release).max(firewall.held_until);
            }
        }
    }
    Ok(project.begin(
        call.next_id(),
        "delete_server",
        of(id),
        timings.action,
        call.action_failure.clone(),
    ))
}

/// The server as the API shows it now.
pub(crate) fn view(call: &Call, project: &Project, record: &ServerRecord) -> Server {
    let now = Instant::now();
    let address =
        |id: Option<u64>| id.and_then(|id| Some((id, project.primary_ips.get(&id)?.ip.clone())));
    let firewalls = project.firewalls.values().filter_map(|firewall| {
        let from = firewall.covers(record)?;
        let status = if from <= now { FirewallStatus::Applied } else { FirewallStatus::Pending };
        Some(AppliedFirewall { id: firewall.id, status })
    });
    Server {
        id: record.id,
        name: record.name.clone(),
        status: record.timeline.at(now),
        created: record.created,
        public_net: PublicNet {
            ipv4: address(record.ipv4).map(|(id, ip)| Ipv4 {
                id,
                blocked: false,
                dns_ptr: format!("static.{}.clients.example", ip.replace('.', "-")),
                ip,
            }),
            ipv6: address(record.ipv6).map(|(id, ip)| Ipv6 {
                id,
                ip,
                blocked: false,
                dns_ptr: Vec::<DnsPtr>::new(),
            }),
            floating_ips: Vec::new(),
            firewalls: firewalls.collect(),
        },
        private_net: Vec::new(),
        server_type: type_view(call, record.server_type),
        location: catalogue::location_named(record.location)
            .expect("servers stand in known locations")
            .clone(),
        image: Some(record.image.clone()),
        iso: None,
        rescue_enabled: record.rescue,
        locked: record.locked_until > now,
        backup_window: record.backups.then(|| "22-02".to_owned()),
        outgoing_traffic: 0,
        ingoing_traffic: 0,
        included_traffic: 20 << 40,
        protection: record.protection,
        labels: record.labels.clone(),
        volumes: Vec::new(),
        load_balancers: Vec::new(),
        primary_disk_size: record.primary_disk_size,
        placement_group: None,
    }
}

fn type_view(call: &Call, name: &str) -> ServerType {
    catalogue::type_named(name).expect("servers have known types").view(call)
}

/// The resource list of an action on one server.
pub(crate) fn of(id: u64) -> Vec<Resource> {
    vec![Resource { id, kind: "server" }]
}

pub(crate) fn not_found(id: u64) -> ApiError {
    ApiError::not_found("server with ID", format!("'{id}'"))
}
