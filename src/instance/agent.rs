//! The agent: reached through the tunnel, enrolled once per epoch, asked for its report.

use std::time::Duration;

use super::{
    Observed, Part, Wanted,
    observed::AgentState,
    plan::{SOON, Timing},
};
use crate::{
    agent::{AgentError, Reached},
    api::conditions::{ConditionType::AgentReady, Reason, Verdict},
    hetzner::Server,
    problem::{Problem, Retry},
};

/// How soon an agent is asked again that should answer and does not: sooner than one that is well, and
/// not so often that thousands at once would be a burden.
pub const SILENT_RETRY: Duration = Duration::from_secs(30);

/// For how long silence is what is expected of a new server: a first boot takes one to three minutes,
/// with slow mirrors longer.
pub const FIRST_BOOT: Duration = Duration::from_mins(5);

/// The agent answers and is the one that was enrolled. Asking it is a read, so there is no step.
pub fn plan(wanted: &Wanted, observed: &Observed, timing: Timing) -> Part {
    match &observed.agent {
        AgentState::Reported(_) => {
            Part::done(Verdict::yes(AgentReady, Reason::Ready, "The agent is enrolled and answers"))
        }
        AgentState::NotAsked => Part::wait(
            Verdict::unknown(
                AgentReady,
                Reason::Waiting,
                "Waits for the server, and for its name to be known",
            ),
            SOON,
        ),
        AgentState::Silent(AgentError::Unreachable { .. }) if excuse(observed).is_some() => {
            excuse(observed).map(|told| Part::wait(told, SILENT_RETRY)).unwrap_or_default()
        }
        AgentState::Silent(error) => {
            let known = observed.status.agent.is_some();
            match error {
                AgentError::Unreachable { reached, .. } if !known => {
                    first_answer(wanted, observed, *reached, timing)
                }
                AgentError::NotReady if !known => boots(),
                error => {
                    let problem = Problem::of_agent(AgentReady, error);
                    let requeue_after = match problem.retry {
                        Retry::After(wait) => wait,
                        Retry::BackOff | Retry::OnChange | Retry::Slowly => SILENT_RETRY,
                    };
                    Part::wait(problem, requeue_after)
                }
            }
        }
    }
}

/// What Hetzner does with the server, if that explains the silence.
fn excuse(observed: &Observed) -> Option<Verdict> {
    let server = observed.server.present()?;
    let id = server.id;
    if server.rescue_enabled {
        let message = format!(
            "The rescue system of server {id} is enabled, so that it may run that instead of its own system. Disable it in Hetzner's console and reset the server"
        );
        return Some(Verdict::no(AgentReady, Reason::RescueEnabled, message));
    }
    // A server that is being made is locked too.
    (server.locked && observed.status.agent.is_some()).then(|| {
        let message = format!(
            "Server {id} is locked at Hetzner and does not answer: an action runs on it, such as a snapshot or a migration. If that lasts, look at its actions in Hetzner's console"
        );
        Verdict::no(AgentReady, Reason::Locked, message)
    })
}

fn boots() -> Part {
    let message = "The server boots; its agent does not answer yet";
    Part::wait(Verdict::no(AgentReady, Reason::Progressing, message), SOON)
}

/// An agent that has never answered: expected at first, then told with what is likely, and asked ever
/// more seldom, so that a server that never comes costs next to nothing.
fn first_answer(wanted: &Wanted, observed: &Observed, reached: Reached, timing: Timing) -> Part {
    let Some(server) = observed.server.present() else { return boots() };
    let age = observed.now.duration_since(server.created).unsigned_abs();
    if observed.now < server.created || age < FIRST_BOOT {
        return boots();
    }
    let message = likely(server, &wanted.subject.management_host(), reached);
    let requeue_after = (age / 10).clamp(SILENT_RETRY, timing.report.max(SILENT_RETRY));
    Part::wait(Verdict::no(AgentReady, Reason::AgentNeverAnswered, message), requeue_after)
}

/// What can be told from outside of a first boot that does not end.
fn likely(server: &Server, host: &str, reached: Reached) -> String {
    let id = server.id;
    let console = "look at its console in Hetzner's web console";
    match reached {
        Reached::Nothing => format!(
            "Server {id} was made some time ago, and there is no connection to {host}. See that the pool's zone is active and that its certificate covers this name"
        ),
        Reached::Edge => format!(
            "Server {id} was made some time ago, and its cloudflared has never connected. See that the artifacts' URLs of the release answer with the pinned files, and that the server has DNS and a way out on port 7844: {console}"
        ),
        Reached::Connector => format!(
            "The cloudflared of server {id} is connected, but its agent has never answered. See that the agent's URL of the release answers with the pinned file: {console}"
        ),
        Reached::Somewhere => format!(
            "Server {id} was made some time ago, and its agent has never answered. Compare the tunnel's routes in Cloudflare's dashboard, and {console}"
        ),
    }
}
