//! Observe: every read of a pass. The clouds come from the sweep; only what the sweep does not show
//! although it should is asked for by id.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use kube::ResourceExt as _;
use moorage_wire::{Epoch, Receipt};

use super::{Controller, memory::Memory, pass_error::PassError};
use crate::{
    agent::{AccessHeaders, AgentError, AgentRoute, ServerKeys},
    api::{
        OpenClawInstance,
        annotation::Rebuild,
        conditions::{ConditionType, Reason},
        instance::{FirstBoot, ServerStatus},
        label,
    },
    cloud::{CloudError, Priority},
    cloudflare::{DnsRecord, Tunnel, TunnelId},
    cluster::{ClusterError, DashboardAccess, DashboardSecret},
    controller::pool_runtime::PoolRuntime,
    credentials::{bundle::secrets_of, courier::OwnCredential, secret_source::SecretVersion},
    hetzner::{Action, Server, ServerId},
    instance::{
        Observed, Wanted,
        copies::{self, Known},
        first_boot,
        observed::{
            AgentKeys, AgentState, AgentView, DashboardState, Disappearance, OwnTokens, ServerState,
        },
        wanted::Subject,
    },
    inventory,
    master_key::{GatewayToken, TunnelGeneration},
    names,
    ownership::{Owner, Ownership},
    problem::Problem,
};

/// How long an agent that answered before may be silent without a word: a rotation of its tunnel
/// takes some seconds.
pub(super) const SILENCE: Duration = Duration::from_secs(45);

/// How often Hetzner is asked what became of an action.
const BETWEEN_LOOKS: Duration = Duration::from_mins(1);

impl Controller {
    pub(super) async fn observe(
        &self,
        instance: &OpenClawInstance,
        wanted: &Wanted,
        pool: &PoolRuntime,
        memory: &mut Memory,
    ) -> Result<Observed, PassError> {
        let subject = &wanted.subject;
        let status = instance.status.clone().unwrap_or_default();
        let owner = subject.owner(&status);
        let view = pool.inventory.view(&owner);
        let mut observed =
            Observed { now: self.now(), tunnel_memory: memory.tunnel, ..Observed::default() };
        observed.fresh_epoch = self.fresh_epoch();
        observed.newest_master_key_id = Some(self.ctx.master_keys.newest().id().to_string());
        observed.disappearance = self.disappearance(pool);
        observed.accepted_loss =
            pool.accepted_loss.is_some_and(|loss| loss.covers(observed.disappearance.missing));
        let mass = observed.disappearance.is_mass() && !observed.accepted_loss;
        (observed.server, observed.copies) =
            look_at_servers(pool, &owner, view.servers, status.server.as_ref(), mass).await?;
        observed.epoch = epoch(&observed.server, status.server.as_ref());
        observed.tunnel = match (view.tunnels.into_iter().next(), &owner.recorded.tunnel) {
            (None, Some(id)) => confirm_tunnel(pool, &owner, id)
                .await
                .map_err(|error| Problem::of_cloud(ConditionType::TunnelReady, &error))?,
            (tunnel, _) => tunnel,
        };
        let tunnels: Vec<_> = observed.tunnel.iter().map(|tunnel| tunnel.id.clone()).collect();
        let hosts = subject.hosts();
        let own = |record: &DnsRecord| owner.record(record, &tunnels).is_ours();
        let own = view.records.into_iter().filter(own);
        (observed.records, observed.stray_records) =
            own.partition(|record| hosts.contains(&record.name));
        let there = observed.server.present().is_some() && observed.tunnel.is_some();
        let life = (observed.epoch, there);
        observed.master_key_id = self.key_of_server(wanted, pool, &status, life).await;
        observed.status = status;
        self.read_credentials(instance, wanted, &mut observed).await?;
        observed.dashboard_secret = self.look_at_dashboard(instance, wanted, &observed).await?;
        observed.former_dashboard = self.look_at_former_dashboard(instance, wanted).await?;
        observed.agent = self.ask_agent(instance, wanted, pool, memory, &observed).await;
        observed.failed_action = self.failed_action(pool, memory, &observed).await;
        self.derive(wanted, &mut observed);
        Ok(observed)
    }

