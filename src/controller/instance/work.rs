//! The work of one pass over an instance that can be worked on: observe → plan → apply, in rounds.

use kube::runtime::reflector::ObjectRef;

use super::{
    Controller, Look,
    apply::{Applied, Hands},
    memory::Memory,
    observe::Blind,
};
use crate::{
    api::{OpenClawInstance, OpenClawInstanceStatus},
    cluster::ClusterError,
    instance::{
        Observed, Wanted,
        plan::{self, SOON, Timing},
        status::Outcome,
    },
    pool::PoolRuntime,
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
    ) -> Result<Look, ClusterError> {
        let key = ObjectRef::from_obj(instance);
        let mut memory = self.memories.take(&key);
        let mut seen = match self.observe(instance, wanted, pool, &memory).await {
            Ok(seen) => seen,
            Err(blind) => {
                self.memories.put(&key, Memory::of_tunnel(memory.tunnel));
                return match blind {
                    Blind::Cluster(error) => Err(error),
                    Blind::Cloud(failure) => self.blind(instance, &failure).await,
                };
            }
        };
        let ended = self.rounds(instance, wanted, pool, &mut seen).await;
        match &ended {
            Ok((_, status)) => memory.remember(&seen, instance, status),
            // Others write the object as well; what was done at the clouds stays done.
            Err(_) => memory = Memory::of_tunnel(seen.tunnel_memory),
        }
        self.memories.put(&key, memory);
        ended.map(|(look, _)| look)
    }

    /// The rounds of a pass; gives when it wants the next one, and the status that it wrote.
    async fn rounds(
        &self,
        instance: &OpenClawInstance,
        wanted: &Wanted,
        pool: &PoolRuntime,
        seen: &mut Observed,
    ) -> Result<(Look, OpenClawInstanceStatus), ClusterError> {
        let timing =
            Timing { report: self.ctx.intervals.report, routes: self.ctx.intervals.routes };
        let ring = self.ctx.key_ring.read().await.clone();
        let mut persisted = instance.status.clone();
        let (mut outcome, mut look) = (Outcome::default(), None);
        for _ in 0..MAX_ROUNDS {
            let plan = plan::plan(wanted, seen, timing);
            (outcome, look) = (Outcome { verdicts: plan.verdicts, failure: None }, plan.look);
            let stale = seen.agent.view().is_some_and(|view| view.stale);
            let steps: Vec<_> =
                plan.steps.into_iter().filter(|step| !(stale && step.needs_agent())).collect();
            if stale {
                look = Some(SOON);
            }
            if steps.is_empty() {
                let status = self.status(instance, wanted, seen, &outcome);
                if !self.write(instance, persisted.as_ref(), &status).await? {
                    break;
                }
                (persisted, seen.status) = (Some(status.clone()), status);
                continue;
            }
            let hands = Hands {
                controller: self,
                instance,
                wanted,
                pool,
                ring: &ring,
                persisted: &mut persisted,
            };
            match hands.apply(steps, seen).await? {
                Applied::All => {}
                Applied::LookAgain => {
                    look = Some(SOON);
                    break;
                }
                Applied::Failed(failure) => {
                    tracing::warn!(reason = failure.reason, "{}", failure.message);
                    outcome.failure = Some(failure);
                    break;
                }
            }
        }
        let status = self.status(instance, wanted, seen, &outcome);
        self.write(instance, persisted.as_ref(), &status).await?;
        let look = outcome
            .failure
            .as_ref()
            .map_or_else(|| Look::In(look.unwrap_or_else(|| self.settled(seen))), Look::after);
        Ok((look, status))
    }
}
