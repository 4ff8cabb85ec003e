//! The admin API: tenants, journal, state, faults. It has no token: it listens on loopback only and
//! exists for tests.
//!
//! | call | what it does |
//! |---|---|
//! | `PUT /admin/hetzner/projects/{name}` | makes or changes a project ([`ProjectSpec`]) |
//! | `DELETE /admin/hetzner/projects/{name}` | forgets it, and stops its servers |
//! | `POST /admin/hetzner/projects/{name}/servers/{id}/vanish` | takes a server away behind everybody's back |
//! | `PUT /admin/cloudflare/accounts/{id}` | makes an account or adds a token and zones ([`AccountSpec`]) |
//! | `DELETE /admin/cloudflare/accounts/{id}` | forgets it with its zones |
//! | `GET /admin/journal?since=&cloud=&tenant=` | requests in order of arrival ([`Entry`]) |
//! | `GET /admin/journal/counts?…` | how often each kind came ([`Count`]) |
//! | `DELETE /admin/journal` | forgets the entries; `seq` goes on |
//! | `GET /admin/state` | everything both clouds hold, by tenant |
//! | `POST /admin/faults` | adds a fault ([`FaultSpec`]) and answers it with its id |
//! | `GET /admin/faults`, `DELETE /admin/faults[/{id}]` | lists and removes them |
//! | `GET /healthz` | says `ok` |
//!
//! A backend may add calls of its own ([`VpsBackend::admin_routes`](crate::VpsBackend::admin_routes)).
//!
//! Anything else that shall change behind the operator's back (a tunnel, a record, ingress rules) is
//! changed through the cloud's own API with the tenant's token.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post, put};
use axum::{Json, Router};
use http::StatusCode;
use serde::Serialize;
use serde_json::Value;

use crate::cloudflare::{AccountDump, AccountSpec};
use crate::faults::{Fault, FaultSpec};
use crate::hetzner::{self, ProjectDump, ProjectSpec};
use crate::journal::{Count, Entry, Filter};
use crate::world::World;

type Shared = State<Arc<World>>;

/// An error of the admin API.
#[derive(Debug)]
struct AdminError(StatusCode, String);

#[derive(Serialize)]
struct ErrorBody {
    error: String,
}

impl IntoResponse for AdminError {
    fn into_response(self) -> Response {
        (self.0, Json(ErrorBody { error: self.1 })).into_response()
    }
}

impl From<JsonRejection> for AdminError {
    fn from(rejection: JsonRejection) -> Self {
        Self(rejection.status(), rejection.body_text())
    }
}

impl From<QueryRejection> for AdminError {
    fn from(rejection: QueryRejection) -> Self {
        Self(rejection.status(), rejection.body_text())
    }
}

impl From<PathRejection> for AdminError {
    fn from(rejection: PathRejection) -> Self {
        Self(rejection.status(), rejection.body_text())
    }
}

fn missing(what: &str) -> AdminError {
    AdminError(StatusCode::NOT_FOUND, format!("there is no such {what}"))
}

/// The routes of the admin API.
pub fn router(world: &Arc<World>) -> Router {
    Router::new()
        .route("/healthz", get(async || "ok"))
        .route("/admin/hetzner/projects/{name}", put(put_project).delete(delete_project))
        .route("/admin/hetzner/projects/{name}/servers/{id}/vanish", post(vanish))
        .route("/admin/cloudflare/accounts/{id}", put(put_account).delete(delete_account))
        .route("/admin/journal", get(journal).delete(clear_journal))
        .route("/admin/journal/counts", get(journal_counts))
        .route("/admin/state", get(state))
        .route("/admin/faults", get(list_faults).post(add_fault).delete(clear_faults))
        .route("/admin/faults/{id}", delete(remove_fault))
        .with_state(Arc::clone(world))
        .merge(world.backend.admin_routes())
}

async fn put_project(
    State(world): Shared,
    Path(name): Path<String>,
    spec: Result<Json<ProjectSpec>, JsonRejection>,
) -> Result<StatusCode, AdminError> {
    let Json(spec) = spec?;
    if world.hetzner.put_project(&name, &spec) {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(AdminError(StatusCode::CONFLICT, "the token opens another project".to_owned()))
    }
}

