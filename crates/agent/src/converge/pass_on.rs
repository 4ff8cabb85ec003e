//! Passing the operator's documents on to the worker, which accepts only the operator's signature and keeps what may
//! be needed. It takes a signature only with one of its own last nonces: a document that was signed with
//! another one, while it did not answer or by way of an older agent, is withdrawn, so that the operator
//! sends it again.

use std::{collections::BTreeSet, sync::Arc};

use moorage_wire::Sha256;

use super::{Trouble, update};
use crate::{
    core::{Core, blocking},
    signed::SignedCall,
    worker::{WorkerError, protocol::Refusal},
};

/// Passes a document on.
pub(crate) async fn pass_on(core: &Arc<Core>, order: &SignedCall) -> Result<(), WorkerError> {
    let (order, keep) = (order.clone(), needed(core));
    blocking(core, move |core| core.openclaw.put_document(&order, keep)).await
}

/// The documents that may be needed beside a new one.
fn needed(core: &Core) -> BTreeSet<Sha256> {
    let mut needed = BTreeSet::new();
    {
        let desired = core.desired();
        needed.extend(desired.digest());
        needed.extend(desired.last_good().map(|good| good.digest));
    }
    match update::documents(core) {
        Ok(documents) => needed.extend(documents),
        Err(error) => tracing::warn!(%error, "which documents an update needs is not known"),
    }
    needed
}

/// Sees to it that the worker has the current document, if there is one.
pub(super) async fn pass_on_current(core: &Arc<Core>) -> Result<(), Trouble> {
    let (digest, order) = {
        let desired = core.desired();
        if desired.is_passed_on() {
            return Ok(());
        }
        (desired.digest(), desired.order())
    };
    let Some(digest) = digest else { return Ok(()) };
    let passed_on = match &order {
        Some(order) => pass_on(core, order).await,
        None => return withdraw(core, digest).await,
    };
    match passed_on {
        Ok(()) => {
            core.desired().set_passed_on(digest, true);
            Ok(())
        }
        Err(error) if error.refusal() == Some(Refusal::Stale) => withdraw(core, digest).await,
        Err(error) => Err(error.into()),
    }
}

async fn withdraw(core: &Arc<Core>, digest: Sha256) -> Result<(), Trouble> {
    tracing::info!(%digest, "the worker does not take this signature: the operator has to send the document again");
    Ok(blocking(core, move |core| core.desired().withdraw(digest)).await?)
}

/// The worker does not keep what it was asked for: the current document is passed on again.
pub(super) fn note_unknown(core: &Core, trouble: &Trouble) {
    let (Trouble::Worker(error) | Trouble::Integration(error)) = trouble else { return };
    if error.refusal() == Some(Refusal::UnknownDocument) {
        let mut desired = core.desired();
        if let Some(digest) = desired.digest() {
            desired.set_passed_on(digest, false);
        }
    }
}
