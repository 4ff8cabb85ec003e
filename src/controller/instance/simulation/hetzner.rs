//! Hetzner in the model world.

use async_trait::async_trait;
use moorage_wire::report::ConvergenceState;

use super::{
    broken::Defect,
    invariants,
    link::Link,
    world::{Machine, State},
};
use crate::{
    api::label,
    cloud::{Cloud, CloudError, Conflict, Deletion, ErrorKind, Priority},
    hetzner::*,
    inventory::fakes::unasked,
    names,
    ownership::Marked as _,
};

fn not_found(call: &'static str) -> CloudError {
    CloudError::new(Cloud::Hetzner, call, ErrorKind::NotFound, "there is no such server")
}

/// An action without a word on what went wrong.
pub(super) fn action(id: u64, command: &str, status: ActionStatus) -> Action {
    Action { id: ActionId(id), command: command.to_owned(), status, progress: 0, error: None }
}

/// What a selector of the inventory asks for, by the ids in it.
fn matches(selector: &LabelSelector, server: &Server) -> bool {
    let text = selector.as_str();
    let installation = server.labels.get(label::INSTALLATION);
    let named =
        installation.is_some_and(|id| text.contains(&format!("{}={id}", label::INSTALLATION)));
    let instance = server.labels.get(label::INSTANCE);
    let among = !text.contains(" in (") || instance.is_some_and(|id| text.contains(id.as_str()));
    named && among
}

impl Link {
    fn make_server(
        &self,
        state: &mut State,
        ask: &CreateServer,
    ) -> Result<CreatedServer, CloudError> {
        if state.servers.values().any(|known| known.server.name == ask.name) {
            let kind = ErrorKind::Conflict(Conflict::NameTaken);
            return Err(CloudError::new(Cloud::Hetzner, "create_server", kind, "taken"));
        }
        let id = state.number();
        let firewall =
            |id: &FirewallId| AppliedFirewall { id: *id, status: FirewallStatus::Applied };
        let server = Server {
            id: ServerId(id),
            name: ask.name.clone(),
            status: ServerStatus::Initializing,
            created: state.now,
            labels: ask.labels.clone(),
            server_type: KnownType { name: ask.server_type.clone(), architecture: None },
            location: ask.location.clone().map(|name| Named { name }),
            public_net: PublicNet {
                firewalls: ask.firewalls.iter().map(firewall).collect(),
                ..PublicNet::default()
            },
            locked: false,
            rescue_enabled: false,
            protection: Protection::default(),
        };
        let owner = self.acting();
        invariants::server_made(state, owner.as_ref(), &server);
        let (Some(epoch), Some(instance)) =
            (names::epoch(&server), server.owner(super::world::INSTALLATION))
        else {
            state.violated(format!("server {id} was made without its labels"));
            return Err(not_found("create_server"));
        };
        let own = |tunnel: &&super::world::TunnelThere| tunnel.owner == owner;
        let mut tunnel =
            state.tunnels.values().filter(own).map(|own| (own.tunnel.id.to_string(), own.token));
        let tunnel = tunnel.next_back();
        let machine = Machine {
            server: server.clone(),
            owner,
            instance,
            epoch,
            tokens: tunnel.iter().map(|(_, token)| *token).collect(),
            tunnel: tunnel.map(|(id, _)| id).unwrap_or_default(),
            desired: None,
            progress: ConvergenceState::Waiting,
            converged_once: false,
            stored: std::collections::BTreeMap::new(),
            consumed: Vec::new(),
            silent: false,
            stuck: state.stuck.clone(),
        };
        state.servers.insert(id, machine);
        state.writes += 1;
        let action = action(id, "create_server", ActionStatus::Running);
        Ok(CreatedServer { server, action, next_actions: Vec::new(), has_root_password: true })
    }
}

#[async_trait]
impl HetznerApi for Link {
    async fn list_servers(
        &self,
        _: Priority,
        selector: &LabelSelector,
    ) -> Result<Vec<Server>, CloudError> {
        let listed = self.cloud(Cloud::Hetzner, "list_servers", |state| {
            let there = state.servers.values().map(|machine| &machine.server);
            let there = there.filter(|server| matches(selector, server) || self.believes(server));
            let listed = there.cloned().collect();
            Ok(state.perhaps_incomplete(listed))
        });
        let listed: Vec<Server> = listed.await?;
        *self.listed() = listed.iter().map(|server| server.id.0).collect();
        Ok(listed.into_iter().map(|server| self.as_believed(server)).collect())
    }

    async fn get_server(&self, _: Priority, id: ServerId) -> Result<Option<Server>, CloudError> {
        let found = self.cloud(Cloud::Hetzner, "get_server", |state| {
            Ok(state.servers.get(&id.0).map(|machine| machine.server.clone()))
        });
        let found = found.await?.filter(|server| {
            self.defect != Some(Defect::OneListTrusted) || self.listed().contains(&server.id.0)
        });
        Ok(found.map(|server| self.as_believed(server)))
    }

