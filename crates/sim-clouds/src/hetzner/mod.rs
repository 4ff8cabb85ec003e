//! Hetzner Cloud v1: servers, actions, firewalls, SSH keys and the catalogue.
//!
//! Source: the vendor's API reference, <https://docs.hetzner.cloud/reference/cloud>.

mod actions;
mod body;
mod catalogue;
mod dump;
mod error;
mod firewall_actions;
mod firewall_rules;
mod firewalls;
mod images;
mod labels;
pub mod model;
mod page;
mod primary_ips;
mod project;
mod server_actions;
mod server_create;
mod servers;
mod ssh_keys;
mod validate;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use axum::Router;
use axum::extract::FromRequestParts;
use axum::middleware;
use axum::routing::{get, post};
use http::request::Parts;
use parking_lot::{Mutex, MutexGuard};

pub(crate) use dump::{dump, vanish};
pub(crate) use error::ApiError;
pub use project::ProjectSpec;
pub(crate) use project::{Project, ProjectDump};

use crate::backend::{BackendError, VpsBackend};
use crate::faults::FaultKind;
use crate::gateway;
use crate::world::World;

/// All projects. Ids are unique over all of them, as they are at Hetzner.
#[derive(Debug, Default)]
pub struct HetznerState {
    projects: Mutex<Projects>,
    last_id: AtomicU64,
}

#[derive(Debug, Default)]
struct Projects {
    by_name: BTreeMap<String, Arc<Mutex<Project>>>,
    by_token: HashMap<String, String>,
}

impl HetznerState {
    pub(crate) fn next_id(&self) -> u64 {
        self.last_id.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Creates a project, or changes token, quota and rate limit of the one that is there; what it
    /// holds stays. False when the token belongs to another project.
    pub fn put_project(&self, name: &str, spec: &ProjectSpec) -> bool {
        let mut projects = self.projects.lock();
        if projects.by_token.get(&spec.token).is_some_and(|owner| owner != name) {
            return false;
        }
        projects.by_token.retain(|_, owner| owner != name);
        projects.by_token.insert(spec.token.clone(), name.to_owned());
        match projects.by_name.get(name) {
            Some(project) => project.lock().change(spec),
            None => {
                projects.by_name.insert(name.to_owned(), Arc::new(Mutex::new(Project::new(spec))));
            }
        }
        true
    }

    /// Forgets a project and returns the ids of the servers it held.
    pub fn remove_project(&self, name: &str) -> Option<Vec<u64>> {
        let mut projects = self.projects.lock();
        projects.by_token.retain(|_, owner| owner != name);
        let project = projects.by_name.remove(name)?;
        let servers = project.lock().servers.keys().copied().collect();
        Some(servers)
    }

    /// The project that `token` opens.
    pub(crate) fn by_token(&self, token: &str) -> Option<(String, Arc<Mutex<Project>>)> {
        let projects = self.projects.lock();
        let name = projects.by_token.get(token)?;
        Some((name.clone(), Arc::clone(projects.by_name.get(name)?)))
    }

    /// The project of that name.
    pub(crate) fn by_name(&self, name: &str) -> Option<Arc<Mutex<Project>>> {
        self.projects.lock().by_name.get(name).cloned()
    }

    /// Every project with its name.
    pub(crate) fn all(&self) -> Vec<(String, Arc<Mutex<Project>>)> {
        let projects = self.projects.lock();
        projects.by_name.iter().map(|(name, project)| (name.clone(), Arc::clone(project))).collect()
    }
}

/// What an action's error says when a fault makes it fail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ActionFailure {
    pub(crate) code: String,
    pub(crate) message: String,
}

impl ActionFailure {
    pub(crate) fn from_fault(fault: Option<&FaultKind>) -> Option<Self> {
        let Some(FaultKind::ActionError { code, message }) = fault else {
            return None;
        };
        Some(Self {
            code: code.clone().unwrap_or_else(|| "action_failed".to_owned()),
            message: message.clone().unwrap_or_else(|| "Action failed".to_owned()),
        })
    }
}

/// How far a new server gets by itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Boot {
    #[default]
    Runs,
    /// It stays switched off until it is powered on.
    StaysOff,
    /// It never gets further than `initializing`.
    StaysInitializing,
}

impl Boot {
    pub(crate) fn from_fault(fault: Option<&FaultKind>) -> Self {
        match fault {
            Some(FaultKind::StaysOff) => Self::StaysOff,
            Some(FaultKind::StaysInitializing) => Self::StaysInitializing,
            _ => Self::Runs,
        }
    }
}

