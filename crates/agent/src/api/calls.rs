//! The calls behind both gates.

use std::sync::Arc;

use http::StatusCode;
use jiff::Timestamp;
use moorage_wire::{
    CredentialName, OperatorPublicKey, Sha256, credential::SealedCredential, problem::ProblemCode,
};

use super::{
    Call,
    answer::{Answer, already_consumed, refuse},
    disk_trouble, enrolment,
    gates::Message,
    handover, internal,
};
use crate::{
    converge,
    core::{Core, blocking},
    desired,
    identity::Keys,
    report,
    signed::SignedCall,
    vault::{PutError, StoreError},
    worker::protocol::Refusal,
};

/// `If-Match` of an operator that takes the agent to have no desired state.
const NO_DOCUMENT: &str = "\"none\"";

/// Does what was asked for.
pub(super) async fn perform(
    core: &Arc<Core>,
    keys: &Arc<Keys>,
    call: Call,
    message: &Message<'_>,
    caller: &OperatorPublicKey,
) -> Answer {
    match call {
        Call::Enrolment => enrolment::confirmed(core, keys),
        Call::BeginHandOver => handover::begin(core, message.body).await,
        Call::EndHandOver => handover::end(core, caller).await,
        Call::Report => Answer::json(StatusCode::OK, &report::gather(core, keys).await),
        Call::PutDesired => put_desired(core, keys, message).await,
        Call::PutCredential(name) => put_credential(core, keys, name, message).await,
        Call::None => refuse(ProblemCode::NotFound, "there is no such call"),
    }
}

async fn put_desired(core: &Arc<Core>, keys: &Keys, message: &Message<'_>) -> Answer {
    let document = match desired::parse(message.body) {
        Ok(document) => document,
        Err(error) => return refuse(ProblemCode::InvalidBody, &error.to_string()),
    };
    let if_match = message.if_match().unwrap_or_default().to_owned();
    let _one_at_a_time = core.replacing.lock().await;
    let current = core.desired().digest();
    if if_match != entity_tag(current) {
        let has = entity_tag(current);
        let message = format!("the agent has {has}, which If-Match does not name: look again");
        return refuse(ProblemCode::DigestMismatch, &message);
    }
    let done = || Answer::json(StatusCode::ACCEPTED, &serde_json::json!({}));
    // Without a signature nobody comes here.
    let Ok(order) = signed(keys, message) else {
        return refuse(ProblemCode::BadSignature, "the request is not signed");
    };
    if current == Some(document.digest) {
        // The same document by the word of a newer key.
        let renewed = blocking(core, move |core| core.desired().renew_order(order)).await;
        return renewed.map_or_else(|error| disk_trouble(&error), |()| done());
    }
    // A worker that is down gets it later: a document may bring what repairs it.
    let passed_on = match converge::pass_on(core, &order).await {
        Err(error) if error.refusal() == Some(Refusal::Stale) => return stale(),
        passed_on => passed_on,
    };
    if let Err(error) = &passed_on {
        tracing::warn!(%error, "the worker does not take the desired state yet");
    }
    let (bytes, taken) = (message.body.to_vec(), passed_on.is_ok());
    let stored =
        blocking(core, move |core| core.desired().replace(document, &bytes, Some(order), taken));
    match stored.await {
        Ok(()) => {
            core.wake_reconcile.notify_one();
            done()
        }
        Err(error) => disk_trouble(&error),
    }
}

/// The call, to be passed on with the operator's signature.
fn signed(
    keys: &Keys,
    message: &Message<'_>,
) -> Result<SignedCall, moorage_wire::signature::SignatureError> {
    SignedCall::new(&message.head.headers, keys.signing.public_key(), message.body)
}

/// The operator repeats it with the nonce that comes with this answer.
fn stale() -> Answer {
    let message =
        "the nonce is none of the worker's last ones: repeat with the one of moorage-next-nonce";
    refuse(ProblemCode::BadNonce, message).with_newest_nonce()
}

fn entity_tag(digest: Option<Sha256>) -> String {
    digest.map_or(NO_DOCUMENT.to_owned(), |digest| format!("\"{digest}\""))
}

async fn put_credential(
    core: &Arc<Core>,
    keys: &Arc<Keys>,
    name: CredentialName,
    message: &Message<'_>,
) -> Answer {
    let sealed: SealedCredential = match serde_json::from_slice(message.body) {
        Ok(sealed) => sealed,
        Err(error) => {
            let (line, column) = (error.line(), error.column());
            let message =
                format!("the body is not a sealed credential: see line {line}, column {column}");
            return refuse(ProblemCode::InvalidBody, &message);
        }
    };
    let Ok(call) = signed(keys, message) else {
        return refuse(ProblemCode::BadSignature, "the request is not signed");
    };
    let keys = Arc::clone(keys);
    let stored = blocking(core, move |core| {
        let under = core.desired().digest();
        core.vault().put(&keys, &name, (&sealed, &call), under, Timestamp::now())
    })
    .await;
    match stored {
        Ok(stored) => {
            if stored.openclaw_secrets_changed {
                core.note_changed_secrets();
            }
            if stored.tunnel_changed {
                core.wake_tunnel.notify_one();
            }
            Answer::json(StatusCode::OK, &stored.receipt)
        }
        Err(error) => refuse_credential(error),
    }
}

fn refuse_credential(error: PutError) -> Answer {
    let message = error.to_string();
    match error {
        PutError::ReservedName | PutError::TooMany => refuse(ProblemCode::InvalidBody, &message),
        PutError::CannotUnseal(_) => refuse(ProblemCode::CannotUnseal, &message),
        PutError::Stale => stale(),
        PutError::SecondGoogleClient(_) | PutError::InvalidFormat(_) => {
            refuse(ProblemCode::InvalidFormat, &message)
        }
        PutError::AlreadyConsumed(receipt) => already_consumed(&message, *receipt),
        PutError::Store(StoreError::Disk(error)) => disk_trouble(&error),
        PutError::Store(StoreError::Worker(error)) => internal(&error),
    }
}
