//! The agent: reached through the tunnel, enrolled once per epoch, asked for its report.

use super::{
    Observed, Part, Wanted,
    failure::Failure,
    observed::AgentSight,
    plan::{SOON, Timing},
};
use crate::{
    agent::AgentError,
    api::conditions::{ConditionType::AgentReady, Verdict, reason},
};

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
                    Part::stuck(Verdict::no(AgentReady, failure.reason, failure.message))
                }
            }
        }
    }
}
