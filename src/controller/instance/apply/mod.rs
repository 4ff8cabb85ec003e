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
        conditions::{ConditionType, Reason},
    },
    cloud::CloudError,
    cluster::ClusterError,
    credentials::key_ring::KeyRing,
    dns::DnsChange,
    instance::{
        Failure, Observed, Step, Wanted,
        observed::{AgentState, AgentView},
    },
    ownership::Owner,
    pool::PoolRuntime,
};

/// What became of a round of steps.
pub(super) enum Applied {
    /// All were done, and what they did is known.
    All,
    /// Done, but their effect can be seen only by observing again.
    LookAgain,
    /// One could not be done; those after it were not tried.
    Failed(Failure),
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
                Err(Trouble::Failed(failure)) => return Ok(Applied::Failed(failure)),
                Err(Trouble::Cluster(error)) => return Err(error),
            }
        }
        Ok(if look_again { Applied::LookAgain } else { Applied::All })
    }

    /// Carries out one step. Nothing that is not the instance's own gets past here.
    async fn step(&mut self, step: Step, observed: &mut Observed) -> Result<(), Trouble> {
        let barred = observed.is_mass_loss() && step.ends_a_life(observed);
        if barred || !step.touches_only_own(&self.owner(observed), observed) {
            tracing::error!(%step, "a step on what is not this instance's, or not allowed now, was not carried out");
            return Err(no_epoch(ConditionType::Ready).into());
        }
        match step {
            Step::RecordEpoch(epoch) => self.record_epoch(epoch, observed).await,
            Step::LabelServer(id, labels) => self.label_server(id, &labels, observed).await,
            Step::NameTunnel(id) => self.name_tunnel(&id, observed).await,
            Step::CreateTunnel => self.create_tunnel(observed).await,
            Step::BootstrapTunnel(id) => self.bootstrap_tunnel(&id, observed).await,
            Step::PutRoutes(id, rules) => self.put_routes(&id, &rules, observed).await,
            Step::CheckRoutes(id, rules) => self.check_routes(&id, &rules, observed).await,
            Step::EnsureRecords { posts, patches } => {
                self.ensure_records(DnsChange::Ensure { posts, patches }, observed).await
            }
            Step::CreateServer => self.create_server(observed).await,
            Step::AttachFirewall(firewall, id) => {
                self.attach_firewall(firewall, id, observed).await
            }
            Step::DeleteServer(id) => self.delete_server(id, observed).await,
            Step::HandOver => self.hand_over(observed).await,
            Step::TakeOver => self.take_over(observed).await,
            Step::EndHandOver => self.end_hand_over(observed).await,
            Step::DeliverCredential(name) => self.deliver(&name, observed).await,
            Step::DeliverGatewayToken => self.deliver_gateway_token(observed).await,
            Step::DeliverTunnelToken => self.deliver_tunnel_token(observed).await,
            Step::RotateTunnel(id) => self.rotate(&id, observed).await,
            Step::PutDesired { document, replaces } => {
                self.put_desired(&document, replaces, observed).await
            }
            Step::DeleteSecret { name, version, recreated } => {
                self.delete_secret(name, &version, &recreated, observed).await
            }
            Step::RecordDashboardSecret(name) => self.record_dashboard_secret(name, observed).await,
            Step::WriteDashboardSecret { name, version } => {
                self.write_dashboard_secret(&name, version.as_ref(), observed).await
            }
            Step::DeleteDashboardSecret { name, version } => {
                self.delete_dashboard_secret(&name, &version, observed).await
            }
        }
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
        observed: &'a mut Observed,
        part: ConditionType,
    ) -> Result<(AgentRoute, ServerKeys, &'a mut AgentView), Failure> {
        let silent = || Failure::of_agent(part, &AgentError::NotReady);
        let epoch = observed.epoch.ok_or_else(|| no_epoch(part))?;
        let route = Controller::route(&self.wanted.subject, self.pool).ok_or_else(silent)?;
        let keys = ServerKeys::derive(
            &self.controller.master_key(observed),
            self.wanted.subject.instance,
            epoch,
        );
        match &mut observed.agent {
            AgentState::Reported(view) => Ok((route, keys, view)),
            AgentState::NotAsked | AgentState::Silent(_) => Err(silent()),
        }
    }
}

/// Steps are planned only when what they need is there.
fn no_epoch(part: ConditionType) -> Failure {
    Failure::passing(part, Reason::Waiting, "Waits for the parts before it")
}
