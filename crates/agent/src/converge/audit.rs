//! OpenClaw's own security audit of the configuration that it runs with: once for every one that
//! worked, for it takes seconds of a core.

use std::time::Instant;

use moorage_wire::report::Audit;

use crate::{core::Core, openclaw::health};

/// Has a running OpenClaw look for what is insecure, if that is due.
pub(super) async fn audit(core: &Core) {
    let Some(digest) = core.desired().last_good().map(|good| good.digest) else { return };
    let is_due = core.notes().audits.is_due(digest, Instant::now());
    if !is_due || !health::ask(core.settings.gateway).await.started {
        return;
    }
    match core.openclaw.audit().await {
        Ok((critical, warn)) => core.notes().audits.found(digest, Audit { critical, warn }),
        Err(error) => {
            let waits = core.settings.timing.audit_retry;
            let wait = core.notes().audits.came_to_nothing(digest, waits, Instant::now());
            tracing::warn!(%error, "OpenClaw's security audit failed, retrying in {wait:?}");
        }
    }
}