    /// What Hetzner failed at with a server that should run by now, asked at most once a minute. It is a
    /// word for people and a reason to give up sooner, so that no answer is no problem.
    async fn failed_action(
        &self,
        pool: &PoolRuntime,
        memory: &mut Memory,
        observed: &Observed,
    ) -> Option<Action> {
        let server = observed.server.present().filter(|_| first_boot::is_late(observed));
        let Some(server) = server else {
            memory.failed_action = None;
            return None;
        };
        let recent = |at: Timestamp| observed.now.duration_since(at).unsigned_abs() < BETWEEN_LOOKS;
        if let Some((at, known)) = &memory.failed_action
            && recent(*at)
        {
            return known.clone();
        }
        let failed = match pool.hetzner.failed_actions(Priority::Normal, server.id).await {
            Ok(actions) => actions.into_iter().max_by_key(|action| action.id),
            Err(error) => {
                tracing::info!(%error, "what Hetzner failed at cannot be looked at");
                None
            }
        };
        memory.failed_action = Some((observed.now, failed.clone()));
        failed
    }

    async fn read_credentials(
        &self,
        instance: &OpenClawInstance,
        wanted: &Wanted,
        observed: &mut Observed,
    ) -> Result<(), ClusterError> {
        for name in secrets_of(&wanted.credentials) {
            let view = self.cluster.secret(&instance.namespace().unwrap_or_default(), name).await?;
            observed.take_secret(wanted, name, view.as_ref());
        }
        observed.take_inline(wanted);
        Ok(())
    }

    async fn look_at_dashboard(
        &self,
        instance: &OpenClawInstance,
        wanted: &Wanted,
        observed: &Observed,
    ) -> Result<DashboardState, ClusterError> {
        let Some(name) = &wanted.dashboard_secret else { return Ok(DashboardState::NotWanted) };
        let url = format!("https://{}", wanted.subject.dashboard_host());
        // Before there is a server no token is the current one: what holds any is stale.
        let epoch = observed.epoch.unwrap_or(Epoch::from_bytes([0; 8]));
        let token = self.gateway_token(wanted, observed, epoch);
        let access = DashboardAccess { url: &url, token: token.secret() };
        Ok(match self.cluster.dashboard_secret(instance, name).await? {
            DashboardSecret::Absent => DashboardState::Absent,
            DashboardSecret::Foreign => DashboardState::Foreign,
            DashboardSecret::Ours { version, url, token } if access.is_in(&url, &token) => {
                DashboardState::Current(version)
            }
            DashboardSecret::Ours { version, .. } => DashboardState::Stale(version),
        })
    }

    /// The Secret that the status names and the spec does not, if it is there and ours.
    async fn look_at_former_dashboard(
        &self,
        instance: &OpenClawInstance,
        wanted: &Wanted,
    ) -> Result<Option<SecretVersion>, ClusterError> {
        let recorded = instance.status.as_ref().and_then(|old| old.dashboard_secret_name.as_ref());
        let former = recorded.filter(|former| wanted.dashboard_secret.as_ref() != Some(*former));
        let Some(former) = former else { return Ok(None) };
        Ok(match self.cluster.dashboard_secret(instance, former).await? {
            DashboardSecret::Ours { version, .. } => Some(version),
            DashboardSecret::Absent | DashboardSecret::Foreign => None,
        })
    }

    /// The token that opens the dashboard of the server of `epoch`.
    pub(super) fn gateway_token(
        &self,
        wanted: &Wanted,
        observed: &Observed,
        epoch: Epoch,
    ) -> GatewayToken {
        let (subject, generation) = (&wanted.subject, wanted.gateway_generation);
        let life = subject.gateway_life(epoch);
        self.master_key(observed).gateway_token(subject.instance, life, generation)
    }

    /// Derives again what belongs to the server's master key, as far as it is of use for planning.
    pub(super) fn derive(&self, wanted: &Wanted, observed: &mut Observed) {
        let Some(epoch) = observed.epoch else { return };
        observed.own_tokens = Some(self.own_tokens(wanted, observed, epoch));
        observed.operator_keys = Some(self.operator_keys(wanted, observed, epoch));
    }

    fn own_tokens(&self, wanted: &Wanted, observed: &Observed, epoch: Epoch) -> OwnTokens {
        let (master, instance) = (self.master_key(observed), wanted.subject.instance);
        let gateway = self.gateway_token(wanted, observed, epoch);
        let secret = master.tunnel_secret(instance, epoch, TunnelGeneration::FIRST_ROTATED);
        let id = observed.tunnel.as_ref().map(|tunnel| tunnel.id.to_string()).unwrap_or_default();
        let token = secret.run_token(wanted.account.as_str(), &id);
        OwnTokens {
            gateway: OwnCredential::Gateway(&gateway).source_sha256(),
            tunnel: OwnCredential::Tunnel(&token).source_sha256(),
        }
    }

