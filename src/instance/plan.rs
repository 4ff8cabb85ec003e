//! The planner: a synchronous function of what is wanted and what was seen. It returns the steps that
//! can be done now, what the conditions say, and when to look again.

use std::time::Duration;

use moorage_wire::{CredentialName, Epoch, Sha256};

use super::{
    Observed, Wanted, agent, credentials, dashboard, desired_state, handover,
    observed::ServerState, rotation, routes, server, tunnel,
};
use crate::{
    api::conditions::{ConditionStatus, ConditionType, Reason, Verdict},
    cloudflare::{DnsPatch, NewDnsRecord, RecordId, TunnelConfiguration, TunnelId},
    credentials::secret_source::SecretVersion,
    hetzner::{FirewallId, Labels, ServerId},
    ownership::Owner,
};

/// One thing to do. Each can be repeated.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// Write a new epoch into the status, before anything is made for it.
    RecordEpoch(Epoch),
    /// Make the tunnel with the bootstrap secret of the epoch.
    CreateTunnel,
    /// Give an existing tunnel the bootstrap secret of a new epoch; its old connections are cut.
    BootstrapTunnel(TunnelId),
    /// Replace the tunnel's ingress rules.
    PutRoutes(TunnelId, TunnelConfiguration),
    /// Compare the tunnel's ingress rules with the wanted ones.
    CheckRoutes(TunnelId, TunnelConfiguration),
    /// Make or correct DNS records.
    EnsureRecords {
        /// To make.
        posts: Vec<NewDnsRecord>,
        /// To correct.
        patches: Vec<DnsPatch>,
    },
    /// Make the server.
    CreateServer,
    /// Give the server back the labels that say whose it is.
    LabelServer(ServerId, Labels),
    /// Give the tunnel back the name that says whose it is.
    NameTunnel(TunnelId),
    /// Put the pool's firewall in front of the server.
    AttachFirewall(FirewallId, ServerId),
    /// Delete the server that a person asked to have replaced.
    DeleteServer(ServerId),
    /// Tell the agent the next key of the operator.
    HandOver,
    /// Call the agent with the next key, and record that it is the server's.
    TakeOver,
    /// Have the agent obey the recorded key alone.
    EndHandOver,
    /// Hand a customer's value to the agent.
    DeliverCredential(CredentialName),
    /// Hand the gateway's token to the agent.
    DeliverGatewayToken,
    /// Hand the rotated tunnel token to the agent.
    DeliverTunnelToken,
    /// Make the rotated token the only valid one and cut the connections of the old.
    RotateTunnel(TunnelId),
    /// Send the desired state.
    PutDesired {
        /// The document.
        document: Box<moorage_wire::DesiredState>,
        /// The document that the agent has now.
        replaces: Option<Sha256>,
    },
    /// Delete a Secret all of whose values are receipted.
    DeleteSecret {
        /// Its name.
        name: String,
        /// The exact object that was read.
        version: SecretVersion,
        /// The credentials whose consumed ciphertext came back.
        recreated: Vec<CredentialName>,
    },
    /// Write into the status which Secret is the dashboard's, before it is made.
    RecordDashboardSecret(Option<String>),
    /// Write the dashboard's Secret.
    WriteDashboardSecret {
        /// Its name.
        name: String,
        /// The exact object to correct; none to make it.
        version: Option<SecretVersion>,
    },
    /// Delete the Secret that was the dashboard's before.
    DeleteDashboardSecret {
        /// Its name.
        name: String,
        /// The exact object.
        version: SecretVersion,
    },
}

impl Step {
    /// Whether the step speaks to the agent.
    pub fn needs_agent(&self) -> bool {
        matches!(
            self,
            Self::HandOver
                | Self::TakeOver
                | Self::EndHandOver
                | Self::DeliverCredential(_)
                | Self::DeliverGatewayToken
                | Self::DeliverTunnelToken
                | Self::PutDesired { .. }
        )
    }

    /// Whether everything that it writes to is the instance's own, or is not there yet.
    pub fn touches_only_own(&self, owner: &Owner, observed: &Observed) -> bool {
        let tunnel = |id: &TunnelId| {
            let found = observed.tunnel.as_ref().filter(|tunnel| tunnel.id == *id);
            found.is_some_and(|tunnel| owner.tunnel(tunnel).is_ours())
        };
        let server = |id: &ServerId| {
            let found = observed.server.present().filter(|server| server.id == *id);
            found.is_some_and(|server| owner.server(server).is_ours())
        };
        let tunnels: Vec<_> = observed.tunnel.iter().map(|tunnel| tunnel.id.clone()).collect();
        let record = |id: &RecordId| {
            let found = observed.records.iter().find(|record| record.id == *id);
            found.is_some_and(|record| owner.record(record, &tunnels).is_ours())
        };
        match self {
            Self::BootstrapTunnel(id)
            | Self::PutRoutes(id, _)
            | Self::CheckRoutes(id, _)
            | Self::NameTunnel(id)
            | Self::RotateTunnel(id) => tunnel(id),
            Self::LabelServer(id, _) | Self::AttachFirewall(_, id) | Self::DeleteServer(id) => {
                server(id)
            }
            Self::EnsureRecords { patches, .. } => patches.iter().all(|patch| record(&patch.id)),
            Self::RecordEpoch(_)
            | Self::CreateTunnel
            | Self::CreateServer
            | Self::HandOver
            | Self::TakeOver
            | Self::EndHandOver
            | Self::DeliverCredential(_)
            | Self::DeliverGatewayToken
            | Self::DeliverTunnelToken
            | Self::PutDesired { .. }
            | Self::DeleteSecret { .. }
            | Self::RecordDashboardSecret(_)
            | Self::WriteDashboardSecret { .. }
            | Self::DeleteDashboardSecret { .. } => true,
        }
    }

