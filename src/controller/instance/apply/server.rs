//! The server: made in the first place that has one, labelled, put behind its firewall, deleted.

use moorage_wire::{Epoch, bootstrap::Bootstrap};

use super::{Apply, Ending, Executor, Gone, PassError, Remove, no_epoch};
use crate::{
    admission::Home,
    api::conditions::{ConditionType, Reason},
    cloud::{Conflict, ErrorKind, Priority},
    cloudflare::Tunnel,
    hetzner::{
        self, AppliedFirewall, CreateServer, CreatedServer, FirewallId, FirewallStatus, Server,
        ServerId, ServerStatus as ServerPower,
    },
    instance::{
        Observed, RefusedPlaces, first_boot, places,
        server::{ServerOutcome, ServerRemoval, ServerStep},
        wanted::Placement,
    },
    master_key::TunnelGeneration,
    names,
    ownership::Ownership,
    pool::Facilities,
    problem::Problem,
    user_data::UserDataInput,
};

impl Apply for ServerStep {
    async fn apply(
        self,
        executor: &mut Executor<'_>,
        observed: &mut Observed,
    ) -> Result<ServerOutcome, PassError> {
        let server = match self {
            Self::RecordEpoch(epoch) => {
                // It stands in the status by now.
                executor.begin();
                return Ok(ServerOutcome::Epoch(epoch));
            }
            Self::Delete(id) => {
                executor.delete_server(id, observed).await?;
                return Ok(ServerOutcome::Deleted);
            }
            Self::GiveUp(id) => {
                let deleted = executor.give_up(id, observed).await?;
                return Ok(deleted);
            }
            Self::Create => {
                let server = executor.create_server(observed).await?;
                executor.pool.inventory.note_server(server.clone());
                return Ok(ServerOutcome::Made(Box::new(server)));
            }
            Self::Label(id, labels) => {
                tracing::warn!(server = %id, "somebody changed the server's labels; setting them again");
                let labelled = executor.pool.hetzner.update_server_labels(id, &labels).await;
                labelled.map_err(PassError::of_cloud(ConditionType::ServerReady))?
            }
            Self::PowerOn(id) => executor.power_on(id, observed).await?,
            Self::AttachFirewall(firewall, id) => {
                executor.attach_firewall(firewall, id, observed).await?
            }
        };
        executor.pool.inventory.note_server(server.clone());
        Ok(ServerOutcome::Changed(Box::new(server)))
    }
}

impl Remove for ServerRemoval {
    async fn remove(&self, ending: &Ending<'_>) -> Result<Gone, PassError> {
        match self {
            Self::Delete(id) => delete(*id, ending).await,
            Self::Retain(id, labels) => {
                let retained = ending.pool.hetzner.update_server_labels(*id, labels).await;
                let retained = retained.map_err(PassError::of_cloud(ConditionType::Ready))?;
                // It is billed on, so that it counts for its namespace without a gap.
                ending.pool.inventory.note_server(retained);
                Ok(Gone::Yes)
            }
        }
    }
}

/// A sweep may be a minute old, and what is deleted here does not come back: the server is asked for first.
async fn delete(id: ServerId, ending: &Ending<'_>) -> Result<Gone, PassError> {
    let part = ConditionType::Ready;
    let hetzner = &ending.pool.hetzner;
    let found = hetzner.get_server(Priority::Delete, id).await;
    let found = found.map_err(PassError::of_cloud(part))?;
    let owner = ending.subject.owner(&ending.status);
    let own = found.filter(|server| owner.server(server).is_ours());
    let deleting = own.as_ref().is_some_and(|server| server.status == ServerPower::Deleting);
    if own.is_some() && !deleting {
        let deleted = hetzner.delete_server(id).await;
        deleted.map_err(|error| Problem::of_server_deletion(part, id, &error))?;
    }
    ending.pool.inventory.forget_server(id);
    // Hetzner takes a moment; the confirmation asks whether it has.
    Ok(if deleting { Gone::Soon } else { Gone::Yes })
}

