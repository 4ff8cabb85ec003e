//! A server's handover to the newest master key.

use std::sync::Arc;

use moorage_wire::{Sha256, enrolment::AgentIdentity, handover};

use super::{Apply, Executor, PassError, no_epoch};
use crate::{
    agent::{AgentError, ServerKeys},
    api::{OpenClawInstanceStatus, conditions::ConditionType},
    instance::{
        Observed, desired_state,
        handover::{HandOverOutcome, HandOverStep},
        observed::AgentState,
    },
    master_key::MasterKey,
    problem::Problem,
};

const PART: ConditionType = ConditionType::AgentReady;

fn refused(error: &AgentError) -> PassError {
    Problem::of_agent(PART, error).into()
}

impl Apply for HandOverStep {
    async fn apply(
        self,
        executor: &mut Executor<'_>,
        observed: &mut Observed,
    ) -> Result<HandOverOutcome, PassError> {
        match self {
            Self::Begin => executor.begin_hand_over(observed).await,
            Self::TakeOver => executor.take_over(observed).await,
            Self::End => executor.end_hand_over(observed).await,
        }
    }
}

impl Executor<'_> {
    /// The agent is told who comes next, by the key that it obeys.
    async fn begin_hand_over(&self, observed: &Observed) -> Result<HandOverOutcome, PassError> {
        let next = self.next_keys(observed)?;
        let (route, keys, view) = self.agent(observed, PART)?;
        let identity = AgentIdentity {
            instance_id: keys.instance,
            epoch: keys.epoch,
            public_key: view.keys.public_key,
            sealing_certificate: view.keys.certificate.pem().to_owned(),
            proof: Sha256::of(&[]),
            tunnel_certificate: None,
        };
        let successor = handover::Successor {
            bearer_sha256: next.bearer.sha256(),
            identity_proof: identity.proof_under(&next.enrolment),
        };
        let server = (keys.instance, keys.epoch);
        let word = handover::HandOver::sign(server, &keys.operator, &next.operator, successor);
        let agents = &self.controller.ctx.agents;
        agents
            .begin_hand_over(&route, &keys, view.keys.public_key, &word)
            .await
            .map_err(|error| refused(&error))?;
        Ok(HandOverOutcome::Obeyed(vec![word.from, word.to]))
    }

    /// The next key has to work before it is recorded; what is recorded is what is used from then on.
    async fn take_over(&mut self, observed: &mut Observed) -> Result<HandOverOutcome, PassError> {
        let next = self.next_keys(observed)?;
        let (route, _, view) = self.agent(observed, PART)?;
        let agents = &self.controller.ctx.agents;
        let report = agents
            .report(&route, &next, view.keys.public_key)
            .await
            .map_err(|error| refused(&error))?;
        let newest = self.newest_key(observed).id().to_string();
        let server = observed.status.server.clone().map(|mut server| {
            server.master_key_id = Some(newest.clone());
            server
        });
        let status = OpenClawInstanceStatus { server, ..observed.status.clone() };
        self.persist(status, observed).await?;
        tracing::info!(master_key = newest, "the server obeys the newest master key");
        Ok(HandOverOutcome::Taken { report: Some(Box::new(report)) })
    }

    /// The agent obeys the recorded key alone. Before that, whatever it shows to its installer as the
    /// operator's word is signed again by that key.
    async fn end_hand_over(&self, observed: &Observed) -> Result<HandOverOutcome, PassError> {
        let (route, keys, view) = self.agent(observed, PART)?;
        let (agents, agent) = (&self.controller.ctx.agents, view.keys.public_key);
        let document = desired_state::document(self.wanted, view);
        let digest = document.digest();
        if view.report.desired.digest == Some(digest) {
            let put = agents.put_desired(&route, &keys, agent, document.to_bytes(), Some(digest));
            put.await.map_err(|error| refused(&error))?;
        }
        agents.end_hand_over(&route, &keys, agent).await.map_err(|error| refused(&error))?;
        Ok(HandOverOutcome::Obeyed(vec![keys.operator.public_key()]))
    }

    fn next_keys(&self, observed: &Observed) -> Result<ServerKeys, Problem> {
        let epoch = observed.epoch.ok_or_else(|| no_epoch(PART))?;
        if !matches!(observed.agent, AgentState::Reported(_)) {
            return Err(no_epoch(PART));
        }
        let newest = self.newest_key(observed);
        Ok(ServerKeys::derive(&newest, self.wanted.subject.instance, epoch))
    }

    /// The newest key as it was when this pass began.
    fn newest_key(&self, observed: &Observed) -> Arc<MasterKey> {
        let keys = &self.controller.ctx.master_keys;
        let newest = observed.newest_master_key_id.as_deref();
        keys.of_server(newest).unwrap_or_else(|| keys.newest())
    }
}
