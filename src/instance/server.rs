//! The server: made once per epoch, never replaced but on purpose or after a confirmed loss.

use std::fmt;

use moorage_wire::Epoch;

use super::{
    Observed, Part, Wanted,
    deletion::{OwnRemains, Remains},
    first_boot, host_health,
    observed::{AgentState, DashboardState, ServerState},
    placeholders::{applied, new_server},
    plan::{SOON, Timing},
    programs,
    removal::PartRemoval,
    replacement::pause,
    rotation::Repetitions,
    step::{Own, PartStep},
    wanted::{Prospect, Release},
};
use crate::{
    api::{
        OpenClawInstanceStatus, annotation,
        conditions::{ConditionType::ServerReady, Reason, Verdict},
        instance::{self, DeletionPolicy, FirstBoot},
        label,
    },
    hetzner::{FirewallId, Labels, Server, ServerId, ServerStatus},
};

/// As many places are named that Hetzner does not offer.
const NAMED_PLACES: usize = 4;

/// One thing to do about the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerStep {
    /// Write a new epoch into the status, before anything is made for it: whatever dies then, the next
    /// pass knows which server to look for.
    RecordEpoch(Epoch),
    Create,
    /// Give it back the labels that say whose it is.
    Label(ServerId, Labels),
    /// Put the pool's firewall in front of it.
    AttachFirewall(FirewallId, ServerId),
    /// Delete the one that a person asked to have replaced.
    Delete(ServerId),
    /// Switch on one that stayed off after it was made.
    PowerOn(ServerId),
    /// Delete one that never ran, of which nothing was ever heard.
    GiveUp(ServerId),
}

/// What a step did to the server.
#[derive(Debug)]
pub enum ServerOutcome {
    /// A new life begins; it stands in the status.
    Epoch(Epoch),
    Made(Box<Server>),
    /// It is there, as it is now.
    Changed(Box<Server>),
    /// It is on its way out, or gone.
    Deleted,
}

impl PartStep for ServerStep {
    type Outcome = ServerOutcome;

    fn touches_only_own(&self, own: &Own<'_>) -> bool {
        match self {
            Self::RecordEpoch(_) | Self::Create => true,
            Self::Label(id, _)
            | Self::AttachFirewall(_, id)
            | Self::Delete(id)
            | Self::PowerOn(id)
            | Self::GiveUp(id) => own.server(*id),
        }
    }

    fn ends_a_life(&self, observed: &Observed) -> bool {
        match self {
            Self::Delete(_) | Self::GiveUp(_) => true,
            Self::RecordEpoch(_) => observed.server == ServerState::Gone,
            Self::Create | Self::Label(..) | Self::AttachFirewall(..) | Self::PowerOn(_) => false,
        }
    }

    fn ends_pass(&self) -> bool {
        matches!(self, Self::Delete(_) | Self::GiveUp(_))
    }

    fn status_first(&self, observed: &Observed) -> Option<OpenClawInstanceStatus> {
        if let (Self::GiveUp(_), Some(server)) = (self, observed.server.present()) {
            let recorded = observed.status.server.clone().unwrap_or_default();
            let recorded = first_boot::recorded_as_given_up(recorded, server);
            return Some(OpenClawInstanceStatus {
                server: Some(recorded),
                ..observed.status.clone()
            });
        }
        let Self::RecordEpoch(epoch) = self else { return None };
        // From then on it takes a while until a person can have it replaced again.
        let former = observed.status.server.is_some();
        let server = instance::ServerStatus {
            epoch: epoch.to_string(),
            master_key_id: observed.newest_master_key_id.clone(),
            replaced_at: former.then(|| programs::to_the_second(observed.now)),
            first_boot: Some(FirstBoot::Awaited),
            given_up: first_boot::handed_down(observed),
            ..instance::ServerStatus::default()
        };
        let mut status =
            OpenClawInstanceStatus { server: Some(server), agent: None, ..observed.status.clone() };
        if let Some(tunnel) = &mut status.tunnel {
            // The secret of the new server's user-data is set before it, and cuts whatever is up.
            tunnel.rotating = false;
        }
        Some(status)
    }

