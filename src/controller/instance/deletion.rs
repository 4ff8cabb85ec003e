//! The pass over an instance that is being deleted. Its finalizer goes only after the clouds
//! themselves have said that nothing of it remains, or where nothing can ever have been made.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::{Controller, Requeue, is_claimed, pass_error::PassError};
use crate::{
    api::{
        FINALIZER, OpenClawInstance, OpenClawInstanceStatus,
        conditions::{ConditionType, Reason},
    },
    cloud::{CloudError, Priority},
    cloudflare::{DnsPatch, DnsRecord, RecordId, TunnelId},
    cluster::{BoundSecret, ClusterError, InstanceKey},
    controller::pool_runtime::PoolRuntime,
    dns::DnsChange,
    hetzner::{Labels, Server, ServerId, ServerStatus as Power},
    instance::{
        deletion::{self, DeletionStep, Remains},
        plan::SOON,
        status,
        wanted::Subject,
    },
    names,
    problem::{PROTECTED_RETRY, Problem, Retry},
};

/// What a deletion works on.
struct Ending<'a> {
    instance: &'a OpenClawInstance,
    subject: &'a Subject,
    pool: &'a PoolRuntime,
    /// As it stands in the cluster.
    status: OpenClawInstanceStatus,
    remains: Remains,
}

impl Controller {
    pub(super) async fn deletion_pass(
        &self,
        instance: &OpenClawInstance,
    ) -> Result<Requeue, ClusterError> {
        let status = instance.status.clone().unwrap_or_default();
        let pool = match self.pool(&instance.spec.pool) {
            Ok(pool) => pool,
            Err(refused) => return self.end_without_pool(instance, &status, refused).await,
        };
        // In another project everything looks gone, and what is not seen must not be forgotten.
        if let Err(blocked) = &pool.facilities
            && blocked.reason == Reason::ProjectChanged
        {
            if instance.spec.suspend {
                return self.suspend(instance).await;
            }
            let message = format!("HostingPool {} cannot be used: {}", pool.name, blocked.message);
            let failure = Problem::new(ConditionType::Ready, Reason::PoolNotReady, message);
            return self.deletion_failed(instance, &status, &failure).await;
        }
        if pool.inventory.swept().is_none() {
            return Ok(Requeue::After(SOON));
        }
        let subject = self.subject(instance, &pool);
        let secrets = self.secrets_that_go(instance).await?;
        let remains = remains(&subject, &status, &pool, secrets);
        let unmade =
            !deletion::has_history(&status) && remains.nothing_in_clouds(&subject.owner(&status));
        if unmade {
            // Nothing is made before the status says so: no call to a cloud is needed to let it go.
            return self.let_go_unmade(instance).await;
        }
        if instance.spec.suspend {
            return self.suspend(instance).await;
        }
        let mut ending = Ending { instance, subject: &subject, pool: &pool, status, remains };
        if let Err(error) = ending.find_unmarked().await {
            let failure = Problem::of_cloud(ConditionType::Ready, &error);
            return self.deletion_failed(instance, &ending.status, &failure).await;
        }
        self.begin(&mut ending).await?;
        self.end(ending).await
    }

    /// Nobody can look into the clouds of a pool that is not there, so the status decides: nothing is
    /// made before it says so.
    async fn end_without_pool(
        &self,
        instance: &OpenClawInstance,
        status: &OpenClawInstanceStatus,
        refused: Problem,
    ) -> Result<Requeue, ClusterError> {
        let name = &instance.spec.pool;
        let missing = !self.cluster.pool_exists(name).await?;
        if missing && !deletion::has_history(status) {
            return self.let_go_unmade(instance).await;
        }
        if instance.spec.suspend {
            return self.suspend(instance).await;
        }
        let failure = if missing {
            let message = format!(
                "HostingPool {name} is gone, but this instance may still have a server or tunnel in its clouds. Recreate the pool with the same tokens; the deletion then continues"
            );
            Problem::new(ConditionType::Ready, Reason::PoolNotFound, message)
        } else {
            refused
        };
        self.deletion_failed(instance, status, &failure).await
    }

    /// Says that it is under way, and which server is the instance's, before anything is deleted.
    async fn begin(&self, ending: &mut Ending<'_>) -> Result<(), ClusterError> {
        let (instance, old) = (ending.instance, &ending.status);
        let server = deletion::server_to_record(ending.subject, old, &ending.remains);
        let generation = instance.metadata.generation;
        let mut status = status::of_deletion(old, None, generation, self.now());
        let found = server.is_some();
        status.server = server.or(status.server);
        if old.phase != status.phase || found {
            self.write(instance, Some(old), &status).await?;
            ending.status = status;
        }
        Ok(())
    }

