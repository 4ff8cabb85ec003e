//! The work of one pass over an instance that can be worked on: observe → plan → apply, in rounds.

use kube::runtime::reflector::ObjectRef;

use super::{
    Controller, Requeue, Written,
    apply::{Applied, Executor},
    is_well,
    memory::Memory,
    observe::SILENCE,
    pass_error::PassError,
};
use crate::{
    agent::AgentError,
    api::{OpenClawInstance, OpenClawInstanceStatus},
    cluster::ClusterError,
    controller::pool_runtime::PoolRuntime,
    instance::{
        Observed, Step, Wanted, first_boot,
        observed::AgentState,
        plan::{SOON, Timing},
        routes::RoutesStep,
        status::Outcome,
    },
};

/// Rounds of planning and applying within one pass.
const MAX_ROUNDS: usize = 12;

impl Controller {
    /// observe → plan → apply until there is nothing more to do now, then status. A second status
    /// write happens only when the first one allows more, such as deleting a receipted Secret.
    pub(super) async fn work(
        &self,
        instance: &OpenClawInstance,
        wanted: &Wanted,
        pool: &PoolRuntime,
    ) -> Result<Requeue, ClusterError> {
        let key = ObjectRef::from_obj(instance);
        let mut memory = self.memories.take(&key);
        let mut observed = match self.observe(instance, wanted, pool, &mut memory).await {
            Ok(observed) => observed,
            Err(blind) => {
                self.memories.put(&key, Memory::of_tunnel(memory.tunnel));
                return match blind {
                    PassError::Cluster(error) => Err(error),
                    PassError::Problem(failure) => self.blind(instance, &failure).await,
                };
            }
        };
        if Self::is_silent_for_now(instance, &mut memory, &observed) {
            memory.tunnel = observed.tunnel_memory;
            self.memories.put(&key, memory);
            return Ok(Requeue::After(SOON));
        }
        let ended = self.rounds(instance, wanted, pool, &mut observed).await;
        match &ended {
            Ok((_, status)) => memory.remember(&observed, instance, status),
            // Others write the object as well; what was done at the clouds stays done.
            Err(_) => memory = Memory::of_tunnel(observed.tunnel_memory),
        }
        self.memories.put(&key, memory);
        ended.map(|(requeue_after, _)| requeue_after)
    }

    /// An operator that starts does not know when the agent answered last: one of an instance that is
    /// well gets as long to answer as if it did.
    fn is_silent_for_now(
        instance: &OpenClawInstance,
        memory: &mut Memory,
        observed: &Observed,
    ) -> bool {
        let unreachable =
            matches!(observed.agent, AgentState::Silent(AgentError::Unreachable { .. }))
                && !memory.settled;
        if !unreachable || memory.agent.is_some() || !is_well(instance) {
            return false;
        }
        let since = *memory.waiting_since.get_or_insert(observed.now);
        observed.now.duration_since(since).unsigned_abs() < SILENCE
    }

    /// The rounds of a pass; gives when it wants the next one, and the status that it wrote.
    async fn rounds(
        &self,
        instance: &OpenClawInstance,
        wanted: &Wanted,
        pool: &PoolRuntime,
        observed: &mut Observed,
    ) -> Result<(Requeue, OpenClawInstanceStatus), ClusterError> {
        let timing =
            Timing { report: self.ctx.intervals.report, routes: self.ctx.intervals.routes };
        let ring = self.ctx.key_ring.read().await.clone();
        let mut persisted = instance.status.clone();
        let (mut outcome, mut requeue_after) = (Outcome::default(), None);
        let mut barred = None;
        let mut settled = None;
        for _ in 0..MAX_ROUNDS {
            let plan = (self.decisions.plan)(wanted, observed, timing);
            (outcome, requeue_after) =
                (Outcome { verdicts: plan.verdicts, problem: None }, plan.requeue_after);
            let stale = observed.agent.view().is_some_and(|view| view.stale);
            let steps: Vec<_> =
                plan.steps.into_iter().filter(|step| !(stale && step.needs_agent())).collect();
            if stale {
                requeue_after = Some(SOON);
            }
            if steps.is_empty() {
                let status = Self::status(instance, wanted, observed, &outcome);
                let (current, agent) = (persisted.as_ref(), &observed.agent);
                let written = self.write_at_rate(instance, current, &status, agent).await?;
                if written != Written::Now {
                    settled = Some((status, written));
                    break;
                }
                (persisted, observed.status) = (Some(status.clone()), status);
                continue;
            }
            // Before anything is put onto a server it says that it is no longer one of which nothing was heard.
            if steps.iter().any(Step::needs_agent) && first_boot::is_recorded(&observed.status) {
                let status = Self::status(instance, wanted, observed, &outcome);
                self.write(instance, persisted.as_ref(), &status).await?;
                (persisted, observed.status) = (Some(status.clone()), status);
            }
            let executor = Executor {
                controller: self,
                instance,
                wanted,
                pool,
                ring: &ring,
                persisted: &mut persisted,
            };
            let looks_only =
                steps.iter().all(|step| matches!(step, Step::Routes(RoutesStep::Check(..))));
            match executor.apply(steps, observed).await? {
                // What could not be compared is not known to differ.
                Applied::Failed(failure) if looks_only && failure.is_of_the_way() => {
                    barred = Some(self.requeue_after(&failure));
                    break;
                }
                Applied::All => {}
                Applied::LookAgain => {
                    requeue_after = Some(SOON);
                    break;
                }
                Applied::Failed(failure) => {
                    outcome.problem = Some(failure);
                    break;
                }
            }
        }
        let (status, written) = if let Some(settled) = settled {
            settled
        } else {
            let status = Self::status(instance, wanted, observed, &outcome);
            let (current, agent) = (persisted.as_ref(), &observed.agent);
            let written = self.write_at_rate(instance, current, &status, agent).await?;
            (status, written)
        };
        if let (Some(failure), Written::Now) = (&outcome.problem, written) {
            tracing::warn!(reason = %failure.reason, "{}", failure.message);
        }
        let failed = || outcome.problem.as_ref().map(|failure| self.requeue_after(failure));
        let planned = || {
            let planned = requeue_after.unwrap_or_else(|| self.settled(observed));
            match written {
                Written::Later(wait) => Requeue::After(planned.min(wait)),
                Written::Now | Written::Unchanged => Requeue::After(planned),
            }
        };
        Ok((barred.or_else(failed).unwrap_or_else(planned), status))
    }
}