impl Executor<'_> {
    /// Has the life counted that begins, before a tunnel is made for it.
    fn begin(&self) {
        let subject = &self.wanted.subject;
        let (pool, namespace, name) =
            (subject.pool.clone(), subject.namespace.clone(), subject.name.clone());
        let home = Home { pool, namespace, name };
        self.controller.ctx.admissions.begin(self.instance, subject.instance, home);
    }

    /// Tries each type and location in order; what is out of stock or not offered there leads to the next.
    async fn create_server(&self, observed: &Observed) -> Result<Server, PassError> {
        let part = ConditionType::ServerReady;
        let epoch = observed.epoch.ok_or_else(|| no_epoch(part))?;
        let tunnel = observed.tunnel.as_ref().ok_or_else(|| no_epoch(part))?;
        let facilities =
            self.pool.facilities.as_ref().map_err(|barred| {
                Problem::new(part, Reason::PoolNotReady, barred.message.clone())
            })?;
        let mut refused = RefusedPlaces::default();
        let given_up = first_boot::given_up(observed);
        for place in places::in_order(self.wanted.usable_placements(), given_up) {
            if refused.is_hopeless(place) {
                continue;
            }
            let request = self.server_request(observed, (epoch, tunnel), facilities, place)?;
            match self.pool.hetzner.create_server(&request).await {
                Ok(CreatedServer { mut server, .. }) => {
                    // The first answers do not show it yet.
                    stands_behind(&mut server, facilities.firewall);
                    tracing::info!(server = %server.id, kind = place.server_type, location = place.location, "made a server");
                    return Ok(server);
                }
                // Made before, and the answer was lost.
                Err(error) if error.kind == ErrorKind::Conflict(Conflict::NameTaken) => {
                    return self.adopt_server(&request.name, epoch, observed).await;
                }
                Err(error) if hetzner::blames_the_place(&error) => {
                    tracing::info!(%error, kind = place.server_type, location = place.location, "no server can be made there");
                    refused.note(place, error);
                }
                Err(error) => return Err(PassError::of_cloud(part)(error)),
            }
        }
        Err(refused.problem(&self.wanted.subject.pool).into())
    }

    fn server_request(
        &self,
        observed: &Observed,
        (epoch, tunnel): (Epoch, &Tunnel),
        facilities: &Facilities,
        place: &Placement,
    ) -> Result<CreateServer, Problem> {
        let (subject, ctx) = (&self.wanted.subject, &self.controller.ctx);
        let master = self.controller.master_key(observed);
        let keys = (self.controller.costly.server_keys)(&master, subject.instance, epoch);
        let bootstrap = Bootstrap {
            instance_id: subject.instance,
            epoch,
            operator_key: keys.operator.public_key(),
            bearer_sha256: keys.bearer.sha256(),
            enrolment_key: keys.enrolment.to_text(),
        };
        let secret = master.tunnel_secret(subject.instance, epoch, TunnelGeneration::BOOTSTRAP);
        let token = secret.run_token(self.wanted.account.as_str(), tunnel.id.as_str());
        let input = UserDataInput {
            bootstrap: &bootstrap,
            tunnel_token: token.secret(),
            artifacts: &self.wanted.release.artifacts,
            ssh: self.wanted.ssh.as_ref(),
            connector_protocol: self.wanted.connector_protocol,
            now: ctx.clock.now(),
        };
        let user_data = (self.controller.costly.user_data)(&input).map_err(|error| {
            Problem::new(ConditionType::ServerReady, Reason::InvalidSpec, error.to_string())
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
        observed: &Observed,
    ) -> Result<Server, PassError> {
        let part = ConditionType::ServerReady;
        let found = self
            .pool
            .hetzner
            .find_server_by_name(Priority::Normal, name)
            .await
            .map_err(PassError::of_cloud(part))?;
        match found {
            Some(server) => {
                let whose = self.owner(observed).server(&server);
                if whose.is_ours() && names::epoch(&server) == Some(epoch) {
                    return Ok(server);
                }
                Err(in_the_way(&server, name, whose).into())
            }
            None => Err(Problem::new(part, Reason::CloudUnavailable, "Hetzner says that the server's name is taken but does not show it; it is tried again").into()),
        }
    }

    async fn attach_firewall(
        &self,
        firewall: FirewallId,
        id: ServerId,
        observed: &Observed,
    ) -> Result<Server, PassError> {
        let part = ConditionType::ServerReady;
        let server = observed.server.present().ok_or_else(|| no_epoch(part))?;
        tracing::warn!(server = %id, %firewall, "the server stood without the pool's firewall");
        let applied = self.pool.hetzner.apply_firewall(firewall, id).await;
        applied.map_err(PassError::of_cloud(part))?;
        let mut server = server.clone();
        stands_behind(&mut server, firewall);
        Ok(server)
    }

    async fn power_on(&self, id: ServerId, observed: &Observed) -> Result<Server, PassError> {
        let part = ConditionType::ServerReady;
        let server = observed.server.present().ok_or_else(|| no_epoch(part))?;
        tracing::info!(server = %id, "the server stayed off after it was made; switching it on");
        let begun = self.pool.hetzner.power_on(id).await;
        begun.map_err(PassError::of_cloud(part))?;
        Ok(Server { status: ServerPower::Starting, ..server.clone() })
    }

    /// A sweep may be a minute old: a server that runs by now is kept.
    async fn give_up(&self, id: ServerId, observed: &Observed) -> Result<ServerOutcome, PassError> {
        let part = ConditionType::ServerReady;
        let found = self.pool.hetzner.get_server(Priority::Normal, id).await;
        if let Some(server) = found.map_err(PassError::of_cloud(part))?
            && !first_boot::is_coming(&server)
        {
            self.pool.inventory.note_server(server.clone());
            return Ok(ServerOutcome::Changed(Box::new(server)));
        }
        tracing::warn!(server = %id, "the server has never run; deleting it");
        self.delete_server(id, observed).await?;
        Ok(ServerOutcome::Deleted)
    }

    /// A sweep may be a minute old, and what is deleted here does not come back: the server is asked
    /// for first.
    async fn delete_server(&self, id: ServerId, observed: &Observed) -> Result<(), PassError> {
        let part = ConditionType::ServerReady;
        let hetzner = &self.pool.hetzner;
        let found =
            hetzner.get_server(Priority::Normal, id).await.map_err(PassError::of_cloud(part))?;
        if let Some(server) = found {
            if !self.owner(observed).server(&server).is_ours() {
                self.pool.inventory.note_server(server);
                return Err(no_epoch(part).into());
            }
            let deleted = hetzner.delete_server(id).await;
            deleted.map_err(|error| Problem::of_server_deletion(part, id, &error))?;
        }
        self.pool.inventory.forget_server(id);
        Ok(())
    }
}

/// Notes that a server was put behind a firewall.
fn stands_behind(server: &mut Server, firewall: FirewallId) {
    let firewalls = &mut server.public_net.firewalls;
    if !firewalls.iter().any(|applied| applied.id == firewall) {
        firewalls.push(AppliedFirewall { id: firewall, status: FirewallStatus::Pending });
    }
}

/// Why a server cannot be made: another one has its name.
fn in_the_way(server: &Server, name: &str, whose: Ownership) -> Problem {
    let id = server.id;
    let (reason, message) = match whose {
        // Of an epoch that was never written down.
        Ownership::Ours if server.status == ServerPower::Deleting => {
            let message =
                format!("Server {id} has the name {name} and is being deleted; it is tried again");
            return Problem::new(ConditionType::ServerReady, Reason::Progressing, message);
        }
        Ownership::Ours => (
            Reason::DuplicateServer,
            format!(
                "Server {id} has this instance's labels, but is not the server of its status. Rename it in Hetzner's console to keep it, or delete it there, and another one is made"
            ),
        ),
        Ownership::Retained(_) => (
            Reason::Retained,
            format!(
                "Server {id} with the name {name} was kept by deletionPolicy Retain. Rename it in Hetzner's console, and this instance gets a server of its own"
            ),
        ),
        Ownership::FormerInstallation { installation, place } => (
            Reason::ForeignServer,
            format!(
                "Server {id} with the name {name} is of another Moorage installation, {installation}{}, and is left untouched. If that was this cluster before it was lost, restore its Secret moorage-master-key; else rename the server",
                place.map(|place| format!(" ({place})")).unwrap_or_default()
            ),
        ),
        Ownership::AnotherInstance { .. } | Ownership::Foreign => (
            Reason::ForeignServer,
            format!(
                "Server {id} has the name {name} but not this instance's labels, and is left untouched. Rename it, or delete it if nobody needs it"
            ),
        ),
    };
    Problem::new(ConditionType::ServerReady, reason, message)
}
