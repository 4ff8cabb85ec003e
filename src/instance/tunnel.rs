//! The tunnel: one per instance, named after it, with a secret that is derived and never stored.

use std::fmt;

use super::{
    Observed, Part, Wanted,
    deletion::{OwnRemains, Remains},
    placeholders::{NEW_TUNNEL, new_tunnel},
    plan::Timing,
    removal::PartRemoval,
    rotation::{self, RotationStep},
    step::{Own, PartStep},
};
use crate::{
    api::{
        conditions::{ConditionType::TunnelReady, Reason, Verdict},
        instance::DeletionPolicy,
    },
    cloudflare::{Tunnel, TunnelId},
};

/// One thing to do about the tunnel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TunnelStep {
    /// Make it with the bootstrap secret of the epoch.
    Create,
    /// Give an existing one the bootstrap secret of a new epoch; its old connections are cut.
    Bootstrap(TunnelId),
    /// Give it back the name that says whose it is.
    Rename(TunnelId),
}

/// What a step did to the tunnel.
#[derive(Debug)]
pub enum TunnelOutcome {
    Found {
        tunnel: Tunnel,
        /// Whether it has the bootstrap secret of this epoch.
        bootstrapped: bool,
    },
    /// It has the bootstrap secret of this epoch.
    Bootstrapped,
    /// It has another name.
    Renamed(Tunnel),
}

impl PartStep for TunnelStep {
    type Outcome = TunnelOutcome;

    fn touches_only_own(&self, own: &Own<'_>) -> bool {
        match self {
            Self::Create => true,
            Self::Bootstrap(id) | Self::Rename(id) => own.tunnel(id),
        }
    }

    fn foresee(&self, wanted: &Wanted, observed: &Observed) -> TunnelOutcome {
        match self {
            Self::Create => TunnelOutcome::Found { tunnel: new_tunnel(wanted), bootstrapped: true },
            Self::Bootstrap(_) => TunnelOutcome::Bootstrapped,
            Self::Rename(_) => {
                let known = observed.tunnel.clone().unwrap_or_else(|| new_tunnel(wanted));
                TunnelOutcome::Renamed(Tunnel { name: wanted.subject.tunnel_name(), ..known })
            }
        }
    }

    fn note(outcome: TunnelOutcome, observed: &mut Observed) {
        let memory = &mut observed.tunnel_memory;
        match outcome {
            TunnelOutcome::Found { tunnel, bootstrapped } => {
                if bootstrapped {
                    memory.bootstrapped = observed.epoch;
                }
                memory.rules = None;
                observed.tunnel = Some(tunnel);
            }
            TunnelOutcome::Bootstrapped => memory.bootstrapped = observed.epoch,
            TunnelOutcome::Renamed(tunnel) => observed.tunnel = Some(tunnel),
        }
    }
}

impl fmt::Display for TunnelStep {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Create => formatter.write_str("create the Cloudflare Tunnel"),
            Self::Bootstrap(id) => write!(
                formatter,
                "give {} a first token for the new server and cut its old connections",
                titled(id)
            ),
            Self::Rename(id) => write!(formatter, "give {} its name back", titled(id)),
        }
    }
}

/// What becomes of a tunnel when its instance is deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TunnelRemoval {
    /// Cut its connections and delete it.
    Delete(TunnelId),
    /// Leave it, with the name of a retained one.
    Retain(TunnelId),
}

impl PartRemoval for TunnelRemoval {
    fn touches_only_own(&self, own: &OwnRemains<'_>) -> bool {
        let (Self::Delete(id) | Self::Retain(id)) = self;
        own.tunnels.iter().any(|tunnel| tunnel.id == *id)
    }

    fn note(&self, remains: &mut Remains) {
        let (Self::Delete(id) | Self::Retain(id)) = self;
        remains.tunnels.retain(|tunnel| tunnel.id != *id);
    }
}

impl fmt::Display for TunnelRemoval {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Delete(id) => {
                write!(formatter, "cut the connections of tunnel {id} and delete it")
            }
            Self::Retain(id) => write!(formatter, "name tunnel {id} as retained and leave it"),
        }
    }
}

/// What a deletion does with a tunnel.
pub fn removal(policy: DeletionPolicy, tunnel: &Tunnel) -> TunnelRemoval {
    match policy {
        DeletionPolicy::Delete => TunnelRemoval::Delete(tunnel.id.clone()),
        DeletionPolicy::Retain => TunnelRemoval::Retain(tunnel.id.clone()),
    }
}

/// A tunnel in words: one that is not made yet has no id to show.
pub(super) fn titled(id: &TunnelId) -> String {
    if id.as_str() == NEW_TUNNEL { "the new tunnel".to_owned() } else { format!("tunnel {id}") }
}

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
        return Part::todo(TunnelStep::Create, verdict);
    };
    if tunnel.name != wanted.subject.tunnel_name() {
        let verdict =
            Verdict::no(TunnelReady, Reason::Progressing, "The tunnel is being named again");
        return Part::todo(TunnelStep::Rename(tunnel.id.clone()), verdict);
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
        return Part::todo(TunnelStep::Bootstrap(tunnel.id.clone()), verdict);
    }
    if rotation::is_unfinished(observed) {
        // Also of a server that does not answer: who holds the old token may be why it does not.
        return Part::todo(RotationStep::Rotate(tunnel.id.clone()), rotation::progressing());
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
