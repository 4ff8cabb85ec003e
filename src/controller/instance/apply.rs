//! Apply: every write of a pass. Each step can be repeated, and what it did is noted at once in what
//! was seen, so that the next round of planning knows.

use moorage_wire::{CredentialName, Epoch, bootstrap::Bootstrap, problem::ProblemCode};

use super::Controller;
use crate::{
    agent::{AgentError, AgentRoute, ServerKeys},
    api::{
        OpenClawInstance, OpenClawInstanceStatus,
        conditions::{ConditionType, reason},
        instance::ServerStatus,
    },
    cloud::{CloudError, Conflict, ErrorKind, Priority},
    cloudflare::{CreateTunnel, DnsRecord, Tunnel, TunnelConfiguration, TunnelId},
    cluster::{ClusterError, DashboardAccess},
    credentials::{
        courier::{OwnCredential, Parcel, Recipient, prepare, prepare_own},
        key_ring::KeyRing,
        secret_source::SecretVersion,
    },
    dns::DnsChange,
    hetzner::{
        AppliedFirewall, CreateServer, CreatedServer, FirewallId, FirewallStatus, Server, ServerId,
    },
    instance::{
        Failure, Observed, Step, Wanted,
        observed::{AgentSight, AgentView, ServerSight},
        routes,
    },
    master_key::{GatewayGeneration, TunnelGeneration},
    metrics::DeliveryOutcome,
    names::{self, OwnedName as _},
    pool::{Facilities, PoolRuntime},
    user_data::{self, UserDataInput},
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

    async fn step(&mut self, step: Step, seen: &mut Observed) -> Result<(), Trouble> {
        match step {
            Step::RecordEpoch(epoch) => self.record_epoch(epoch, seen).await,
            Step::CreateTunnel => self.create_tunnel(seen).await,
            Step::BootstrapTunnel(id) => self.bootstrap_tunnel(&id, seen).await,
            Step::PutRoutes(id, rules) => self.put_routes(&id, &rules, seen).await,
            Step::CheckRoutes(id, rules) => self.check_routes(&id, &rules, seen).await,
            Step::EnsureRecords { posts, patches } => {
                let records = match self.pool.dns.apply(DnsChange::Ensure { posts, patches }).await
                {
                    // Made before, and the answer was lost: no need to wait for the next sweep.
                    Err(error)
                        if matches!(
                            error.kind,
                            ErrorKind::Conflict(Conflict::RecordExists | Conflict::HostExists)
                        ) =>
                    {
                        self.find_records(error, seen).await?
                    }
                    records => records.map_err(failed(ConditionType::RoutesReady))?,
                };
                for record in records {
                    self.pool.inventory.note_record(record.clone());
                    seen.records.retain(|known| known.name != record.name);
                    seen.records.push(record);
                }
                Ok(())
            }
            Step::CreateServer => self.create_server(seen).await,
            Step::AttachFirewall(firewall, id) => self.attach_firewall(firewall, id, seen).await,
            Step::DeleteServer(id) => {
                self.pool
                    .hetzner
                    .delete_server(id)
                    .await
                    .map_err(failed(ConditionType::ServerReady))?;
                self.pool.inventory.forget_server(id);
                Ok(())
            }
            Step::DeliverCredential(name) => self.deliver(&name, seen).await,
            Step::DeliverGatewayToken => {
                let token = self
                    .controller
                    .ctx
                    .master_key
                    .gateway_token(self.wanted.subject.instance, GatewayGeneration(0));
                self.deliver_own(OwnCredential::Gateway(&token), seen).await
            }
            Step::DeliverTunnelToken => self.deliver_tunnel_token(seen).await,
            Step::RotateTunnel(id) => self.rotate(&id, seen).await,
            Step::PutDesired { document, replaces } => {
                let (route, keys, view) = self.agent(seen, ConditionType::ConfigApplied)?;
                let agent = view.keys.public_key;
                let sent = self
                    .controller
                    .ctx
                    .agents
                    .put_desired(&route, &keys, agent, document.to_bytes(), replaces)
                    .await;
                match sent {
                    Ok(()) => Ok(()),
                    // The agent has another document than its report said: the next look tells which.
                    Err(AgentError::Refused(problem))
                        if problem.code == ProblemCode::DigestMismatch =>
                    {
                        Ok(())
                    }
                    Err(error) => {
                        Err(Failure::of_agent(ConditionType::ConfigApplied, &error).into())
                    }
                }
            }
            Step::DeleteSecret { name, version, recreated } => {
                self.delete_secret(name, &version, &recreated, seen).await
            }
            Step::WriteDashboardSecret(name) => {
                let subject = &self.wanted.subject;
                let url = format!("https://{}", subject.dashboard_host());
                let token = self
                    .controller
                    .ctx
                    .master_key
                    .gateway_token(subject.instance, GatewayGeneration(0));
                let access = DashboardAccess { url: &url, token: token.secret() };
                self.controller
                    .cluster
                    .write_dashboard_secret(self.instance, &name, &access)
                    .await?;
                seen.dashboard_secret = crate::instance::observed::DashboardSight::Current;
                Ok(())
            }
        }
    }

    async fn delete_secret(
        &self,
        name: String,
        version: &SecretVersion,
        recreated: &[CredentialName],
        seen: &mut Observed,
    ) -> Result<(), Trouble> {
        let namespace = &self.wanted.subject.namespace;
        self.controller.cluster.delete_secret(namespace, &name, Some(version)).await?;
        tracing::info!(secret = name, "deleted a Secret whose values are all receipted");
        seen.bundles.retain(|bundle| bundle.secret != name);
        seen.handed_in.retain(|credential, _| !self.comes_from(credential, &name));
        for known in &mut seen.status.credentials {
            let again = recreated.iter().any(|credential| credential.as_str() == known.name);
            known.recreated += u32::from(again);
        }
        Ok(())
    }

    fn comes_from(&self, credential: &CredentialName, secret: &str) -> bool {
        use crate::credentials::secret_source::CredentialSource;
        self.wanted.credentials.iter().any(|request| {
            request.name == *credential
                && matches!(&request.source, CredentialSource::SecretKey { secret: name, .. } if name == secret)
        })
    }

    /// The epoch stands in the status before anything is made for it: whatever dies now, the next
    /// pass knows which server to look for.
    async fn record_epoch(&mut self, epoch: Epoch, seen: &mut Observed) -> Result<(), Trouble> {
        let master_key_id = Some(self.controller.ctx.master_key.id().to_string());
        let server =
            ServerStatus { epoch: epoch.to_string(), master_key_id, ..ServerStatus::default() };
        let status =
            OpenClawInstanceStatus { server: Some(server), agent: None, ..seen.status.clone() };
        self.controller.write(self.instance, self.persisted.as_ref(), &status).await?;
        *self.persisted = Some(status.clone());
        seen.status = status;
        seen.epoch = Some(epoch);
        seen.server = ServerSight::None;
        seen.agent = AgentSight::NotAsked;
        seen.tunnel_memory.rotated = None;
        seen.own_tokens =
            Some(self.controller.own_tokens(self.wanted, seen.tunnel.as_ref(), epoch));
        Ok(())
    }

    /// The instance's records at its host names that were not seen yet; without any the conflict is
    /// with somebody else's, which the next sweep shows.
    async fn find_records(
        &self,
        conflict: CloudError,
        seen: &Observed,
    ) -> Result<Vec<DnsRecord>, Trouble> {
        let subject = &self.wanted.subject;
        let comment = names::record_comment(subject.installation, subject.instance, "", "");
        let comment = comment.trim_end_matches('/');
        let (cloudflare, zone) = (&self.pool.cloudflare, self.pool.dns.zone());
        let found = cloudflare.list_dns_records(Priority::Normal, zone, comment).await;
        let mut found = found.map_err(failed(ConditionType::RoutesReady))?;
        let hosts = subject.hosts();
        found.retain(|record| {
            record.owner(subject.installation) == Some(subject.instance)
                && hosts.contains(&record.name)
                && !seen.records.iter().any(|known| known.id == record.id)
        });
        if found.is_empty() {
            return Err(failed(ConditionType::RoutesReady)(conflict));
        }
        Ok(found)
    }

    fn tunnel_secret(
        &self,
        seen: &Observed,
        generation: TunnelGeneration,
    ) -> Result<crate::master_key::TunnelSecret, Failure> {
        let epoch = seen.epoch.ok_or_else(|| no_epoch(ConditionType::TunnelReady))?;
        let master = &self.controller.ctx.master_key;
        Ok(master.tunnel_secret(self.wanted.subject.instance, epoch, generation))
    }

    async fn create_tunnel(&self, seen: &mut Observed) -> Result<(), Trouble> {
        let subject = &self.wanted.subject;
        let name = names::tunnel(subject.installation, subject.instance);
        let secret = self.tunnel_secret(seen, TunnelGeneration::BOOTSTRAP)?;
        let created = self
            .pool
            .cloudflare
            .create_tunnel(&CreateTunnel { name: &name, secret: &secret })
            .await;
        let tunnel = match created {
            Ok(tunnel) => {
                seen.tunnel_memory.bootstrapped = seen.epoch;
                tunnel
            }
            // Made before, and the answer was lost: the name holds our random ids, so it is ours. Its
            // secret may be of an earlier try, so it is set again before a server is made.
            Err(error) if error.kind == ErrorKind::Conflict(Conflict::NameTaken) => {
                self.find_tunnel(&name).await?
            }
            Err(error) => return Err(failed(ConditionType::TunnelReady)(error)),
        };
        self.pool.inventory.note_tunnel(tunnel.clone());
        seen.tunnel_memory.rules = None;
        seen.own_tokens =
            seen.epoch.map(|epoch| self.controller.own_tokens(self.wanted, Some(&tunnel), epoch));
        seen.tunnel = Some(tunnel);
        Ok(())
    }

    async fn find_tunnel(&self, name: &str) -> Result<Tunnel, Trouble> {
        let found = self.pool.cloudflare.find_tunnel_by_name(Priority::Normal, name).await;
        found.map_err(failed(ConditionType::TunnelReady))?.ok_or_else(|| {
            let message = "Cloudflare says that the tunnel's name is taken but does not show it; it is tried again";
            Failure::passing(ConditionType::TunnelReady, reason::CLOUD_UNAVAILABLE, message).into()
        })
    }

    async fn bootstrap_tunnel(&self, id: &TunnelId, seen: &mut Observed) -> Result<(), Trouble> {
        let secret = self.tunnel_secret(seen, TunnelGeneration::BOOTSTRAP)?;
        self.set_tunnel_secret(id, &secret).await?;
        seen.tunnel_memory.bootstrapped = seen.epoch;
        Ok(())
    }

    async fn rotate(&self, id: &TunnelId, seen: &mut Observed) -> Result<(), Trouble> {
        let secret = self.tunnel_secret(seen, TunnelGeneration::FIRST_ROTATED)?;
        self.set_tunnel_secret(id, &secret).await?;
        seen.tunnel_memory.rotated = Some(seen.now);
        Ok(())
    }

    /// Only new connections are held to a new secret, so the old ones are cut.
    async fn set_tunnel_secret(
        &self,
        id: &TunnelId,
        secret: &crate::master_key::TunnelSecret,
    ) -> Result<(), Trouble> {
        let cloudflare = &self.pool.cloudflare;
        cloudflare
            .rotate_tunnel_secret(id, secret)
            .await
            .map_err(failed(ConditionType::TunnelReady))?;
        cloudflare
            .delete_tunnel_connections(id)
            .await
            .map_err(failed(ConditionType::TunnelReady))?;
        Ok(())
    }

    async fn put_routes(
        &self,
        id: &TunnelId,
        rules: &TunnelConfiguration,
        seen: &mut Observed,
    ) -> Result<(), Trouble> {
        self.pool
            .cloudflare
            .put_tunnel_configuration(id, rules)
            .await
            .map_err(failed(ConditionType::RoutesReady))?;
        seen.tunnel_memory.rules = Some((routes::digest(rules), seen.now));
        Ok(())
    }

    async fn check_routes(
        &self,
        id: &TunnelId,
        rules: &TunnelConfiguration,
        seen: &mut Observed,
    ) -> Result<(), Trouble> {
        let found = self.pool.cloudflare.get_tunnel_configuration(Priority::Sweep, id).await;
        let found = found.map_err(failed(ConditionType::RoutesReady))?;
        let same = found
            .and_then(|found| found.config)
            .is_some_and(|found| found.ingress == rules.ingress);
        if !same {
            tracing::info!(
                "the tunnel's ingress rules were changed by somebody; setting them again"
            );
            return self.put_routes(id, rules, seen).await;
        }
        seen.tunnel_memory.rules = Some((routes::digest(rules), seen.now));
        Ok(())
    }

    /// Tries each type and location in order; only what is out of stock leads to the next.
    async fn create_server(&self, seen: &mut Observed) -> Result<(), Trouble> {
        let part = ConditionType::ServerReady;
        let epoch = seen.epoch.ok_or_else(|| no_epoch(part))?;
        let tunnel = seen.tunnel.as_ref().ok_or_else(|| no_epoch(part))?;
        let facilities =
            self.pool.facilities.as_ref().map_err(|blocked| {
                Failure::passing(part, blocked.reason, blocked.message.clone())
            })?;
        let mut out_of_stock = None;
        for place in &self.wanted.placements {
            let request = self.server_request(epoch, tunnel, facilities, place)?;
            match self.pool.hetzner.create_server(&request).await {
                Ok(CreatedServer { server, .. }) => {
                    tracing::info!(server = %server.id, kind = place.server_type, location = place.location, "made a server");
                    self.take_server(server, seen);
                    return Ok(());
                }
                Err(error) if error.kind == ErrorKind::OutOfStock => out_of_stock = Some(error),
                // Made before, and the answer was lost.
                Err(error) if error.kind == ErrorKind::Conflict(Conflict::NameTaken) => {
                    return self.adopt_server(&request.name, epoch, seen).await;
                }
                Err(error) => return Err(failed(part)(error)),
            }
        }
        Err(out_of_stock.map_or_else(
            || {
                Failure::terminal(
                    part,
                    reason::INVALID_SPEC,
                    "There is no server type and location to choose from",
                )
                .into()
            },
            failed(part),
        ))
    }

    async fn attach_firewall(
        &self,
        firewall: FirewallId,
        id: ServerId,
        seen: &mut Observed,
    ) -> Result<(), Trouble> {
        tracing::warn!(server = %id, %firewall, "the server stood without the pool's firewall");
        let applied = self.pool.hetzner.apply_firewall(firewall, id).await;
        applied.map_err(failed(ConditionType::ServerReady))?;
        if let ServerSight::Present(server) = &mut seen.server {
            let status = FirewallStatus::Pending;
            server.public_net.firewalls.push(AppliedFirewall { id: firewall, status });
            self.pool.inventory.note_server(server.as_ref().clone());
        }
        Ok(())
    }

    fn server_request(
        &self,
        epoch: Epoch,
        tunnel: &Tunnel,
        facilities: &Facilities,
        place: &crate::instance::wanted::Placement,
    ) -> Result<CreateServer, Failure> {
        let (subject, ctx) = (&self.wanted.subject, &self.controller.ctx);
        let keys = ServerKeys::derive(&ctx.master_key, subject.instance, epoch);
        let bootstrap = Bootstrap {
            instance_id: subject.instance,
            epoch,
            operator_key: keys.operator.public_key(),
            bearer_sha256: keys.bearer.sha256(),
            enrolment_key: keys.enrolment.to_text(),
        };
        let secret =
            ctx.master_key.tunnel_secret(subject.instance, epoch, TunnelGeneration::BOOTSTRAP);
        let token = secret.run_token(self.wanted.account.as_str(), tunnel.id.as_str());
        let input = UserDataInput {
            bootstrap: &bootstrap,
            tunnel_token: token.secret(),
            artifacts: &self.wanted.release.artifacts,
            ssh: self.wanted.ssh.as_ref(),
        };
        let user_data = user_data::render(&input).map_err(|error| {
            Failure::terminal(ConditionType::ServerReady, reason::INVALID_SPEC, error.to_string())
        })?;
        Ok(CreateServer {
            name: names::server(&subject.hostname, subject.instance),
            server_type: place.server_type.clone(),
            image: self.wanted.image.clone(),
            location: Some(place.location.clone()),
            labels: subject.server_identity(epoch).labels(),
            ssh_keys: facilities.ssh_keys.clone(),
            user_data,
            firewalls: vec![facilities.firewall],
            enable_ipv4: self.wanted.ipv4,
            enable_ipv6: true,
        })
    }

    async fn adopt_server(
        &self,
        name: &str,
        epoch: Epoch,
        seen: &mut Observed,
    ) -> Result<(), Trouble> {
        let part = ConditionType::ServerReady;
        let found = self
            .pool
            .hetzner
            .find_server_by_name(Priority::Normal, name)
            .await
            .map_err(failed(part))?;
        let subject = &self.wanted.subject;
        let ours = |server: &Server| {
            server.owner(subject.installation) == Some(subject.instance)
                && names::epoch(server) == Some(epoch)
        };
        match found {
            Some(server) if ours(&server) => {
                self.take_server(server, seen);
                Ok(())
            }
            Some(server) => {
                let message = format!("Server {} has the name {name} but not this instance's labels; it is left untouched: rename or delete it", server.id);
                Err(Failure::terminal(part, reason::FOREIGN_SERVER, message).into())
            }
            None => Err(Failure::passing(part, reason::CLOUD_UNAVAILABLE, "Hetzner says that the server's name is taken but does not show it; it is tried again").into()),
        }
    }

    fn take_server(&self, server: Server, seen: &mut Observed) {
        self.pool.inventory.note_server(server.clone());
        seen.server = ServerSight::Present(Box::new(server));
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
            &self.controller.ctx.master_key,
            self.wanted.subject.instance,
            epoch,
        );
        match &mut seen.agent {
            AgentSight::Reported(view) => Ok((route, keys, view)),
            AgentSight::NotAsked | AgentSight::Silent(_) => Err(silent()),
        }
    }

    async fn deliver(&self, name: &CredentialName, seen: &mut Observed) -> Result<(), Trouble> {
        let Some(Ok(value)) = seen.handed_in.get(name).cloned() else { return Ok(()) };
        let part = ConditionType::CredentialsDelivered;
        let parcel = {
            let (_, keys, view) = self.agent(seen, part)?;
            let to = Recipient {
                certificate: &view.keys.certificate,
                instance: keys.instance,
                epoch: keys.epoch,
            };
            prepare(&value, self.ring, &to)
        };
        match parcel {
            Ok(parcel) => self.send(parcel, seen).await,
            Err(refusal) => {
                self.controller.ctx.metrics.delivery(DeliveryOutcome::Refused);
                seen.handed_in.insert(name.clone(), Err(refusal));
                Ok(())
            }
        }
    }

    async fn deliver_own(
        &self,
        own: OwnCredential<'_>,
        seen: &mut Observed,
    ) -> Result<(), Trouble> {
        let part = ConditionType::CredentialsDelivered;
        let (_, keys, view) = self.agent(seen, part)?;
        let to = Recipient {
            certificate: &view.keys.certificate,
            instance: keys.instance,
            epoch: keys.epoch,
        };
        let parcel = prepare_own(own, &to)
            .map_err(|refusal| Failure::passing(part, refusal.reason(), refusal.to_string()))?;
        self.send(parcel, seen).await
    }

    async fn deliver_tunnel_token(&self, seen: &mut Observed) -> Result<(), Trouble> {
        let part = ConditionType::TunnelReady;
        let epoch = seen.epoch.ok_or_else(|| no_epoch(part))?;
        let tunnel = seen.tunnel.as_ref().ok_or_else(|| no_epoch(part))?;
        let master = &self.controller.ctx.master_key;
        let secret = master.tunnel_secret(
            self.wanted.subject.instance,
            epoch,
            TunnelGeneration::FIRST_ROTATED,
        );
        let token = secret.run_token(self.wanted.account.as_str(), tunnel.id.as_str());
        self.deliver_own(OwnCredential::Tunnel(&token), seen).await
    }

    async fn send(&self, parcel: Parcel, seen: &mut Observed) -> Result<(), Trouble> {
        let part = ConditionType::CredentialsDelivered;
        let (route, keys, view) = self.agent(seen, part)?;
        let (ctx, agent) = (&self.controller.ctx, view.keys.public_key);
        let sent =
            ctx.agents.put_credential(&route, &keys, agent, &parcel.name, &parcel.credential).await;
        let source = parcel.credential.source_sha256();
        match sent {
            // The client has checked the signature; that the receipt is for this value is checked here.
            Ok(receipt) if receipt.credential == parcel.name && receipt.source_sha256 == source => {
                ctx.metrics.delivery(DeliveryOutcome::Delivered);
                view.report.receipts.retain(|known| known.credential != parcel.name);
                view.report.receipts.push(receipt);
                Ok(())
            }
            Ok(_) => {
                ctx.metrics.delivery(DeliveryOutcome::Failed);
                let error = AgentError::NotAuthentic("its receipt is for another value".into());
                Err(Failure::of_agent(part, &error).into())
            }
            Err(AgentError::Refused(problem)) if problem.code == ProblemCode::AlreadyConsumed => {
                ctx.metrics.delivery(DeliveryOutcome::AlreadyDelivered);
                let consumed = moorage_wire::report::Consumed {
                    credential: parcel.name,
                    source_sha256: source,
                };
                view.report.consumed.push(consumed);
                Ok(())
            }
            Err(AgentError::Refused(problem))
                if matches!(
                    problem.code,
                    ProblemCode::InvalidFormat | ProblemCode::CannotUnseal
                ) =>
            {
                ctx.metrics.delivery(DeliveryOutcome::Refused);
                seen.agent_refused.insert(parcel.name, problem.message);
                Ok(())
            }
            Err(error) => {
                ctx.metrics.delivery(DeliveryOutcome::Failed);
                Err(Failure::of_agent(part, &error).into())
            }
        }
    }
}

/// Steps are planned only when what they need is there.
fn no_epoch(part: ConditionType) -> Failure {
    Failure::passing(part, reason::WAITING, "Waits for the parts before it")
}
