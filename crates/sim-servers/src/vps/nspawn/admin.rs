//! What the admin API offers with this backend.
//!
//! | call | what it does |
//! |---|---|
//! | `GET /admin/servers`, `GET /admin/servers/{id}` | power, addresses, cloud-init, starts ([`Card`]) |
//! | `POST /admin/servers/{id}/exec` | runs a program inside ([`ExecRequest`]) and answers what it left |
//! | `POST /admin/servers/{id}/power` | `{"press": "on|off|shutdown|reboot|reset"}`, behind the cloud's back |
//! | `PUT /admin/hardware/{name}` | what servers will be whose names begin so ([`Hardware`]) |
//! | `POST /admin/probe` | knocks at a port from outside ([`Probe`]): open, refused, dropped, unreachable |
//! | `GET /admin/artifacts/requests` | what was fetched from the artifact server |
//! | `PUT /admin/artifacts/faults` | sets the artifact server's faults, a list; an empty one ends them; with `?path=` those of one file |

use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::Machines;
use super::card::Card;
use super::exec::{ExecAnswer, ExecRequest};
use super::hardware::Hardware;
use super::machine::{Host, Machine};
use super::network::{Outcome, Probe};
use super::running::Button;
use super::services::artifacts::{Artifacts, Fault, Fetch};

#[derive(Clone)]
struct Context {
    host: Arc<Host>,
    machines: Machines,
    artifacts: Arc<Artifacts>,
}

type Shared = State<Context>;

/// Why a call was not done.
struct Refused(StatusCode, String);

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        (self.0, Json(json!({"error": self.1}))).into_response()
    }
}

fn failed(error: &std::io::Error) -> Refused {
    Refused(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
}

pub(super) fn router(host: Arc<Host>, machines: Machines, artifacts: Arc<Artifacts>) -> Router {
    Router::new()
        .route("/admin/servers", get(list))
        .route("/admin/servers/{id}", get(show))
        .route("/admin/servers/{id}/exec", post(exec))
        .route("/admin/servers/{id}/power", post(power))
        .route("/admin/hardware/{name}", put(hardware))
        .route("/admin/probe", post(probe))
        .route("/admin/artifacts/requests", get(requests))
        .route("/admin/artifacts/faults", put(faults))
        .with_state(Context { host, machines, artifacts })
}

fn machine(context: &Context, id: u64) -> Result<Arc<Machine>, Refused> {
    let machine = context.machines.lock().get(&id).cloned();
    machine.ok_or_else(|| Refused(StatusCode::NOT_FOUND, "there is no such server".to_owned()))
}

async fn list(State(context): Shared) -> Json<Vec<Card>> {
    let mut machines: Vec<_> = context.machines.lock().clone().into_iter().collect();
    machines.sort_by_key(|(id, _)| *id);
    let cards = machines.iter().map(|(_, machine)| machine.card());
    Json(futures::future::join_all(cards).await)
}

async fn show(State(context): Shared, Path(id): Path<u64>) -> Result<Json<Card>, Refused> {
    Ok(Json(machine(&context, id)?.card().await))
}

async fn exec(
    State(context): Shared,
    Path(id): Path<u64>,
    Json(request): Json<ExecRequest>,
) -> Result<Json<ExecAnswer>, Refused> {
    let answer = machine(&context, id)?.exec(request).await.map_err(|error| failed(&error))?;
    let off = || Refused(StatusCode::CONFLICT, "the server does not run".to_owned());
    Ok(Json(answer.ok_or_else(off)?))
}

async fn hardware(
    State(context): Shared,
    Path(name): Path<String>,
    Json(hardware): Json<Hardware>,
) -> StatusCode {
    context.host.catalogue.set(name, hardware);
    StatusCode::NO_CONTENT
}

#[derive(Deserialize)]
struct PowerRequest {
    press: Press,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Press {
    On,
    Off,
    Shutdown,
    Reboot,
    Reset,
}

async fn power(
    State(context): Shared,
    Path(id): Path<u64>,
    Json(request): Json<PowerRequest>,
) -> Result<StatusCode, Refused> {
    let machine = machine(&context, id)?;
    match request.press {
        Press::Shutdown => machine.press(Button::Shutdown).await,
        Press::Reboot => machine.press(Button::Reboot).await,
        Press::Off => machine.cut().await,
        Press::On => machine.power_on().await.map_err(|error| failed(&error))?,
        Press::Reset => {
            machine.cut().await;
            machine.power_on().await.map_err(|error| failed(&error))?;
        }
    }
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Serialize)]
struct ProbeAnswer {
    outcome: Outcome,
}

async fn probe(
    State(context): Shared,
    Json(probe): Json<Probe>,
) -> Result<Json<ProbeAnswer>, Refused> {
    let work = tokio::task::spawn_blocking(move || context.host.network.probe(&probe));
    let outcome = work.await.map_err(std::io::Error::other).and_then(|outcome| outcome);
    Ok(Json(ProbeAnswer { outcome: outcome.map_err(|error| failed(&error))? }))
}

async fn requests(State(context): Shared) -> Json<Vec<Fetch>> {
    Json(context.artifacts.fetches())
}

#[derive(Deserialize)]
struct FaultsOf {
    path: Option<String>,
}

async fn faults(
    State(context): Shared,
    Query(of): Query<FaultsOf>,
    Json(faults): Json<Vec<Fault>>,
) -> StatusCode {
    context.artifacts.set_faults(of.path.as_deref(), faults);
    StatusCode::NO_CONTENT
}
