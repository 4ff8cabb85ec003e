//! What runs on the server of a test: stand-ins for OpenClaw, cloudflared and the server of artifacts,
//! and what is known of them.

use std::{
    collections::{HashMap, HashSet},
    fs,
    sync::{Arc, Mutex},
};

use axum::{Router, extract::State, http::StatusCode, routing::get};
use moorage_agent::{
    Layout,
    installer::protocol::{FailedAgent, InstalledArtifact, Unit, UnitFailure},
};
use moorage_wire::{Program, Sha256};
use serde_json::Value;

/// What runs on the server.
#[derive(Default)]
pub(crate) struct Machine {
    pub(crate) running: HashMap<Unit, bool>,
    pub(crate) starts: HashMap<Unit, u32>,
    /// The configuration that OpenClaw was last started with.
    pub(crate) openclaw_config: Value,
    /// The token that cloudflared was started with, and the one that the edge takes.
    pub(crate) token_running: String,
    pub(crate) token_accepted: String,
    /// What the installer has, and what it was asked to make current, in order.
    pub(crate) installed: Vec<InstalledArtifact>,
    pub(crate) activated: Vec<(Program, Sha256)>,
    pub(crate) failed_agents: Vec<FailedAgent>,
    pub(crate) agents_asked_for: Vec<Sha256>,
    /// How often the one-time key was to be erased, and how many of these times that fails.
    pub(crate) erasures: u32,
    pub(crate) failing_erasures: u32,
    /// Files of the artifact server by name; without any it answers 503.
    pub(crate) files: HashMap<String, Vec<u8>>,
    /// Versions that do not work.
    pub(crate) broken: HashSet<Sha256>,
    /// Whether OpenClaw came up.
    pub(crate) healthy: bool,
    /// Whether it has no time to say so, and how often it had none.
    pub(crate) busy: bool,
    pub(crate) missed: u32,
    /// How OpenClaw ends while it is not healthy. Unless systemd has given up on it, it is started
    /// again between two looks.
    pub(crate) failure: Option<UnitFailure>,
    /// So many of its restarts bring it up after all.
    pub(crate) recovers_after: Option<u32>,
    /// The tokens that its gateway takes, and what makes it read them again.
    pub(crate) gateway_tokens: HashSet<String>,
    pub(crate) gateway: Gateway,
    /// How often the installer was asked whether OpenClaw runs: once for every pass, at least.
    pub(crate) looks: u32,
    /// How many reloads of secrets it has heeded.
    pub(crate) reloads: usize,
}

/// How OpenClaw's gateway takes up another token.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Gateway {
    /// As it should.
    #[default]
    Reloads,
    /// A reload does nothing; a start helps.
    IgnoresReloads,
    /// A reload adds the new token to the old one; a start helps.
    KeepsOld,
    /// It takes what it ever took.
    NeverForgets,
}

impl Machine {
    pub(crate) fn active(&self, kind: Program) -> Option<Sha256> {
        let mut all = self.installed.iter();
        all.find(|one| one.kind == kind && one.active).map(|one| one.sha256)
    }
}

/// What the programs of a server share.
pub(crate) type Shared = Arc<Mutex<Machine>>;

fn code(ok: bool) -> StatusCode {
    if ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}

/// OpenClaw's health: a configuration with `fakeUnhealthy` never starts, one with `fakeDegraded` has
/// a channel that is down.
pub(crate) fn gateway(machine: Shared) -> Router {
    async fn started(State(machine): State<Shared>) -> StatusCode {
        let mut machine = machine.lock().unwrap();
        let running = machine.running.get(&Unit::Openclaw) == Some(&true);
        machine.missed += u32::from(machine.busy);
        code(running && machine.healthy && !machine.busy)
    }
    async fn ready(State(machine): State<Shared>) -> StatusCode {
        code(machine.lock().unwrap().openclaw_config.get("fakeDegraded").is_none())
    }
    Router::new()
        .route("/healthz", get(started))
        .route("/startupz", get(started))
        .route("/readyz", get(ready))
        .with_state(machine)
}

