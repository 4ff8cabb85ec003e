//! What the journal says of requests.

use tokio::net::unix::UCred;

use super::{
    protocol::{Answer, Request, Unit},
    units::Service,
};
use crate::signed::SignedCall;

/// A request as it may stand in the journal.
pub(super) struct Description {
    pub(super) verb: &'static str,
    pub(super) subject: String,
    pub(super) mutating: bool,
}

impl Request {
    /// As it may stand in the journal: names and digests, never a value.
    pub(super) fn describe(&self) -> Description {
        let unit = |unit: &Unit| Service::from(*unit).unit().to_owned();
        let document =
            |order: &SignedCall| order.digest().map_or("garbled".into(), |it| it.to_string());
        let (verb, subject, mutating) = match self {
            Self::Status { unit: of } => ("status", unit(of), false),
            Self::Start { unit: of } => ("start", unit(of), true),
            Self::Stop { unit: of } => ("stop", unit(of), true),
            Self::Restart { unit: of } => ("restart", unit(of), true),
            Self::WriteTunnelToken { .. } => ("write-tunnel-token", String::new(), true),
            Self::Install { order, kind, .. } => {
                ("install", format!("{} of {}", kind.name(), document(order)), true)
            }
            Self::InstallIntegration { order, sha256, .. } => {
                ("install-integration", format!("{sha256} of {}", document(order)), true)
            }
            Self::RetainIntegrations { keep } => {
                ("retain-integrations", keep.len().to_string(), true)
            }
            Self::Activate { kind, sha256 } => {
                ("activate", format!("{} {sha256}", kind.name()), true)
            }
            Self::Installed => ("installed", String::new(), false),
            Self::UpdateAgent { order, .. } => ("update-agent", document(order), true),
            Self::ConfirmAgent => ("confirm-agent", String::new(), true),
            Self::EraseEnrolmentKey => ("erase-enrolment-key", String::new(), true),
            Self::PowerOff => ("power-off", String::new(), true),
            Self::HandOver { document } => ("handover", document.to.to_string(), true),
            Self::Reboot => ("reboot", String::new(), true),
        };
        Description { verb, subject, mutating }
    }
}

/// One line per request that could have changed something.
pub(super) fn audit(description: &Description, answer: &Answer, peer: UCred) {
    let Description { verb, subject, mutating } = description;
    let (uid, pid) = (peer.uid(), peer.pid());
    match answer {
        Answer::Failed { reason, message } => {
            tracing::warn!(target: "audit", verb, subject, uid, pid, ?reason, message, "failed");
        }
        _ if *mutating => tracing::info!(target: "audit", verb, subject, uid, pid, "done"),
        _ => {}
    }
}
