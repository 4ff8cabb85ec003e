//! The desired state: the one document that tells the agent all that its server should be.

use moorage_wire::{DesiredState, Sha256, problem::ProblemCode};

use super::{Executor, Trouble};
use crate::{
    agent::AgentError,
    api::conditions::ConditionType,
    instance::{Failure, Observed},
};

impl Executor<'_> {
    pub(super) async fn put_desired(
        &self,
        document: &DesiredState,
        replaces: Option<Sha256>,
        observed: &mut Observed,
    ) -> Result<(), Trouble> {
        let part = ConditionType::ConfigApplied;
        let (route, keys, view) = self.agent(observed, part)?;
        let (agents, agent) = (&self.controller.ctx.agents, view.keys.public_key);
        match agents.put_desired(&route, &keys, agent, document.to_bytes(), replaces).await {
            Ok(()) => Ok(()),
            // The agent has another document than its report said: the next look tells which.
            Err(AgentError::Refused(problem)) if problem.code == ProblemCode::DigestMismatch => {
                Ok(())
            }
            Err(error) => Err(Failure::of_agent(part, &error).into()),
        }
    }
}
