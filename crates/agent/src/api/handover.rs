//! `PUT` and `DELETE /v1/handover`: the next operator's key is taken, and put in force once it calls.

use std::sync::Arc;

use http::StatusCode;
use moorage_wire::{OperatorPublicKey, handover::HandOver, problem::ProblemCode};

use super::{
    answer::{Answer, refuse},
    disk_trouble, internal,
};
use crate::{
    core::{Core, blocking},
    handover::{HandOverError, put_in_force},
    installer::protocol::Request,
};

/// Takes the next key. Both are obeyed from now on.
pub(super) async fn begin(core: &Arc<Core>, body: &[u8]) -> Answer {
    let Ok(document) = serde_json::from_slice::<HandOver>(body) else {
        return refuse(ProblemCode::InvalidBody, "the body is not a handover");
    };
    let next = document.to;
    let taken = blocking(core, move |core| {
        core.obeyed().begin(&core.disk, &core.settings.layout, document)
    });
    match taken.await {
        Ok(()) => {
            tracing::info!(target: "audit", %next, "the operator hands over to another key");
            done()
        }
        Err(error) => refused(&error),
    }
}

/// The key that signed this call is obeyed alone from now on.
pub(super) async fn end(core: &Arc<Core>, caller: &OperatorPublicKey) -> Answer {
    let caller = *caller;
    let towards = core.obeyed().towards(&caller);
    if let Some(document) = towards {
        if core.settings.programs.are_managed() {
            // The document that says who is obeyed is root's.
            let request = Request::HandOver { document: Box::new(document) };
            if let Err(error) = core.installer.perform(&request).await {
                return internal(&error);
            }
        } else {
            let put = blocking(core, move |core| {
                put_in_force(&core.disk, &core.settings.layout, &document)
            });
            if let Err(error) = put.await {
                return refused(&error);
            }
        }
        tracing::info!(target: "audit", operator = %caller, "the handover has ended");
    }
    let ended =
        blocking(core, move |core| core.obeyed().end(&core.disk, &core.settings.layout, &caller));
    ended.await.map_or_else(|error| disk_trouble(&error), |()| done())
}

fn done() -> Answer {
    Answer::json(StatusCode::OK, &serde_json::json!({}))
}

fn refused(error: &HandOverError) -> Answer {
    match error {
        HandOverError::Signature(_) => refuse(ProblemCode::BadSignature, &error.to_string()),
        HandOverError::Disk(error) => disk_trouble(error),
        HandOverError::NoBootstrap => internal(error),
    }
}
