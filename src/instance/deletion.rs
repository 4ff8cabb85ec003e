//! The end of an instance: what remains of it, what to do about that, and when its finalizer may go.

use std::fmt;

use moorage_wire::Epoch;

use super::{
    copies::{self, Known},
    records::counted,
    wanted::Subject,
};
use crate::{
    api::{OpenClawInstanceStatus, instance::DeletionPolicy, instance::ServerStatus, label},
    cloudflare::{DnsRecord, RecordId, Tunnel, TunnelId},
    cluster::BoundSecret,
    hetzner::{Labels, Server, ServerId},
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
        let Own { servers, tunnels, records } = self.own(owner);
        servers.is_empty() && tunnels.is_empty() && records.is_empty()
    }

    /// What of it is the instance's own: nothing else is ever touched.
    fn own(&self, owner: &Owner) -> Own<'_> {
        let tunnels: Vec<_> =
            self.tunnels.iter().filter(|tunnel| owner.tunnel(tunnel).is_ours()).collect();
        let ids: Vec<_> = tunnels.iter().map(|tunnel| tunnel.id.clone()).collect();
        let records =
            self.records.iter().filter(|record| owner.record(record, &ids).is_ours()).collect();
        let servers = self.servers.iter().filter(|server| owner.server(server).is_ours()).collect();
        Own { servers, tunnels, records }
    }
}

struct Own<'a> {
    servers: Vec<&'a Server>,
    tunnels: Vec<&'a Tunnel>,
    records: Vec<&'a DnsRecord>,
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeletionStep {
    /// Delete a server.
    Server(ServerId),
    /// Cut a tunnel's connections and delete it.
    Tunnel(TunnelId),
    /// Delete records.
    Records(Vec<RecordId>),
    /// Delete the Secrets that were meant for it.
    Secrets(Vec<BoundSecret>),
    /// Label a server as retained.
    RetainServer(ServerId, Labels),
    /// Give a tunnel the name of a retained one.
    RetainTunnel(TunnelId),
    /// Mark records as retained.
    RetainRecords(Vec<RecordId>),
    /// Ask the clouds whether anything remains.
    Confirm,
    /// Tell of copies of the server, and wait for a person to settle what they are.
    TellOfCopies(Vec<ServerId>),
    /// Let the object go.
    RemoveFinalizer,
}

impl fmt::Display for DeletionStep {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Server(id) => write!(formatter, "delete Hetzner server {id} with its data"),
            Self::Tunnel(id) => {
                write!(formatter, "cut the connections of tunnel {id} and delete it")
            }
            Self::Records(ids) => write!(formatter, "delete {}", counted(ids.len())),
            Self::Secrets(secrets) => {
                let names: Vec<_> = secrets.iter().map(|secret| secret.name.as_str()).collect();
                write!(formatter, "delete the Secrets {}", names.join(", "))
            }
            Self::RetainServer(id, _) => {
                write!(formatter, "label Hetzner server {id} as retained and leave it")
            }
            Self::RetainRecords(ids) => {
                write!(formatter, "mark {} as retained and leave them", counted(ids.len()))
            }
            Self::RetainTunnel(id) => {
                write!(formatter, "name tunnel {id} as retained and leave it")
            }
            Self::TellOfCopies(ids) => {
                let ids: Vec<_> = ids.iter().map(ToString::to_string).collect();
                write!(formatter, "wait until somebody settles what server {} is", ids.join(", "))
            }
            Self::Confirm => formatter.write_str("ask both clouds whether anything remains"),
            Self::RemoveFinalizer => formatter.write_str("remove the finalizer"),
        }
    }
}

/// What to do next. Servers go first: they cost. `status` tells the server from its copies.
pub fn plan(
    subject: &Subject,
    status: &OpenClawInstanceStatus,
    remains: &Remains,
) -> Vec<DeletionStep> {
    let own = remains.own(&subject.owner(status));
    let (server, copies) = server_and_copies(subject, status.server.as_ref(), &own.servers);
    let mut steps = match subject.deletion_policy {
        DeletionPolicy::Delete => delete(server.as_ref(), &own),
        DeletionPolicy::Retain => retain(server.as_ref(), &own),
    };
    if !remains.secrets.is_empty() {
        steps.push(DeletionStep::Secrets(remains.secrets.clone()));
    }
    match (steps.is_empty(), remains.confirmed) {
        (true, true) if !copies.is_empty() => vec![DeletionStep::TellOfCopies(copies)],
        (true, true) => vec![DeletionStep::RemoveFinalizer],
        (true, false) => vec![DeletionStep::Confirm],
        (false, _) => steps,
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

fn ids(records: &[&DnsRecord]) -> Option<Vec<RecordId>> {
    (!records.is_empty()).then(|| records.iter().map(|record| record.id.clone()).collect())
}

fn delete(server: Option<&Server>, own: &Own<'_>) -> Vec<DeletionStep> {
    let server = server.map(|server| DeletionStep::Server(server.id));
    let tunnels = own.tunnels.iter().map(|tunnel| DeletionStep::Tunnel(tunnel.id.clone()));
    let records = ids(&own.records).map(DeletionStep::Records);
    server.into_iter().chain(records).chain(tunnels).collect()
}

/// Retained objects lose their owner, so that no sweep counts them and no later instance adopts them.
/// The records come before the tunnel: one whose comment was lost is known by where it leads.
fn retain(server: Option<&Server>, own: &Own<'_>) -> Vec<DeletionStep> {
    let server = server.map(|server| {
        let mut labels = server.labels.clone();
        labels.insert(label::RETAINED.to_owned(), "true".to_owned());
        DeletionStep::RetainServer(server.id, labels)
    });
    let tunnels = own.tunnels.iter().map(|tunnel| DeletionStep::RetainTunnel(tunnel.id.clone()));
    let records = ids(&own.records).map(DeletionStep::RetainRecords);
    server.into_iter().chain(records).chain(tunnels).collect()
}
