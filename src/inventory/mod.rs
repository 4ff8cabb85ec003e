//! What the sweeps of one pool saw, shared by all of its instances: servers, tunnels and DNS records,
//! listed once per interval whatever the number of instances.
//!
//! A write of our own is noted here at once, so that no pass acts on a picture from before it. Lists
//! are no transactions: that something is missing here is a reason to look, never to act.

mod confirm;
#[cfg(test)]
pub(crate) mod fakes;
mod standing;
mod table;
#[cfg(test)]
mod tests;

use std::{collections::BTreeSet, sync::Arc};

use jiff::{SignedDuration, Timestamp};
use moorage_wire::{InstallationId, InstanceId};

use crate::{
    admission::Standing,
    api::label,
    clock::Clock,
    cloud::{CloudError, Priority},
    cloudflare::{CloudflareApi, DnsRecord, RecordId, Tunnel, TunnelId, ZoneId},
    hetzner::{HetznerApi, LabelSelector, Server, ServerId, ServerStatus},
    names,
    ownership::{Mark, Marked as _, Named, Owner, Tag},
};

use confirm::Confirmations;
pub use confirm::Confirmed;
use parking_lot::Mutex;
use standing::ById;
use table::Table;

/// The swept state of one pool.
pub struct Inventory {
    hetzner: Arc<dyn HetznerApi>,
    cloudflare: Arc<dyn CloudflareApi>,
    zone: ZoneId,
    installation: InstallationId,
    clock: Arc<dyn Clock>,
    seen: Mutex<Seen>,
    confirmations: Confirmations,
}

#[derive(Default)]
struct Seen {
    servers: Table<ServerId, Server>,
    tunnels: Table<TunnelId, Tunnel>,
    records: Table<RecordId, DnsRecord>,
    standing: ById,
    /// The name that agents are reached through.
    anchor: Option<String>,
    swept: Option<Timestamp>,
    /// How many sweeps were begun.
    begun: u64,
    /// Which of them was the last that ended well.
    ended: Option<u64>,
    changed: Changed,
}

/// What came, went or became different.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changed {
    pub instances: BTreeSet<InstanceId>,
    /// Names of DNS records that are nobody's here: some instance may have waited for such a name.
    pub foreign_hosts: BTreeSet<String>,
}

impl Changed {
    pub fn is_empty(&self) -> bool {
        self.instances.is_empty() && self.foreign_hosts.is_empty()
    }

    fn append(&mut self, mut other: Self) {
        self.instances.append(&mut other.instances);
        self.foreign_hosts.append(&mut other.foreign_hosts);
    }
}

/// What an inventory knows of one instance.
#[derive(Debug, Clone, Default)]
pub struct InstanceView {
    /// Whether a sweep has been completed; before it nothing can be called missing.
    pub swept: bool,
    pub servers: Vec<Server>,
    pub tunnels: Vec<Tunnel>,
    /// Whatever records stand at its host names, and its own that stand elsewhere.
    pub records: Vec<DnsRecord>,
}

impl Inventory {
    /// An inventory that nothing was swept into yet.
    pub fn new(
        hetzner: Arc<dyn HetznerApi>,
        cloudflare: Arc<dyn CloudflareApi>,
        zone: ZoneId,
        installation: InstallationId,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let (seen, confirmations) = (Mutex::default(), Confirmations::default());
        Self { hetzner, cloudflare, zone, installation, clock, seen, confirmations }
    }

    /// Lists everything once: our servers and tunnels, and all records of the zone, foreign ones
    /// included, because a name that is taken must not be written to.
    pub async fn sweep(&self) -> Result<(), CloudError> {
        let (begun, mark) = self.seen.lock().begin();
        let installation = self.installation.to_string();
        let selector = LabelSelector::all_of([(label::INSTALLATION, installation.as_str())]);
        let prefix = names::tunnel_prefix(self.installation);
        let (servers, tunnels, records) = tokio::try_join!(
            self.hetzner.list_servers(Priority::Sweep, &selector),
            self.cloudflare.list_tunnels(Priority::Sweep, &prefix),
            self.cloudflare.list_dns_records(Priority::Sweep, &self.zone, ""),
        )?;
        let mut seen = self.seen.lock();
        let installation = self.installation;
        let mut changed = Changed::default();
        let mut note = |owner: Option<InstanceId>| changed.instances.extend(owner);
        seen.servers.replace(servers, |server| server.id, mark, |s| note(s.owner(installation)));
        seen.tunnels.replace(
            tunnels,
            |tunnel| tunnel.id.clone(),
            mark,
            |t| note(t.owner(installation)),
        );
        seen.records.replace(
            records,
            |record| record.id.clone(),
            mark,
            |record| match record.owner(installation) {
                Some(owner) => drop(changed.instances.insert(owner)),
                None => drop(changed.foreign_hosts.insert(record.name.clone())),
            },
        );
        seen.count(installation);
        seen.swept = Some(self.clock.now());
        seen.ended = Some(begun);
        seen.changed.append(changed);
        Ok(())
    }