/// The call by which a token can be tried.
pub(crate) fn tools(machine: Shared, layout: &Layout) -> Router {
    async fn invoke(
        State((machine, layout)): State<(Shared, Layout)>,
        headers: axum::http::HeaderMap,
    ) -> StatusCode {
        let reloads = calls(&layout, "reload");
        let mut machine = machine.lock().unwrap();
        if reloads > machine.reloads {
            machine.reloads = reloads;
            read_gateway_token(&mut machine, &layout, false);
        }
        let shown = headers.get("authorization").and_then(|value| value.to_str().ok());
        let shown = shown.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default();
        let taken = machine.gateway_tokens.contains(shown);
        if taken { StatusCode::BAD_REQUEST } else { StatusCode::UNAUTHORIZED }
    }
    Router::new()
        .route("/tools/invoke", axum::routing::post(invoke))
        .with_state((machine, layout.clone()))
}

pub(crate) fn read_gateway_token(machine: &mut Machine, layout: &Layout, starts: bool) {
    let forgets = match machine.gateway {
        Gateway::IgnoresReloads if !starts => return,
        Gateway::Reloads | Gateway::IgnoresReloads => true,
        Gateway::KeepsOld => starts,
        Gateway::NeverForgets => false,
    };
    if forgets {
        machine.gateway_tokens.clear();
    }
    let secrets = fs::read(layout.secrets()).unwrap_or_else(|_| b"{}".to_vec());
    let secrets: Value = serde_json::from_slice(&secrets).unwrap();
    machine.gateway_tokens.extend(secrets["moorage-gateway"].as_str().map(str::to_owned));
}

pub(crate) fn calls(layout: &Layout, what: &str) -> usize {
    let path = layout.openclaw_state().join("calls");
    fs::read_to_string(path).map_or(0, |text| text.lines().filter(|line| *line == what).count())
}

pub(crate) fn artifacts(machine: Shared) -> Router {
    async fn file(
        State(machine): State<Shared>,
        axum::extract::Path(name): axum::extract::Path<String>,
    ) -> Result<Vec<u8>, StatusCode> {
        let machine = machine.lock().unwrap();
        if machine.files.is_empty() {
            return Err(StatusCode::SERVICE_UNAVAILABLE);
        }
        machine.files.get(&name).cloned().ok_or(StatusCode::NOT_FOUND)
    }
    Router::new().route("/{name}", get(file)).with_state(machine)
}

pub(crate) fn metrics(machine: Shared) -> Router {
    async fn ready(State(machine): State<Shared>) -> StatusCode {
        let machine = machine.lock().unwrap();
        let running = machine.running.get(&Unit::Cloudflared) == Some(&true);
        let works = machine
            .active(Program::Cloudflared)
            .is_none_or(|version| !machine.broken.contains(&version));
        code(running && works && machine.token_running == machine.token_accepted)
    }
    Router::new().route("/ready", get(ready)).with_state(machine)
}

/// Plays what an OpenClaw does with its data: a newer one migrates it, an older one cannot read what
/// a newer one has migrated, a broken one ruins it. Whether it works.
pub(crate) fn migrate(machine: &Machine, layout: &Layout) -> bool {
    let Some(version) = machine.active(Program::Openclaw) else { return true };
    let installed = machine.installed.iter().filter(|one| one.kind == Program::Openclaw);
    let age = |version: &str| installed.clone().position(|one| one.sha256.to_string() == version);
    let path = layout.openclaw_state().join("data");
    let data = fs::read_to_string(&path).unwrap_or_default();
    let (data_age, own_age) = (age(&data), age(&version.to_string()));
    if !data.is_empty() && data_age > own_age {
        return false;
    }
    fs::write(path, version.to_string()).unwrap();
    !machine.broken.contains(&version)
}
