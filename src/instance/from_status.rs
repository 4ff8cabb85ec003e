//! What is seen where nobody can be asked: the status taken at its word. `moorage plan` plans from
//! this; the operator never does.

use jiff::Timestamp;
use moorage_wire::{
    CredentialName, CredentialType, Epoch, Program,
    credential::{GATEWAY_TOKEN, TUNNEL_TOKEN},
    report::{CloudflaredHealth, Consumed, ConvergenceState, OpenClawState},
};

use super::{
    Observed, Wanted, desired_state,
    observed::{AgentKeys, AgentState, AgentView, DashboardState, ServerState, TunnelMemory},
    placeholders, routes,
};
use crate::{
    agent::AgentError,
    api::{OpenClawInstanceStatus, conditions::ConditionType, instance::Phase},
    cloudflare::{NewDnsRecord, TunnelId},
    credentials::secret_source::SecretVersion,
    hetzner::{KnownType, Named, ServerId},
};

/// What the status says of an instance that is to be as `wanted`. `applied` is what the status speaks
/// of, if that is known: what the spec in the cluster asks for.
pub fn observed(
    wanted: &Wanted,
    applied: Option<&Wanted>,
    status: &OpenClawInstanceStatus,
    keys: &AgentKeys,
    now: Timestamp,
) -> Observed {
    let record = Record { wanted, applied, status, keys, now };
    let epoch = status.server.as_ref().and_then(|server| server.epoch.parse().ok());
    let tunnel = status.tunnel.as_ref().and_then(|tunnel| TunnelId::parse(tunnel.id.clone()).ok());
    let tunnel =
        tunnel.map(|id| crate::cloudflare::Tunnel { id, ..placeholders::new_tunnel(wanted) });
    let routed = record.holds(ConditionType::RoutesReady);
    let records = tunnel.iter().filter(|_| routed).flat_map(|tunnel| {
        let subject = &wanted.subject;
        let comment = subject.record_comment();
        subject.hosts().map(|host| {
            placeholders::new_record(&NewDnsRecord::tunnel_cname(host, &tunnel.id, comment.clone()))
        })
    });
    let dashboard = match &wanted.dashboard_secret {
        None => DashboardState::NotWanted,
        named
            if record.holds(ConditionType::Ready)
                && applied.is_some_and(|applied| applied.dashboard_secret == *named) =>
        {
            DashboardState::Current(placeholders::version())
        }
        Some(_) => DashboardState::Absent,
    };
    Observed {
        records: records.collect(),
        tunnel_memory: TunnelMemory {
            rules: routed.then(|| (routes::digest(&routes::configuration(&wanted.subject)), now)),
            ..TunnelMemory::default()
        },
        tunnel,
        server: record.server(epoch),
        agent: record.agent(epoch),
        epoch,
        fresh_epoch: Some(Epoch::from_bytes([0; 8])),
        own_tokens: epoch.map(placeholders::tokens),
        dashboard_secret: dashboard,
        former_dashboard: former_dashboard(wanted, status),
        status: status.clone(),
        now,
        ..Observed::default()
    }
}

/// The Secret that the status names and the spec does not, taken to be there and ours.
fn former_dashboard(wanted: &Wanted, status: &OpenClawInstanceStatus) -> Option<SecretVersion> {
    let former = status.dashboard_secret_name.as_ref();
    former
        .filter(|former| wanted.dashboard_secret.as_ref() != Some(*former))
        .map(|_| placeholders::version())
}

/// Whether the status says that a condition holds.
pub fn holds(status: &OpenClawInstanceStatus, kind: ConditionType) -> bool {
    status.conditions.iter().any(|known| known.type_ == kind.as_str() && known.status == "True")
}

struct Record<'a> {
    wanted: &'a Wanted,
    applied: Option<&'a Wanted>,
    status: &'a OpenClawInstanceStatus,
    keys: &'a AgentKeys,
    now: Timestamp,
}

impl Record<'_> {
    fn holds(&self, kind: ConditionType) -> bool {
        holds(self.status, kind)
    }

    fn server(&self, epoch: Option<Epoch>) -> ServerState {
        let Some(recorded) = &self.status.server else { return ServerState::None };
        let Some(id) = recorded.id else { return ServerState::None };
        let mut server = placeholders::new_server(self.wanted, epoch);
        server.id = ServerId(id);
        if let Some(kind) = &recorded.r#type {
            server.server_type = KnownType { name: kind.clone(), architecture: None };
        }
        server.location =
            recorded.location.as_ref().map(|name| Named { name: name.clone() }).or(server.location);
        ServerState::Present(Box::new(server))
    }

    fn agent(&self, epoch: Option<Epoch>) -> AgentState {
        let (Some(epoch), Some(known)) = (epoch, &self.status.agent) else {
            return AgentState::Silent(AgentError::NotReady);
        };
        if known.epoch != epoch.to_string() {
            return AgentState::Silent(AgentError::NotReady);
        }
        if !self.holds(ConditionType::AgentReady) {
            return AgentState::Silent(AgentError::unreachable("the status says so"));
        }
        let mut state = placeholders::enrolled(self.wanted, epoch, self.keys, self.now);
        if let AgentState::Reported(view) = &mut state {
            self.report(view, epoch);
        }
        state
    }

    /// Fills in what an agent that is as the status says would report.
    fn report(&self, view: &mut AgentView, epoch: Epoch) {
        let own = placeholders::tokens(epoch);
        let mut stored: Vec<(Option<CredentialName>, CredentialType, moorage_wire::Sha256)> =
            Vec::new();
        for known in self.status.credentials.iter().filter(|known| known.epoch == epoch.to_string())
        {
            let request =
                self.wanted.credentials.iter().find(|request| request.name.as_str() == known.name);
            if let (Some(request), Ok(source)) = (request, known.ciphertext_sha256.parse()) {
                stored.push((Some(request.name.clone()), request.kind, source));
            }
        }
        let configured = self.holds(ConditionType::ConfigApplied);
        if configured {
            stored.push((GATEWAY_TOKEN.parse().ok(), CredentialType::GatewayToken, own.gateway));
        }
        if self.holds(ConditionType::TunnelReady) {
            stored.push((TUNNEL_TOKEN.parse().ok(), CredentialType::TunnelToken, own.tunnel));
            view.report.cloudflared = CloudflaredHealth {
                connected: true,
                active_token_sha256: Some(own.tunnel),
                token_sha256: vec![own.tunnel],
            };
        }
        let identity = (self.wanted.subject.instance, epoch);
        for (credential, kind, source_sha256) in stored {
            let Some(credential) = credential else { continue };
            view.report.receipts.push(placeholders::receipt(
                identity,
                credential.clone(),
                kind,
                source_sha256,
                self.now,
            ));
            view.report.consumed.push(Consumed { credential, source_sha256 });
        }
        if let (true, Some(applied)) = (configured, self.applied) {
            view.report.desired.digest = Some(desired_state::document(applied, view).digest());
            view.report.desired.state = ConvergenceState::Converged;
            view.report.details.programs =
                placeholders::installed(&applied.release.artifacts, Program::ALL);
            let degraded = self.status.phase == Some(Phase::Degraded);
            view.report.openclaw.state =
                if degraded { OpenClawState::Degraded } else { OpenClawState::Ready };
        }
    }
}