/// A request that has passed the gate.
#[derive(Clone)]
pub(crate) struct Call {
    pub(crate) world: Arc<World>,
    pub(crate) project: Arc<Mutex<Project>>,
    pub(crate) project_name: String,
    /// Set when a fault makes the action of this request fail.
    pub(crate) action_failure: Option<ActionFailure>,
    /// How far a server gets that this request makes.
    pub(crate) boot: Boot,
}

impl Call {
    /// The project as it is now: what was due has happened.
    pub(crate) fn project(&self) -> MutexGuard<'_, Project> {
        let mut project = self.project.lock();
        let now = Instant::now();
        project.settle(now);
        project.note_who_is_off(now, |id| self.world.backend.is_off_by_itself(id));
        project
    }

    pub(crate) fn next_id(&self) -> u64 {
        self.world.hetzner.next_id()
    }

    /// Lets the backend do `job`, to its end even when the client hangs up meanwhile. When it fails
    /// so does the action.
    pub(crate) async fn behind<F, J>(&self, action: u64, job: F)
    where
        F: FnOnce(Arc<dyn VpsBackend>) -> J,
        J: Future<Output = Result<(), BackendError>> + Send + 'static,
    {
        let job = job(Arc::clone(&self.world.backend));
        let project = Arc::clone(&self.project);
        let work = tokio::spawn(async move {
            if let Err(error) = job.await {
                tracing::warn!(%error, action, "the backend refused");
                let failure =
                    ActionFailure { code: "action_failed".to_owned(), message: error.to_string() };
                project.lock().fail(action, failure);
            }
        });
        if let Err(error) = work.await {
            tracing::error!(%error, action, "the backend panicked");
        }
    }
}

impl<S: Sync> FromRequestParts<S> for Call {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, ApiError> {
        parts.extensions.get::<Self>().cloned().ok_or_else(ApiError::unauthorized)
    }
}

/// The API below `/v1`.
pub(crate) fn router(world: &Arc<World>) -> Router {
    let api = Router::new()
        .route("/servers", get(servers::list).post(server_create::create))
        .route("/servers/actions", get(actions::list_of_servers))
        .route("/servers/actions/{action}", get(actions::get))
        .route("/servers/{id}", get(servers::get).put(servers::update).delete(servers::delete))
        .route("/servers/{id}/actions", get(actions::list_of_server))
        .route(
            "/servers/{id}/actions/{command}",
            get(actions::get_of_resource).post(server_actions::start),
        )
        .route("/actions", get(actions::list))
        .route("/actions/{action}", get(actions::get))
        .route("/firewalls", get(firewalls::list).post(firewalls::create))
        .route("/firewalls/actions", get(actions::list_of_firewalls))
        .route("/firewalls/actions/{action}", get(actions::get))
        .route(
            "/firewalls/{id}",
            get(firewalls::get).put(firewalls::update).delete(firewalls::delete),
        )
        .route("/firewalls/{id}/actions", get(actions::list_of_firewall))
        .route("/firewalls/{id}/actions/set_rules", post(firewall_actions::set_rules))
        .route("/firewalls/{id}/actions/apply_to_resources", post(firewall_actions::apply))
        .route("/firewalls/{id}/actions/remove_from_resources", post(firewall_actions::remove))
        .route("/firewalls/{id}/actions/{command}", get(actions::get_of_resource))
        .route("/ssh_keys", get(ssh_keys::list).post(ssh_keys::create))
        .route("/ssh_keys/{id}", get(ssh_keys::get).put(ssh_keys::update).delete(ssh_keys::delete))
        .route("/primary_ips", get(primary_ips::list))
        .route(
            "/primary_ips/{id}",
            get(primary_ips::get).put(primary_ips::update).delete(primary_ips::delete),
        )
        .route("/server_types", get(catalogue::list_server_types))
        .route("/server_types/{id}", get(catalogue::get_server_type))
        .route("/locations", get(catalogue::list_locations))
        .route("/locations/{id}", get(catalogue::get_location))
        .route("/images", get(images::list))
        .route("/images/{id}", get(images::get).delete(images::delete))
        .route("/datacenters", get(catalogue::datacenters_are_gone))
        .route("/datacenters/{id}", get(catalogue::datacenters_are_gone))
        .fallback(async || ApiError::not_found("endpoint", "of that path"))
        .method_not_allowed_fallback(async || ApiError::method_not_allowed());
    Router::new()
        .nest(gateway::HETZNER_BASE, api)
        .fallback(async || ApiError::not_found("endpoint", "outside /v1"))
        .layer(middleware::from_fn_with_state(Arc::clone(world), gateway::hetzner))
}