    /// What came, went or changed since this was asked last.
    pub fn take_changed(&self) -> Changed {
        std::mem::take(&mut self.seen.lock().changed)
    }

    /// When the last complete sweep ended.
    pub fn swept(&self) -> Option<Timestamp> {
        self.seen.lock().swept
    }

    /// How many sweeps were begun, and which of them was the last that ended well: what is here is at
    /// least as new as its beginning.
    pub fn sweeps(&self) -> (u64, Option<u64>) {
        let seen = self.seen.lock();
        (seen.begun, seen.ended)
    }

    /// Everything of this installation, whosever it is, and all records; `None` before the first sweep.
    pub fn everything(&self) -> Option<(Vec<Server>, Vec<Tunnel>, Vec<DnsRecord>)> {
        let seen = self.seen.lock();
        seen.ended?;
        let all = (seen.servers.matching(|_| true), seen.tunnels.matching(|_| true));
        Some((all.0, all.1, seen.records.matching(|_| true)))
    }

    /// How many servers and tunnels of this installation there are, and how many records of the zone;
    /// `None` before the first sweep.
    pub fn counts(&self) -> Option<(usize, usize, usize)> {
        let seen = self.seen.lock();
        seen.ended?;
        Some((seen.servers.len(), seen.tunnels.len(), seen.records.len()))
    }

    /// What stands under the id of each instance, whether that is there or not. What is retained is told
    /// apart.
    pub fn standing(&self) -> Vec<Arc<Standing>> {
        self.seen.lock().standing.all()
    }

    /// Whether a server is in this pool's project.
    pub fn has_server(&self, id: ServerId) -> bool {
        self.seen.lock().servers.contains(&id)
    }

    /// Whether a tunnel is in this pool's account.
    pub fn has_tunnel(&self, id: &TunnelId) -> bool {
        self.seen.lock().tunnels.contains(id)
    }

    /// Whether a record is in this pool's zone.
    pub fn has_record(&self, id: &RecordId) -> bool {
        self.seen.lock().records.contains(id)
    }

    /// What is known of one instance: what is its own, and what stands at its host names.
    pub fn view(&self, owner: &Owner) -> InstanceView {
        let seen = self.seen.lock();
        let tunnels = seen.tunnels.matching(|tunnel| owner.tunnel(tunnel).is_ours());
        let ids: Vec<_> = tunnels.iter().map(|tunnel| tunnel.id.clone()).collect();
        let hosts = names::hosts(&owner.hostname, &owner.domain);
        let id = owner.instance.to_string();
        InstanceView {
            swept: seen.swept.is_some(),
            servers: seen.servers.matching(|server| owner.server(server).is_ours()),
            tunnels,
            records: seen.records.matching(|record| {
                // The cheap question first: there are two records per instance of the whole zone.
                let named = || record.comment.as_ref().is_some_and(|comment| comment.contains(&id));
                hosts.contains(&record.name) || named() && owner.record(record, &ids).is_ours()
            }),
        }
    }

    /// What stands here under a namespace and name, whatever the ids. A record whose id a server of
    /// another instance has says nothing.
    pub fn named(&self, namespace: &str, name: &str) -> Named {
        let seen = self.seen.lock();
        let ours = |tag: &Tag| tag.installation == self.installation;
        let here =
            |tag: &Tag| tag.place.as_ref().is_some_and(|place| place.is_exactly(namespace, name));
        let live = |mark: Option<Mark>| mark.and_then(Mark::live).filter(ours);
        let labelled = seen.servers.matching(|server| {
            // One on its way out is of a life that is over.
            server.status != ServerStatus::Deleting
                && server.labels.get(label::NAME).is_some_and(|label| label == name)
                && live(server.mark()).is_some_and(|tag| here(&tag))
        });
        let servers: Vec<_> = labelled
            .iter()
            .filter_map(|server| Some((server.id, live(server.mark())?.instance)))
            .collect();
        if !servers.is_empty() {
            return Named { servers, records: Vec::new() };
        }
        let place = format!(" {namespace}/{name}");
        let records = seen.records.matching(|record| {
            record.comment.as_ref().is_some_and(|comment| comment.contains(&place))
                && live(record.mark()).is_some_and(|tag| here(&tag))
        });
        let mut records: Vec<_> = records
            .iter()
            .filter_map(|record| Some(live(record.mark())?.instance))
            .filter(|id| {
                !seen.servers.values().any(|server| server.owner(self.installation) == Some(*id))
            })
            .collect();
        records.sort_unstable();
        records.dedup();
        Named { servers, records }
    }

