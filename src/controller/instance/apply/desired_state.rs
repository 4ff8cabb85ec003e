//! The desired state, sent to the agent.

use moorage_wire::{Sha256, problem::ProblemCode};

use super::{Apply, Executor, PassError};
use crate::{
    agent::AgentError,
    api::conditions::ConditionType,
    instance::{Observed, desired_state::PutDesired},
    problem::Problem,
};

impl Apply for PutDesired {
    async fn apply(
        self,
        executor: &mut Executor<'_>,
        observed: &mut Observed,
    ) -> Result<Option<Sha256>, PassError> {
        let part = ConditionType::ConfigApplied;
        let (route, keys, view) = executor.agent(observed, part)?;
        let (agents, agent) = (&executor.controller.ctx.agents, view.keys.public_key);
        let document = &self.document;
        match agents.put_desired(&route, &keys, agent, document.to_bytes(), self.replaces).await {
            Ok(()) => Ok(Some(document.digest())),
            // The agent has another document than its report said: the next look tells which.
            Err(AgentError::Refused(problem)) if problem.code == ProblemCode::DigestMismatch => {
                Ok(None)
            }
            Err(error) => Err(Problem::of_agent(part, &error).into()),
        }
    }
}
