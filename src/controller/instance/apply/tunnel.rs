//! The tunnel: made, found again, named, and given another secret.

use super::{Apply, Ending, Executor, Gone, PassError, Remove, no_epoch};
use crate::{
    api::conditions::{ConditionType, Reason},
    cloud::{Conflict, ErrorKind, Priority},
    cloudflare::{CreateTunnel, Tunnel, TunnelId},
    instance::{
        Observed,
        tunnel::{TunnelOutcome, TunnelRemoval, TunnelStep},
    },
    master_key::{TunnelGeneration, TunnelSecret},
    names,
    problem::Problem,
};

impl Apply for TunnelStep {
    async fn apply(
        self,
        executor: &mut Executor<'_>,
        observed: &mut Observed,
    ) -> Result<TunnelOutcome, PassError> {
        match self {
            Self::Create => executor.create_tunnel(observed).await,
            Self::Bootstrap(id) => {
                let secret = executor.tunnel_secret(observed, TunnelGeneration::BOOTSTRAP)?;
                executor.set_tunnel_secret(&id, &secret).await?;
                Ok(TunnelOutcome::Bootstrapped)
            }
            Self::Rename(id) => {
                let name = executor.wanted.subject.tunnel_name();
                let renamed = executor.pool.cloudflare.rename_tunnel(&id, &name).await;
                let tunnel = renamed.map_err(PassError::of_cloud(ConditionType::TunnelReady))?;
                executor.pool.inventory.note_tunnel(tunnel.clone());
                Ok(TunnelOutcome::Renamed(tunnel))
            }
        }
    }
}

impl Remove for TunnelRemoval {
    async fn remove(&self, ending: &Ending<'_>) -> Result<Gone, PassError> {
        let (subject, pool) = (ending.subject, ending.pool);
        let of_cloud = PassError::of_cloud(ConditionType::Ready);
        match self {
            Self::Delete(id) => {
                // One with live connections cannot be deleted, and its server may still be on its way down.
                let cut = pool.cloudflare.delete_tunnel_connections(id).await;
                cut.map_err(of_cloud)?;
                let deleted = pool.cloudflare.delete_tunnel(id).await;
                deleted.map_err(PassError::of_cloud(ConditionType::Ready))?;
                pool.inventory.forget_tunnel(id);
            }
            Self::Retain(id) => {
                let name = names::retained_tunnel(subject.installation, subject.instance, id);
                let renamed = pool.cloudflare.rename_tunnel(id, &name).await;
                let tunnel = renamed.map_err(of_cloud)?;
                pool.inventory.forget_tunnel(id);
                pool.inventory.note_tunnel(tunnel);
            }
        }
        Ok(Gone::Yes)
    }
}

impl Executor<'_> {
    async fn create_tunnel(&self, observed: &Observed) -> Result<TunnelOutcome, PassError> {
        let name = self.wanted.subject.tunnel_name();
        let secret = self.tunnel_secret(observed, TunnelGeneration::BOOTSTRAP)?;
        let request = CreateTunnel { name: &name, secret: &secret };
        let (tunnel, bootstrapped) = match self.pool.cloudflare.create_tunnel(&request).await {
            Ok(tunnel) => (tunnel, true),
            // Made before, and the answer was lost: the name holds our ids, so it is ours. Its secret
            // may be of an earlier try, so it is set again before a server is made.
            Err(error) if error.kind == ErrorKind::Conflict(Conflict::NameTaken) => {
                let found = self.find_tunnel(&name).await?;
                let own = Some(found).filter(|found| self.owner(observed).tunnel(found).is_ours());
                (own.ok_or_else(|| PassError::of_cloud(ConditionType::TunnelReady)(error))?, false)
            }
            Err(error) => return Err(PassError::of_cloud(ConditionType::TunnelReady)(error)),
        };
        self.pool.inventory.note_tunnel(tunnel.clone());
        Ok(TunnelOutcome::Found { tunnel, bootstrapped })
    }

    async fn find_tunnel(&self, name: &str) -> Result<Tunnel, PassError> {
        let found = self.pool.cloudflare.find_tunnel_by_name(Priority::Normal, name).await;
        found.map_err(PassError::of_cloud(ConditionType::TunnelReady))?.ok_or_else(|| {
            let message = "Cloudflare says that the tunnel's name is taken but does not show it; it is tried again";
            Problem::new(ConditionType::TunnelReady, Reason::CloudUnavailable, message).into()
        })
    }

    /// Only new connections are held to a new secret, so the old ones are cut.
    pub(super) async fn set_tunnel_secret(
        &self,
        id: &TunnelId,
        secret: &TunnelSecret,
    ) -> Result<(), PassError> {
        let cloudflare = &self.pool.cloudflare;
        cloudflare
            .rotate_tunnel_secret(id, secret)
            .await
            .map_err(PassError::of_cloud(ConditionType::TunnelReady))?;
        cloudflare
            .delete_tunnel_connections(id)
            .await
            .map_err(PassError::of_cloud(ConditionType::TunnelReady))?;
        Ok(())
    }

    pub(super) fn tunnel_secret(
        &self,
        observed: &Observed,
        generation: TunnelGeneration,
    ) -> Result<TunnelSecret, Problem> {
        let epoch = observed.epoch.ok_or_else(|| no_epoch(ConditionType::TunnelReady))?;
        let master = self.controller.master_key(observed);
        Ok(master.tunnel_secret(self.wanted.subject.instance, epoch, generation))
    }
}