async fn delete_project(
    State(world): Shared,
    Path(name): Path<String>,
) -> Result<StatusCode, AdminError> {
    let servers = world.hetzner.remove_project(&name).ok_or_else(|| missing("project"))?;
    for id in servers {
        delete_from_backend(&world, id).await?;
    }
    Ok(StatusCode::NO_CONTENT)
}

/// A server is gone, with no word to anyone and no entry in the journal.
async fn vanish(
    State(world): Shared,
    path: Result<Path<(String, u64)>, PathRejection>,
) -> Result<StatusCode, AdminError> {
    let Path((name, id)) = path?;
    let project = world.hetzner.by_name(&name).ok_or_else(|| missing("project"))?;
    if !hetzner::vanish(&project, id) {
        return Err(missing("server"));
    }
    delete_from_backend(&world, id).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn delete_from_backend(world: &World, id: u64) -> Result<(), AdminError> {
    let result = world.backend.delete(id).await;
    result.map_err(|error| AdminError(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))
}

async fn put_account(
    State(world): Shared,
    Path(id): Path<String>,
    spec: Result<Json<AccountSpec>, JsonRejection>,
) -> Result<StatusCode, AdminError> {
    let Json(spec) = spec?;
    world
        .cloudflare
        .put_account(&id, &spec)
        .map_err(|reason| AdminError(StatusCode::CONFLICT, reason))?;
    Ok(StatusCode::NO_CONTENT)
}

async fn delete_account(
    State(world): Shared,
    Path(id): Path<String>,
) -> Result<StatusCode, AdminError> {
    if world.cloudflare.remove_account(&id) {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(missing("account"))
    }
}

async fn journal(
    State(world): Shared,
    filter: Result<Query<Filter>, QueryRejection>,
) -> Result<Json<Vec<Entry>>, AdminError> {
    Ok(Json(world.journal.entries(&filter?.0)))
}

async fn journal_counts(
    State(world): Shared,
    filter: Result<Query<Filter>, QueryRejection>,
) -> Result<Json<Vec<Count>>, AdminError> {
    Ok(Json(world.journal.counts(&filter?.0)))
}

async fn clear_journal(State(world): Shared) -> StatusCode {
    world.journal.clear();
    StatusCode::NO_CONTENT
}

#[derive(Serialize)]
struct WorldDump {
    hetzner: BTreeMap<String, ProjectDump>,
    cloudflare: BTreeMap<String, AccountDump>,
}

async fn state(State(world): Shared) -> Json<WorldDump> {
    Json(WorldDump { hetzner: hetzner::dump(&world), cloudflare: world.cloudflare.dump() })
}

async fn list_faults(State(world): Shared) -> Json<Vec<Fault>> {
    Json(world.faults.list())
}

async fn add_fault(
    State(world): Shared,
    body: Result<Json<Value>, JsonRejection>,
) -> Result<(StatusCode, Json<Fault>), AdminError> {
    let Json(body) = body?;
    let refuse = |message: String| AdminError(StatusCode::UNPROCESSABLE_ENTITY, message);
    let spec: FaultSpec =
        serde_json::from_value(body.clone()).map_err(|error| refuse(error.to_string()))?;
    // A misspelt field would make a fault that strikes something else than the test believes.
    let known = serde_json::to_value(&spec).map_err(|error| refuse(error.to_string()))?;
    let unknown =
        body.as_object().and_then(|body| body.keys().find(|key| known.get(key).is_none()));
    if let Some(field) = unknown {
        return Err(refuse(format!("a fault of this kind has no field '{field}'")));
    }
    Ok((StatusCode::CREATED, Json(world.faults.add(spec))))
}

async fn remove_fault(
    State(world): Shared,
    id: Result<Path<u64>, PathRejection>,
) -> Result<StatusCode, AdminError> {
    if world.faults.remove(id?.0) { Ok(StatusCode::NO_CONTENT) } else { Err(missing("fault")) }
}

async fn clear_faults(State(world): Shared) -> StatusCode {
    world.faults.clear();
    StatusCode::NO_CONTENT
}
