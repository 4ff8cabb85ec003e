//! The forecast: what a plan leads to if every step works and the server does its part. It carries
//! the steps out in a model of the world that holds nothing but what the planner looks at, so that
//! `moorage plan` can show the whole way, and tests can walk it.

use moorage_wire::{
    CredentialName, CredentialType, Epoch, Program, Sha256,
    credential::{GATEWAY_TOKEN, TUNNEL_TOKEN},
    report::{CloudflaredHealth, Consumed, ConvergenceState, OpenClawState},
};

use super::{
    Observed, Plan, Step, Wanted,
    observed::{AgentKeys, AgentState, DashboardState, OwnTokens, ServerState},
    placeholders::{
        applied, enrolled, installed, new_record, new_server, new_tunnel, receipt, tokens, version,
    },
    plan::{self, Timing},
    programs, routes, status,
};
use crate::{
    api::{OpenClawInstanceStatus, instance::ServerStatus},
    cloudflare::{DnsPatch, DnsRecord},
    credentials::secret_source::CredentialSource,
    hetzner::ServerStatus as Power,
};

/// More than any way from nothing to ready takes; a way that is longer goes in circles.
const MAX_ROUNDS: usize = 40;

/// One thing that is going to happen.
#[derive(Debug, Clone, PartialEq)]
pub enum Happening {
    /// The operator does a step.
    Step(Step),
    /// The server boots and its agent is enrolled.
    AgentEnrols,
    /// The server installs the programs that it lacks, and OpenClaw runs with what it was told.
    ServerConverges {
        /// Names and versions of those programs.
        lacked: Vec<String>,
    },
}

/// The way from what is seen to where nothing more happens.
#[derive(Debug)]
pub struct Forecast {
    /// What can be done now.
    pub now: Vec<Step>,
    /// What follows.
    pub then: Vec<Happening>,
    /// The plan at the end of the way: its verdicts say what stands in the way of `Ready`, if anything.
    pub last: Plan,
    /// What is seen at the end of the way.
    pub observed: Observed,
}

/// Walks the way. `placeholders` are the keys that a server which is not made yet is given here, to stand
/// in for those that it is going to make; nothing is encrypted or verified with them.
pub fn forecast(
    wanted: &Wanted,
    observed: Observed,
    timing: Timing,
    placeholders: &AgentKeys,
) -> Forecast {
    let mut model = Model { wanted, placeholders, observed };
    let mut now = None;
    let mut then = Vec::new();
    let mut last = Plan::default();
    for _ in 0..MAX_ROUNDS {
        last = plan::plan(wanted, &model.observed, timing);
        let steps = std::mem::take(&mut last.steps);
        for step in &steps {
            model.carry_out(step);
        }
        let settled = steps.is_empty();
        match &now {
            None => now = Some(steps),
            Some(_) => then.extend(steps.into_iter().map(Happening::Step)),
        }
        if settled && !model.write_status(&last) {
            match model.happen() {
                Some(happening) => then.push(happening),
                None => break,
            }
        }
    }
    Forecast { now: now.unwrap_or_default(), then, last, observed: model.observed }
}

/// What the planner looks at, and the rules by which it changes.
pub(super) struct Model<'a> {
    pub(super) wanted: &'a Wanted,
    pub(super) placeholders: &'a AgentKeys,
    pub(super) observed: Observed,
}

