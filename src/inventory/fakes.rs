//! Clouds in memory for the tests of what only lists and batches.

use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use jiff::Timestamp;
use tokio::sync::{Semaphore, mpsc};

use crate::{
    cloud::{Cloud, CloudError, Deletion, ErrorKind, Priority},
    cloudflare::*,
    hetzner::*,
    master_key::TunnelSecret,
};

/// What the clouds hold and how they behave.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) servers: Vec<Server>,
    pub(crate) tunnels: Vec<Tunnel>,
    pub(crate) records: Vec<DnsRecord>,
    pub(crate) down: bool,
    /// Whether a batch is refused, and how.
    pub(crate) refuses: Option<fn(&DnsBatch) -> Option<ErrorKind>>,
    pub(crate) selectors: Vec<String>,
    pub(crate) batches: Vec<DnsBatch>,
}

/// Both clouds of a pool.
pub(crate) struct Fakes {
    state: Mutex<State>,
    /// One permit per answer to a list of tunnels or to a batch.
    pub(crate) answers: Semaphore,
    asked: mpsc::UnboundedSender<()>,
}

impl Fakes {
    /// Clouds that answer at once, and a channel that tells of every question.
    pub(crate) fn new() -> (Arc<Self>, mpsc::UnboundedReceiver<()>) {
        Self::with_answers(Semaphore::MAX_PERMITS)
    }

