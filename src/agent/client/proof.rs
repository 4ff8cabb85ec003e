//! Whether what an agent answers is of this server and for what was asked.

use http::StatusCode;
use moorage_wire::{
    AgentPublicKey, CredentialName, Receipt,
    credential::SealedCredential,
    enrolment::{AgentIdentity, EnrolmentAnswer},
};

use super::{answer::Answer, request::Target};
use crate::agent::{AgentError, ServerKeys};

/// The keys in the answer of an agent that is enrolled, with the proof that it kept.
pub(super) fn identity_in(answer: &Answer, keys: &ServerKeys) -> Result<AgentIdentity, AgentError> {
    if answer.status != StatusCode::OK {
        let message = "a refusal does not show whose it is".to_owned();
        return Err(AgentError::NotAuthentic(message));
    }
    let identity = answer.json::<EnrolmentAnswer>()?.identity;
    identity
        .verify(&keys.enrolment, keys.instance, keys.epoch)
        .map_err(|error| AgentError::NotAuthentic(error.to_string()))?;
    Ok(identity)
}

/// A receipt lets the operator delete a Secret, so it must be for exactly what was sent.
pub(super) fn check_receipt(
    target: Target<'_>,
    agent: AgentPublicKey,
    name: &CredentialName,
    sealed: &SealedCredential,
    receipt: &Receipt,
) -> Result<(), AgentError> {
    receipt.verify(&agent).map_err(|error| AgentError::NotAuthentic(error.to_string()))?;
    let server = (receipt.instance_id, receipt.epoch) == (target.keys.instance, target.keys.epoch);
    let credential = receipt.credential == *name && receipt.r#type == sealed.r#type;
    if server && credential && receipt.source_sha256 == sealed.source_sha256() {
        return Ok(());
    }
    let message = "its receipt is for something else than what was sent".to_owned();
    Err(AgentError::NotAuthentic(message))
}