    /// Whether it ends a life of the server: it takes one away, or lets the next one begin.
    pub fn ends_a_life(&self, observed: &Observed) -> bool {
        match self {
            Self::DeleteServer(_) => true,
            Self::RecordEpoch(_) => observed.server == ServerState::Gone,
            _ => false,
        }
    }

    /// Whether its effect can be seen only by observing again.
    pub fn ends_pass(&self) -> bool {
        matches!(self, Self::PutDesired { .. } | Self::RotateTunnel(_) | Self::DeleteServer(_))
    }
}

/// What one managed thing says.
#[derive(Debug, Default)]
pub struct Part {
    /// What to do for it now.
    pub steps: Vec<Step>,
    /// How it is.
    pub verdicts: Vec<Verdict>,
    /// Whether what comes after it may go on.
    pub passable: bool,
    /// When to look again, if sooner than usual.
    pub requeue_after: Option<Duration>,
}

impl Part {
    /// All is well.
    pub fn done(verdict: Verdict) -> Self {
        Self { verdicts: vec![verdict], passable: true, ..Self::default() }
    }

    /// There is something to do; what comes after waits for it.
    pub fn todo(step: Step, verdict: Verdict) -> Self {
        Self { steps: vec![step], verdicts: vec![verdict], ..Self::default() }
    }

    /// Nothing can be done now.
    pub fn stuck(verdict: Verdict) -> Self {
        Self { verdicts: vec![verdict], ..Self::default() }
    }

    /// Something else has to happen first; look again soon.
    pub fn wait(verdict: Verdict, requeue_after: Duration) -> Self {
        Self { verdicts: vec![verdict], requeue_after: Some(requeue_after), ..Self::default() }
    }
}

/// What to do now.
#[derive(Debug, Default)]
pub struct Plan {
    /// In this order; each relies on those before it.
    pub steps: Vec<Step>,
    /// One per part, without `Ready`, `Reconciling` and `Stalled`.
    pub verdicts: Vec<Verdict>,
    /// When to look again.
    pub requeue_after: Option<Duration>,
}

/// The rhythm of bring-up.
pub const SOON: Duration = Duration::from_secs(1);

/// Plans for an instance that should exist.
pub fn plan(wanted: &Wanted, observed: &Observed, timing: Timing) -> Plan {
    type Planner = fn(&Wanted, &Observed, Timing) -> Part;
    let parts: [(ConditionType, Planner); 10] = [
        (ConditionType::ServerReady, server::epoch),
        (ConditionType::TunnelReady, tunnel::plan),
        (ConditionType::RoutesReady, routes::plan),
        (ConditionType::ServerReady, server::plan),
        (ConditionType::AgentReady, agent::plan),
        (ConditionType::AgentReady, handover::plan),
        (ConditionType::CredentialsDelivered, credentials::plan),
        (ConditionType::ConfigApplied, desired_state::plan),
        (ConditionType::TunnelReady, rotation::plan),
        (ConditionType::Ready, dashboard::plan),
    ];
    // A token that nobody should have any more does not wait for the parts to be well.
    let mut plan = Plan {
        steps: dashboard::former(wanted, observed).into_iter().collect(),
        ..Plan::default()
    };
    let mut passable = true;
    for (kind, part) in parts {
        if !passable {
            state(
                &mut plan.verdicts,
                Verdict::unknown(kind, Reason::Waiting, "Waits for the parts before it"),
            );
            continue;
        }
        let part = part(wanted, observed, timing);
        passable = part.passable;
        plan.steps.extend(part.steps);
        part.verdicts.into_iter().for_each(|verdict| state(&mut plan.verdicts, verdict));
        plan.requeue_after = [plan.requeue_after, part.requeue_after].into_iter().flatten().min();
    }
    let owner = wanted.subject.owner(&observed.status);
    plan.steps.retain(|step| {
        step.touches_only_own(&owner, observed)
            && !(observed.is_mass_loss() && step.ends_a_life(observed))
    });
    plan.verdicts.retain(|verdict| {
        verdict.kind != ConditionType::Ready || verdict.status == ConditionStatus::False
    });
    plan.verdicts.push(server::up_to_date(wanted, observed));
    plan
}

/// How often settled things are looked at.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// Between two reports of an agent that is ready.
    pub report: Duration,
    /// Between two comparisons of the ingress rules.
    pub routes: Duration,
}

/// Adds a verdict. Of two on the same condition the first stands, unless the second says that it does
/// not hold.
fn state(verdicts: &mut Vec<Verdict>, verdict: Verdict) {
    match verdicts.iter_mut().find(|known| known.kind == verdict.kind) {
        Some(known)
            if known.status != ConditionStatus::False
                && verdict.status == ConditionStatus::False =>
        {
            *known = verdict;
        }
        Some(_) => {}
        None => verdicts.push(verdict),
    }
}
