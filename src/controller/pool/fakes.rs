//! The clouds and the Secret of one pool in memory, with a failure of any write on demand.

use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use jiff::Timestamp;
use moorage_wire::Secret;

use super::access_secret::{AccessSecret, StoredToken, Version};
use crate::master_key::TunnelSecret;
use crate::{
    agent::AccessHeaders,
    cloud::{Cloud, CloudError, Conflict, Deletion, ErrorKind, Priority, SecretText},
    cloudflare::*,
    hetzner::*,
};

/// What the clouds hold and how they behave.
#[derive(Default)]
pub(super) struct State {
    pub(super) firewalls: Vec<Firewall>,
    pub(super) ssh_keys: Vec<SshKey>,
    pub(super) servers: Vec<Server>,
    pub(super) zone: Option<Zone>,
    pub(super) apps: Vec<AccessApp>,
    pub(super) policies: Vec<AccessPolicy>,
    pub(super) tokens: Vec<ServiceToken>,
    /// The only secret that each token accepts, by the token's client id.
    pub(super) valid_secrets: std::collections::BTreeMap<String, String>,
    pub(super) stored: Option<(String, String)>,
    pub(super) foreign_secret: bool,
    pub(super) reads: Vec<&'static str>,
    pub(super) writes: Vec<&'static str>,
    /// The write with this number fails: before or after it took effect.
    pub(super) fail_write: Option<(usize, bool)>,
    /// Every call fails like this.
    pub(super) refuse: Option<(Cloud, ErrorKind)>,
    last_id: u64,
}

/// In-memory clouds.
#[derive(Default)]
pub(super) struct Fakes(Mutex<State>);

/// What a write does once the failures are settled.
enum Fate {
    Done,
    LostAnswer(CloudError),
}

impl Fate {
    fn answer<T>(self, value: T) -> Result<T, CloudError> {
        match self {
            Self::Done => Ok(value),
            Self::LostAnswer(error) => Err(error),
        }
    }
}

impl Fakes {
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    fn read(
        &self,
        cloud: Cloud,
        operation: &'static str,
    ) -> Result<MutexGuard<'_, State>, CloudError> {
        let mut state = self.state();
        state.reads.push(operation);
        state.refused(cloud, operation)?;
        Ok(state)
    }

    fn write(
        &self,
        cloud: Cloud,
        operation: &'static str,
    ) -> Result<(MutexGuard<'_, State>, Fate), CloudError> {
        let mut state = self.state();
        state.writes.push(operation);
        state.refused(cloud, operation)?;
        let number = state.writes.len() - 1;
        let fails = state.fail_write.filter(|(at, _)| *at == number);
        let error = |maybe_applied| {
            CloudError::new(cloud, operation, ErrorKind::Timeout { maybe_applied }, "")
        };
        match fails {
            Some((_, false)) => Err(error(false)),
            Some((_, true)) => Ok((state, Fate::LostAnswer(error(true)))),
            None => Ok((state, Fate::Done)),
        }
    }
}

