//! Writes the status of an instance, with the Events for what changed in it. What it says is in
//! [`crate::instance::status`].

use std::time::Duration;

use kube::{Resource as _, runtime::reflector::ObjectRef};

use super::{Controller, is_well, reconcile::Requeue};
use crate::{
    api::{OpenClawInstance, OpenClawInstanceStatus, conditions::Reason},
    cluster::ClusterError,
    controller::{events, status::differs},
    instance::{
        Observed, Wanted,
        observed::AgentState,
        status::{self, Outcome},
    },
    problem::Problem,
};

/// What became of a status that an instance's server has a say in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Written {
    /// It said nothing new.
    Unchanged,
    Now,
    /// It may be written after this long.
    Later(Duration),
}

impl Controller {
    pub(super) async fn suspend(
        &self,
        instance: &OpenClawInstance,
    ) -> Result<Requeue, ClusterError> {
        let old = instance.status.clone().unwrap_or_default();
        let status =
            status::of_suspension(&old, instance.metadata.generation, self.ctx.clock.now());
        self.settle(instance, &status).await.map(|()| Requeue::OnChange)
    }

    pub(super) async fn refuse(
        &self,
        instance: &OpenClawInstance,
        refused: &Problem,
    ) -> Result<Requeue, ClusterError> {
        let old = instance.status.clone().unwrap_or_default();
        let status =
            status::of_refusal(&old, refused, instance.metadata.generation, self.ctx.clock.now());
        self.settle(instance, &status).await?;
        Ok(self.requeue_after(refused))
    }

    /// What is not known is not guessed: the status says what could not be seen and keeps the rest.
    pub(super) async fn blind(
        &self,
        instance: &OpenClawInstance,
        failure: &Problem,
    ) -> Result<Requeue, ClusterError> {
        if failure.is_of_the_way() && is_well(instance) {
            return Ok(self.requeue_after(failure));
        }
        self.refuse(instance, failure).await
    }

    pub(super) fn status(
        instance: &OpenClawInstance,
        wanted: &Wanted,
        observed: &Observed,
        outcome: &Outcome,
    ) -> OpenClawInstanceStatus {
        let master_key = observed.master_key_id.as_deref();
        status::of_pass(wanted, observed, outcome, master_key, instance.metadata.generation)
    }

    /// Writes the status if it changed, with an Event for what changed in it.
    pub(super) async fn write(
        &self,
        instance: &OpenClawInstance,
        current: Option<&OpenClawInstanceStatus>,
        status: &OpenClawInstanceStatus,
    ) -> Result<bool, ClusterError> {
        let written = self.cluster.write_status(instance, current, status).await?;
        if written {
            let old = current.map(|status| status.conditions.as_slice()).unwrap_or_default();
            let about = instance.object_ref(&());
            events::publish(&self.ctx, &about, old, &status.conditions).await;
            let known = current.is_some_and(|status| status.earlier_identity.is_some());
            if let (Some(earlier), false) = (&status.earlier_identity, known) {
                let note = format!(
                    "The ids of instances are computed now. This one keeps its earlier id {} until it is deleted: its server holds it",
                    earlier.id
                );
                events::tell(&self.ctx, &about, Reason::IdentityMigrated, note).await;
            }
        }
        Ok(written)
    }

    /// The same of what the instance's server has a say in, if it was asked: that is written only so often.
    pub(super) async fn write_at_rate(
        &self,
        instance: &OpenClawInstance,
        current: Option<&OpenClawInstanceStatus>,
        status: &OpenClawInstanceStatus,
        agent: &AgentState,
    ) -> Result<Written, ClusterError> {
        if !differs(current, status) {
            return Ok(Written::Unchanged);
        }
        if !matches!(agent, AgentState::NotAsked) {
            let key = ObjectRef::from_obj(instance);
            if let Some(wait) = self.write_rates.take(key, current, status, self.now()) {
                return Ok(Written::Later(wait));
            }
        }
        self.write(instance, current, status).await.map(|_| Written::Now)
    }

    pub(super) async fn settle(
        &self,
        instance: &OpenClawInstance,
        status: &OpenClawInstanceStatus,
    ) -> Result<(), ClusterError> {
        self.write(instance, instance.status.as_ref(), status).await.map(drop)
    }
}
