//! The rotation of the tunnel's token.

use super::{Apply, Executor, PassError, no_epoch};
use crate::{
    api::conditions::ConditionType,
    credentials::courier::OwnCredential,
    instance::{
        Observed,
        rotation::{RotationOutcome, RotationStep},
    },
    master_key::TunnelGeneration,
};

impl Apply for RotationStep {
    async fn apply(
        self,
        executor: &mut Executor<'_>,
        observed: &mut Observed,
    ) -> Result<RotationOutcome, PassError> {
        match self {
            Self::DeliverToken => {
                let secret = executor.tunnel_secret(observed, TunnelGeneration::FIRST_ROTATED)?;
                let tunnel = observed.tunnel.as_ref();
                let tunnel = tunnel.ok_or_else(|| no_epoch(ConditionType::TunnelReady))?;
                let token = secret.run_token(executor.wanted.account.as_str(), tunnel.id.as_str());
                let own = OwnCredential::Tunnel(&token);
                Ok(RotationOutcome::Delivered(executor.deliver_own(own, observed).await?))
            }
            Self::Rotate(id) => {
                // Or a repetition that fails from here on looks like the one before it, which did not.
                observed.tunnel_memory.rotated = None;
                let secret = executor.tunnel_secret(observed, TunnelGeneration::FIRST_ROTATED)?;
                executor.set_tunnel_secret(&id, &secret).await?;
                Ok(RotationOutcome::Rotated(id))
            }
        }
    }
}
