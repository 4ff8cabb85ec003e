//! Credentials: what goes to the agent sealed, the customer's and Moorage's own, and the Secrets that
//! are deleted afterwards.

use moorage_wire::{CredentialName, problem::ProblemCode, report::Consumed};

use super::{Executor, Trouble, no_epoch};
use crate::{
    agent::AgentError,
    api::conditions::ConditionType,
    credentials::{
        courier::{OwnCredential, Parcel, Recipient, prepare, prepare_own},
        secret_source::{CredentialSource, SecretVersion},
    },
    instance::{Failure, Observed},
    master_key::{GatewayToken, TunnelGeneration},
    metrics::DeliveryOutcome,
};

impl Executor<'_> {
    pub(super) async fn deliver(
        &self,
        name: &CredentialName,
        observed: &mut Observed,
    ) -> Result<(), Trouble> {
        let Some(Ok(value)) = observed.handed_in.get(name).cloned() else { return Ok(()) };
        let part = ConditionType::CredentialsDelivered;
        let parcel = {
            let (_, keys, view) = self.agent(observed, part)?;
            let to = Recipient {
                certificate: &view.keys.certificate,
                instance: keys.instance,
                epoch: keys.epoch,
            };
            prepare(&value, self.ring, &to)
        };
        match parcel {
            Ok(parcel) => self.send(parcel, observed).await,
            Err(refusal) => {
                self.controller.ctx.metrics.delivery(DeliveryOutcome::Refused);
                observed.handed_in.insert(name.clone(), Err(refusal));
                Ok(())
            }
        }
    }

    pub(super) async fn deliver_gateway_token(
        &self,
        observed: &mut Observed,
    ) -> Result<(), Trouble> {
        let token = self.gateway_token(observed)?;
        self.deliver_own(OwnCredential::Gateway(&token), observed).await
    }

    pub(super) async fn deliver_tunnel_token(
        &self,
        observed: &mut Observed,
    ) -> Result<(), Trouble> {
        let part = ConditionType::TunnelReady;
        let epoch = observed.epoch.ok_or_else(|| no_epoch(part))?;
        let tunnel = observed.tunnel.as_ref().ok_or_else(|| no_epoch(part))?;
        let master = self.controller.master_key(observed);
        let secret = master.tunnel_secret(
            self.wanted.subject.instance,
            epoch,
            TunnelGeneration::FIRST_ROTATED,
        );
        let token = secret.run_token(self.wanted.account.as_str(), tunnel.id.as_str());
        self.deliver_own(OwnCredential::Tunnel(&token), observed).await
    }

    async fn deliver_own(
        &self,
        own: OwnCredential<'_>,
        observed: &mut Observed,
    ) -> Result<(), Trouble> {
        let part = ConditionType::CredentialsDelivered;
        let (_, keys, view) = self.agent(observed, part)?;
        let certificate = match own {
            OwnCredential::Gateway(_) => Ok(view.keys.certificate.clone()),
            // For cloudflared, and nothing for the user that OpenClaw runs as.
            OwnCredential::Tunnel(_) => view.tunnel_certificate(),
        };
        let certificate = certificate.map_err(|error| Failure::of_agent(part, &error))?;
        let to =
            Recipient { certificate: &certificate, instance: keys.instance, epoch: keys.epoch };
        let parcel = prepare_own(own, &to)
            .map_err(|refusal| Failure::passing(part, refusal.reason(), refusal.to_string()))?;
        self.send(parcel, observed).await
    }

    async fn send(&self, parcel: Parcel, observed: &mut Observed) -> Result<(), Trouble> {
        let part = ConditionType::CredentialsDelivered;
        let (route, keys, view) = self.agent(observed, part)?;
        let (ctx, agent) = (&self.controller.ctx, view.keys.public_key);
        let sent =
            ctx.agents.put_credential(&route, &keys, agent, &parcel.name, &parcel.credential).await;
        let source = parcel.credential.source_sha256();
        match sent {
            // The client has checked the signature; that the receipt is for this value is checked here.
            Ok(receipt) if receipt.credential == parcel.name && receipt.source_sha256 == source => {
                ctx.metrics.delivery(DeliveryOutcome::Delivered);
                view.report.receipts.retain(|known| known.credential != parcel.name);
                view.report.receipts.push(receipt);
                Ok(())
            }
            Ok(_) => {
                ctx.metrics.delivery(DeliveryOutcome::Failed);
                let error = AgentError::NotAuthentic("its receipt is for another value".into());
                Err(Failure::of_agent(part, &error).into())
            }
            Err(AgentError::Refused(problem)) if problem.code == ProblemCode::AlreadyConsumed => {
                ctx.metrics.delivery(DeliveryOutcome::AlreadyDelivered);
                let consumed = Consumed { credential: parcel.name, source_sha256: source };
                view.report.consumed.push(consumed);
                Ok(())
            }
            Err(AgentError::Refused(problem))
                if matches!(
                    problem.code,
                    ProblemCode::InvalidFormat | ProblemCode::CannotUnseal
                ) =>
            {
                ctx.metrics.delivery(DeliveryOutcome::Refused);
                observed.agent_refused.insert(parcel.name, problem.message.to_string());
                Ok(())
            }
            Err(error) => {
                ctx.metrics.delivery(DeliveryOutcome::Failed);
                Err(Failure::of_agent(part, &error).into())
            }
        }
    }

    pub(super) async fn delete_secret(
        &self,
        name: String,
        version: &SecretVersion,
        recreated: &[CredentialName],
        observed: &mut Observed,
    ) -> Result<(), Trouble> {
        let namespace = &self.wanted.subject.namespace;
        self.controller.cluster.delete_secret(namespace, &name, version).await?;
        tracing::info!(secret = name, "deleted a Secret whose values are all receipted");
        observed.bundles.retain(|bundle| bundle.secret != name);
        observed.handed_in.retain(|credential, _| !self.comes_from(credential, &name));
        for known in &mut observed.status.credentials {
            let again = recreated.iter().any(|credential| credential.as_str() == known.name);
            known.recreated += u32::from(again);
        }
        Ok(())
    }

    fn comes_from(&self, credential: &CredentialName, secret: &str) -> bool {
        self.wanted.credentials.iter().any(|request| {
            request.name == *credential
                && matches!(&request.source, CredentialSource::SecretKey { secret: name, .. } if name == secret)
        })
    }

    pub(super) fn gateway_token(&self, observed: &Observed) -> Result<GatewayToken, Failure> {
        let epoch = observed.epoch.ok_or_else(|| no_epoch(ConditionType::CredentialsDelivered))?;
        Ok(self.controller.gateway_token(self.wanted, observed, epoch))
    }
}