    fn foresee(&self, wanted: &Wanted, observed: &Observed) -> ServerOutcome {
        let known = || observed.server.present().cloned();
        let changed = |server| ServerOutcome::Changed(Box::new(server));
        match self {
            Self::RecordEpoch(epoch) => ServerOutcome::Epoch(*epoch),
            Self::Create => ServerOutcome::Made(Box::new(new_server(wanted, observed.epoch))),
            Self::Label(_, labels) => known().map_or(ServerOutcome::Deleted, |server| {
                changed(Server { labels: labels.clone(), ..server })
            }),
            Self::AttachFirewall(firewall, _) => {
                known().map_or(ServerOutcome::Deleted, |mut server| {
                    server.public_net.firewalls.push(applied(*firewall));
                    changed(server)
                })
            }
            Self::PowerOn(_) => known().map_or(ServerOutcome::Deleted, |server| {
                changed(Server { status: ServerStatus::Running, ..server })
            }),
            Self::Delete(_) | Self::GiveUp(_) => ServerOutcome::Deleted,
        }
    }

    fn note(outcome: ServerOutcome, observed: &mut Observed) {
        match outcome {
            ServerOutcome::Epoch(epoch) => {
                observed.master_key_id.clone_from(&observed.newest_master_key_id);
                observed.epoch = Some(epoch);
                observed.server = ServerState::None;
                if let DashboardState::Current(version) = &observed.dashboard_secret {
                    // Its token is of the server before.
                    observed.dashboard_secret = DashboardState::Stale(version.clone());
                }
                observed.agent = AgentState::NotAsked;
                observed.failed_action = None;
                observed.tunnel_memory.rotated = None;
                observed.tunnel_memory.repetitions = Repetitions::default();
            }
            ServerOutcome::Made(server) => {
                observed.server = ServerState::Present(server);
                observed.agent = AgentState::NotAsked;
            }
            ServerOutcome::Changed(server) => observed.server = ServerState::Present(server),
            ServerOutcome::Deleted => {
                observed.server = ServerState::Gone;
                observed.agent = AgentState::NotAsked;
            }
        }
    }
}

impl fmt::Display for ServerStep {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RecordEpoch(_) => {
                formatter.write_str("record the epoch of a new server in the status")
            }
            Self::Create => {
                formatter.write_str("create the Hetzner server behind the deny-all firewall")
            }
            Self::Label(server, _) => write!(formatter, "give server {server} its labels back"),
            Self::AttachFirewall(_, server) => {
                write!(formatter, "put the pool's firewall back in front of server {server}")
            }
            Self::PowerOn(id) => write!(formatter, "power on server {id}, which has never run"),
            Self::GiveUp(id) => {
                write!(
                    formatter,
                    "delete Hetzner server {id}, which has never run, and make another"
                )
            }
            Self::Delete(id) => write!(
                formatter,
                "delete Hetzner server {id} with its data, as the annotation moorage.dev/rebuild asks"
            ),
        }
    }
}

/// What becomes of the server when its instance is deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerRemoval {
    /// Delete it with its data.
    Delete(ServerId),
    /// Leave it, with labels that say so: they name no owner, so that no sweep counts it as one's own and
    /// no later instance of the name adopts it.
    Retain(ServerId, Labels),
}

impl PartRemoval for ServerRemoval {
    fn touches_only_own(&self, own: &OwnRemains<'_>) -> bool {
        let (Self::Delete(id) | Self::Retain(id, _)) = self;
        own.servers.iter().any(|server| server.id == *id)
    }

    fn note(&self, remains: &mut Remains) {
        let (Self::Delete(id) | Self::Retain(id, _)) = self;
        remains.servers.retain(|server| server.id != *id);
    }
}

impl fmt::Display for ServerRemoval {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Delete(id) => write!(formatter, "delete Hetzner server {id} with its data"),
            Self::Retain(id, _) => {
                write!(formatter, "label Hetzner server {id} as retained and leave it")
            }
        }
    }
}