impl Model<'_> {
    /// The effect of one step that works.
    pub(super) fn carry_out(&mut self, step: &Step) {
        let observed = &mut self.observed;
        match step {
            Step::RecordEpoch(epoch) => self.record_epoch(*epoch),
            Step::CreateTunnel => {
                observed.tunnel = Some(new_tunnel(self.wanted));
                observed.tunnel_memory.bootstrapped = observed.epoch;
                observed.tunnel_memory.rules = None;
            }
            Step::BootstrapTunnel(_) => observed.tunnel_memory.bootstrapped = observed.epoch,
            Step::PutRoutes(_, rules) | Step::CheckRoutes(_, rules) => {
                observed.tunnel_memory.rules = Some((routes::digest(rules), observed.now));
            }
            Step::EnsureRecords { posts, patches } => {
                observed.records.extend(posts.iter().map(new_record));
                for patch in patches {
                    correct(&mut observed.records, patch);
                }
            }
            Step::CreateServer => {
                let server = new_server(self.wanted, observed.epoch);
                observed.server = ServerState::Present(Box::new(server));
                observed.agent = AgentState::NotAsked;
            }
            Step::LabelServer(_, labels) => {
                if let ServerState::Present(server) = &mut observed.server {
                    server.labels.clone_from(labels);
                }
            }
            Step::NameTunnel(_) => {
                if let Some(tunnel) = &mut observed.tunnel {
                    tunnel.name = new_tunnel(self.wanted).name;
                }
            }
            Step::AttachFirewall(firewall, _) => {
                if let ServerState::Present(server) = &mut observed.server {
                    server.public_net.firewalls.push(applied(*firewall));
                }
            }
            Step::DeleteServer(_) => {
                observed.server = ServerState::Gone;
                observed.agent = AgentState::NotAsked;
            }
            Step::HandOver | Step::TakeOver | Step::EndHandOver => self.hand_over(step),
            Step::DeliverCredential(name) => {
                if let Some(Ok(value)) = observed.handed_in.get(name) {
                    let (kind, source) = (value.kind, value.envelope.sha256());
                    self.store(name.clone(), kind, source);
                }
            }
            Step::DeliverGatewayToken => {
                self.store_own(GATEWAY_TOKEN, CredentialType::GatewayToken, |own| own.gateway);
            }
            Step::DeliverTunnelToken => {
                self.store_own(TUNNEL_TOKEN, CredentialType::TunnelToken, |own| own.tunnel);
            }
            Step::RotateTunnel(_) => self.rotate(),
            Step::PutDesired { document, .. } => {
                if let AgentState::Reported(view) = &mut observed.agent {
                    view.report.desired.digest = Some(document.digest());
                    view.report.desired.state = ConvergenceState::Converging;
                }
            }
            Step::DeleteSecret { name, recreated, .. } => self.delete_secret(name, recreated),
            Step::RecordDashboardSecret(name) => {
                observed.status.dashboard_secret_name.clone_from(name);
            }
            Step::WriteDashboardSecret { .. } => {
                observed.dashboard_secret = DashboardState::Current(version());
            }
            Step::DeleteDashboardSecret { .. } => observed.former_dashboard = None,
        }
    }

    /// What the server does by itself, if it is its turn.
    pub(super) fn happen(&mut self) -> Option<Happening> {
        let observed = &mut self.observed;
        let epoch = observed.epoch?;
        let running =
            observed.server.present().is_some_and(|server| server.status == Power::Running);
        if !running || observed.tunnel.is_none() {
            return None;
        }
        let AgentState::Reported(view) = &mut observed.agent else {
            // An agent that was known and is silent may stay so: that is for a person to look at.
            let awaited = observed.status.agent.is_none();
            observed.agent =
                awaited.then(|| enrolled(self.wanted, epoch, self.placeholders, observed.now))?;
            return Some(Happening::AgentEnrols);
        };
        let progress = &mut view.report.desired;
        if progress.state != ConvergenceState::Converging {
            return None;
        }
        progress.state = ConvergenceState::Converged;
        view.report.openclaw.state = OpenClawState::Ready;
        let artifacts = &self.wanted.release.artifacts;
        let lacked = programs::behind(artifacts, &view.report.details);
        view.report.details.programs = installed(artifacts, &Program::ALL);
        let lacked = lacked.into_iter().map(|(program, _)| programs::titled(artifacts, program));
        Some(Happening::ServerConverges { lacked: lacked.collect() })
    }

    /// Writes the status that the pass would write; tells whether it says anything new.
    pub(super) fn write_status(&mut self, plan: &Plan) -> bool {
        let outcome = status::Outcome { verdicts: plan.verdicts.clone(), failure: None };
        let observed = &self.observed;
        let key =
            observed.status.server.as_ref().and_then(|server| server.master_key_id.as_deref());
        let written = status::of_pass(
            self.wanted,
            observed,
            &outcome,
            key,
            observed.status.observed_generation,
        );
        let changed = written != observed.status;
        self.observed.status = written;
        changed
    }

    fn hand_over(&mut self, step: &Step) {
        let observed = &mut self.observed;
        let (AgentState::Reported(view), Some(keys)) =
            (&mut observed.agent, &mut observed.operator_keys)
        else {
            return;
        };
        let obeyed = &mut view.report.details.operator_keys;
        match (step, keys.newest) {
            (Step::HandOver, Some(newest)) => *obeyed = vec![keys.own, newest],
            (Step::TakeOver, Some(newest)) => (keys.own, keys.newest) = (newest, None),
            _ => *obeyed = vec![keys.own],
        }
    }

    fn record_epoch(&mut self, epoch: Epoch) {
        let observed = &mut self.observed;
        let server = ServerStatus { epoch: epoch.to_string(), ..ServerStatus::default() };
        let mut status = std::mem::take(&mut observed.status);
        if let Some(tunnel) = &mut status.tunnel {
            tunnel.rotating = false;
        }
        observed.status = OpenClawInstanceStatus { server: Some(server), agent: None, ..status };
        observed.epoch = Some(epoch);
        observed.server = ServerState::None;
        observed.agent = AgentState::NotAsked;
        observed.tunnel_memory.rotated = None;
        observed.own_tokens = Some(tokens(epoch));
    }

    fn store(&mut self, credential: CredentialName, kind: CredentialType, source: Sha256) {
        let AgentState::Reported(view) = &mut self.observed.agent else { return };
        let identity = &view.report.identity;
        let receipt = receipt(
            (identity.instance_id, identity.epoch),
            credential.clone(),
            kind,
            source,
            self.observed.now,
        );
        view.report.receipts.retain(|known| known.credential != credential);
        view.report.receipts.push(receipt);
        view.report.consumed.push(Consumed { credential, source_sha256: source });
    }

    fn store_own(&mut self, name: &str, kind: CredentialType, which: fn(OwnTokens) -> Sha256) {
        if let (Some(own), Ok(name)) = (self.observed.own_tokens, name.parse()) {
            self.store(name, kind, which(own));
        }
    }

    fn rotate(&mut self) {
        self.observed.tunnel_memory.rotated = Some(self.observed.now);
        if let Some(tunnel) = &mut self.observed.status.tunnel {
            tunnel.rotating = false;
        }
        if let (Some(own), AgentState::Reported(view)) =
            (self.observed.own_tokens, &mut self.observed.agent)
        {
            view.report.cloudflared = CloudflaredHealth {
                connected: true,
                active_token_sha256: Some(own.tunnel),
                token_sha256: vec![own.tunnel],
            };
        }
    }

    fn delete_secret(&mut self, name: &str, recreated: &[CredentialName]) {
        let from_it = |credential: &CredentialName| {
            self.wanted.credentials.iter().any(|request| {
                request.name == *credential
                    && matches!(&request.source, CredentialSource::SecretKey { secret, .. } if secret == name)
            })
        };
        let observed = &mut self.observed;
        observed.bundles.retain(|bundle| bundle.secret != name);
        observed.handed_in.retain(|credential, _| !from_it(credential));
        for known in &mut observed.status.credentials {
            known.recreated +=
                u32::from(recreated.iter().any(|credential| credential.as_str() == known.name));
        }
    }
}

fn correct(records: &mut [DnsRecord], patch: &DnsPatch) {
    for record in records.iter_mut().filter(|record| record.id == patch.id) {
        record.content = patch.content.clone().or_else(|| record.content.take());
        record.proxied = patch.proxied.or(record.proxied);
        record.comment = patch.comment.clone().or_else(|| record.comment.take());
    }
}