    async fn find_server_by_name(
        &self,
        _: Priority,
        name: &str,
    ) -> Result<Option<Server>, CloudError> {
        let found = self.cloud(Cloud::Hetzner, "find_server_by_name", |state| {
            let mut there = state.servers.values().map(|machine| &machine.server);
            Ok(there.find(|server| server.name == name).cloned())
        });
        Ok(found.await?.map(|server| self.as_believed(server)))
    }

    async fn create_server(&self, server: &CreateServer) -> Result<CreatedServer, CloudError> {
        self.cloud(Cloud::Hetzner, "create_server", |state| self.make_server(state, server)).await
    }

    async fn delete_server(&self, id: ServerId) -> Result<Deletion<Option<Action>>, CloudError> {
        self.cloud(Cloud::Hetzner, "delete_server", |state| {
            let Some(owner) = state.servers.get(&id.0).map(|machine| machine.owner.clone()) else {
                return Ok(Deletion::AlreadyGone);
            };
            state.writes += 1;
            self.check_owner(state, "deletion of a server", owner.as_ref());
            invariants::server_deleted(state, id.0);
            if let Some(machine) = state.servers.get_mut(&id.0) {
                machine.server.status = ServerStatus::Deleting;
            }
            Ok(Deletion::Accepted(None))
        })
        .await
    }

    async fn power_on(&self, id: ServerId) -> Result<Action, CloudError> {
        self.cloud(Cloud::Hetzner, "power_on", |state| {
            let machine = state.servers.get_mut(&id.0).ok_or_else(|| not_found("power_on"))?;
            machine.stuck = machine.stuck.take().filter(|stuck| *stuck != ServerStatus::Off);
            let owner = machine.owner.clone();
            state.writes += 1;
            self.check_owner(state, "power of a server", owner.as_ref());
            if state.servers.get(&id.0).is_some_and(|machine| invariants::was_heard(state, machine))
            {
                state.violated(format!("server {id} was powered on after its agent had answered"));
            }
            Ok(action(state.number(), "start_server", ActionStatus::Running))
        })
        .await
    }

    async fn failed_actions(&self, _: Priority, _: ServerId) -> Result<Vec<Action>, CloudError> {
        let failed = |state: &mut State| Ok(state.failed_actions.clone());
        self.cloud(Cloud::Hetzner, "failed_actions", failed).await
    }

    async fn update_server_labels(
        &self,
        id: ServerId,
        labels: &Labels,
    ) -> Result<Server, CloudError> {
        self.cloud(Cloud::Hetzner, "update_server_labels", |state| {
            let machine =
                state.servers.get_mut(&id.0).ok_or_else(|| not_found("update_server_labels"))?;
            machine.server.labels.clone_from(labels);
            let (owner, server) = (machine.owner.clone(), machine.server.clone());
            state.writes += 1;
            self.check_owner(state, "labels of a server", owner.as_ref());
            Ok(server)
        })
        .await
    }

    async fn apply_firewall(
        &self,
        firewall: FirewallId,
        id: ServerId,
    ) -> Result<Vec<Action>, CloudError> {
        self.cloud(Cloud::Hetzner, "apply_firewall", |state| {
            let machine =
                state.servers.get_mut(&id.0).ok_or_else(|| not_found("apply_firewall"))?;
            let applied = AppliedFirewall { id: firewall, status: FirewallStatus::Applied };
            machine.server.public_net.firewalls = vec![applied];
            let owner = machine.owner.clone();
            state.writes += 1;
            self.check_owner(state, "firewall of a server", owner.as_ref());
            Ok(Vec::new())
        })
        .await
    }

    async fn list_firewalls(
        &self,
        _: Priority,
        _: &LabelSelector,
    ) -> Result<Vec<Firewall>, CloudError> {
        unasked()
    }

    async fn create_firewall(&self, _: &CreateFirewall) -> Result<Firewall, CloudError> {
        unasked()
    }

    async fn set_firewall_rules(
        &self,
        _: FirewallId,
        _: &[FirewallRule],
    ) -> Result<Vec<Action>, CloudError> {
        unasked()
    }

    async fn delete_firewall(&self, _: FirewallId) -> Result<Deletion, CloudError> {
        unasked()
    }

    async fn server_types(&self, _: Priority) -> Result<Vec<ServerType>, CloudError> {
        unasked()
    }

    async fn list_ssh_keys(
        &self,
        _: Priority,
        _: &LabelSelector,
    ) -> Result<Vec<SshKey>, CloudError> {
        unasked()
    }

    async fn create_ssh_key(&self, _: &CreateSshKey) -> Result<SshKey, CloudError> {
        unasked()
    }

    async fn delete_ssh_key(&self, _: SshKeyId) -> Result<Deletion, CloudError> {
        unasked()
    }
}