    async fn end(&self, mut ending: Ending<'_>) -> Result<Requeue, ClusterError> {
        loop {
            let mut accepted = false;
            for step in deletion::plan(ending.subject, &ending.status, &ending.remains) {
                match self.delete_one(&mut ending, step).await {
                    Ok(Gone::Yes) => {}
                    Ok(Gone::Soon) => accepted = true,
                    Ok(Gone::All) => return self.let_go(ending.instance, &ending.status).await,
                    Err(PassError::Cluster(error)) => return Err(error),
                    Err(PassError::Problem(failure)) => {
                        tracing::warn!(reason = %failure.reason, "{}", failure.message);
                        let (instance, status) = (ending.instance, &ending.status);
                        return self.deletion_failed(instance, status, &failure).await;
                    }
                }
            }
            if accepted {
                return Ok(Requeue::After(SOON));
            }
        }
    }

    /// Of an instance that never had anything in a cloud the sealed Secrets are all there is.
    async fn let_go_unmade(&self, instance: &OpenClawInstance) -> Result<Requeue, ClusterError> {
        let namespace = instance.metadata.namespace.as_deref().unwrap_or_default();
        for secret in self.secrets_that_go(instance).await? {
            self.cluster.delete_secret(namespace, &secret.name, &secret.version).await?;
        }
        self.let_go(instance, &OpenClawInstanceStatus::default()).await
    }

    /// The Secrets that go with an instance: those that are bound to it by its name, but for what was
    /// made after its deletion, which is for the next instance of the name. A watch may lag so far
    /// behind that the next one is there already.
    async fn secrets_that_go(
        &self,
        instance: &OpenClawInstance,
    ) -> Result<Vec<BoundSecret>, ClusterError> {
        let mut secrets = self.cluster.bound_secrets(InstanceKey::of(instance)).await?;
        if let Some(deleted) = &instance.metadata.deletion_timestamp {
            secrets.retain(|secret| secret.created <= deleted.0);
        }
        if !secrets.is_empty() && !self.cluster.is_there(instance).await? {
            return Err(ClusterError::Changed);
        }
        Ok(secrets)
    }

    /// Where somebody else's finalizer keeps the object, its status must not name what is gone: it would
    /// count for the pool, the release, the master key, the host name and the quota.
    async fn let_go(
        &self,
        instance: &OpenClawInstance,
        status: &OpenClawInstanceStatus,
    ) -> Result<Requeue, ClusterError> {
        let others = instance.metadata.finalizers.iter().flatten().any(|held| held != FINALIZER);
        if others && deletion::has_history(status) {
            let cleared = deletion::without_history(status);
            self.write(instance, Some(status), &cleared).await?;
        }
        if is_claimed(instance) {
            self.cluster.release(instance).await?;
        }
        self.forget(instance);
        Ok(Requeue::OnChange)
    }

    async fn deletion_failed(
        &self,
        instance: &OpenClawInstance,
        old: &OpenClawInstanceStatus,
        failure: &Problem,
    ) -> Result<Requeue, ClusterError> {
        let generation = instance.metadata.generation;
        let status = status::of_deletion(old, Some(failure), generation, self.now());
        self.write(instance, Some(old), &status).await?;
        Ok(self.requeue_after(failure))
    }

