//! Cloudflare in the model world.

use async_trait::async_trait;
use jiff::Timestamp;
use moorage_wire::Sha256;

use super::{
    invariants,
    link::Link,
    world::{ACCOUNT, RecordThere, State, TunnelThere},
};
use crate::{
    cloud::{Cloud, CloudError, Conflict, Deletion, ErrorKind, Priority},
    cloudflare::*,
    credentials::courier::OwnCredential,
    inventory::fakes::{access_is_not_asked_for, unasked},
    master_key::TunnelSecret,
};

fn failed(call: &'static str, kind: ErrorKind) -> CloudError {
    CloudError::new(Cloud::Cloudflare, call, kind, "refused by the model")
}

/// The digest of the token that a connector needs.
fn token(id: &str, secret: &TunnelSecret) -> Sha256 {
    OwnCredential::Tunnel(&secret.run_token(ACCOUNT, id)).source_sha256()
}

impl Link {
    fn with_tunnel<T>(
        &self,
        state: &mut State,
        call: &'static str,
        id: &TunnelId,
        change: impl FnOnce(&mut TunnelThere) -> T,
    ) -> Result<T, CloudError> {
        let there = state.tunnels.get_mut(id.as_str());
        let there = there.ok_or_else(|| failed(call, ErrorKind::NotFound))?;
        let changed = change(there);
        let owner = there.owner.clone();
        state.writes += 1;
        self.check_owner(state, call, owner.as_ref());
        Ok(changed)
    }

    fn change_records(
        &self,
        state: &mut State,
        batch: &DnsBatch,
    ) -> Result<DnsBatchResult, CloudError> {
        let taken = |post: &NewDnsRecord| {
            let gone = |id: &str| batch.deletes.iter().any(|deleted| deleted.as_str() == id);
            state.records.iter().any(|(id, there)| there.record.name == post.name && !gone(id))
        };
        if batch.posts.iter().any(taken) {
            return Err(failed("dns_batch", ErrorKind::Conflict(Conflict::HostExists)));
        }
        let known = |id: &RecordId| state.records.contains_key(id.as_str());
        if !batch.deletes.iter().chain(batch.patches.iter().map(|patch| &patch.id)).all(known) {
            return Err(failed("dns_batch", ErrorKind::NotFound));
        }
        let mut result = DnsBatchResult::default();
        for id in &batch.deletes {
            let Some(there) = state.records.remove(id.as_str()) else { continue };
            self.check_owner(state, "deletion of a record", there.owner.as_ref());
            result.deletes.push(there.record);
        }
        for patch in &batch.patches {
            let Some(there) = state.records.get_mut(patch.id.as_str()) else { continue };
            let record = &mut there.record;
            record.content = patch.content.clone().or_else(|| record.content.take());
            record.proxied = patch.proxied.or(record.proxied);
            record.comment = patch.comment.clone().or_else(|| record.comment.take());
            result.patches.push(record.clone());
            let owner = there.owner.clone();
            self.check_owner(state, "change of a record", owner.as_ref());
        }
        for post in &batch.posts {
            let id = format!("record-{}", state.number());
            let record = DnsRecord {
                id: RecordId::parse(id.clone()).expect("it is a record's id"),
                name: post.name.clone(),
                record_type: post.record_type.clone(),
                content: Some(post.content.clone()),
                proxied: Some(post.proxied),
                comment: Some(post.comment.clone()),
                created_on: Some(state.now),
            };
            result.posts.push(record.clone());
            let owner = self.acting();
            invariants::made(state, owner.as_ref(), "a record");
            state.records.insert(id, RecordThere { record, owner });
        }
        state.writes += 1;
        Ok(result)
    }
}

#[async_trait]
impl TunnelApi for Link {
    async fn list_tunnels(&self, _: Priority, prefix: &str) -> Result<Vec<Tunnel>, CloudError> {
        self.cloud(Cloud::Cloudflare, "list_tunnels", |state| {
            let there = state.tunnels.values().map(|there| &there.tunnel);
            let listed = there.filter(|tunnel| tunnel.name.starts_with(prefix)).cloned().collect();
            Ok(state.perhaps_incomplete(listed))
        })
        .await
    }

    async fn get_tunnel(&self, _: Priority, id: &TunnelId) -> Result<Option<Tunnel>, CloudError> {
        let found = self.cloud(Cloud::Cloudflare, "get_tunnel", |state| {
            Ok(state.tunnels.get(id.as_str()).map(|there| there.tunnel.clone()))
        });
        found.await
    }

    async fn find_tunnel_by_name(
        &self,
        _: Priority,
        name: &str,
    ) -> Result<Option<Tunnel>, CloudError> {
        let found = self.cloud(Cloud::Cloudflare, "find_tunnel_by_name", |state| {
            let mut there = state.tunnels.values().map(|there| &there.tunnel);
            Ok(there.find(|tunnel| tunnel.name == name).cloned())
        });
        found.await
    }

