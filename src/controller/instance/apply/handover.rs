//! A server's hand-over to the newest master key.

use moorage_wire::{Sha256, enrolment::AgentIdentity, handover};

use super::{Executor, Trouble, no_epoch};
use crate::{
    agent::{AgentError, ServerKeys},
    api::{OpenClawInstanceStatus, conditions::ConditionType},
    instance::{Failure, Observed, desired_state, observed::AgentState},
};

const PART: ConditionType = ConditionType::AgentReady;

fn refused(error: &AgentError) -> Trouble {
    Failure::of_agent(PART, error).into()
}

impl Executor<'_> {
    /// The agent is told who comes next, by the key that it obeys.
    pub(super) async fn hand_over(&self, observed: &mut Observed) -> Result<(), Trouble> {
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
        view.report.details.operator_keys = vec![word.from, word.to];
        Ok(())
    }

    /// The next key has to work before it is recorded; what is recorded is what is used from then on.
    pub(super) async fn take_over(&mut self, observed: &mut Observed) -> Result<(), Trouble> {
        let next = self.next_keys(observed)?;
        let (route, _, view) = self.agent(observed, PART)?;
        let agents = &self.controller.ctx.agents;
        let report = agents
            .report(&route, &next, view.keys.public_key)
            .await
            .map_err(|error| refused(&error))?;
        view.report = report;
        let newest = self.controller.ctx.master_keys.newest().id().to_string();
        let server = observed.status.server.clone().map(|mut server| {
            server.master_key_id = Some(newest.clone());
            server
        });
        let status = OpenClawInstanceStatus { server, ..observed.status.clone() };
        self.persist(status, observed).await?;
        tracing::info!(master_key = newest, "the server obeys the newest master key");
        observed.master_key_id = Some(newest);
        self.controller.derive(self.wanted, observed);
        Ok(())
    }

    /// The agent obeys the recorded key alone. Before that, whatever it shows to its installer as the
    /// operator's word is signed again by that key.
    pub(super) async fn end_hand_over(&self, observed: &mut Observed) -> Result<(), Trouble> {
        let (route, keys, view) = self.agent(observed, PART)?;
        let (agents, agent) = (&self.controller.ctx.agents, view.keys.public_key);
        let document = desired_state::document(self.wanted, view);
        let digest = document.digest();
        if view.report.desired.digest == Some(digest) {
            let put = agents.put_desired(&route, &keys, agent, document.to_bytes(), Some(digest));
            put.await.map_err(|error| refused(&error))?;
        }
        agents.end_hand_over(&route, &keys, agent).await.map_err(|error| refused(&error))?;
        view.report.details.operator_keys = vec![keys.operator.public_key()];
        Ok(())
    }

    fn next_keys(&self, observed: &Observed) -> Result<ServerKeys, Failure> {
        let epoch = observed.epoch.ok_or_else(|| no_epoch(PART))?;
        if !matches!(observed.agent, AgentState::Reported(_)) {
            return Err(no_epoch(PART));
        }
        let newest = self.controller.ctx.master_keys.newest();
        Ok(ServerKeys::derive(&newest, self.wanted.subject.instance, epoch))
    }
}
