//! The end of an instance: what remains of it, in which order its parts remove that, and when its finalizer
//! may go.

use moorage_wire::Epoch;

use super::{
    copies::{self, Known},
    records,
    removal::Removal,
    secrets, server, tunnel,
    wanted::Subject,
};
use crate::{
    api::{OpenClawInstanceStatus, instance::ServerStatus},
    cloudflare::{DnsRecord, Tunnel},
    cluster::BoundSecret,
    hetzner::{Server, ServerId},
    names,
    ownership::Owner,
};

/// What remains of an instance, everywhere, and what else was found beside it.
#[derive(Debug, Default)]
pub struct Remains {
    /// Servers that may be its own.
    pub servers: Vec<Server>,
    /// Tunnels that may be its own.
    pub tunnels: Vec<Tunnel>,
    /// Records that may be its own.
    pub records: Vec<DnsRecord>,
    /// Secrets of our type that are bound to it.
    pub secrets: Vec<BoundSecret>,
    /// Whether the clouds themselves said so just now, rather than a sweep.
    pub confirmed: bool,
}

impl Remains {
    /// Whether nothing of the instance is in a cloud, as far as was seen.
    pub fn nothing_in_clouds(&self, owner: &Owner) -> bool {
        let OwnRemains { servers, tunnels, records } = self.own(owner);
        servers.is_empty() && tunnels.is_empty() && records.is_empty()
    }

    /// What of it is the instance's own: nothing else is ever touched.
    pub fn own(&self, owner: &Owner) -> OwnRemains<'_> {
        let tunnels: Vec<_> =
            self.tunnels.iter().filter(|tunnel| owner.tunnel(tunnel).is_ours()).collect();
        let ids: Vec<_> = tunnels.iter().map(|tunnel| tunnel.id.clone()).collect();
        let records =
            self.records.iter().filter(|record| owner.record(record, &ids).is_ours()).collect();
        let servers = self.servers.iter().filter(|server| owner.server(server).is_ours()).collect();
        OwnRemains { servers, tunnels, records }
    }
}

/// What remains of an instance and is its own.
#[derive(Debug)]
pub struct OwnRemains<'a> {
    /// Its server, and copies that have its labels.
    pub servers: Vec<&'a Server>,
    /// Its tunnel, and any other that has its name.
    pub tunnels: Vec<&'a Tunnel>,
    /// Those that name it, and those that lead to one of the tunnels.
    pub records: Vec<&'a DnsRecord>,
}

/// What to do next for a deletion.
#[derive(Debug, PartialEq)]
pub enum Next {
    /// Do these, in this order.
    Remove(Vec<Removal>),
    /// Ask the clouds whether anything remains.
    Confirm,
    /// Tell of copies of the server, and wait for a person to settle what they are.
    TellOfCopies(Vec<ServerId>),
    /// Remove the finalizer.
    LetGo,
}

/// What to do next. Servers go first: they cost. The records come before the tunnel: one whose comment was
/// lost is known by where it leads. `status` tells the server from its copies.
pub fn next(subject: &Subject, status: &OpenClawInstanceStatus, remains: &Remains) -> Next {
    let own = remains.own(&subject.owner(status));
    let (server, copies) = server_and_copies(subject, status.server.as_ref(), &own.servers);
    let policy = subject.deletion_policy;
    let server = server.map(|server| server::removal(policy, &server).into());
    let records = records::removal(policy, &own.records).map(Into::into);
    let tunnels = own.tunnels.iter().map(|tunnel| tunnel::removal(policy, tunnel).into());
    let secrets = secrets::removal(&remains.secrets).map(Into::into);
    let removals: Vec<_> =
        server.into_iter().chain(records).chain(tunnels).chain(secrets).collect();
    match (removals.is_empty(), remains.confirmed) {
        (true, true) if !copies.is_empty() => Next::TellOfCopies(copies),
        (true, true) => Next::LetGo,
        (true, false) => Next::Confirm,
        (false, _) => Next::Remove(removals),
    }
}

/// All that a deletion will do, as `moorage plan` prints it.
pub fn forecast(
    subject: &Subject,
    status: &OpenClawInstanceStatus,
    mut remains: Remains,
) -> Vec<String> {
    let mut lines = Vec::new();
    loop {
        match next(subject, status, &remains) {
            Next::Remove(removals) => {
                for removal in removals {
                    lines.push(removal.to_string());
                    removal.note(&mut remains);
                }
            }
            Next::Confirm => {
                lines.push("ask both clouds whether anything remains".to_owned());
                remains.confirmed = true;
            }
            Next::TellOfCopies(ids) => {
                let ids: Vec<_> = ids.iter().map(ToString::to_string).collect();
                lines
                    .push(format!("wait until somebody settles what server {} is", ids.join(", ")));
                return lines;
            }
            Next::LetGo => {
                lines.push("remove the finalizer".to_owned());
                return lines;
            }
        }
    }
}

/// What the status has to say of the server before it is deleted, if it does not say it yet: whatever
/// has its labels afterwards is a copy, and no copy is deleted unasked.
pub fn server_to_record(
    subject: &Subject,
    status: &OpenClawInstanceStatus,
    remains: &Remains,
) -> Option<ServerStatus> {
    let recorded = status.server.as_ref();
    if recorded.is_some_and(|recorded| recorded.id.is_some()) {
        return None;
    }
    let own = remains.own(&subject.owner(status));
    let (server, _) = server_and_copies(subject, recorded, &own.servers);
    server.map(|server| ServerStatus {
        epoch: names::epoch(&server).as_ref().map(Epoch::to_string).unwrap_or_default(),
        id: Some(server.id.0),
        ..recorded.cloned().unwrap_or_default()
    })
}

fn server_and_copies(
    subject: &Subject,
    recorded: Option<&ServerStatus>,
    servers: &[&Server],
) -> (Option<Server>, Vec<ServerId>) {
    let name = names::server(&subject.hostname, subject.instance);
    let servers: Vec<_> = servers.iter().copied().cloned().collect();
    let told = copies::tell_apart(&servers, Known { recorded, gone: false, name: &name });
    (told.own, told.copies)
}

/// Whether the status says that something was made: nothing is before an epoch is written there.
pub fn has_history(status: &OpenClawInstanceStatus) -> bool {
    status.server.is_some()
        || status.tunnel.is_some()
        || status.agent.is_some()
        || !status.credentials.is_empty()
}

/// The status of an instance of which nothing is left.
pub fn without_history(status: &OpenClawInstanceStatus) -> OpenClawInstanceStatus {
    OpenClawInstanceStatus {
        server: None,
        tunnel: None,
        agent: None,
        credentials: Vec::new(),
        ..status.clone()
    }
}
