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
    observed::{AgentKeys, AgentSight, DashboardSight, OwnTokens, ServerSight},
    plan::{self, Timing},
    programs, routes,
    stand_in::{
        applied, enrolled, installed, new_record, new_server, new_tunnel, receipt, tokens, version,
    },
    status,
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
    pub seen: Observed,
}

/// Walks the way. `stand_in` are the keys that a server which is not made yet is given here, to stand
/// in for those that it is going to make; nothing is encrypted or verified with them.
pub fn forecast(wanted: &Wanted, seen: Observed, timing: Timing, stand_in: &AgentKeys) -> Forecast {
    let mut model = Model { wanted, stand_in, seen };
    let mut now = None;
    let mut then = Vec::new();
    let mut last = Plan::default();
    for _ in 0..MAX_ROUNDS {
        last = plan::plan(wanted, &model.seen, timing);
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
    Forecast { now: now.unwrap_or_default(), then, last, seen: model.seen }
}

/// What the planner looks at, and the rules by which it changes.
pub(super) struct Model<'a> {
    pub(super) wanted: &'a Wanted,
    pub(super) stand_in: &'a AgentKeys,
    pub(super) seen: Observed,
}

impl Model<'_> {
    /// The effect of one step that works.
    pub(super) fn carry_out(&mut self, step: &Step) {
        let seen = &mut self.seen;
        match step {
            Step::RecordEpoch(epoch) => self.record_epoch(*epoch),
            Step::CreateTunnel => {
                seen.tunnel = Some(new_tunnel(self.wanted));
                seen.tunnel_memory.bootstrapped = seen.epoch;
                seen.tunnel_memory.rules = None;
            }
            Step::BootstrapTunnel(_) => seen.tunnel_memory.bootstrapped = seen.epoch,
            Step::PutRoutes(_, rules) | Step::CheckRoutes(_, rules) => {
                seen.tunnel_memory.rules = Some((routes::digest(rules), seen.now));
            }
            Step::EnsureRecords { posts, patches } => {
                seen.records.extend(posts.iter().map(new_record));
                for patch in patches {
                    correct(&mut seen.records, patch);
                }
            }
            Step::CreateServer => {
                let server = new_server(self.wanted, seen.epoch);
                seen.server = ServerSight::Present(Box::new(server));
                seen.agent = AgentSight::NotAsked;
            }
            Step::LabelServer(_, labels) => {
                if let ServerSight::Present(server) = &mut seen.server {
                    server.labels.clone_from(labels);
                }
            }
            Step::NameTunnel(_) => {
                if let Some(tunnel) = &mut seen.tunnel {
                    tunnel.name = new_tunnel(self.wanted).name;
                }
            }
            Step::AttachFirewall(firewall, _) => {
                if let ServerSight::Present(server) = &mut seen.server {
                    server.public_net.firewalls.push(applied(*firewall));
                }
            }
            Step::DeleteServer(_) => {
                seen.server = ServerSight::Gone;
                seen.agent = AgentSight::NotAsked;
            }
            Step::HandOver | Step::TakeOver | Step::EndHandOver => self.hand_over(step),
            Step::DeliverCredential(name) => {
                if let Some(Ok(value)) = seen.handed_in.get(name) {
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
                if let AgentSight::Reported(view) = &mut seen.agent {
                    view.report.desired.digest = Some(document.digest());
                    view.report.desired.state = ConvergenceState::Converging;
                }
            }
            Step::DeleteSecret { name, recreated, .. } => self.delete_secret(name, recreated),
            Step::RecordDashboardSecret(name) => {
                seen.status.dashboard_secret_name.clone_from(name);
            }
            Step::WriteDashboardSecret { .. } => {
                seen.dashboard_secret = DashboardSight::Current(version());
            }
            Step::DeleteDashboardSecret { .. } => seen.former_dashboard = None,
        }
    }

    /// What the server does by itself, if it is its turn.
    pub(super) fn happen(&mut self) -> Option<Happening> {
        let seen = &mut self.seen;
        let epoch = seen.epoch?;
        let running = seen.server.present().is_some_and(|server| server.status == Power::Running);
        if !running || seen.tunnel.is_none() {
            return None;
        }
        let AgentSight::Reported(view) = &mut seen.agent else {
            // An agent that was known and is silent may stay so: that is for a person to look at.
            let awaited = seen.status.agent.is_none();
            seen.agent = awaited.then(|| enrolled(self.wanted, epoch, self.stand_in, seen.now))?;
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
        let seen = &self.seen;
        let key = seen.status.server.as_ref().and_then(|server| server.master_key_id.as_deref());
        let written =
            status::of_pass(self.wanted, seen, &outcome, key, seen.status.observed_generation);
        let changed = written != seen.status;
        self.seen.status = written;
        changed
    }

    fn hand_over(&mut self, step: &Step) {
        let seen = &mut self.seen;
        let (AgentSight::Reported(view), Some(keys)) = (&mut seen.agent, &mut seen.operator_keys)
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
        let seen = &mut self.seen;
        let server = ServerStatus { epoch: epoch.to_string(), ..ServerStatus::default() };
        let mut status = std::mem::take(&mut seen.status);
        if let Some(tunnel) = &mut status.tunnel {
            tunnel.rotating = false;
        }
        seen.status = OpenClawInstanceStatus { server: Some(server), agent: None, ..status };
        seen.epoch = Some(epoch);
        seen.server = ServerSight::None;
        seen.agent = AgentSight::NotAsked;
        seen.tunnel_memory.rotated = None;
        seen.own_tokens = Some(tokens(epoch));
    }

    fn store(&mut self, credential: CredentialName, kind: CredentialType, source: Sha256) {
        let AgentSight::Reported(view) = &mut self.seen.agent else { return };
        let identity = &view.report.identity;
        let receipt = receipt(
            (identity.instance_id, identity.epoch),
            credential.clone(),
            kind,
            source,
            self.seen.now,
        );
        view.report.receipts.retain(|known| known.credential != credential);
        view.report.receipts.push(receipt);
        view.report.consumed.push(Consumed { credential, source_sha256: source });
    }

    fn store_own(&mut self, name: &str, kind: CredentialType, which: fn(OwnTokens) -> Sha256) {
        if let (Some(own), Ok(name)) = (self.seen.own_tokens, name.parse()) {
            self.store(name, kind, which(own));
        }
    }

    fn rotate(&mut self) {
        self.seen.tunnel_memory.rotated = Some(self.seen.now);
        if let Some(tunnel) = &mut self.seen.status.tunnel {
            tunnel.rotating = false;
        }
        if let (Some(own), AgentSight::Reported(view)) =
            (self.seen.own_tokens, &mut self.seen.agent)
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
        let seen = &mut self.seen;
        seen.bundles.retain(|bundle| bundle.secret != name);
        seen.handed_in.retain(|credential, _| !from_it(credential));
        for known in &mut seen.status.credentials {
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