    /// Which of the servers are not there, by the last sweep.
    pub fn missing_servers<'a>(&self, ids: impl Iterator<Item = &'a ServerId>) -> usize {
        let seen = self.seen.lock();
        ids.filter(|id| !seen.servers.contains(id)).count()
    }

    /// A name of this zone that is known to resolve, through which all of the pool's agents are reached: a
    /// pool's own if there is one, else the oldest of our instances'. It is the same for as long as its
    /// record is there. One that no sweep has shown, or that was made just now, is too new: whoever asks for
    /// it may be told for half an hour that there is none.
    pub fn anchor(&self) -> Option<String> {
        let now = self.clock.now();
        let mut seen = self.seen.lock();
        let of_pool =
            |record: &DnsRecord| names::pool_of_record(record, self.installation).is_some();
        let fits = |record: &&DnsRecord| {
            (of_pool(record) || record.owner(self.installation).is_some())
                && record.proxied != Some(false)
                && is_known(record, now)
        };
        let Seen { records, anchor, .. } = &mut *seen;
        let records = || records.listed().filter(fits);
        if !anchor.as_ref().is_some_and(|anchor| records().any(|one| one.name == *anchor)) {
            let first = records().min_by_key(|one| (!of_pool(one), one.created_on, &one.name));
            *anchor = first.map(|record| record.name.clone());
        }
        anchor.clone()
    }

    /// Notes a server that we made or saw alone.
    pub fn note_server(&self, server: Server) {
        let seen = &mut *self.seen.lock();
        seen.standing.add(self.installation, &server);
        if let Some(old) = seen.servers.note(server.id, server) {
            seen.standing.remove(self.installation, &old);
        }
    }

    /// Notes that a server is confirmed to be gone.
    pub fn forget_server(&self, id: ServerId) {
        let seen = &mut *self.seen.lock();
        if let Some(old) = seen.servers.forget(&id) {
            seen.standing.remove(self.installation, &old);
        }
    }

    /// Notes a tunnel that we made or saw alone.
    pub fn note_tunnel(&self, tunnel: Tunnel) {
        let seen = &mut *self.seen.lock();
        seen.standing.add(self.installation, &tunnel);
        if let Some(old) = seen.tunnels.note(tunnel.id.clone(), tunnel) {
            seen.standing.remove(self.installation, &old);
        }
    }

    /// Notes that a tunnel is confirmed to be gone.
    pub fn forget_tunnel(&self, id: &TunnelId) {
        let seen = &mut *self.seen.lock();
        if let Some(old) = seen.tunnels.forget(id) {
            seen.standing.remove(self.installation, &old);
        }
    }

    /// Notes a record that we made or saw alone.
    pub fn note_record(&self, record: DnsRecord) {
        let seen = &mut *self.seen.lock();
        seen.standing.add(self.installation, &record);
        if let Some(old) = seen.records.note(record.id.clone(), record) {
            seen.standing.remove(self.installation, &old);
        }
    }

    /// Notes that a record is confirmed to be gone.
    pub fn forget_record(&self, id: &RecordId) {
        let seen = &mut *self.seen.lock();
        if let Some(old) = seen.records.forget(id) {
            seen.standing.remove(self.installation, &old);
        }
    }
}

/// How long after its record was made a name may be unknown to the zone's own name servers.
const KNOWN_AFTER: SignedDuration = SignedDuration::from_mins(2);

/// Whether a record was made so long ago that its name resolves everywhere. One that does not say when it was
/// made is believed to be old.
pub fn is_known(record: &DnsRecord, now: Timestamp) -> bool {
    record.created_on.is_none_or(|made| made + KNOWN_AFTER <= now)
}

impl Seen {
    fn begin(&mut self) -> (u64, table::Mark) {
        self.begun += 1;
        let mark = self.servers.mark();
        self.tunnels.mark();
        self.records.mark();
        (self.begun, mark)
    }

    /// Counts everything anew, after a sweep.
    fn count(&mut self, installation: InstallationId) {
        let mut standing = ById::default();
        self.servers.values().for_each(|one| standing.add(installation, one));
        self.tunnels.values().for_each(|one| standing.add(installation, one));
        self.records.values().for_each(|one| standing.add(installation, one));
        self.standing = standing;
    }
}