impl State {
    fn refused(&self, cloud: Cloud, operation: &'static str) -> Result<(), CloudError> {
        match &self.refuse {
            Some((refusing, kind)) if *refusing == cloud => {
                Err(CloudError::new(cloud, operation, kind.clone(), ""))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    fn issue(&mut self, token: ServiceToken) -> IssuedServiceToken {
        let secret = format!("secret-{}", self.id());
        self.valid_secrets.insert(token.client_id.clone(), secret.clone());
        IssuedServiceToken { token, client_secret: SecretText::new(secret) }
    }

    /// Whether what is stored opens the door.
    pub(super) fn stored_token_works(&self) -> bool {
        self.stored.as_ref().is_some_and(|(id, secret)| self.valid_secrets.get(id) == Some(secret))
    }
}

fn removed<T>(list: &mut Vec<T>, is: impl Fn(&T) -> bool) -> Deletion {
    let before = list.len();
    list.retain(|item| !is(item));
    if list.len() == before { Deletion::AlreadyGone } else { Deletion::Accepted(()) }
}

fn matches(labels: &Labels, selector: &LabelSelector) -> bool {
    selector.as_str().split(',').filter(|term| !term.is_empty()).all(|term| {
        let (key, value) = term.split_once('=').unwrap();
        labels.get(key).is_some_and(|label| label == value)
    })
}

fn taken(operation: &'static str) -> CloudError {
    CloudError::new(Cloud::Hetzner, operation, ErrorKind::Conflict(Conflict::NameTaken), "")
}

const H: Cloud = Cloud::Hetzner;
const C: Cloud = Cloud::Cloudflare;

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
        panic!("not a call of pools")
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

    async fn get_action(&self, _: Priority, _: ActionId) -> Result<Option<Action>, CloudError> {
        panic!("not a call of pools")
    }
}

#[async_trait]
impl TunnelApi for Fakes {
    async fn list_tunnels(&self, _: Priority, _: &str) -> Result<Vec<Tunnel>, CloudError> {
        panic!("not a call of pools")
    }

    async fn get_tunnel(&self, _: Priority, _: &TunnelId) -> Result<Option<Tunnel>, CloudError> {
        panic!("not a call of pools")
    }

    async fn find_tunnel_by_name(
        &self,
        _: Priority,
        _: &str,
    ) -> Result<Option<Tunnel>, CloudError> {
        panic!("not a call of pools")
    }

    async fn create_tunnel(&self, _: &CreateTunnel<'_>) -> Result<Tunnel, CloudError> {
        panic!("not a call of pools")
    }

    async fn delete_tunnel(&self, _: &TunnelId) -> Result<Deletion, CloudError> {
        panic!("not a call of pools")
    }

    async fn delete_tunnel_connections(&self, _: &TunnelId) -> Result<Deletion, CloudError> {
        panic!("not a call of pools")
    }

    async fn rotate_tunnel_secret(
        &self,
        _: &TunnelId,
        _: &TunnelSecret,
    ) -> Result<Tunnel, CloudError> {
        panic!("not a call of pools")
    }

    async fn get_tunnel_configuration(
        &self,
        _: Priority,
        _: &TunnelId,
    ) -> Result<Option<VersionedTunnelConfiguration>, CloudError> {
        panic!("not a call of pools")
    }

    async fn put_tunnel_configuration(
        &self,
        _: &TunnelId,
        _: &TunnelConfiguration,
    ) -> Result<VersionedTunnelConfiguration, CloudError> {
        panic!("not a call of pools")
    }
}

#[async_trait]
impl DnsApi for Fakes {
    async fn list_dns_records(
        &self,
        _: Priority,
        _: &ZoneId,
        _: &str,
    ) -> Result<Vec<DnsRecord>, CloudError> {
        panic!("not a call of pools")
    }

    async fn find_dns_records_by_name(
        &self,
        _: Priority,
        _: &ZoneId,
        _: &str,
    ) -> Result<Vec<DnsRecord>, CloudError> {
        panic!("not a call of pools")
    }

    async fn dns_batch(&self, _: &ZoneId, _: &DnsBatch) -> Result<DnsBatchResult, CloudError> {
        panic!("not a call of pools")
    }

    async fn get_zone(&self, _: Priority, _: &ZoneId) -> Result<Option<Zone>, CloudError> {
        Ok(self.read(C, "get_zone")?.zone.clone())
    }
}

#[allow(clippy::unnecessary_wraps, reason = "the field that it fills is optional")]
fn attached(spec: &AccessAppSpec) -> Option<Vec<AttachedPolicy>> {
    Some(spec.policies.iter().map(|id| AttachedPolicy { id: Some(id.clone()) }).collect())
}

#[async_trait]
impl AccessApi for Fakes {
    async fn list_access_apps(&self, _: Priority) -> Result<Vec<AccessApp>, CloudError> {
        Ok(self.read(C, "list_access_apps")?.apps.clone())
    }

    async fn create_access_app(&self, spec: &AccessAppSpec) -> Result<AccessApp, CloudError> {
        let (mut state, fate) = self.write(C, "create_access_app")?;
        let made = AccessApp {
            id: AccessAppId::parse(format!("app-{}", state.id())).unwrap(),
            name: spec.name.clone(),
            kind: Some("self_hosted".to_owned()),
            aud: None,
            destinations: Some(spec.destinations.clone()),
            policies: attached(spec),
        };
        state.apps.push(made.clone());
        fate.answer(made)
    }

    async fn update_access_app(
        &self,
        id: &AccessAppId,
        spec: &AccessAppSpec,
    ) -> Result<AccessApp, CloudError> {
        let (mut state, fate) = self.write(C, "update_access_app")?;
        let app = state.apps.iter_mut().find(|each| each.id == *id).unwrap();
        (app.destinations, app.policies) = (Some(spec.destinations.clone()), attached(spec));
        fate.answer(app.clone())
    }

    async fn delete_access_app(&self, id: &AccessAppId) -> Result<Deletion, CloudError> {
        let (mut state, fate) = self.write(C, "delete_access_app")?;
        let gone = removed(&mut state.apps, |each| each.id == *id);
        fate.answer(gone)
    }

    async fn list_access_policies(&self, _: Priority) -> Result<Vec<AccessPolicy>, CloudError> {
        Ok(self.read(C, "list_access_policies")?.policies.clone())
    }

    async fn create_access_policy(
        &self,
        spec: &AccessPolicySpec,
    ) -> Result<AccessPolicy, CloudError> {
        let (mut state, fate) = self.write(C, "create_access_policy")?;
        let id = AccessPolicyId::parse(format!("policy-{}", state.id())).unwrap();
        let AccessPolicySpec { name, decision, include } = spec.clone();
        let made = AccessPolicy { id, name, decision, include };
        state.policies.push(made.clone());
        fate.answer(made)
    }

    async fn update_access_policy(
        &self,
        id: &AccessPolicyId,
        spec: &AccessPolicySpec,
    ) -> Result<AccessPolicy, CloudError> {
        let (mut state, fate) = self.write(C, "update_access_policy")?;
        let policy = state.policies.iter_mut().find(|each| each.id == *id).unwrap();
        (policy.decision, policy.include) = (spec.decision.clone(), spec.include.clone());
        fate.answer(policy.clone())
    }

    async fn delete_access_policy(&self, id: &AccessPolicyId) -> Result<Deletion, CloudError> {
        let (mut state, fate) = self.write(C, "delete_access_policy")?;
        let used = state.apps.iter().any(|app| app.policy_ids().any(|policy| policy == id));
        assert!(!used, "a policy is deleted while an application uses it");
        let gone = removed(&mut state.policies, |each| each.id == *id);
        fate.answer(gone)
    }

    async fn list_service_tokens(&self, _: Priority) -> Result<Vec<ServiceToken>, CloudError> {
        Ok(self.read(C, "list_service_tokens")?.tokens.clone())
    }

    async fn create_service_token(
        &self,
        name: &str,
        _: &str,
    ) -> Result<IssuedServiceToken, CloudError> {
        let (mut state, fate) = self.write(C, "create_service_token")?;
        let id = state.id();
        let made = ServiceToken {
            id: ServiceTokenId::parse(format!("token-{id}")).unwrap(),
            name: name.to_owned(),
            client_id: format!("{id}.access"),
            expires_at: None,
        };
        state.tokens.push(made.clone());
        let issued = state.issue(made);
        fate.answer(issued)
    }

    async fn rotate_service_token(
        &self,
        id: &ServiceTokenId,
        _: Option<Timestamp>,
    ) -> Result<IssuedServiceToken, CloudError> {
        let (mut state, fate) = self.write(C, "rotate_service_token")?;
        let token = state.tokens.iter().find(|each| each.id == *id).unwrap().clone();
        let issued = state.issue(token);
        fate.answer(issued)
    }

    async fn delete_service_token(&self, id: &ServiceTokenId) -> Result<Deletion, CloudError> {
        let (mut state, fate) = self.write(C, "delete_service_token")?;
        let rule = AccessRule::service_token(id.clone());
        let used = state.policies.iter().any(|policy| policy.include.contains(&rule));
        assert!(!used, "a token is deleted while a policy names it");
        let gone = removed(&mut state.tokens, |each| each.id == *id);
        fate.answer(gone)
    }
}

#[async_trait]
impl AccessSecret for Fakes {
    fn place(&self) -> String {
        "moorage-system/moorage-access-eu-1".to_owned()
    }

    async fn read(&self) -> Result<StoredToken, kube::Error> {
        let state = self.state();
        if state.foreign_secret {
            return Ok(StoredToken::Foreign);
        }
        Ok(state.stored.clone().map_or(StoredToken::Absent, |(client_id, secret)| {
            let client_secret = Secret::from(secret);
            let headers = Arc::new(AccessHeaders { client_id, client_secret });
            StoredToken::Intact(Version::default(), headers)
        }))
    }

    async fn store(
        &self,
        token: IssuedServiceToken,
        _: &StoredToken,
    ) -> Result<Arc<AccessHeaders>, kube::Error> {
        let lost = |_| kube::Error::LinesCodecMaxLineLengthExceeded;
        let (mut state, fate) = Fakes::write(self, C, "store_secret").map_err(lost)?;
        let secret = token.client_secret.expose_secret().to_owned();
        state.stored = Some((token.token.client_id.clone(), secret.clone()));
        let (client_id, client_secret) = (token.token.client_id, Secret::from(secret));
        fate.answer(Arc::new(AccessHeaders { client_id, client_secret })).map_err(lost)
    }

    async fn delete(&self, _: &StoredToken) -> Result<(), kube::Error> {
        self.state().stored = None;
        Ok(())
    }
}