    async fn delete_one(
        &self,
        ending: &mut Ending<'_>,
        step: DeletionStep,
    ) -> Result<Gone, PassError> {
        let (subject, pool) = (ending.subject, ending.pool);
        let of_cloud = PassError::of_cloud(ConditionType::Ready);
        match step {
            DeletionStep::Server(id) => return ending.delete_server(id).await,
            DeletionStep::Tunnel(id) => {
                delete_tunnel(pool, &id).await.map_err(of_cloud)?;
                ending.forget_tunnel(&id);
            }
            DeletionStep::Records(ids) => {
                let deleted = pool.dns.apply(DnsChange::Delete(ids.clone())).await;
                deleted.map_err(of_cloud)?;
                ending.forget_records(&ids);
            }
            DeletionStep::Secrets(secrets) => {
                for secret in secrets {
                    let namespace = &subject.namespace;
                    self.cluster.delete_secret(namespace, &secret.name, &secret.version).await?;
                }
                ending.remains.secrets.clear();
            }
            DeletionStep::RetainServer(id, labels) => ending.retain_server(id, &labels).await?,
            DeletionStep::RetainTunnel(id) => {
                let name = names::retained_tunnel(subject.installation, subject.instance, &id);
                let tunnel = pool.cloudflare.rename_tunnel(&id, &name).await;
                let tunnel = tunnel.map_err(of_cloud)?;
                ending.forget_tunnel(&id);
                pool.inventory.note_tunnel(tunnel);
            }
            DeletionStep::RetainRecords(ids) => {
                let comment = subject.retained_comment();
                let retained = |id: &RecordId| DnsPatch {
                    id: id.clone(),
                    content: None,
                    proxied: None,
                    comment: Some(comment.clone()),
                };
                let patches = ids.iter().map(retained).collect();
                let kept = DnsChange::Ensure { posts: Vec::new(), patches };
                let kept = pool.dns.apply(kept).await.map_err(of_cloud)?;
                ending.forget_records(&ids);
                for record in kept {
                    pool.inventory.note_record(record);
                }
            }
            DeletionStep::Confirm => {
                ending.confirm().await.map_err(of_cloud)?;
                let deleting =
                    ending.remains.servers.iter().any(|server| server.status == Power::Deleting);
                return Ok(if deleting { Gone::Soon } else { Gone::Yes });
            }
            DeletionStep::TellOfCopies(ids) => return Err(PassError::Problem(copies_left(&ids))),
            DeletionStep::RemoveFinalizer => return Ok(Gone::All),
        }
        Ok(Gone::Yes)
    }
}

