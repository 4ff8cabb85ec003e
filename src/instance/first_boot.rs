//! The first boot of a server, as long as no agent of it has ever answered: it is powered on if it stays
//! off, and another one takes its place if it never runs. Nothing of anybody's is on it yet. From the
//! agent's first answer on, a server that is off was turned off by a person.
//!
//! That no agent has answered is not concluded from a status that says nothing: the status says so
//! itself, from before the server is made. A status that was lost does not.

use std::time::Duration;

use super::{
    Observed, Part, Wanted,
    plan::SOON,
    server::{ServerStep, obstacle},
};
use crate::{
    api::{
        OpenClawInstanceStatus, annotation,
        conditions::{ConditionType::ServerReady, Reason, Verdict},
        instance::{FirstBoot, GivenUp, ServerStatus},
    },
    hetzner::{Action, Server, ServerStatus as Power},
};

/// How long Hetzner may take to start a server without a word about it. It mostly takes half a minute.
const EXPECTED: Duration = Duration::from_mins(2);
/// A server that does not run by then is given up.
pub const DEADLINE: Duration = Duration::from_mins(15);
/// As many servers of one instance are given up in a row; each is billed for an hour.
pub const MOST_GIVEN_UP: usize = 3;
/// The action that makes a server.
const CREATE: &str = "create_server";

/// How far the first boot is, if it is known that no agent of this life has answered.
pub fn state(observed: &Observed) -> Option<FirstBoot> {
    let epoch = observed.epoch?.to_string();
    let recorded = observed.status.server.as_ref().filter(|known| known.epoch == epoch)?;
    let enrolled = observed.status.agent.as_ref().is_some_and(|agent| agent.epoch == epoch);
    recorded.first_boot.filter(|_| !enrolled && observed.agent.view().is_none())
}

/// Whether a status says of a server that no agent of it has ever answered.
pub fn is_recorded(status: &OpenClawInstanceStatus) -> bool {
    status.server.as_ref().is_some_and(|server| server.first_boot.is_some())
}

/// Whether a server has yet to run for the first time.
pub fn is_coming(server: &Server) -> bool {
    matches!(server.status, Power::Initializing | Power::Starting | Power::Off | Power::Stopping)
}

/// Whether it is worth asking Hetzner for what went wrong: the server should run by now, and does not.
pub fn is_late(observed: &Observed) -> bool {
    let late = |server: &&Server| is_coming(server) && age(observed, server) >= EXPECTED;
    state(observed).is_some() && observed.server.present().is_some_and(|server| late(&server))
}

fn age(observed: &Observed, server: &Server) -> Duration {
    observed.now.duration_since(server.created).try_into().unwrap_or_default()
}

/// What there is to do about a server that has never run, if it is one.
pub(super) fn plan(wanted: &Wanted, observed: &Observed, server: &Server) -> Option<Part> {
    let state = state(observed)?;
    if state == FirstBoot::GivenUp && server.status == Power::Deleting {
        let message = format!("Server {} has never run and is being replaced", server.id);
        return Some(Part::wait(Verdict::no(ServerReady, Reason::Progressing, message), SOON));
    }
    if !is_coming(server) {
        return None;
    }
    let age = age(observed, server);
    let failed = observed.failed_action.as_ref();
    let hopeless = age >= DEADLINE || failed.is_some_and(|action| action.command == CREATE);
    if state != FirstBoot::Running && hopeless {
        return Some(give_up(wanted, observed, server));
    }
    if server.status == Power::Off {
        let message = format!("Server {} was made and stayed off; it is powered on", server.id);
        let verdict = Verdict::no(ServerReady, Reason::Progressing, message);
        return Some(Part::todo(ServerStep::PowerOn(server.id), verdict));
    }
    (age >= EXPECTED).then(|| Part {
        verdicts: vec![Verdict::no(ServerReady, Reason::ServerNotStarted, told(observed, server))],
        // Its agent tells sooner than a sweep that it runs.
        passable: true,
        requeue_after: Some(DEADLINE.saturating_sub(age).max(SOON)),
        ..Part::default()
    })
}

