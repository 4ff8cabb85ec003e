//! Whose a cloud object is. An instance's id is computed here from where it stands in the cluster, and
//! everything that is about to be written, deleted, counted or told of is asked here first. What marks
//! an object is written by [`crate::names`]; nothing else reads it.

mod mark;
#[cfg(test)]
mod tests;

use moorage_wire::{InstallationId, InstanceId, Sha256};

pub use mark::{Mark, Marked, Place, Tag};

use crate::{
    cloudflare::{DnsRecord, RecordType, Tunnel, TunnelId},
    hetzner::{Server, ServerId},
    names,
};

/// Separates these hashes from all others.
const DOMAIN: &[u8] = b"moorage instance id v1";

/// The id of an instance: nothing in the object itself has a say in it, so that nobody can name
/// another's, and nothing that is lost, copied or replaced changes it.
pub fn instance_id(installation: InstallationId, namespace: &str, name: &str) -> InstanceId {
    let mut bytes = Vec::with_capacity(256);
    for part in [DOMAIN, installation.as_bytes(), namespace.as_bytes(), name.as_bytes()] {
        bytes.extend_from_slice(&(part.len() as u64).to_be_bytes());
        bytes.extend_from_slice(part);
    }
    let mut id = [0; 16];
    id.copy_from_slice(&Sha256::of(&bytes).as_bytes()[..16]);
    InstanceId::from_bytes(id)
}

/// An instance that asks which objects are its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    pub installation: InstallationId,
    pub instance: InstanceId,
    pub namespace: String,
    pub name: String,
    /// First label of its host names.
    pub hostname: String,
    /// The zone of its host names.
    pub domain: String,
    /// What the operator wrote down of it, for objects whose marks were lost.
    pub recorded: Recorded,
}

/// What the operator wrote into the status. Nobody else can write there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recorded {
    pub server: Option<ServerId>,
    pub tunnel: Option<TunnelId>,
}

/// Whose an object is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ownership {
    /// The one's who asks.
    Ours,
    /// Nobody's: an instance with `deletionPolicy: Retain` left it behind.
    Retained(Option<Place>),
    /// Of a Moorage with another installation id: of another cluster, or of this one before it was lost.
    FormerInstallation {
        installation: InstallationId,
        /// Which of its instances.
        place: Option<Place>,
    },
    /// Another instance's of this installation.
    AnotherInstance { instance: InstanceId, place: Option<Place> },
    /// Not made by Moorage, as far as can be told.
    Foreign,
}

impl Ownership {
    /// Whether it may be written to.
    pub fn is_ours(&self) -> bool {
        *self == Self::Ours
    }
}

impl Owner {
    /// Whose a server is. One whose labels were lost is known by its id and its name.
    pub fn server(&self, server: &Server) -> Ownership {
        match server.mark() {
            Some(mark) => self.of(&mark),
            None if self.recorded.server == Some(server.id)
                && server.name == names::server(&self.hostname, self.instance) =>
            {
                Ownership::Ours
            }
            None => Ownership::Foreign,
        }
    }

    /// Whose a tunnel is. One that was given another name is known by its id.
    pub fn tunnel(&self, tunnel: &Tunnel) -> Ownership {
        match tunnel.mark() {
            Some(mark) => self.of(&mark),
            None if self.recorded.tunnel.as_ref() == Some(&tunnel.id) => Ownership::Ours,
            None => Ownership::Foreign,
        }
    }

    /// Whose a DNS record is. One without our comment is known by where it leads: from one of the
    /// instance's host names to its tunnel, be it one of `tunnels` or the recorded one.
    pub fn record(&self, record: &DnsRecord, tunnels: &[TunnelId]) -> Ownership {
        if let Some(mark) = record.mark() {
            return self.of(&mark);
        }
        let hosts = names::hosts(&self.hostname, &self.domain);
        let leads_to = |tunnel: &TunnelId| record.content.as_deref() == Some(&tunnel.dns_target());
        let own = hosts.contains(&record.name)
            && record.record_type == RecordType::Cname
            && tunnels.iter().chain(&self.recorded.tunnel).any(leads_to);
        if own { Ownership::Ours } else { Ownership::Foreign }
    }

    /// What the comments of its records begin with, to list them by.
    pub fn comment_prefix(&self) -> String {
        let comment = names::record_comment(self.installation, self.instance, "", "");
        comment.trim_end_matches('/').to_owned()
    }

    fn of(&self, mark: &Mark) -> Ownership {
        let Mark::Live(Tag { installation, instance, place }) = mark else {
            return Ownership::Retained(mark.place().cloned());
        };
        if *installation != self.installation {
            let (installation, place) = (*installation, place.clone());
            return Ownership::FormerInstallation { installation, place };
        }
        let here = place.as_ref().is_none_or(|place| place.is(&self.namespace, &self.name));
        if *instance == self.instance && here {
            Ownership::Ours
        } else {
            Ownership::AnotherInstance { instance: *instance, place: place.clone() }
        }
    }
}

/// What the sweep shows under the namespace and name of an instance, whatever the ids.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Named {
    /// Servers whose labels have the namespace and name, with the instance id that they have.
    pub servers: Vec<(ServerId, InstanceId)>,
    /// Instance ids of DNS records whose comments have the namespace and name.
    pub records: Vec<InstanceId>,
}

/// Under which id the things of an instance are. Versions before this one drew the id at random, and a
/// server's keys are derived from it, so an id that is found on the instance's own server stays until
/// the instance goes; `earlier` is what was recorded when it was found. All others have the computed one.
pub fn effective_id(
    computed: InstanceId,
    named: &Named,
    earlier: Option<InstanceId>,
    server: Option<ServerId>,
) -> InstanceId {
    let labelled = |wanted: InstanceId| named.servers.iter().any(|(_, id)| *id == wanted);
    let recorded = named.servers.iter().find(|(known, _)| Some(*known) == server);
    if let Some((_, id)) = recorded {
        return *id;
    }
    if let Some(id) = earlier.into_iter().chain([computed]).find(|id| labelled(*id)) {
        return id;
    }
    let oldest = named.servers.iter().min_by_key(|(id, _)| *id).map(|(_, id)| *id);
    let by_record = || {
        let computed = named.records.contains(&computed).then_some(computed);
        computed.or_else(|| named.records.first().copied())
    };
    oldest.or(earlier).or_else(by_record).unwrap_or(computed)
}
