//! Hetzner in memory.

use async_trait::async_trait;

use super::{Fakes, removed};
use crate::{
    cloud::{Cloud, CloudError, Conflict, Deletion, ErrorKind, Priority},
    hetzner::*,
};

const H: Cloud = Cloud::Hetzner;

fn matches(labels: &Labels, selector: &LabelSelector) -> bool {
    selector.as_str().split(',').filter(|term| !term.is_empty()).all(|term| {
        let (key, value) = term.split_once('=').unwrap();
        labels.get(key).is_some_and(|label| label == value)
    })
}

fn taken(operation: &'static str) -> CloudError {
    CloudError::new(Cloud::Hetzner, operation, ErrorKind::Conflict(Conflict::NameTaken), "")
}

#[async_trait]
impl HetznerApi for Fakes {
    async fn list_servers(
        &self,
        _: Priority,
        selector: &LabelSelector,
    ) -> Result<Vec<Server>, CloudError> {
        let state = self.read(H, "list_servers")?;
        Ok(state.servers.iter().filter(|each| matches(&each.labels, selector)).cloned().collect())
    }

    async fn get_server(&self, _: Priority, _: ServerId) -> Result<Option<Server>, CloudError> {
        panic!("not a call of pools")
    }

    async fn find_server_by_name(
        &self,
        _: Priority,
        _: &str,
    ) -> Result<Option<Server>, CloudError> {
        panic!("not a call of pools")
    }

    async fn create_server(&self, _: &CreateServer) -> Result<CreatedServer, CloudError> {
        panic!("not a call of pools")
    }

    async fn delete_server(&self, _: ServerId) -> Result<Deletion<Option<Action>>, CloudError> {
        panic!("not a call of pools")
    }

    async fn update_server_labels(&self, _: ServerId, _: &Labels) -> Result<Server, CloudError> {
        panic!("not a call of pools")
    }

    async fn list_firewalls(
        &self,
        _: Priority,
        selector: &LabelSelector,
    ) -> Result<Vec<Firewall>, CloudError> {
        let state = self.read(H, "list_firewalls")?;
        Ok(state.firewalls.iter().filter(|each| matches(&each.labels, selector)).cloned().collect())
    }

    async fn create_firewall(&self, wanted: &CreateFirewall) -> Result<Firewall, CloudError> {
        let (mut state, fate) = self.write(H, "create_firewall")?;
        if state.firewalls.iter().any(|each| each.name == wanted.name) {
            return Err(taken("create_firewall"));
        }
        let CreateFirewall { name, labels, rules } = wanted.clone();
        let id = FirewallId(state.id());
        let made = Firewall { id, name, labels, rules, applied_to: Vec::new() };
        state.firewalls.push(made.clone());
        fate.answer(made)
    }

    async fn set_firewall_rules(
        &self,
        id: FirewallId,
        rules: &[FirewallRule],
    ) -> Result<Vec<Action>, CloudError> {
        let (mut state, fate) = self.write(H, "set_firewall_rules")?;
        let firewall = state.firewalls.iter_mut().find(|each| each.id == id).unwrap();
        firewall.rules = rules.to_vec();
        fate.answer(Vec::new())
    }

    async fn apply_firewall(&self, _: FirewallId, _: ServerId) -> Result<Vec<Action>, CloudError> {
        unreachable!("a pool does not touch servers")
    }

    async fn delete_firewall(&self, id: FirewallId) -> Result<Deletion, CloudError> {
        let (mut state, fate) = self.write(H, "delete_firewall")?;
        let gone = removed(&mut state.firewalls, |each| each.id == id);
        fate.answer(gone)
    }

    async fn server_types(&self, _: Priority) -> Result<Vec<ServerType>, CloudError> {
        Ok(self.read(H, "server_types")?.server_types.clone())
    }

    async fn list_ssh_keys(
        &self,
        _: Priority,
        selector: &LabelSelector,
    ) -> Result<Vec<SshKey>, CloudError> {
        let state = self.read(H, "list_ssh_keys")?;
        Ok(state.ssh_keys.iter().filter(|each| matches(&each.labels, selector)).cloned().collect())
    }

    async fn create_ssh_key(&self, wanted: &CreateSshKey) -> Result<SshKey, CloudError> {
        let (mut state, fate) = self.write(H, "create_ssh_key")?;
        let same = |key: &SshKey| key.name == wanted.name || key.public_key == wanted.public_key;
        if state.ssh_keys.iter().any(same) {
            return Err(taken("create_ssh_key"));
        }
        let CreateSshKey { name, public_key, labels } = wanted.clone();
        let id = SshKeyId(state.id());
        let made = SshKey { id, name, fingerprint: String::new(), public_key, labels };
        state.ssh_keys.push(made.clone());
        fate.answer(made)
    }

    async fn delete_ssh_key(&self, id: SshKeyId) -> Result<Deletion, CloudError> {
        let (mut state, fate) = self.write(H, "delete_ssh_key")?;
        let gone = removed(&mut state.ssh_keys, |each| each.id == id);
        fate.answer(gone)
    }

    async fn power_on(&self, _: ServerId) -> Result<Action, CloudError> {
        panic!("not a call of pools")
    }
    async fn failed_actions(&self, _: Priority, _: ServerId) -> Result<Vec<Action>, CloudError> {
        panic!("not a call of pools")
    }
}
