//! Tunnel rotation: the token that was in user-data is replaced by one that never was, in an order
//! in which the server is never cut off: the agent holds both, then Cloudflare takes the new one,
//! then the connections of the old are cut, then the agent drops the old.
//!
//! That a rotation has begun stands in the status before Cloudflare is asked for anything. A server
//! whose connection breaks in the middle goes to the new token by itself, and nothing else would tell
//! that somebody's connection with the old one may still be up.

use std::time::Duration;

use moorage_wire::credential::TUNNEL_TOKEN;

use super::{
    Observed, Part, Step, Wanted,
    observed::AgentView,
    plan::{SOON, Timing},
};
use crate::api::conditions::{ConditionType::TunnelReady, Reason, Verdict};

/// How long cloudflared may take to come back with the new token before the rotation is repeated.
pub const PATIENCE: Duration = Duration::from_secs(60);

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
            ..Part::todo(Step::DeliverTunnelToken, progressing())
        };
    }
    if cloudflared.active_token_sha256 != Some(own.tunnel) {
        let patient = |at| observed.now.duration_since(at).unsigned_abs() < PATIENCE;
        if view.stale || observed.tunnel_memory.rotated.is_some_and(patient) {
            return waiting();
        }
        let step = Step::RotateTunnel(tunnel.id.clone());
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
