//! Apply: every write of a pass. Each step can be repeated, and what it did is noted at once in what
//! was seen, so that the next round of planning knows. Here is which step is done where; how, is in
//! the file of each part.

mod credentials;
mod dashboard;
mod desired_state;
mod handover;
mod routes;
mod server;
mod tunnel;

use super::Controller;
use crate::{
    agent::{AgentError, AgentRoute, ServerKeys},
    api::{
        OpenClawInstance, OpenClawInstanceStatus,
        conditions::{ConditionType, reason},
    },
    cloud::CloudError,
    cluster::ClusterError,
    credentials::key_ring::KeyRing,
    dns::DnsChange,
    instance::{
        Failure, Observed, Step, Wanted,
        observed::{AgentSight, AgentView},
    },
    ownership::Owner,
    pool::PoolRuntime,
};

/// What became of a round of steps.
pub(super) enum Applied {
    /// All were done, and what they did is known.
    All,
    /// Done, but their effect can be seen only by looking anew.
    LookAgain,
    /// One could not be done; those after it were not tried.
    Failed(Failure),
}

/// All that the steps of one instance need.
pub(super) struct Hands<'a> {
    pub(super) controller: &'a Controller,
    pub(super) instance: &'a OpenClawInstance,
    pub(super) wanted: &'a Wanted,
    pub(super) pool: &'a PoolRuntime,
    pub(super) ring: &'a KeyRing,
    pub(super) persisted: &'a mut Option<OpenClawInstanceStatus>,
}

/// Why a step could not be done.
enum Trouble {
    Cluster(ClusterError),
    Failed(Failure),
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl From<ClusterError> for Trouble {
    fn from(error: ClusterError) -> Self {
        Self::Cluster(error)
    }
}

/// Turns a cloud's error into the failure of a part.
fn failed(part: ConditionType) -> impl Fn(CloudError) -> Trouble {
    move |error| {
        tracing::warn!(%error, "a call to a cloud failed");
        Failure::of_cloud(part, &error).into()
    }
}

impl Hands<'_> {
    pub(super) async fn apply(
        mut self,
        steps: Vec<Step>,
        seen: &mut Observed,
    ) -> Result<Applied, ClusterError> {
        let mut look_again = false;
        for step in steps {
            look_again |= step.ends_pass();
            match self.step(step, seen).await {
                Ok(()) => {}
                Err(Trouble::Failed(failure)) => return Ok(Applied::Failed(failure)),
                Err(Trouble::Cluster(error)) => return Err(error),
            }
        }
        Ok(if look_again { Applied::LookAgain } else { Applied::All })
    }

    /// Carries out one step. Nothing that is not the instance's own gets past here.
    async fn step(&mut self, step: Step, seen: &mut Observed) -> Result<(), Trouble> {
        let barred = seen.is_mass_loss() && step.ends_a_life(seen);
        if barred || !step.touches_only_own(&self.owner(seen), seen) {
            tracing::error!(%step, "a step on what is not this instance's, or not allowed now, was not carried out");
            return Err(no_epoch(ConditionType::Ready).into());
        }
        match step {
            Step::RecordEpoch(epoch) => self.record_epoch(epoch, seen).await,
            Step::LabelServer(id, labels) => self.label_server(id, &labels, seen).await,
            Step::NameTunnel(id) => self.name_tunnel(&id, seen).await,
            Step::CreateTunnel => self.create_tunnel(seen).await,
            Step::BootstrapTunnel(id) => self.bootstrap_tunnel(&id, seen).await,
            Step::PutRoutes(id, rules) => self.put_routes(&id, &rules, seen).await,
            Step::CheckRoutes(id, rules) => self.check_routes(&id, &rules, seen).await,
            Step::EnsureRecords { posts, patches } => {
                self.ensure_records(DnsChange::Ensure { posts, patches }, seen).await
            }
            Step::CreateServer => self.create_server(seen).await,
            Step::AttachFirewall(firewall, id) => self.attach_firewall(firewall, id, seen).await,
            Step::DeleteServer(id) => self.delete_server(id, seen).await,
            Step::HandOver => self.hand_over(seen).await,
            Step::TakeOver => self.take_over(seen).await,
            Step::EndHandOver => self.end_hand_over(seen).await,
            Step::DeliverCredential(name) => self.deliver(&name, seen).await,
            Step::DeliverGatewayToken => self.deliver_gateway_token(seen).await,
            Step::DeliverTunnelToken => self.deliver_tunnel_token(seen).await,
            Step::RotateTunnel(id) => self.rotate(&id, seen).await,
            Step::PutDesired { document, replaces } => {
                self.put_desired(&document, replaces, seen).await
            }
            Step::DeleteSecret { name, version, recreated } => {
                self.delete_secret(name, &version, &recreated, seen).await
            }
            Step::RecordDashboardSecret(name) => self.record_dashboard_secret(name, seen).await,
            Step::WriteDashboardSecret { name, version } => {
                self.write_dashboard_secret(&name, version.as_ref(), seen).await
            }
            Step::DeleteDashboardSecret { name, version } => {
                self.delete_dashboard_secret(&name, &version, seen).await
            }
        }
    }

    /// Writes a status that has to stand before something is done.
    async fn persist(
        &mut self,
        status: OpenClawInstanceStatus,
        seen: &mut Observed,
    ) -> Result<(), ClusterError> {
        self.controller.write(self.instance, self.persisted.as_ref(), &status).await?;
        *self.persisted = Some(status.clone());
        seen.status = status;
        Ok(())
    }

    /// What the instance asks with which objects are its own.
    fn owner(&self, seen: &Observed) -> Owner {
        self.wanted.subject.owner(&seen.status)
    }

    fn agent<'a>(
        &self,
        seen: &'a mut Observed,
        part: ConditionType,
    ) -> Result<(AgentRoute, ServerKeys, &'a mut AgentView), Failure> {
        let silent = || Failure::of_agent(part, &AgentError::NotReady);
        let epoch = seen.epoch.ok_or_else(|| no_epoch(part))?;
        let route = Controller::route(&self.wanted.subject, self.pool).ok_or_else(silent)?;
        let keys = ServerKeys::derive(
            &self.controller.master_key(seen),
            self.wanted.subject.instance,
            epoch,
        );
        match &mut seen.agent {
            AgentSight::Reported(view) => Ok((route, keys, view)),
            AgentSight::NotAsked | AgentSight::Silent(_) => Err(silent()),
        }
    }
}

/// Steps are planned only when what they need is there.
fn no_epoch(part: ConditionType) -> Failure {
    Failure::passing(part, reason::WAITING, "Waits for the parts before it")
}
