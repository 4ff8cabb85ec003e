//! Credentials: what goes to the agent sealed, the customer's and Moorage's own, and the Secrets that
//! are deleted afterwards.

use moorage_wire::{CredentialName, problem::ProblemCode, report::Consumed};

use super::{Apply, Executor, PassError, no_epoch};
use crate::{
    agent::AgentError,
    api::conditions::ConditionType,
    credentials::courier::{OwnCredential, Parcel, Recipient, prepare},
    instance::{
        Observed,
        credentials::{CredentialOutcome, CredentialStep, DeliveryOutcome, credentials_of},
    },
    master_key::GatewayToken,
    metrics,
    problem::Problem,
};

impl Apply for CredentialStep {
    async fn apply(
        self,
        executor: &mut Executor<'_>,
        observed: &mut Observed,
    ) -> Result<CredentialOutcome, PassError> {
        Ok(match self {
            Self::Deliver(name) => {
                CredentialOutcome::Delivery(executor.deliver(name, observed).await?)
            }
            Self::DeliverGatewayToken => {
                let token = executor.gateway_token(observed)?;
                let own = OwnCredential::Gateway(&token);
                CredentialOutcome::Delivery(executor.deliver_own(own, observed).await?)
            }
            Self::DeleteSecret { name, version, recreated } => {
                let namespace = &executor.wanted.subject.namespace;
                executor.controller.cluster.delete_secret(namespace, &name, &version).await?;
                tracing::info!(secret = name, "deleted a Secret whose values are all receipted");
                let credentials = credentials_of(executor.wanted, &name);
                CredentialOutcome::SecretDeleted { name, credentials, recreated }
            }
        })
    }
}

impl Executor<'_> {
    async fn deliver(
        &self,
        name: CredentialName,
        observed: &Observed,
    ) -> Result<DeliveryOutcome, PassError> {
        let Some(Ok(value)) = observed.handed_in.get(&name) else {
            return Ok(DeliveryOutcome::Nothing);
        };
        let part = ConditionType::CredentialsDelivered;
        let parcel = {
            let (_, keys, view) = self.agent(observed, part)?;
            let to = Recipient {
                certificate: &view.keys.certificate,
                instance: keys.instance,
                epoch: keys.epoch,
            };
            prepare(value, self.ring, &to)
        };
        match parcel {
            Ok(parcel) => self.send(parcel, observed).await,
            Err(refusal) => {
                self.controller.ctx.metrics.delivery(metrics::DeliveryOutcome::Refused);
                Ok(DeliveryOutcome::Unfit(name, refusal))
            }
        }
    }

    /// Delivers one of Moorage's own tokens.
    pub(super) async fn deliver_own(
        &self,
        own: OwnCredential<'_>,
        observed: &Observed,
    ) -> Result<DeliveryOutcome, PassError> {
        let part = ConditionType::CredentialsDelivered;
        let (_, keys, view) = self.agent(observed, part)?;
        let certificate = match own {
            OwnCredential::Gateway(_) => Ok(view.keys.certificate.clone()),
            // For cloudflared, and nothing for the user that OpenClaw runs as.
            OwnCredential::Tunnel(_) => view.tunnel_certificate(),
        };
        let certificate = certificate.map_err(|error| Problem::of_agent(part, &error))?;
        let to =
            Recipient { certificate: &certificate, instance: keys.instance, epoch: keys.epoch };
        let parcel = (self.controller.costly.seal_own)(own, &to)
            .map_err(|refusal| Problem::new(part, refusal.reason(), refusal.to_string()))?;
        self.send(parcel, observed).await
    }

    async fn send(
        &self,
        parcel: Parcel,
        observed: &Observed,
    ) -> Result<DeliveryOutcome, PassError> {
        let part = ConditionType::CredentialsDelivered;
        let (route, keys, view) = self.agent(observed, part)?;
        let (ctx, agent) = (&self.controller.ctx, view.keys.public_key);
        let sent =
            ctx.agents.put_credential(&route, &keys, agent, &parcel.name, &parcel.credential).await;
        let source = parcel.credential.source_sha256();
        match sent {
            // The client has checked the signature; that the receipt is for this value is checked here.
            Ok(receipt) if receipt.credential == parcel.name && receipt.source_sha256 == source => {
                ctx.metrics.delivery(metrics::DeliveryOutcome::Delivered);
                Ok(DeliveryOutcome::Stored(receipt))
            }
            Ok(_) => {
                ctx.metrics.delivery(metrics::DeliveryOutcome::Failed);
                let error = AgentError::NotAuthentic("its receipt is for another value".into());
                Err(Problem::of_agent(part, &error).into())
            }
            Err(AgentError::Refused(problem)) if problem.code == ProblemCode::AlreadyConsumed => {
                ctx.metrics.delivery(metrics::DeliveryOutcome::AlreadyDelivered);
                let consumed = Consumed { credential: parcel.name, source_sha256: source };
                Ok(DeliveryOutcome::Consumed(consumed))
            }
            Err(AgentError::Refused(problem))
                if matches!(
                    problem.code,
                    ProblemCode::InvalidFormat | ProblemCode::CannotUnseal
                ) =>
            {
                ctx.metrics.delivery(metrics::DeliveryOutcome::Refused);
                Ok(DeliveryOutcome::Refused(parcel.name, problem.message.to_string()))
            }
            Err(error) => {
                ctx.metrics.delivery(metrics::DeliveryOutcome::Failed);
                Err(Problem::of_agent(part, &error).into())
            }
        }
    }

    pub(super) fn gateway_token(&self, observed: &Observed) -> Result<GatewayToken, Problem> {
        let epoch = observed.epoch.ok_or_else(|| no_epoch(ConditionType::CredentialsDelivered))?;
        Ok(self.controller.gateway_token(self.wanted, observed, epoch))
    }
}
