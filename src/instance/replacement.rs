//! The replacement of a server on purpose: when the one that a person asks to have replaced is, and
//! whether the server is what the spec would make today. What a new server takes is in [`super::server`].

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::{Observed, Wanted, programs, wanted::Release};
use crate::{
    api::{
        annotation::{self, Rebuild},
        conditions::{ConditionStatus, ConditionType::UpToDate, Reason, Verdict},
    },
    hetzner::Server,
};

/// Between two servers that a person asks for: a request in a loop must not burn servers, each of which
/// is billed for an hour.
const BETWEEN_REBUILDS: SignedDuration = SignedDuration::from_mins(10);

/// Until when a server that replaced another is not replaced on purpose again, and how long that is. An
/// instance's first server can be at once.
pub(super) fn pause(observed: &Observed) -> Option<(Timestamp, Duration)> {
    let replaced_at = observed.status.server.as_ref()?.replaced_at.as_ref()?;
    let end = replaced_at.parse::<Timestamp>().ok()?.checked_add(BETWEEN_REBUILDS).ok()?;
    let wait = Duration::try_from(end.duration_since(observed.now)).ok()?;
    (!wait.is_zero()).then_some((end, wait))
}

/// Why the server does not run the release's programs, if it is of another architecture.
pub fn wrong_architecture(wanted: &Wanted, observed: &Observed) -> Option<String> {
    let server = observed.server.present()?;
    let processor = server.server_type.architecture.as_ref()?;
    let Release { name, architecture, .. } = &wanted.release;
    (!wanted.release.runs_on(processor)).then(|| {
        format!(
            "Release {name} is for {architecture}, but server {id} is a {kind} ({processor}). Name a release for {processor}, or replace the server with the annotation moorage.dev/rebuild={id}; all its data is lost",
            id = server.id,
            kind = server.server_type.name,
        )
    })
}

fn unreadable_rebuild(server: &Server) -> Verdict {
    let message = format!(
        "The annotation {} is not a server id, so it is ignored. Set it to {} to replace the server, which deletes all its data, or remove it",
        annotation::REBUILD,
        server.id,
    );
    Verdict::no(UpToDate, Reason::InvalidAnnotation, message)
}

/// Whether the server is what the spec would make today.
pub fn up_to_date(wanted: &Wanted, observed: &Observed) -> Verdict {
    let Some(server) = observed.server.present() else {
        return Verdict::unknown(UpToDate, Reason::Waiting, "There is no server yet");
    };
    let replaced = wanted.rebuild.asks_for(server.id.0);
    if replaced && observed.is_mass_loss() {
        let message = format!(
            "Server {} is not replaced while {} of the pool's {} servers are missing: a new one might be lost as well. Find out why they are, or annotate the HostingPool with {}={}",
            server.id,
            observed.disappearance.missing,
            observed.disappearance.total,
            annotation::ACCEPT_LOSS,
            observed.disappearance.missing,
        );
        return Verdict::no(UpToDate, Reason::MassDisappearance, message);
    }
    if let (true, Some((end, _))) = (replaced, pause(observed)) {
        let message = format!(
            "Server {} replaced another one less than 10 minutes ago. It is replaced at {end}, unless you remove the annotation {}",
            server.id,
            annotation::REBUILD,
        );
        return Verdict::no(UpToDate, Reason::RebuildTooSoon, message);
    }
    if let Some(message) = wrong_architecture(wanted, observed) {
        return Verdict::no(UpToDate, Reason::ArchitectureMismatch, message);
    }
    let location = server.location.as_ref().map_or("", |place| place.name.as_str());
    let fits = wanted.placements.iter().any(|place| {
        place.server_type == server.server_type.name
            && (location.is_empty() || place.location == location)
    });
    if fits {
        let verdict = programs::up_to_date(wanted, observed);
        // What else is wrong comes first, and says what to set the annotation to.
        let ignored =
            verdict.status == ConditionStatus::True && wanted.rebuild == Rebuild::Unreadable;
        return if ignored { unreadable_rebuild(server) } else { verdict };
    }
    Verdict::no(
        UpToDate,
        Reason::ServerMismatch,
        format!(
            "The server is a {} in {location}, which spec.server does not ask for. Moorage replaces it only if you annotate moorage.dev/rebuild={}; all its data is lost",
            server.server_type.name, server.id
        ),
    )
}
