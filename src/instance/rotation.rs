//! Tunnel rotation: the token that was in user-data is replaced by one that never was, in an order
//! in which the server is never cut off: the agent holds both, then Cloudflare takes the new one,
//! then the connections of the old are cut, then the agent drops the old.
//!
//! That a rotation has begun stands in the status before Cloudflare is asked for anything. A server
//! whose connection breaks in the middle goes to the new token by itself, and nothing else would tell
//! that somebody's connection with the old one may still be up.

use std::{fmt, time::Duration};

use jiff::{SignedDuration, Timestamp};
use moorage_wire::{CredentialType, credential::TUNNEL_TOKEN};

use super::{
    Observed, Part, Wanted,
    credentials::{self, DeliveryOutcome},
    observed::AgentView,
    plan::{SOON, Timing},
    step::{Own, PartStep},
    tunnel,
};
use crate::{
    api::{
        OpenClawInstanceStatus,
        conditions::{ConditionType::TunnelReady, Reason, Verdict},
        instance::TunnelStatus,
    },
    cloudflare::TunnelId,
};

/// One thing to do for the rotation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RotationStep {
    /// Hand the rotated token to the agent.
    DeliverToken,
    /// Make the rotated token the only valid one and cut the connections of the old.
    Rotate(TunnelId),
}

/// What a step of the rotation did.
#[derive(Debug)]
pub enum RotationOutcome {
    /// What became of the token.
    Delivered(DeliveryOutcome),
    /// The rotated token is the only valid one of this tunnel.
    Rotated(TunnelId),
}

impl PartStep for RotationStep {
    type Outcome = RotationOutcome;

    fn touches_only_own(&self, own: &Own<'_>) -> bool {
        match self {
            Self::DeliverToken => true,
            Self::Rotate(id) => own.tunnel(id),
        }
    }

    fn needs_agent(&self) -> bool {
        matches!(self, Self::DeliverToken)
    }

    fn ends_pass(&self) -> bool {
        matches!(self, Self::Rotate(_))
    }

    fn status_first(&self, observed: &Observed) -> Option<OpenClawInstanceStatus> {
        let Self::Rotate(id) = self else { return None };
        let tunnel = Some(TunnelStatus { id: id.to_string(), rotating: true });
        Some(OpenClawInstanceStatus { tunnel, ..observed.status.clone() })
    }

    fn foresee(&self, _: &Wanted, observed: &Observed) -> RotationOutcome {
        match self {
            Self::DeliverToken => {
                let (kind, source) = (CredentialType::TunnelToken, observed.own_tokens);
                let stored = credentials::foresee_own(
                    observed,
                    TUNNEL_TOKEN,
                    kind,
                    source.map(|own| own.tunnel),
                );
                RotationOutcome::Delivered(stored)
            }
            Self::Rotate(id) => RotationOutcome::Rotated(id.clone()),
        }
    }

    fn note(outcome: RotationOutcome, observed: &mut Observed) {
        match outcome {
            RotationOutcome::Delivered(outcome) => credentials::note_delivery(outcome, observed),
            RotationOutcome::Rotated(id) => {
                let tunnel = TunnelStatus { id: id.to_string(), rotating: false };
                observed.status.tunnel = Some(tunnel);
                observed.tunnel_memory.rotated = Some(observed.now);
                observed.tunnel_memory.repetitions.note(observed.now);
            }
        }
    }
}

impl fmt::Display for RotationStep {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DeliverToken => {
                formatter.write_str("deliver the lasting tunnel token to the server")
            }
            Self::Rotate(id) => write!(
                formatter,
                "make the lasting token the only one of {} and cut the connections of the first",
                tunnel::titled(id)
            ),
        }
    }
}

/// How long cloudflared may take to come back with the new token before the rotation is first repeated.
/// Each repetition is waited for twice as long as the one before.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// The longest that a repetition is waited for.
pub const LONGEST_PATIENCE: Duration = Duration::from_hours(1);
/// After so long without a rotation the next one is a first one again.
const CALM: SignedDuration = SignedDuration::from_hours(6);

/// How often a rotation was repeated. Whoever has the server can go on saying that it has the old token,
/// and each repetition costs calls to Cloudflare. Nothing that the server says takes this back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Repetitions {
    count: u32,
    last: Option<Timestamp>,
}

impl Repetitions {
    fn note(&mut self, now: Timestamp) {
        let calm = self.last.is_none_or(|last| now.duration_since(last) >= CALM);
        self.count = if calm { 0 } else { self.count.saturating_add(1) };
        self.last = Some(now);
    }

    fn patience(self) -> Duration {
        let factor = 2_u32.checked_pow(self.count).unwrap_or(u32::MAX);
        PATIENCE.saturating_mul(factor).min(LONGEST_PATIENCE)
    }
}

/// cloudflared runs with the rotated token and with nothing else.
pub fn plan(_: &Wanted, observed: &Observed, _: Timing) -> Part {
    let (Some(view), Some(tunnel), Some(own)) =
        (observed.agent.view(), &observed.tunnel, observed.own_tokens)
    else {
        return Part::default();
    };
    let waiting = || Part { passable: true, ..Part::wait(progressing(), SOON) };
    let held = TUNNEL_TOKEN.parse().ok().and_then(|name| view.receipt(&name));
    let cloudflared = &view.report.cloudflared;
    if held.is_none_or(|receipt| receipt.source_sha256 != own.tunnel) {
        return Part {
            requeue_after: Some(SOON),
            passable: true,
            ..Part::todo(RotationStep::DeliverToken, progressing())
        };
    }
    if cloudflared.active_token_sha256 != Some(own.tunnel) {
        let patience = observed.tunnel_memory.repetitions.patience();
        let patient = |at| observed.now.duration_since(at).unsigned_abs() < patience;
        if view.stale || observed.tunnel_memory.rotated.is_some_and(patient) {
            return waiting();
        }
        let step = RotationStep::Rotate(tunnel.id.clone());
        return Part {
            requeue_after: Some(SOON),
            passable: true,
            ..Part::todo(step, progressing())
        };
    }
    // Running with the new token; the agent drops the old as soon as it is connected.
    if !is_done(observed, view) {
        return waiting();
    }
    Part { passable: true, ..Part::default() }
}

pub(super) fn progressing() -> Verdict {
    Verdict::no(TunnelReady, Reason::Progressing, "The tunnel's token is being replaced")
}

/// Whether a rotation was begun and the connections of the old token may be up. The status may be
/// older than what this process did since: the watch brings first that the rotation began and later
/// that it ended, and a pass may come in between.
pub(super) fn is_unfinished(observed: &Observed) -> bool {
    observed.tunnel_memory.rotated.is_none()
        && observed.status.tunnel.as_ref().is_some_and(|tunnel| tunnel.rotating)
}

/// Whether the server holds the rotated token alone and is connected with it.
pub(super) fn is_done(observed: &Observed, view: &AgentView) -> bool {
    let cloudflared = &view.report.cloudflared;
    let active = cloudflared.active_token_sha256;
    !is_unfinished(observed)
        && active.is_some()
        && active == observed.own_tokens.map(|own| own.tunnel)
        && cloudflared.token_sha256.len() <= 1
        && cloudflared.connected
}