impl Ending<'_> {
    /// A sweep may be a minute old, and what is deleted here does not come back: the server is asked
    /// for first.
    async fn delete_server(&mut self, id: ServerId) -> Result<Gone, PassError> {
        let hetzner = &self.pool.hetzner;
        let found = hetzner.get_server(Priority::Delete, id).await;
        let found = found.map_err(PassError::of_cloud(ConditionType::Ready))?;
        let owner = self.subject.owner(&self.status);
        let own = found.filter(|server| owner.server(server).is_ours());
        let deleting = own.as_ref().is_some_and(|server| server.status == Power::Deleting);
        if own.is_some() && !deleting {
            let deleted = hetzner.delete_server(id).await;
            deleted
                .map_err(|error| Problem::of_server_deletion(ConditionType::Ready, id, &error))?;
        }
        self.forget_server(id);
        // Hetzner takes a moment; the confirmation asks whether it has.
        Ok(if deleting { Gone::Soon } else { Gone::Yes })
    }

    async fn retain_server(&mut self, id: ServerId, labels: &Labels) -> Result<(), PassError> {
        let retained = self.pool.hetzner.update_server_labels(id, labels).await;
        let retained = retained.map_err(PassError::of_cloud(ConditionType::Ready))?;
        self.forget_server(id);
        // It is billed on, so that it counts for its namespace without a gap.
        self.pool.inventory.note_server(retained);
        Ok(())
    }

    fn forget_server(&mut self, id: ServerId) {
        self.pool.inventory.forget_server(id);
        self.remains.servers.retain(|server| server.id != id);
    }

    fn forget_tunnel(&mut self, id: &TunnelId) {
        self.pool.inventory.forget_tunnel(id);
        self.remains.tunnels.retain(|tunnel| tunnel.id != *id);
    }

    fn forget_records(&mut self, ids: &[RecordId]) {
        for id in ids {
            self.pool.inventory.forget_record(id);
        }
        self.remains.records.retain(|record| !ids.contains(&record.id));
    }

    /// Finds the recorded server and tunnel although somebody took their marks off, and gives these back,
    /// so that they are found from then on. Only before the status says that the deletion has begun:
    /// later what is not there is gone.
    async fn find_unmarked(&mut self) -> Result<(), CloudError> {
        let begun = |known: &Condition| {
            known.type_ == ConditionType::Ready.as_str() && known.reason == Reason::Deleting
        };
        if self.status.conditions.iter().any(begun) {
            return Ok(());
        }
        let (pool, subject) = (self.pool, self.subject);
        let owner = subject.owner(&self.status);
        if let Some(id) = owner.recorded.server
            && !self.remains.servers.iter().any(|server| server.id == id)
        {
            let found = pool.hetzner.get_server(Priority::Delete, id).await?;
            let epoch = self.status.server.as_ref().and_then(|server| server.epoch.parse().ok());
            if let Some(server) = found.filter(|server| owner.server(server).is_ours()) {
                let marks = epoch.map(|epoch| subject.server_identity(epoch).labels());
                let labels = server.labels.into_iter().chain(marks.unwrap_or_default()).collect();
                self.remains.servers.push(pool.hetzner.update_server_labels(id, &labels).await?);
            }
        }
        if let Some(id) = &owner.recorded.tunnel
            && !self.remains.tunnels.iter().any(|tunnel| tunnel.id == *id)
        {
            let found = pool.cloudflare.get_tunnel(Priority::Delete, id).await?;
            if found.is_some_and(|tunnel| owner.tunnel(&tunnel).is_ours()) {
                let name = subject.tunnel_name();
                self.remains.tunnels.push(pool.cloudflare.rename_tunnel(id, &name).await?);
            }
        }
        Ok(())
    }

    /// Asks the clouds by identity, not by id, so that what a lost status forgot is found as well.
    /// Records that lost theirs are known from the sweep.
    async fn confirm(&mut self) -> Result<(), CloudError> {
        let (pool, subject) = (self.pool, self.subject);
        let owner = subject.owner(&self.status);
        let observed = pool.inventory.confirm(subject.instance).await?;
        let instance = subject.instance.to_string();
        let labelled = |server: &&Server| {
            server.labels.get(crate::api::label::INSTANCE).is_some_and(|label| *label == instance)
        };
        let servers: Vec<_> = observed.servers.iter().filter(labelled).cloned().collect();
        let name = subject.tunnel_name();
        let comment = owner.comment_prefix();
        let commented = |record: &&DnsRecord| {
            record.comment.as_ref().is_some_and(|known| known.starts_with(&comment))
        };
        let mut records: Vec<_> = observed.records.iter().filter(commented).cloned().collect();
        let named = observed.tunnels.iter().filter(|tunnel| tunnel.name == name);
        let mut tunnels: Vec<_> = named.cloned().collect();
        let view = pool.inventory.view(&owner);
        // A sweep that began in between may hold what has gone since: a next life of the name must not
        // find it.
        let gone = view.servers.iter().filter(|old| servers.iter().all(|now| now.id != old.id));
        gone.for_each(|server| pool.inventory.forget_server(server.id));
        let gone = view.tunnels.iter().filter(|old| tunnels.iter().all(|now| now.id != old.id));
        gone.for_each(|tunnel| pool.inventory.forget_tunnel(&tunnel.id));
        let swept = view.records;
        let unlisted = |record: &DnsRecord| {
            record.comment.as_ref().is_none_or(|known| !known.starts_with(&comment))
        };
        records.extend(swept.into_iter().filter(unlisted));
        tunnels.retain(|tunnel| tunnel.deleted_at.is_none());
        let secrets = std::mem::take(&mut self.remains.secrets);
        self.remains = Remains { servers, tunnels, records, secrets, confirmed: true };
        Ok(())
    }
}

/// What the sweep shows of the instance, and the Secrets that go with it.
fn remains(
    subject: &Subject,
    status: &OpenClawInstanceStatus,
    pool: &PoolRuntime,
    secrets: Vec<BoundSecret>,
) -> Remains {
    let view = pool.inventory.view(&subject.owner(status));
    let (servers, tunnels, records) = (view.servers, view.tunnels, view.records);
    Remains { servers, tunnels, records, secrets, confirmed: false }
}

/// How far a step got.
enum Gone {
    Yes,
    /// Accepted; it takes a moment.
    Soon,
    /// Nothing remains at all.
    All,
}

/// All else is gone; a copy is not deleted unasked, and not left behind untold.
fn copies_left(ids: &[ServerId]) -> Problem {
    let ids: Vec<_> = ids.iter().map(ToString::to_string).collect();
    let message = format!(
        "Server {} has the labels of this instance but is not its server, so it was not deleted. Delete it in Hetzner's console, or remove its label {} to keep it; the deletion then continues",
        ids.join(", "),
        crate::api::label::INSTANCE,
    );
    let retry = Retry::After(PROTECTED_RETRY);
    Problem::whole(Reason::DuplicateServer, message).retrying(retry)
}

/// A tunnel with live connections cannot be deleted, and its server may still be on its way down.
async fn delete_tunnel(pool: &PoolRuntime, id: &TunnelId) -> Result<(), CloudError> {
    pool.cloudflare.delete_tunnel_connections(id).await?;
    pool.cloudflare.delete_tunnel(id).await?;
    Ok(())
}