    /// How to reach the agent of an instance.
    pub(super) fn route(subject: &Subject, pool: &PoolRuntime) -> Option<AgentRoute> {
        let access: Arc<AccessHeaders> = pool.facilities.as_ref().ok()?.access.clone();
        Some(AgentRoute {
            host: subject.management_host(),
            anchor: pool.inventory.anchor(),
            access,
        })
    }

    async fn ask_agent(
        &self,
        instance: &OpenClawInstance,
        wanted: &Wanted,
        pool: &PoolRuntime,
        memory: &Memory,
        observed: &Observed,
    ) -> AgentState {
        let (Some(epoch), Some(_), Some(_)) =
            (observed.epoch, observed.server.present(), &observed.tunnel)
        else {
            return AgentState::NotAsked;
        };
        let remembered = memory.agent.as_ref().filter(|view| view.report.identity.epoch == epoch);
        if let Some(view) = remembered
            && !self.is_due(instance, view, memory, observed)
        {
            return AgentState::Reported(Box::new(view.clone()));
        }
        let Some(route) = Self::route(&wanted.subject, pool) else { return AgentState::NotAsked };
        if route.anchor.is_none() && self.is_too_new(&route, observed) {
            return AgentState::NotAsked;
        }
        let master = self.master_key(observed);
        let keys = (self.costly.server_keys)(&master, wanted.subject.instance, epoch);
        match self.ask(&route, &keys, observed, epoch).await {
            Ok(view) => {
                let same_versions_before =
                    remembered.is_some_and(|before| before.has_versions_of(&view.report));
                AgentState::Reported(Box::new(AgentView { same_versions_before, ..view }))
            }
            Err(error @ AgentError::Unreachable { .. }) => {
                tracing::debug!(%error, "no answer of an agent");
                let recent = |view: &&AgentView| {
                    observed.now.duration_since(view.at).unsigned_abs() < SILENCE
                };
                match remembered.filter(recent) {
                    Some(view) => {
                        AgentState::Reported(Box::new(AgentView { stale: true, ..view.clone() }))
                    }
                    None => AgentState::Silent(error),
                }
            }
            Err(error) => AgentState::Silent(error),
        }
    }

    /// Whether a resolver that is asked for the host name now may be told that there is none, and keep that.
    fn is_too_new(&self, route: &AgentRoute, observed: &Observed) -> bool {
        let fresh = |record: &DnsRecord| {
            record.name == route.host && !inventory::is_known(record, observed.now)
        };
        self.ctx.agents.looks_names_up() && observed.records.iter().any(fresh)
    }

    /// Whether the agent should be asked again rather than believed by its last report.
    fn is_due(
        &self,
        instance: &OpenClawInstance,
        view: &AgentView,
        memory: &Memory,
        observed: &Observed,
    ) -> bool {
        let age = observed.now.duration_since(view.at).unsigned_abs();
        let changed = memory.asked_for.as_ref() != Some(&Memory::request(instance));
        let undelivered = observed.handed_in.values().flatten().any(|value| {
            view.receipt(&value.name)
                .is_none_or(|receipt| receipt.source_sha256 != value.envelope.sha256())
                && !view.consumed(&value.name, &value.envelope.sha256())
        });
        !memory.settled || changed || undelivered || view.stale || age >= self.ctx.intervals.report
    }

    async fn ask(
        &self,
        route: &AgentRoute,
        keys: &ServerKeys,
        observed: &Observed,
        epoch: Epoch,
    ) -> Result<AgentView, AgentError> {
        let known = observed.status.agent.as_ref().filter(|agent| agent.epoch == epoch.to_string());
        let known = known.and_then(|agent| {
            let public_key = agent.public_key.parse().ok()?;
            let certificate = (self.costly.certificate)(&agent.sealing_certificate).ok()?;
            Some(AgentKeys { public_key, certificate })
        });
        let agent = if let Some(agent) = known {
            agent
        } else {
            let identity = self.ctx.agents.enrol(route, keys).await?;
            let certificate = (self.costly.certificate)(&identity.sealing_certificate)
                .map_err(|error| AgentError::NotAuthentic(error.to_string()))?;
            AgentKeys { public_key: identity.public_key, certificate }
        };
        let report = self.ctx.agents.report(route, keys, agent.public_key).await?;
        let forged = |receipt: &Receipt| !(self.costly.is_signed)(receipt, &agent.public_key);
        if report.receipts.iter().any(forged) {
            return Err(AgentError::NotAuthentic(
                "a receipt in its report is not signed by it".into(),
            ));
        }
        Ok(AgentView {
            keys: agent,
            report,
            at: self.now(),
            stale: false,
            same_versions_before: false,
        })
    }

