//! The tunnel: one per instance, named after it, with a secret that is derived and never stored.

use super::{Observed, Part, Step, Wanted, plan::Timing, rotation};
use crate::{
    api::conditions::{ConditionType::TunnelReady, Reason, Verdict},
    names,
};

/// A tunnel must exist, and a server that is about to boot must hold its secret.
pub fn plan(wanted: &Wanted, observed: &Observed, _: Timing) -> Part {
    let Some(tunnel) = &observed.tunnel else {
        if let Some(server) = observed.server.present() {
            let message = format!(
                "The tunnel was deleted, and its server cannot be given a new one. Save its data over SSH if you need it, then annotate moorage.dev/rebuild={} to replace the server",
                server.id
            );
            return Part::stuck(Verdict::no(TunnelReady, Reason::TunnelLost, message));
        }
        let verdict = Verdict::no(TunnelReady, Reason::Progressing, "The tunnel is being made");
        return Part::todo(Step::CreateTunnel, verdict);
    };
    let name = names::tunnel(wanted.subject.installation, wanted.subject.instance);
    if tunnel.name != name {
        let verdict =
            Verdict::no(TunnelReady, Reason::Progressing, "The tunnel is being named again");
        return Part::todo(Step::NameTunnel(tunnel.id.clone()), verdict);
    }
    let server_to_come = observed.server.present().is_none();
    if server_to_come && observed.tunnel_memory.bootstrapped != observed.epoch {
        // The tunnel is older than the server that is to be made: the server's user-data will hold
        // the bootstrap token of its own epoch, so the tunnel has to expect that one.
        let verdict = Verdict::no(
            TunnelReady,
            Reason::Progressing,
            "The tunnel is being prepared for a new server",
        );
        return Part::todo(Step::BootstrapTunnel(tunnel.id.clone()), verdict);
    }
    if rotation::is_unfinished(observed) {
        // Also of a server that does not answer: who holds the old token may be why it does not.
        return Part::todo(Step::RotateTunnel(tunnel.id.clone()), rotation::progressing());
    }
    // Of an agent that was enrolled and is silent the last word stands.
    let rotated = match observed.agent.view() {
        Some(view) => rotation::is_done(observed, view),
        None => observed.status.agent.is_some(),
    };
    if !rotated {
        let verdict = Verdict::unknown(
            TunnelReady,
            Reason::Waiting,
            "The tunnel exists; its first token is replaced as soon as the server answers",
        );
        return Part::done(verdict);
    }
    Part::done(Verdict::yes(
        TunnelReady,
        Reason::Ready,
        "The tunnel exists and only this server holds its token",
    ))
}
