//! The one-time key is used once the operator has confirmed this agent: it is erased from the
//! bootstrap document. That is root's on a real server, so the installer blanks it there. The agent's
//! own state says that the key is used, whether or not it is still in the document.

use std::sync::Arc;

use moorage_wire::bootstrap::Bootstrap;

use super::Trouble;
use crate::{
    core::{Core, blocking},
    installer::{enrolment_key, protocol::Request},
};

/// Has the key erased, if it is used and still there. Nothing else waits for that; a failure is
/// retried in the next pass.
pub(super) async fn erase(core: &Arc<Core>) {
    if let Err(error) = attempt(core).await {
        tracing::warn!(%error, "the used enrolment key is still in the bootstrap document, retrying in the next pass");
    }
}

async fn attempt(core: &Arc<Core>) -> Result<(), Trouble> {
    if !core.is_enrolled() {
        return Ok(());
    }
    if !core.settings.programs.are_managed() {
        let erase = |core: &Core| enrolment_key::erase(&core.disk, &core.settings.layout);
        return Ok(blocking(core, erase).await?);
    }
    let path = core.settings.layout.bootstrap();
    let document = blocking(core, move |core| core.disk.read_json::<Bootstrap>(&path)).await?;
    if document.is_some_and(|document| !document.enrolment_key.is_erased()) {
        core.installer.perform(&Request::EraseEnrolmentKey).await?;
        tracing::info!(target: "audit", "the used enrolment key is erased");
    }
    Ok(())
}
