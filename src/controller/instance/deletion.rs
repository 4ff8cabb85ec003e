//! The pass over an instance that is being deleted. Its finalizer goes only after the clouds
//! themselves have said that nothing of it remains.

use super::{Controller, Look, recorded_id};
use crate::{
    api::{
        FINALIZER, OpenClawInstance,
        conditions::{ConditionType, reason},
    },
    cloud::{CloudError, Priority},
    cloudflare::{DnsPatch, RecordId, TunnelId},
    cluster::{ClusterError, InstanceKey},
    dns::DnsChange,
    hetzner::LabelSelector,
    instance::{
        Failure,
        deletion::{self, DeletionStep, Remains},
        plan::SOON,
        status,
        wanted::Subject,
    },
    names::{self, OwnedName as _},
    pool::PoolRuntime,
};

impl Controller {
    pub(super) async fn deletion_pass(
        &self,
        instance: &OpenClawInstance,
    ) -> Result<Look, ClusterError> {
        let Some(id) = recorded_id(instance) else {
            // Without an id nothing was ever made for it.
            self.cluster.release(instance).await?;
            self.forget(instance);
            return Ok(Look::OnChange);
        };
        let pool = match self.pool(&instance.spec.pool) {
            Ok(pool) => pool,
            Err(refused) => {
                let failure =
                    Failure::passing(ConditionType::Ready, refused.reason, refused.message);
                return self.deletion_failed(instance, &failure).await;
            }
        };
        // In another project everything looks gone, and what is not seen must not be forgotten.
        if let Err(blocked) = &pool.facilities
            && blocked.reason == reason::PROJECT_CHANGED
        {
            let message = format!("HostingPool {} cannot be used: {}", pool.name, blocked.message);
            let failure = Failure::passing(ConditionType::Ready, reason::POOL_NOT_READY, message);
            return self.deletion_failed(instance, &failure).await;
        }
        let subject = self.subject(instance, id, &pool);
        let old = instance.status.clone().unwrap_or_default();
        let status = status::of_deletion(&old, None, instance.metadata.generation, self.now());
        if old.phase != status.phase {
            self.settle(instance, &status).await?;
        }
        let mut remains = self.remains(&subject, &pool).await?;
        loop {
            let steps = deletion::plan(&subject, &remains);
            let mut accepted = false;
            for step in steps {
                match self.delete_one(&subject, &pool, step, &mut remains).await {
                    Ok(Gone::Yes) => {}
                    Ok(Gone::Soon) => accepted = true,
                    Ok(Gone::All) => {
                        self.cluster.release(instance).await?;
                        self.forget(instance);
                        debug_assert!(
                            instance
                                .metadata
                                .finalizers
                                .iter()
                                .flatten()
                                .any(|held| held == FINALIZER)
                        );
                        return Ok(Look::OnChange);
                    }
                    Err(Trouble::Cluster(error)) => return Err(error),
                    Err(Trouble::Cloud(error)) => {
                        let failure = Failure::of_cloud(ConditionType::Ready, &error);
                        tracing::warn!(reason = failure.reason, "{}", failure.message);
                        return self.deletion_failed(instance, &failure).await;
                    }
                }
            }
            if accepted {
                return Ok(Look::In(SOON));
            }
        }
    }

    async fn deletion_failed(
        &self,
        instance: &OpenClawInstance,
        failure: &Failure,
    ) -> Result<Look, ClusterError> {
        let old = instance.status.clone().unwrap_or_default();
        let status =
            status::of_deletion(&old, Some(failure), instance.metadata.generation, self.now());
        self.settle(instance, &status).await?;
        Ok(Look::after(failure))
    }

    /// What the sweep shows of the instance, and the Secrets bound to it.
    async fn remains(
        &self,
        subject: &Subject,
        pool: &PoolRuntime,
    ) -> Result<Remains, ClusterError> {
        let [dashboard, management] = subject.hosts();
        let view = pool.inventory.view(subject.instance, [&dashboard, &management]);
        let key = InstanceKey { namespace: &subject.namespace, name: &subject.name };
        let ours = |owner| owner == Some(subject.instance);
        Ok(Remains {
            servers: view.servers,
            tunnels: view.tunnels,
            records: view
                .records
                .into_iter()
                .filter(|record| ours(record.owner(subject.installation)))
                .collect(),
            secrets: self.cluster.bound_secrets(key).await?,
            confirmed: false,
        })
    }

