//! The agent: reached through the tunnel, enrolled once per epoch, asked for its report.

use std::time::Duration;

use super::{
    Observed, Part, Wanted,
    failure::{Failure, Retry},
    observed::AgentSight,
    plan::{SOON, Timing},
};
use crate::{
    agent::AgentError,
    api::conditions::{ConditionType::AgentReady, Verdict, reason},
};

/// How soon an agent is asked again that should answer and does not: sooner than one that is well, and
/// not so often that thousands at once would be a burden.
pub const SILENT_LOOK: Duration = Duration::from_secs(30);

/// The agent answers and is the one that was enrolled. Asking it is a read, so there is no step.
pub fn plan(_: &Wanted, seen: &Observed, _: Timing) -> Part {
    match &seen.agent {
        AgentSight::Reported(_) => {
            Part::done(Verdict::yes(AgentReady, reason::READY, "The agent is enrolled and answers"))
        }
        AgentSight::NotAsked => {
            Part::wait(Verdict::unknown(AgentReady, reason::WAITING, "Waits for the server"), SOON)
        }
        AgentSight::Silent(error) => {
            let known = seen.status.agent.is_some();
            match error {
                // While a server boots, silence is what is expected.
                AgentError::Unreachable(_) | AgentError::NotReady if !known => Part::wait(
                    Verdict::no(
                        AgentReady,
                        reason::PROGRESSING,
                        "The server boots; its agent does not answer yet",
                    ),
                    SOON,
                ),
                error => {
                    let failure = Failure::of_agent(AgentReady, error);
                    let look = match failure.retry {
                        Retry::After(wait) => wait,
                        Retry::BackOff | Retry::Changed => SILENT_LOOK,
                    };
                    Part::wait(Verdict::no(AgentReady, failure.reason, failure.message), look)
                }
            }
        }
    }
}
