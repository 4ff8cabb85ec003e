//! Devices that the owner approved. Whoever names a request has seen it waiting, so it is looked for
//! once for every document; which ones were let in is remembered on disk, for they wait no longer.

use std::{collections::BTreeSet, sync::Arc};

use moorage_wire::report::{FailedPairing, PairingFailure};

use super::Trouble;
use crate::{
    core::{Core, blocking},
    desired::Document,
    openclaw::health,
    worker::protocol::PairingId,
};

/// The most failed requests in a report: as many as an instance can approve.
const MOST_REPORTED: usize = 100;

/// Lets in what the document approves. What cannot be let in is in the report and delays
/// nothing else.
pub(super) async fn approve(core: &Arc<Core>, document: &Document) -> Result<(), Trouble> {
    let wanted = &document.state.approved_pairings;
    let done = core.notes().pairings_of == Some(document.digest);
    if done || (!wanted.is_empty() && !health::ask(core.settings.gateway).await.started) {
        return Ok(());
    }
    let path = core.settings.layout.paired();
    let known: BTreeSet<String> = core.disk.read_json(&path)?.unwrap_or_default();
    let mut paired = known.clone();
    paired.retain(|id| wanted.contains(id));
    let open = wanted.difference(&paired).filter_map(|id| PairingId::parse(id));
    let open: BTreeSet<_> = open.collect();
    let mut refused = BTreeSet::new();
    if !open.is_empty() {
        let answer = core.openclaw.approve_pairings(open).await;
        let Ok((approved, others)) = answer.inspect_err(
            |error| tracing::warn!(%error, "pairing requests cannot be looked for yet"),
        ) else {
            return Ok(());
        };
        for request in &approved {
            tracing::info!(target: "audit", request = request.as_str(), "pairing approved");
        }
        paired.extend(approved.iter().map(|id| id.as_str().to_owned()));
        refused = others;
    }
    let failed = wanted.difference(&paired).map(|id| {
        let is_refused = refused.iter().any(|refused| refused.as_str() == id);
        let reason = if is_refused { PairingFailure::Refused } else { PairingFailure::NotWaiting };
        FailedPairing { request: id.as_str().into(), reason }
    });
    let failed = failed.take(MOST_REPORTED).collect();
    if paired != known {
        blocking(core, move |core| core.disk.write_json(&path, &paired)).await?;
    }
    let mut notes = core.notes();
    notes.failed_pairings = failed;
    notes.pairings_of = Some(document.digest);
    Ok(())
}