/// What a deletion does with the server.
pub fn removal(policy: DeletionPolicy, server: &Server) -> ServerRemoval {
    match policy {
        DeletionPolicy::Delete => ServerRemoval::Delete(server.id),
        DeletionPolicy::Retain => {
            let mut labels = server.labels.clone();
            labels.insert(label::RETAINED.to_owned(), "true".to_owned());
            ServerRemoval::Retain(server.id, labels)
        }
    }
}

/// Before anything is made for a server its epoch stands in the status.
pub fn epoch(wanted: &Wanted, observed: &Observed, _: Timing) -> Part {
    let fresh = || {
        let verdict =
            Verdict::no(ServerReady, Reason::Progressing, "A new server is being prepared");
        match observed.fresh_epoch {
            Some(epoch) => Part::todo(ServerStep::RecordEpoch(epoch), verdict),
            None => Part::wait(verdict, SOON),
        }
    };
    let obstacle = obstacle(wanted);
    let replaced = |server: &Server| wanted.rebuild.asks_for(server.id.0);
    match (&observed.server, observed.epoch) {
        (ServerState::Gone, _) if observed.is_mass_loss() => {
            let count = observed.disappearance;
            Part::stuck(Verdict::no(
                ServerReady,
                Reason::MassDisappearance,
                format!(
                    "{} of the pool's {} servers are gone at once, so nothing is recreated. If they were removed on purpose, annotate the HostingPool with {}={}",
                    count.missing,
                    count.total,
                    annotation::ACCEPT_LOSS,
                    count.missing,
                ),
            ))
        }
        (ServerState::Gone | ServerState::None, _) if obstacle.is_some() => {
            obstacle.map(Part::stuck).unwrap_or_default()
        }
        // What could not be recreated is not deleted.
        (ServerState::Present(server), _) if replaced(server) && obstacle.is_some() => {
            obstacle.map(Part::stuck).unwrap_or_default()
        }
        (ServerState::Gone, _) | (ServerState::None, None) => fresh(),
        // Told by `up_to_date`; until then the server is looked after.
        (ServerState::Present(server), Some(_)) if replaced(server) && observed.is_mass_loss() => {
            Part { passable: true, ..Part::default() }
        }
        (ServerState::Present(server), Some(_))
            if replaced(server) && pause(observed).is_some() =>
        {
            Part {
                passable: true,
                requeue_after: pause(observed).map(|(_, wait)| wait),
                ..Part::default()
            }
        }
        (ServerState::Present(server), _) if replaced(server) && !observed.is_mass_loss() => {
            Part::todo(
                ServerStep::Delete(server.id),
                Verdict::no(
                    ServerReady,
                    Reason::Progressing,
                    "The server is being replaced, as the annotation asks",
                ),
            )
        }
        (ServerState::Present(server), None) => Part::stuck(Verdict::no(
            ServerReady,
            Reason::ForeignServer,
            format!(
                "The server's epoch label is missing. Restore it, or replace the server with the annotation moorage.dev/rebuild={}; all its data is lost",
                server.id
            ),
        )),
        (ServerState::Present(_) | ServerState::None, Some(_)) => {
            Part { passable: true, ..Part::default() }
        }
    }
}

/// Why no server can be made that would do.
pub(super) fn obstacle(wanted: &Wanted) -> Option<Verdict> {
    if wanted.usable_placements().next().is_none() {
        return Some(no_placement(wanted));
    }
    let barred = wanted.release.barred()?;
    let message = format!(
        "No server is made: release {} does not pin all of the integration {}. Use a release with its artifact, or take it out of spec.integrations",
        wanted.release.name, barred.name
    );
    Some(Verdict::no(ServerReady, Reason::IntegrationNotPinned, message))
}