    async fn create_tunnel(&self, ask: &CreateTunnel<'_>) -> Result<Tunnel, CloudError> {
        self.cloud(Cloud::Cloudflare, "create_tunnel", |state| {
            if state.tunnels.values().any(|there| there.tunnel.name == ask.name) {
                return Err(failed("create_tunnel", ErrorKind::Conflict(Conflict::NameTaken)));
            }
            let id = format!("00000000-0000-4000-8000-{:012x}", state.number());
            let tunnel = Tunnel {
                id: TunnelId::parse(id.clone()).expect("it is a UUID"),
                name: ask.name.to_owned(),
                status: None,
                created_at: Some(state.now),
                deleted_at: None,
            };
            let owner = self.acting();
            invariants::made(state, owner.as_ref(), "a tunnel");
            let there = TunnelThere {
                tunnel: tunnel.clone(),
                owner,
                token: token(&id, ask.secret),
                configuration: None,
                connected: None,
            };
            state.tunnels.insert(id, there);
            state.writes += 1;
            Ok(tunnel)
        })
        .await
    }

    async fn delete_tunnel(&self, id: &TunnelId) -> Result<Deletion, CloudError> {
        self.cloud(Cloud::Cloudflare, "delete_tunnel", |state| {
            let Some(there) = state.tunnels.get(id.as_str()) else {
                return Ok(Deletion::AlreadyGone);
            };
            if there.connected.is_some() {
                return Err(failed("delete_tunnel", ErrorKind::ResourceInUse));
            }
            let owner = there.owner.clone();
            state.tunnels.remove(id.as_str());
            state.writes += 1;
            self.check_owner(state, "deletion of a tunnel", owner.as_ref());
            Ok(Deletion::Accepted(()))
        })
        .await
    }

    async fn delete_tunnel_connections(&self, id: &TunnelId) -> Result<Deletion, CloudError> {
        self.cloud(Cloud::Cloudflare, "delete_tunnel_connections", |state| {
            if !state.tunnels.contains_key(id.as_str()) {
                return Ok(Deletion::AlreadyGone);
            }
            self.with_tunnel(state, "connections of a tunnel", id, |there| there.connected = None)?;
            Ok(Deletion::Accepted(()))
        })
        .await
    }

    async fn rotate_tunnel_secret(
        &self,
        id: &TunnelId,
        secret: &TunnelSecret,
    ) -> Result<Tunnel, CloudError> {
        self.cloud(Cloud::Cloudflare, "rotate_tunnel_secret", |state| {
            self.with_tunnel(state, "secret of a tunnel", id, |there| {
                there.token = token(id.as_str(), secret);
                there.tunnel.clone()
            })
        })
        .await
    }

    async fn rename_tunnel(&self, id: &TunnelId, name: &str) -> Result<Tunnel, CloudError> {
        self.cloud(Cloud::Cloudflare, "rename_tunnel", |state| {
            self.with_tunnel(state, "name of a tunnel", id, |there| {
                name.clone_into(&mut there.tunnel.name);
                there.tunnel.clone()
            })
        })
        .await
    }

    async fn get_tunnel_configuration(
        &self,
        _: Priority,
        id: &TunnelId,
    ) -> Result<Option<VersionedTunnelConfiguration>, CloudError> {
        let found = self.cloud(Cloud::Cloudflare, "get_tunnel_configuration", |state| {
            let there = state.tunnels.get(id.as_str());
            let versioned = |there: &TunnelThere| VersionedTunnelConfiguration {
                version: None,
                config: there.configuration.clone(),
            };
            Ok(there.map(versioned))
        });
        found.await
    }

    async fn put_tunnel_configuration(
        &self,
        id: &TunnelId,
        configuration: &TunnelConfiguration,
    ) -> Result<VersionedTunnelConfiguration, CloudError> {
        self.cloud(Cloud::Cloudflare, "put_tunnel_configuration", |state| {
            self.with_tunnel(state, "routes of a tunnel", id, |there| {
                there.configuration = Some(configuration.clone());
                VersionedTunnelConfiguration { version: None, config: Some(configuration.clone()) }
            })
        })
        .await
    }
}

#[async_trait]
impl DnsApi for Link {
    async fn list_dns_records(
        &self,
        _: Priority,
        _: &ZoneId,
        prefix: &str,
    ) -> Result<Vec<DnsRecord>, CloudError> {
        self.cloud(Cloud::Cloudflare, "list_dns_records", |state| {
            let begins = |record: &DnsRecord| {
                prefix.is_empty()
                    || record.comment.as_ref().is_some_and(|comment| comment.starts_with(prefix))
            };
            let there = state.records.values().map(|there| there.record.clone());
            let listed = there.filter(begins).collect();
            Ok(state.perhaps_incomplete(listed))
        })
        .await
    }

    async fn find_dns_records_by_name(
        &self,
        _: Priority,
        _: &ZoneId,
        _: &str,
    ) -> Result<Vec<DnsRecord>, CloudError> {
        unasked()
    }

    async fn dns_batch(&self, _: &ZoneId, batch: &DnsBatch) -> Result<DnsBatchResult, CloudError> {
        self.cloud(Cloud::Cloudflare, "dns_batch", |state| self.change_records(state, batch)).await
    }

    async fn get_zone(&self, _: Priority, _: &ZoneId) -> Result<Option<Zone>, CloudError> {
        unasked()
    }
}

access_is_not_asked_for!(Link);
