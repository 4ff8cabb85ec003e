//! The agents in the model world, as they are reached through the edge, the tunnel and the connector.

use async_trait::async_trait;
use jiff::Timestamp;
use moorage_wire::{
    AgentPublicKey, CredentialName, Epoch, InstanceId, Receipt, Report, Sha256,
    credential::{GATEWAY_TOKEN, SealedCredential, TUNNEL_TOKEN},
    enrolment::AgentIdentity,
    handover::HandOver,
    problem::{Problem, ProblemCode},
    program::Program,
    report::{
        Backup, CloudflaredHealth, Consumed, ConvergenceState, DesiredProgress, Details,
        InstalledProgram, Machine as MachineReport, OpenClawHealth, OpenClawState, Rollback,
    },
};

use super::{
    invariants,
    link::{Fate, Link},
    stand_ins::{self, CERTIFICATE},
    world::{Machine, State},
};
use crate::{
    agent::{AgentApi, AgentError, AgentRoute, ServerKeys},
    hetzner::ServerStatus,
};

const GIBIBYTE: u64 = 1 << 30;

fn refused(code: ProblemCode) -> AgentError {
    let message = "refused by the model".into();
    AgentError::Refused(Box::new(Problem { code, message, receipt: None }))
}

impl Machine {
    fn server(&self) -> (InstanceId, Epoch) {
        (self.instance, self.epoch)
    }

    fn identity(&self) -> AgentIdentity {
        AgentIdentity {
            instance_id: self.instance,
            epoch: self.epoch,
            public_key: stand_ins::agent_key(self.instance, self.epoch),
            sealing_certificate: CERTIFICATE.clone(),
            // Checked on the way, which is not here.
            proof: Sha256::from_bytes([0; 32]),
            tunnel_certificate: None,
        }
    }

    fn report(&self, active: Option<Sha256>) -> Report {
        let brought = [Program::Cloudflared, Program::Agent];
        let programs = if self.converged_once { Program::ALL } else { &brought };
        let installed = |program: &Program| InstalledProgram {
            kind: (*program).into(),
            sha256: super::process::artifact_sha256(*program),
            version: Some("1".into()),
            active: true,
        };
        let state = if self.converged_once { OpenClawState::Ready } else { OpenClawState::Stopped };
        Report {
            identity: self.identity(),
            agent_version: "1".into(),
            desired: DesiredProgress {
                digest: self.desired,
                state: self.progress,
                failed: Vec::new(),
            },
            receipts: self.stored.values().cloned().collect(),
            consumed: self.consumed.clone(),
            openclaw: OpenClawHealth { state, version: None, message: None, failure: None },
            cloudflared: CloudflaredHealth {
                connected: true,
                active_token_sha256: active,
                token_sha256: self.tokens.clone(),
            },
            machine: MachineReport {
                disk_free_bytes: 20 * GIBIBYTE,
                memory_available_bytes: 2 * GIBIBYTE,
                reboot_pending: false,
                setup_done: true,
            },
            details: Details {
                programs: programs.iter().map(installed).collect(),
                disk_total_bytes: 40 * GIBIBYTE,
                memory_total_bytes: 4 * GIBIBYTE,
                packed_integrations: true,
                operator_keys: vec![stand_ins::operator_key(self.instance, self.epoch)],
                ..Details::default()
            },
        }
    }
}