fn no_placement(wanted: &Wanted) -> Verdict {
    let Release { name, architecture, .. } = &wanted.release;
    let not_offered = wanted.placements.iter().filter(|one| one.prospect == Prospect::NotOffered);
    let not_offered: Vec<_> = not_offered
        .map(|one| format!("{} in {}", one.server_type, one.location))
        .take(NAMED_PLACES)
        .collect();
    if !not_offered.is_empty() {
        let message = format!(
            "Hetzner does not offer {}, so that no server is asked for. Correct serverTypes or locations of HostingPool {}, or what spec.server of the instance takes of them",
            not_offered.join(", "),
            wanted.subject.pool
        );
        return Verdict::no(ServerReady, Reason::CloudRejected, message);
    }
    Verdict::no(
        ServerReady,
        Reason::ArchitectureMismatch,
        format!(
            "No server can be made: release {name} is for {architecture}, and Hetzner has no such server type among those of spec.server and HostingPool {}; name a release for another architecture, or add a server type to the pool",
            wanted.subject.pool
        ),
    )
}

/// The server exists and runs.
pub fn plan(wanted: &Wanted, observed: &Observed, timing: Timing) -> Part {
    let Some(server) = observed.server.present() else {
        let verdict = Verdict::no(ServerReady, Reason::Progressing, "The server is being made");
        return Part { requeue_after: Some(SOON), ..Part::todo(ServerStep::Create, verdict) };
    };
    if let Some(step) = relabel(wanted, observed, server) {
        // Or the next list does not show it, and it would be looked for by itself for ever.
        let verdict =
            Verdict::no(ServerReady, Reason::Progressing, "The server is being labelled again");
        return Part::todo(step, verdict);
    }
    if server.status != ServerStatus::Deleting
        && !server.public_net.firewalls.iter().any(|applied| applied.id == wanted.firewall)
    {
        // Taken off by somebody, or deleted and recreated with the pool's consent.
        let verdict = Verdict::no(
            ServerReady,
            Reason::Progressing,
            "The pool's firewall is not attached to the server; it is being attached again",
        );
        return Part::todo(ServerStep::AttachFirewall(wanted.firewall, server.id), verdict);
    }
    if let Some(part) = first_boot::plan(wanted, observed, server) {
        return part;
    }
    match &server.status {
        ServerStatus::Off | ServerStatus::Stopping => Part::wait(
            Verdict::no(
                ServerReady,
                Reason::ServerOff,
                format!(
                    "Server {} is off; switch it on in Hetzner's console. Replacing it with the annotation moorage.dev/rebuild={} deletes all its data",
                    server.id, server.id
                ),
            ),
            timing.report,
        ),
        // A sweep may be a minute old: the agent tells sooner that the server runs.
        _ if !observed.copies.is_empty() => Part::done(Verdict::yes(
            ServerReady,
            Reason::DuplicateServer,
            duplicates(server, &observed.copies),
        )),
        _ => Part::done(match host_health::shortcomings(observed) {
            None => {
                Verdict::yes(ServerReady, Reason::Ready, format!("Server {} exists", server.id))
            }
            Some((reason, what)) => Verdict::yes(
                ServerReady,
                reason,
                format!("Server {} exists, but {what}", server.id),
            ),
        }),
    }
}

/// Gives back labels that somebody took off or changed.
fn relabel(wanted: &Wanted, observed: &Observed, server: &Server) -> Option<ServerStep> {
    let due = wanted.subject.server_identity(observed.epoch?).labels();
    let right = due.iter().all(|(label, value)| server.labels.get(label) == Some(value));
    let stays = server.status != ServerStatus::Deleting;
    let labels = || server.labels.clone().into_iter().chain(due).collect();
    (stays && !right).then(|| ServerStep::Label(server.id, labels()))
}

fn duplicates(server: &Server, copies: &[ServerId]) -> String {
    let copies: Vec<_> = copies.iter().map(ToString::to_string).collect();
    format!(
        "Server {} exists, but server {} has its labels too, and perhaps its keys and its place in the tunnel. If that is a copy, delete it, or take its label {} off",
        server.id,
        copies.join(", "),
        label::INSTANCE,
    )
}
