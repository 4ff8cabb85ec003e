//! Apply: every write of a pass. Each step can be repeated, and what it did is noted at once in what
//! was observed, so that the next round of planning knows. How a part's steps are carried out is in the
//! file of the part; what they do to what was observed, in its file in [`crate::instance`].

mod credentials;
mod dashboard;
mod desired_state;
mod handover;
mod records;
mod rotation;
mod routes;
mod secrets;
mod server;
mod tunnel;

use super::{
    Controller,
    deletion::{Ending, Gone},
    pass_error::PassError,
};
use crate::{
    agent::{AgentError, AgentRoute, ServerKeys},
    api::{
        OpenClawInstance, OpenClawInstanceStatus,
        conditions::{ConditionType, Reason},
    },
    cluster::ClusterError,
    controller::pool_runtime::PoolRuntime,
    credentials::key_ring::KeyRing,
    instance::{
        Observed, Removal, Step, Wanted,
        observed::{AgentState, AgentView},
        removal::{PartRemoval, with_removal},
        step::{PartStep, with_step},
    },
    ownership::Owner,
    problem::Problem,
};

/// What became of a round of steps.
pub(super) enum Applied {
    /// All were done, and what they did is known.
    All,
    /// Done, but their effect can be seen only by observing again.
    LookAgain,
    /// One could not be done; those after it were not tried.
    Failed(Problem),
}

/// All that the steps of one instance need.
pub(super) struct Executor<'a> {
    pub(super) controller: &'a Controller,
    pub(super) instance: &'a OpenClawInstance,
    pub(super) wanted: &'a Wanted,
    pub(super) pool: &'a PoolRuntime,
    pub(super) ring: &'a KeyRing,
    pub(super) persisted: &'a mut Option<OpenClawInstanceStatus>,
}

/// How the steps of a part are carried out.
trait Apply: PartStep {
    /// Carries out one step. In `observed` it changes only what is so even if it fails: what it did is
    /// noted from its outcome.
    async fn apply(
        self,
        executor: &mut Executor<'_>,
        observed: &mut Observed,
    ) -> Result<Self::Outcome, PassError>;
}

/// How the removals of a part are carried out.
trait Remove: PartRemoval {
    /// Carries out one removal. What it does to what remains is noted afterwards.
    async fn remove(&self, ending: &Ending<'_>) -> Result<Gone, PassError>;
}

impl Ending<'_> {
    /// Carries out one removal. Nothing that is not the instance's own gets past here.
    pub(super) async fn remove_one(&mut self, removal: Removal) -> Result<Gone, PassError> {
        if !removal.touches_only_own(&self.subject.owner(&self.status), &self.remains) {
            tracing::error!(%removal, "a removal of what is not this instance's was not carried out");
            return Err(no_epoch(ConditionType::Ready).into());
        }
        let gone = with_removal!(&removal, removal => removal.remove(self).await)?;
        removal.note(&mut self.remains);
        Ok(gone)
    }
}

impl Executor<'_> {
    pub(super) async fn apply(
        mut self,
        steps: Vec<Step>,
        observed: &mut Observed,
    ) -> Result<Applied, ClusterError> {
        let mut look_again = false;
        for step in steps {
            look_again |= step.ends_pass();
            match self.step(step, observed).await {
                Ok(()) => {}
                Err(PassError::Problem(failure)) => return Ok(Applied::Failed(failure)),
                Err(PassError::Cluster(error)) => return Err(error),
            }
        }
        Ok(if look_again { Applied::LookAgain } else { Applied::All })
    }

    /// Carries out one step. Nothing that is not the instance's own gets past here.
    async fn step(&mut self, step: Step, observed: &mut Observed) -> Result<(), PassError> {
        let barred = observed.is_mass_loss() && step.ends_a_life(observed);
        if barred || !step.touches_only_own(&self.owner(observed), observed) {
            tracing::error!(%step, "a step on what is not this instance's, or not allowed now, was not carried out");
            return Err(no_epoch(ConditionType::Ready).into());
        }
        with_step!(step, step => self.carry_out(step, observed).await)
    }

    async fn carry_out<S: Apply>(
        &mut self,
        step: S,
        observed: &mut Observed,
    ) -> Result<(), PassError> {
        let derived_of = |observed: &Observed| {
            let tunnel = observed.tunnel.as_ref().map(|tunnel| tunnel.id.clone());
            (observed.epoch, tunnel, observed.master_key_id.clone())
        };
        let before = derived_of(observed);
        if let Some(status) = step.status_first(observed) {
            self.persist(status, observed).await?;
        }
        let outcome = step.apply(self, observed).await?;
        S::note(outcome, observed);
        if derived_of(observed) != before {
            self.controller.derive(self.wanted, observed);
        }
        Ok(())
    }

    /// Writes a status that has to stand before something is done.
    async fn persist(
        &mut self,
        status: OpenClawInstanceStatus,
        observed: &mut Observed,
    ) -> Result<(), ClusterError> {
        self.controller.write(self.instance, self.persisted.as_ref(), &status).await?;
        *self.persisted = Some(status.clone());
        observed.status = status;
        Ok(())
    }

    /// What the instance asks with which objects are its own.
    fn owner(&self, observed: &Observed) -> Owner {
        self.wanted.subject.owner(&observed.status)
    }

    fn agent<'a>(
        &self,
        observed: &'a Observed,
        part: ConditionType,
    ) -> Result<(AgentRoute, ServerKeys, &'a AgentView), Problem> {
        let silent = || Problem::of_agent(part, &AgentError::NotReady);
        let epoch = observed.epoch.ok_or_else(|| no_epoch(part))?;
        let route = Controller::route(&self.wanted.subject, self.pool).ok_or_else(silent)?;
        let keys = (self.controller.costly.server_keys)(
            &self.controller.master_key(observed),
            self.wanted.subject.instance,
            epoch,
        );
        match &observed.agent {
            AgentState::Reported(view) => Ok((route, keys, view)),
            AgentState::NotAsked | AgentState::Silent(_) => Err(silent()),
        }
    }
}

/// Steps are planned only when what they need is there.
fn no_epoch(part: ConditionType) -> Problem {
    Problem::new(part, Reason::Waiting, "Waits for the parts before it")
}
