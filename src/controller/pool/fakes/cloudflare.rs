//! Cloudflare in memory: of the zone, and Access.

use async_trait::async_trait;
use jiff::Timestamp;

use super::{C, Fakes, removed};
use crate::{
    cloud::{CloudError, Deletion, Priority},
    cloudflare::*,
    instance::placeholders::new_record,
    master_key::TunnelSecret,
};

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

    async fn rename_tunnel(&self, _: &TunnelId, _: &str) -> Result<Tunnel, CloudError> {
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
        name: &str,
    ) -> Result<Vec<DnsRecord>, CloudError> {
        let state = self.read(C, "find_dns_records_by_name")?;
        Ok(state.records.iter().filter(|record| record.name == name).cloned().collect())
    }

    async fn dns_batch(&self, _: &ZoneId, batch: &DnsBatch) -> Result<DnsBatchResult, CloudError> {
        let (mut state, fate) = self.write(C, "dns_batch")?;
        state.records.retain(|record| !batch.deletes.contains(&record.id));
        let posts: Vec<_> = batch.posts.iter().map(new_record).collect();
        state.records.extend(posts.clone());
        fate.answer(DnsBatchResult { posts, ..DnsBatchResult::default() })
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
