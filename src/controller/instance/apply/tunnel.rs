//! The tunnel: made, found again, and given another secret.

use super::{Executor, Trouble, failed, no_epoch};
use crate::{
    api::{
        OpenClawInstanceStatus,
        conditions::{ConditionType, Reason},
        instance::TunnelStatus,
    },
    cloud::{Conflict, ErrorKind, Priority},
    cloudflare::{CreateTunnel, Tunnel, TunnelId},
    instance::{Failure, Observed},
    master_key::{TunnelGeneration, TunnelSecret},
    names,
};

impl Executor<'_> {
    pub(super) async fn create_tunnel(&self, observed: &mut Observed) -> Result<(), Trouble> {
        let subject = &self.wanted.subject;
        let name = names::tunnel(subject.installation, subject.instance);
        let secret = self.tunnel_secret(observed, TunnelGeneration::BOOTSTRAP)?;
        let created = self
            .pool
            .cloudflare
            .create_tunnel(&CreateTunnel { name: &name, secret: &secret })
            .await;
        let tunnel = match created {
            Ok(tunnel) => {
                observed.tunnel_memory.bootstrapped = observed.epoch;
                tunnel
            }
            // Made before, and the answer was lost: the name holds our ids, so it is ours. Its secret
            // may be of an earlier try, so it is set again before a server is made.
            Err(error) if error.kind == ErrorKind::Conflict(Conflict::NameTaken) => {
                let found = self.find_tunnel(&name).await?;
                Some(found)
                    .filter(|found| self.owner(observed).tunnel(found).is_ours())
                    .ok_or_else(|| failed(ConditionType::TunnelReady)(error))?
            }
            Err(error) => return Err(failed(ConditionType::TunnelReady)(error)),
        };
        self.pool.inventory.note_tunnel(tunnel.clone());
        observed.tunnel_memory.rules = None;
        observed.tunnel = Some(tunnel);
        self.controller.derive(self.wanted, observed);
        Ok(())
    }

    /// Gives a tunnel that somebody renamed its name back, by which it is known.
    pub(super) async fn name_tunnel(
        &self,
        id: &TunnelId,
        observed: &mut Observed,
    ) -> Result<(), Trouble> {
        let subject = &self.wanted.subject;
        let name = names::tunnel(subject.installation, subject.instance);
        let renamed = self.pool.cloudflare.rename_tunnel(id, &name).await;
        let tunnel = renamed.map_err(failed(ConditionType::TunnelReady))?;
        self.pool.inventory.note_tunnel(tunnel.clone());
        observed.tunnel = Some(tunnel);
        Ok(())
    }

    async fn find_tunnel(&self, name: &str) -> Result<Tunnel, Trouble> {
        let found = self.pool.cloudflare.find_tunnel_by_name(Priority::Normal, name).await;
        found.map_err(failed(ConditionType::TunnelReady))?.ok_or_else(|| {
            let message = "Cloudflare says that the tunnel's name is taken but does not show it; it is tried again";
            Failure::passing(ConditionType::TunnelReady, Reason::CloudUnavailable, message).into()
        })
    }

    pub(super) async fn bootstrap_tunnel(
        &self,
        id: &TunnelId,
        observed: &mut Observed,
    ) -> Result<(), Trouble> {
        let secret = self.tunnel_secret(observed, TunnelGeneration::BOOTSTRAP)?;
        self.set_tunnel_secret(id, &secret).await?;
        observed.tunnel_memory.bootstrapped = observed.epoch;
        Ok(())
    }

    pub(super) async fn rotate(
        &mut self,
        id: &TunnelId,
        observed: &mut Observed,
    ) -> Result<(), Trouble> {
        let secret = self.tunnel_secret(observed, TunnelGeneration::FIRST_ROTATED)?;
        let of = |rotating| Some(TunnelStatus { id: id.to_string(), rotating });
        let status = OpenClawInstanceStatus { tunnel: of(true), ..observed.status.clone() };
        self.persist(status, observed).await?;
        // Or a repetition that fails from here on looks like the one before it, which did not.
        observed.tunnel_memory.rotated = None;
        self.set_tunnel_secret(id, &secret).await?;
        observed.status.tunnel = of(false);
        observed.tunnel_memory.rotated = Some(observed.now);
        Ok(())
    }

    /// Only new connections are held to a new secret, so the old ones are cut.
    async fn set_tunnel_secret(&self, id: &TunnelId, secret: &TunnelSecret) -> Result<(), Trouble> {
        let cloudflare = &self.pool.cloudflare;
        cloudflare
            .rotate_tunnel_secret(id, secret)
            .await
            .map_err(failed(ConditionType::TunnelReady))?;
        cloudflare
            .delete_tunnel_connections(id)
            .await
            .map_err(failed(ConditionType::TunnelReady))?;
        Ok(())
    }

    fn tunnel_secret(
        &self,
        observed: &Observed,
        generation: TunnelGeneration,
    ) -> Result<TunnelSecret, Failure> {
        let epoch = observed.epoch.ok_or_else(|| no_epoch(ConditionType::TunnelReady))?;
        let master = self.controller.master_key(observed);
        Ok(master.tunnel_secret(self.wanted.subject.instance, epoch, generation))
    }
}