fn give_up(wanted: &Wanted, observed: &Observed, server: &Server) -> Part {
    let told = told(observed, server);
    let before = given_up(observed).len();
    if state(observed) != Some(FirstBoot::GivenUp) && before >= MOST_GIVEN_UP {
        let message = format!(
            "Server {id} has never run, nor did the {before} made before it. See Hetzner's status page, and add server types or locations to HostingPool {pool}; then annotate {rebuild}={id}",
            id = server.id,
            pool = wanted.subject.pool,
            rebuild = annotation::REBUILD,
        );
        return Part::stuck(Verdict::no(ServerReady, Reason::ServersNeverStart, message));
    }
    // What could not be replaced is not deleted.
    if let Some(obstacle) = obstacle(wanted) {
        return Part::stuck(obstacle);
    }
    if observed.is_mass_loss() {
        return Part::wait(Verdict::no(ServerReady, Reason::ServerNotStarted, told), SOON * 60);
    }
    let verdict = Verdict::no(ServerReady, Reason::ServerNotStarted, told);
    Part::todo(ServerStep::GiveUp(server.id), verdict)
}

fn told(observed: &Observed, server: &Server) -> String {
    let (id, status) = (server.id, &server.status);
    let why = observed.failed_action.as_ref().map(said).unwrap_or_default();
    format!(
        "Server {id} was made some minutes ago and does not run: Hetzner says {status}{why}. If it has not run 15 minutes after it was made, it is deleted, and another is made elsewhere if it can be"
    )
}

/// What Hetzner says of an action that failed.
fn said(action: &Action) -> String {
    let error = action.error.as_ref();
    let code = error.map_or("no reason given", |error| &error.code);
    let message = error.map(|error| error.message.trim_end_matches('.')).unwrap_or_default();
    format!(", and that {} failed ({code}: {message})", action.command)
}

/// Where the servers before this one were given up, the latest last.
pub fn given_up(observed: &Observed) -> &[GivenUp] {
    observed.status.server.as_ref().map(|server| server.given_up.as_slice()).unwrap_or_default()
}

/// What the status of a server says before it is given up.
pub(super) fn recorded_as_given_up(recorded: ServerStatus, server: &Server) -> ServerStatus {
    let place = GivenUp {
        r#type: server.server_type.name.clone(),
        location: server.location.as_ref().map(|place| place.name.clone()).unwrap_or_default(),
    };
    let mut given_up = recorded.given_up;
    if recorded.first_boot != Some(FirstBoot::GivenUp) {
        given_up.push(place);
    }
    ServerStatus { first_boot: Some(FirstBoot::GivenUp), given_up, ..recorded }
}

/// What the next life takes over from this one: where no server came up, so that the next is made elsewhere.
pub(super) fn handed_down(observed: &Observed) -> Vec<GivenUp> {
    let Some(recorded) = &observed.status.server else { return Vec::new() };
    match state(observed) {
        Some(FirstBoot::GivenUp) => recorded.given_up.clone(),
        // It went by itself, as one whose creation failed does.
        Some(FirstBoot::Awaited) => {
            let place = GivenUp {
                r#type: recorded.r#type.clone().unwrap_or_default(),
                location: recorded.location.clone().unwrap_or_default(),
            };
            let mut given_up = recorded.given_up.clone();
            given_up.push(place);
            given_up.drain(..given_up.len().saturating_sub(MOST_GIVEN_UP));
            given_up
        }
        Some(FirstBoot::Running) | None => Vec::new(),
    }
}

/// What is known of the first boot after a pass.
pub(super) fn after_pass(
    observed: &Observed,
    old: &ServerStatus,
) -> (Option<FirstBoot>, Vec<GivenUp>) {
    let Some(state) = state(observed) else { return (None, Vec::new()) };
    let runs = observed.server.present().is_some_and(|server| server.status == Power::Running);
    let state = if runs && state == FirstBoot::Awaited { FirstBoot::Running } else { state };
    (Some(state), old.given_up.clone())
}
