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
    cloudflare::DnsRecord,
    cluster::{BoundSecret, ClusterError, InstanceKey},
    controller::pool_runtime::PoolRuntime,
    hetzner::{Server, ServerId, ServerStatus as Power},
    instance::{
        Removal,
        deletion::{self, Next, Remains},
        plan::SOON,
        status,
        wanted::Subject,
    },
    problem::{PROTECTED_RETRY, Problem, Retry},
};

/// What a deletion works on.
pub(super) struct Ending<'a> {
    pub(super) controller: &'a Controller,
    pub(super) instance: &'a OpenClawInstance,
    pub(super) subject: &'a Subject,
    pub(super) pool: &'a PoolRuntime,
    /// As it stands in the cluster.
    pub(super) status: OpenClawInstanceStatus,
    pub(super) remains: Remains,
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
        let (controller, subject, pool) = (self, &subject, &*pool);
        let mut ending = Ending { controller, instance, subject, pool, status, remains };
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
            let round = match deletion::next(ending.subject, &ending.status, &ending.remains) {
                Next::Remove(removals) => ending.remove(removals).await,
                Next::Confirm => ending.confirm().await,
                Next::TellOfCopies(ids) => Err(copies_left(&ids).into()),
                Next::LetGo => return self.let_go(ending.instance, &ending.status).await,
            };
            match round {
                Ok(Gone::Yes) => {}
                Ok(Gone::Soon) => return Ok(Requeue::After(SOON)),
                Err(PassError::Cluster(error)) => return Err(error),
                Err(PassError::Problem(failure)) => {
                    tracing::warn!(reason = %failure.reason, "{}", failure.message);
                    let (instance, status) = (ending.instance, &ending.status);
                    return self.deletion_failed(instance, status, &failure).await;
                }
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
}

impl Ending<'_> {
    /// Carries out the removals of one round.
    async fn remove(&mut self, removals: Vec<Removal>) -> Result<Gone, PassError> {
        let mut gone = Gone::Yes;
        for removal in removals {
            if self.remove_one(removal).await? == Gone::Soon {
                gone = Gone::Soon;
            }
        }
        Ok(gone)
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
    async fn confirm(&mut self) -> Result<Gone, PassError> {
        let (pool, subject) = (self.pool, self.subject);
        let owner = subject.owner(&self.status);
        let observed = pool.inventory.confirm(subject.instance).await;
        let observed = observed.map_err(PassError::of_cloud(ConditionType::Ready))?;
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
        let deleting = servers.iter().any(|server| server.status == Power::Deleting);
        self.remains = Remains { servers, tunnels, records, secrets, confirmed: true };
        Ok(if deleting { Gone::Soon } else { Gone::Yes })
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

/// How far a removal got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Gone {
    Yes,
    /// It was accepted and takes a moment.
    Soon,
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
