//! The end of an instance: what remains of it, what to do about that, and when its finalizer may go.

use super::wanted::Subject;
use crate::{
    api::instance::DeletionPolicy,
    cloudflare::{DnsRecord, RecordId, Tunnel, TunnelId},
    hetzner::{Labels, Server, ServerId},
};

/// What remains of an instance, everywhere.
#[derive(Debug, Default)]
pub struct Remains {
    /// Its servers, by identity.
    pub servers: Vec<Server>,
    /// Its tunnels.
    pub tunnels: Vec<Tunnel>,
    /// Its records.
    pub records: Vec<DnsRecord>,
    /// Names of Secrets that are bound to it.
    pub secrets: Vec<String>,
    /// Whether the clouds themselves said so just now, rather than a sweep.
    pub confirmed: bool,
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
    Secrets(Vec<String>),
    /// Label a server as retained.
    RetainServer(ServerId, Labels),
    /// Mark records as retained.
    RetainRecords(Vec<RecordId>),
    /// Ask the clouds whether anything remains.
    Confirm,
    /// Let the object go.
    RemoveFinalizer,
}

/// What to do next. Servers go first: they cost.
pub fn plan(subject: &Subject, remains: &Remains) -> Vec<DeletionStep> {
    let mut steps = match subject.deletion_policy {
        DeletionPolicy::Delete => delete(remains),
        DeletionPolicy::Retain => retain(remains),
    };
    if !remains.secrets.is_empty() {
        steps.push(DeletionStep::Secrets(remains.secrets.clone()));
    }
    match (steps.is_empty(), remains.confirmed) {
        (true, true) => vec![DeletionStep::RemoveFinalizer],
        (true, false) => vec![DeletionStep::Confirm],
        (false, _) => steps,
    }
}

fn delete(remains: &Remains) -> Vec<DeletionStep> {
    let servers = remains.servers.iter().map(|server| DeletionStep::Server(server.id));
    let tunnels = remains.tunnels.iter().map(|tunnel| DeletionStep::Tunnel(tunnel.id.clone()));
    let records: Vec<_> = remains.records.iter().map(|record| record.id.clone()).collect();
    let records = (!records.is_empty()).then_some(DeletionStep::Records(records));
    servers.chain(records).chain(tunnels).collect()
}

/// Retained objects lose their owner, so that no sweep counts them and no later instance adopts them.
/// A tunnel cannot be labelled; it stays under the id of an instance that is no more.
fn retain(remains: &Remains) -> Vec<DeletionStep> {
    let servers = remains.servers.iter().map(|server| {
        let mut labels = server.labels.clone();
        labels.insert(crate::api::label::RETAINED.to_owned(), "true".to_owned());
        DeletionStep::RetainServer(server.id, labels)
    });
    let records: Vec<_> = remains.records.iter().map(|record| record.id.clone()).collect();
    let records = (!records.is_empty()).then_some(DeletionStep::RetainRecords(records));
    servers.chain(records).collect()
}