    fn fresh_epoch(&self) -> Option<Epoch> {
        let mut bytes = [0; 8];
        self.ctx.randomness.fill(&mut bytes).then(|| Epoch::from_bytes(bytes))
    }

    /// Servers of this pool's instances that the sweep does not show.
    fn disappearance(&self, pool: &PoolRuntime) -> Disappearance {
        let state = self.instances.state();
        let ids: Vec<_> = state
            .iter()
            .filter_map(|instance| instance.0.as_ref().ok())
            .filter(|instance| instance.spec.pool == pool.name)
            .filter_map(|instance| {
                let recorded = instance.status.as_ref()?.server.as_ref()?;
                let id = recorded.id.filter(|_| recorded.first_boot != Some(FirstBoot::GivenUp))?;
                let deleting = instance.metadata.deletion_timestamp.is_some();
                let rebuild = Rebuild::of(instance.annotations());
                let counts = Disappearance::counts(id, deleting, instance.spec.suspend, rebuild);
                counts.then_some(ServerId(id))
            })
            .collect();
        Disappearance { missing: pool.inventory.missing_servers(ids.iter()), total: ids.len() }
    }
}

/// Finds the instance's server among those with its labels. A list is no transaction: a recorded server
/// that it does not show is asked for by id before anything acts on that.
async fn look_at_servers(
    pool: &PoolRuntime,
    owner: &Owner,
    servers: Vec<Server>,
    recorded: Option<&ServerStatus>,
    mass: bool,
) -> Result<(ServerState, Vec<ServerId>), Problem> {
    let name = names::server(&owner.hostname, owner.instance);
    let known = Known { recorded, gone: false, name: &name };
    let told = copies::tell_apart(&servers, known);
    if let Some(own) = told.own {
        return Ok((ServerState::Present(Box::new(own)), told.copies));
    }
    let Some(id) = owner.recorded.server else { return Ok((ServerState::None, told.copies)) };
    if mass && servers.is_empty() {
        return Ok((ServerState::Gone, Vec::new()));
    }
    let found = pool.hetzner.get_server(Priority::Normal, id).await;
    match found.map_err(|error| Problem::of_cloud(ConditionType::ServerReady, &error))? {
        Some(server) if owner.server(&server).is_ours() => {
            pool.inventory.note_server(server.clone());
            return Ok((ServerState::Present(Box::new(server)), told.copies));
        }
        // Nobody else's has this name.
        Some(server) if server.name == name => return Err(relabelled(owner, &server)),
        _ => {}
    }
    pool.inventory.forget_server(id);
    let told = copies::tell_apart(&servers, Known { gone: true, ..known });
    let sight = told.own.map_or(ServerState::Gone, |own| ServerState::Present(Box::new(own)));
    Ok((sight, told.copies))
}

/// Another server beside this one would be a second one, and this one is not to be written to.
fn relabelled(owner: &Owner, server: &Server) -> Problem {
    let said = match owner.server(server) {
        Ownership::Retained(_) => "that it is retained".to_owned(),
        Ownership::FormerInstallation { installation, .. } => {
            format!("that it is of installation {installation}")
        }
        Ownership::AnotherInstance { place: Some(place), .. } => format!("that it is {place}'s"),
        _ => "that it is another's".to_owned(),
    };
    let message = format!(
        "Server {} was this instance's, but its labels say {said}. Set its labels {}, {} and {} back, or take all of them off, and they are set again",
        server.id,
        label::INSTANCE,
        label::INSTALLATION,
        label::RETAINED,
    );
    Problem::new(ConditionType::ServerReady, Reason::ForeignServer, message)
}

/// The life that is under way: that of the server that is there, else the one that was written down.
fn epoch(sight: &ServerState, recorded: Option<&ServerStatus>) -> Option<Epoch> {
    let written = recorded.and_then(|recorded| recorded.epoch.parse().ok());
    match sight.present() {
        Some(server) if recorded.and_then(|recorded| recorded.id) == Some(server.id.0) => {
            written.or_else(|| names::epoch(server))
        }
        Some(server) => names::epoch(server),
        None => written,
    }
}

async fn confirm_tunnel(
    pool: &PoolRuntime,
    owner: &Owner,
    id: &TunnelId,
) -> Result<Option<Tunnel>, CloudError> {
    let found = pool.cloudflare.get_tunnel(Priority::Normal, id).await?;
    let found =
        found.filter(|tunnel| tunnel.deleted_at.is_none() && owner.tunnel(tunnel).is_ours());
    match &found {
        Some(tunnel) => pool.inventory.note_tunnel(tunnel.clone()),
        None => pool.inventory.forget_tunnel(id),
    }
    Ok(found)
}