    /// Clouds that answer so many questions, then as many as are allowed.
    pub(crate) fn with_answers(answers: usize) -> (Arc<Self>, mpsc::UnboundedReceiver<()>) {
        let (asked, questions) = mpsc::unbounded_channel();
        (
            Arc::new(Self { state: Mutex::default(), answers: Semaphore::new(answers), asked }),
            questions,
        )
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    async fn wait(&self) {
        // Tests that do not count the questions have dropped the receiver.
        let _ = self.asked.send(());
        self.answers.acquire().await.unwrap().forget();
    }

    fn list<T: Clone>(&self, of: impl Fn(&State) -> &Vec<T>) -> Result<Vec<T>, CloudError> {
        let state = self.state();
        if state.down {
            let kind = ErrorKind::Transient { maybe_applied: false };
            return Err(CloudError::new(Cloud::Hetzner, "list", kind, "down"));
        }
        Ok(of(&state).clone())
    }
}

pub(crate) fn unasked() -> ! {
    panic!("nothing here asks for this")
}

#[async_trait]
impl HetznerApi for Fakes {
    async fn list_servers(
        &self,
        _: Priority,
        selector: &LabelSelector,
    ) -> Result<Vec<Server>, CloudError> {
        self.state().selectors.push(format!("{selector:?}"));
        self.list(|state| &state.servers)
    }
    async fn apply_firewall(&self, _: FirewallId, _: ServerId) -> Result<Vec<Action>, CloudError> {
        unasked()
    }
    async fn get_server(&self, _: Priority, _: ServerId) -> Result<Option<Server>, CloudError> {
        unasked()
    }
    async fn find_server_by_name(
        &self,
        _: Priority,
        _: &str,
    ) -> Result<Option<Server>, CloudError> {
        unasked()
    }
    async fn create_server(&self, _: &CreateServer) -> Result<CreatedServer, CloudError> {
        unasked()
    }
    async fn delete_server(&self, _: ServerId) -> Result<Deletion<Option<Action>>, CloudError> {
        unasked()
    }
    async fn update_server_labels(&self, _: ServerId, _: &Labels) -> Result<Server, CloudError> {
        unasked()
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
    async fn power_on(&self, _: ServerId) -> Result<Action, CloudError> {
        unasked()
    }
    async fn failed_actions(&self, _: Priority, _: ServerId) -> Result<Vec<Action>, CloudError> {
        unasked()
    }
}

#[async_trait]
impl TunnelApi for Fakes {
    async fn list_tunnels(&self, _: Priority, prefix: &str) -> Result<Vec<Tunnel>, CloudError> {
        let tunnels = self.list(|state| &state.tunnels)?;
        self.wait().await;
        Ok(tunnels.into_iter().filter(|tunnel| tunnel.name.starts_with(prefix)).collect())
    }
    async fn get_tunnel(&self, _: Priority, _: &TunnelId) -> Result<Option<Tunnel>, CloudError> {
        unasked()
    }
    async fn find_tunnel_by_name(
        &self,
        _: Priority,
        _: &str,
    ) -> Result<Option<Tunnel>, CloudError> {
        unasked()
    }
    async fn create_tunnel(&self, _: &CreateTunnel<'_>) -> Result<Tunnel, CloudError> {
        unasked()
    }
    async fn delete_tunnel(&self, _: &TunnelId) -> Result<Deletion, CloudError> {
        unasked()
    }
    async fn delete_tunnel_connections(&self, _: &TunnelId) -> Result<Deletion, CloudError> {
        unasked()
    }
    async fn rotate_tunnel_secret(
        &self,
        _: &TunnelId,
        _: &TunnelSecret,
    ) -> Result<Tunnel, CloudError> {
        unasked()
    }
    async fn rename_tunnel(&self, _: &TunnelId, _: &str) -> Result<Tunnel, CloudError> {
        unasked()
    }
    async fn get_tunnel_configuration(
        &self,
        _: Priority,
        _: &TunnelId,
    ) -> Result<Option<VersionedTunnelConfiguration>, CloudError> {
        unasked()
    }
    async fn put_tunnel_configuration(
        &self,
        _: &TunnelId,
        _: &TunnelConfiguration,
    ) -> Result<VersionedTunnelConfiguration, CloudError> {
        unasked()
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
        self.list(|state| &state.records)
    }
    async fn find_dns_records_by_name(
        &self,
        _: Priority,
        _: &ZoneId,
        name: &str,
    ) -> Result<Vec<DnsRecord>, CloudError> {
        let mut found = self.list(|state| &state.records)?;
        found.retain(|record| record.name == name);
        Ok(found)
    }
    async fn dns_batch(&self, _: &ZoneId, batch: &DnsBatch) -> Result<DnsBatchResult, CloudError> {
        self.wait().await;
        let mut state = self.state();
        state.batches.push(batch.clone());
        if let Some(kind) = state.refuses.and_then(|refuses| refuses(batch)) {
            return Err(CloudError::new(Cloud::Cloudflare, "dns_batch", kind, "refused"));
        }
        let posts = batch.posts.iter().map(crate::instance::placeholders::new_record).collect();
        Ok(DnsBatchResult { posts, ..DnsBatchResult::default() })
    }
    async fn get_zone(&self, _: Priority, _: &ZoneId) -> Result<Option<Zone>, CloudError> {
        unasked()
    }
}

/// Access, for clouds that are not asked for it: it belongs to pools.
macro_rules! access_is_not_asked_for {
    ($clouds:ty) => {
        #[async_trait]
        impl AccessApi for $clouds {
            async fn list_access_apps(&self, _: Priority) -> Result<Vec<AccessApp>, CloudError> {
                $crate::inventory::fakes::unasked()
            }
            async fn create_access_app(&self, _: &AccessAppSpec) -> Result<AccessApp, CloudError> {
                $crate::inventory::fakes::unasked()
            }
            async fn update_access_app(
                &self,
                _: &AccessAppId,
                _: &AccessAppSpec,
            ) -> Result<AccessApp, CloudError> {
                $crate::inventory::fakes::unasked()
            }
            async fn delete_access_app(&self, _: &AccessAppId) -> Result<Deletion, CloudError> {
                $crate::inventory::fakes::unasked()
            }
            async fn list_access_policies(
                &self,
                _: Priority,
            ) -> Result<Vec<AccessPolicy>, CloudError> {
                $crate::inventory::fakes::unasked()
            }
            async fn create_access_policy(
                &self,
                _: &AccessPolicySpec,
            ) -> Result<AccessPolicy, CloudError> {
                $crate::inventory::fakes::unasked()
            }
            async fn update_access_policy(
                &self,
                _: &AccessPolicyId,
                _: &AccessPolicySpec,
            ) -> Result<AccessPolicy, CloudError> {
                $crate::inventory::fakes::unasked()
            }
            async fn delete_access_policy(
                &self,
                _: &AccessPolicyId,
            ) -> Result<Deletion, CloudError> {
                $crate::inventory::fakes::unasked()
            }
            async fn list_service_tokens(
                &self,
                _: Priority,
            ) -> Result<Vec<ServiceToken>, CloudError> {
                $crate::inventory::fakes::unasked()
            }
            async fn create_service_token(
                &self,
                _: &str,
                _: &str,
            ) -> Result<IssuedServiceToken, CloudError> {
                $crate::inventory::fakes::unasked()
            }
            async fn rotate_service_token(
                &self,
                _: &ServiceTokenId,
                _: Option<Timestamp>,
            ) -> Result<IssuedServiceToken, CloudError> {
                $crate::inventory::fakes::unasked()
            }
            async fn delete_service_token(
                &self,
                _: &ServiceTokenId,
            ) -> Result<Deletion, CloudError> {
                $crate::inventory::fakes::unasked()
            }
        }
    };
}
pub(crate) use access_is_not_asked_for;

access_is_not_asked_for!(Fakes);