    async fn delete_one(
        &self,
        subject: &Subject,
        pool: &PoolRuntime,
        step: DeletionStep,
        remains: &mut Remains,
    ) -> Result<Gone, Trouble> {
        match step {
            DeletionStep::Server(id) => {
                pool.hetzner.delete_server(id).await?;
                // Hetzner takes a moment; the confirmation asks whether it has.
                pool.inventory.forget_server(id);
                remains.servers.retain(|server| server.id != id);
            }
            DeletionStep::Tunnel(id) => {
                delete_tunnel(pool, &id).await?;
                remains.tunnels.retain(|tunnel| tunnel.id != id);
            }
            DeletionStep::Records(ids) => {
                pool.dns.apply(DnsChange::Delete(ids.clone())).await?;
                forget_records(pool, &ids, remains);
            }
            DeletionStep::Secrets(names) => {
                for name in names {
                    self.cluster.delete_secret(&subject.namespace, &name, None).await?;
                }
                remains.secrets.clear();
            }
            DeletionStep::RetainServer(id, labels) => {
                pool.hetzner.update_server_labels(id, &labels).await?;
                pool.inventory.forget_server(id);
                remains.servers.retain(|server| server.id != id);
            }
            DeletionStep::RetainRecords(ids) => {
                let retained = |id: &RecordId| DnsPatch {
                    id: id.clone(),
                    content: None,
                    proxied: None,
                    comment: Some(
                        format!("retained by moorage for {}/{}", subject.namespace, subject.name)
                            .chars()
                            .take(100)
                            .collect(),
                    ),
                };
                let patches = ids.iter().map(retained).collect();
                pool.dns.apply(DnsChange::Ensure { posts: Vec::new(), patches }).await?;
                forget_records(pool, &ids, remains);
            }
            DeletionStep::Confirm => {
                confirm(subject, pool, remains).await?;
                let waiting = remains
                    .servers
                    .iter()
                    .any(|server| server.status == crate::hetzner::ServerStatus::Deleting);
                return Ok(if waiting { Gone::Soon } else { Gone::Yes });
            }
            DeletionStep::RemoveFinalizer => return Ok(Gone::All),
        }
        Ok(Gone::Yes)
    }
}

/// How far a step got.
enum Gone {
    Yes,
    /// Accepted; it takes a moment.
    Soon,
    /// Nothing remains at all.
    All,
}

enum Trouble {
    Cluster(ClusterError),
    Cloud(CloudError),
}

impl From<ClusterError> for Trouble {
    fn from(error: ClusterError) -> Self {
        Self::Cluster(error)
    }
}

impl From<CloudError> for Trouble {
    fn from(error: CloudError) -> Self {
        Self::Cloud(error)
    }
}

fn forget_records(pool: &PoolRuntime, ids: &[RecordId], remains: &mut Remains) {
    for id in ids {
        pool.inventory.forget_record(id);
    }
    remains.records.retain(|record| !ids.contains(&record.id));
}

/// A tunnel with live connections cannot be deleted, and its server may still be on its way down.
async fn delete_tunnel(pool: &PoolRuntime, id: &TunnelId) -> Result<(), CloudError> {
    pool.cloudflare.delete_tunnel_connections(id).await?;
    pool.cloudflare.delete_tunnel(id).await?;
    pool.inventory.forget_tunnel(id);
    Ok(())
}

/// Asks the clouds by identity, not by id, so that what a lost status forgot is found as well.
async fn confirm(
    subject: &Subject,
    pool: &PoolRuntime,
    remains: &mut Remains,
) -> Result<(), CloudError> {
    let instance = subject.instance.to_string();
    let installation = subject.installation.to_string();
    let selector = LabelSelector::all_of([
        (crate::api::label::INSTALLATION, installation.as_str()),
        (crate::api::label::INSTANCE, instance.as_str()),
    ]);
    let tunnel = names::tunnel(subject.installation, subject.instance);
    let comment = names::record_comment(subject.installation, subject.instance, "", "");
    let comment = comment.trim_end_matches('/');
    let (servers, tunnel, records) = tokio::try_join!(
        pool.hetzner.list_servers(Priority::Delete, &selector),
        pool.cloudflare.find_tunnel_by_name(Priority::Delete, &tunnel),
        pool.cloudflare.list_dns_records(Priority::Delete, pool.dns.zone(), comment),
    )?;
    let retain = subject.deletion_policy == crate::api::instance::DeletionPolicy::Retain;
    remains.servers =
        servers.into_iter().filter(|server| server.owner(subject.installation).is_some()).collect();
    remains.tunnels =
        tunnel.into_iter().filter(|tunnel| tunnel.deleted_at.is_none() && !retain).collect();
    remains.records = records;
    remains.confirmed = true;
    Ok(())
}