impl Machine {
    /// A report that is true in what the operator checks, and another one each time in all the rest.
    fn lie(&self, report: Report, number: u64) -> Report {
        let at = Timestamp::from_second(number.cast_signed()).unwrap_or_default();
        let digest = Sha256::of(&number.to_le_bytes());
        let version = format!("1.{}", number / 2);
        let receipts = report.receipts.iter().map(|told| {
            let own = [TUNNEL_TOKEN, GATEWAY_TOKEN].contains(&told.credential.as_str());
            let source = if own { told.source_sha256 } else { digest };
            let what = (told.credential.clone(), told.r#type);
            stand_ins::receipt(self.server(), what, source, at)
        });
        let receipts = receipts.collect();
        let states = [OpenClawState::Ready, OpenClawState::Degraded, OpenClawState::Stopped];
        let wrong = (number.is_multiple_of(7)).then_some(digest);
        Report {
            agent_version: version.as_str().into(),
            desired: DesiredProgress { digest: wrong.or(report.desired.digest), ..report.desired },
            receipts,
            openclaw: OpenClawHealth {
                state: states[usize::try_from(number).unwrap_or_default() % states.len()],
                version: Some(version.as_str().into()),
                message: Some(format!("message {number}").as_str().into()),
                failure: None,
            },
            machine: MachineReport {
                disk_free_bytes: number % 2 * 20 * GIBIBYTE,
                reboot_pending: number.is_multiple_of(3),
                ..report.machine
            },
            details: Details {
                programs: report
                    .details
                    .programs
                    .into_iter()
                    .map(|one| InstalledProgram { sha256: digest, ..one })
                    .collect(),
                last_rollback: Some(Rollback {
                    what: Program::Openclaw.into(),
                    from: digest,
                    to: None,
                    reason: format!("reason {number}").as_str().into(),
                    failure: None,
                    at,
                }),
                backup: Some(Backup { at, bytes: number }),
                ..report.details
            },
            ..report
        }
    }
}

/// The server that a call to this host name comes to, and the token of the connection it comes by.
fn reach(state: &mut State, host: &str) -> Option<(u64, Sha256)> {
    let record = state.records.values().find(|there| there.record.name == host)?;
    let target = record.record.content.as_ref()?;
    let tunnel = target.strip_suffix(".cfargotunnel.com")?;
    let there = state.tunnels.get(tunnel)?;
    let routed = |rule: &crate::cloudflare::IngressRule| rule.hostname.as_deref() == Some(host);
    there.configuration.as_ref()?.ingress.iter().find(|rule| routed(rule))?;
    let id = there.connected?;
    let machine = state.servers.get(&id)?;
    let up = machine.server.status == ServerStatus::Running && !machine.silent;
    up.then_some((id, there.token))
}

impl Link {
    async fn agent<T>(
        &self,
        call: &'static str,
        route: &AgentRoute,
        keys: &ServerKeys,
        effect: impl FnOnce(&mut State, u64, Sha256) -> Result<T, AgentError>,
    ) -> Result<T, AgentError> {
        let unreachable = || AgentError::unreachable("the world is unreliable");
        let fate = self.gate(call).await;
        if fate == Fate::Refused {
            return Err(unreachable());
        }
        let mut state = self.world.state();
        if !state.resolves(route.anchor.as_deref().unwrap_or(&route.host)) {
            return Err(unreachable());
        }
        let (id, token) = reach(&mut state, &route.host).ok_or_else(unreachable)?;
        let obeyed = state
            .servers
            .get(&id)
            .is_some_and(|machine| machine.server() == (keys.instance, keys.epoch));
        if !obeyed {
            return Err(refused(ProblemCode::BadSignature));
        }
        let owner = state.servers.get(&id).and_then(|machine| machine.owner.clone());
        self.check_owner(&mut state, call, owner.as_ref());
        let answer = effect(&mut state, id, token);
        if fate == Fate::Unanswered { Err(unreachable()) } else { answer }
    }
}

fn machine(state: &mut State, id: u64) -> Result<&mut Machine, AgentError> {
    state.servers.get_mut(&id).ok_or_else(|| AgentError::unreachable("it is gone"))
}

#[async_trait]
impl AgentApi for Link {
    fn looks_names_up(&self) -> bool {
        let state = self.world.state();
        state.resolver.is_some() && !state.hasty
    }

    async fn enrol(
        &self,
        route: &AgentRoute,
        keys: &ServerKeys,
    ) -> Result<AgentIdentity, AgentError> {
        self.agent("enrol", route, keys, |state, id, _| Ok(machine(state, id)?.identity())).await
    }

    async fn report(
        &self,
        route: &AgentRoute,
        keys: &ServerKeys,
        _: AgentPublicKey,
    ) -> Result<Report, AgentError> {
        self.agent("report", route, keys, |state, id, token| {
            let (number, lying) = (state.number(), state.lying);
            let machine = machine(state, id)?;
            let report = machine.report(Some(token));
            Ok(if lying { machine.lie(report, number) } else { report })
        })
        .await
    }

    async fn put_desired(
        &self,
        route: &AgentRoute,
        keys: &ServerKeys,
        _: AgentPublicKey,
        document: Vec<u8>,
        replaces: Option<Sha256>,
    ) -> Result<(), AgentError> {
        self.agent("put desired", route, keys, |state, id, _| {
            let machine = machine(state, id)?;
            if machine.desired != replaces {
                return Err(refused(ProblemCode::DigestMismatch));
            }
            machine.desired = Some(Sha256::of(&document));
            machine.progress = ConvergenceState::Converging;
            state.writes += 1;
            Ok(())
        })
        .await
    }

    async fn put_credential(
        &self,
        route: &AgentRoute,
        keys: &ServerKeys,
        _: AgentPublicKey,
        name: &CredentialName,
        sealed: &SealedCredential,
    ) -> Result<Receipt, AgentError> {
        self.agent("put credential", route, keys, |state, id, _| {
            let source = sealed.source_sha256();
            invariants::delivered(state, id, &source);
            let now = state.now;
            let machine = machine(state, id)?;
            let receipt = match machine.stored.get(name) {
                Some(known) if known.source_sha256 == source => known.clone(),
                _ if machine
                    .consumed
                    .iter()
                    .any(|known| known.credential == *name && known.source_sha256 == source) =>
                {
                    return Err(refused(ProblemCode::AlreadyConsumed));
                }
                _ => {
                    let what = (name.clone(), sealed.r#type);
                    stand_ins::receipt(machine.server(), what, source, now)
                }
            };
            if name.as_str() == TUNNEL_TOKEN && !machine.tokens.contains(&source) {
                machine.tokens.push(source);
            }
            let consumed = Consumed { credential: name.clone(), source_sha256: source };
            machine.consumed.push(consumed);
            machine.stored.insert(name.clone(), receipt.clone());
            state.writes += 1;
            Ok(receipt)
        })
        .await
    }

    async fn begin_hand_over(
        &self,
        _: &AgentRoute,
        _: &ServerKeys,
        _: AgentPublicKey,
        _: &HandOver,
    ) -> Result<(), AgentError> {
        panic!("there is one master key in the model world")
    }

    async fn end_hand_over(
        &self,
        _: &AgentRoute,
        _: &ServerKeys,
        _: AgentPublicKey,
    ) -> Result<(), AgentError> {
        panic!("there is one master key in the model world")
    }
}
