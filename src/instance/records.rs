//! The DNS records that lead the instance's two host names to its tunnel.

use std::fmt;

use super::{
    Observed, Part, Step, Wanted,
    deletion::{OwnRemains, Remains},
    placeholders::new_record,
    plan::Timing,
    removal::PartRemoval,
    step::{Own, PartStep},
    wanted::Subject,
};
use crate::{
    api::{
        conditions::{ConditionType::RoutesReady, Reason, Verdict},
        instance::DeletionPolicy,
    },
    cloudflare::{DnsPatch, DnsRecord, NewDnsRecord, RecordId, RecordType, TunnelId},
    inventory::InstanceView,
    ownership::{Marked as _, Owner, Ownership, Place},
    problem::Problem,
};

/// Make or correct DNS records, all of them or none.
#[derive(Debug, Clone, PartialEq)]
pub struct EnsureRecords {
    pub posts: Vec<NewDnsRecord>,
    pub patches: Vec<DnsPatch>,
}

impl PartStep for EnsureRecords {
    /// The records that were made or corrected, as they are.
    type Outcome = Vec<DnsRecord>;

    fn touches_only_own(&self, own: &Own<'_>) -> bool {
        self.patches.iter().all(|patch| own.record(&patch.id))
    }

    fn foresee(&self, _: &Wanted, observed: &Observed) -> Vec<DnsRecord> {
        let corrected = self.patches.iter().filter_map(|patch| {
            let known = observed.records.iter().find(|record| record.id == patch.id)?;
            Some(corrected(known.clone(), patch))
        });
        self.posts.iter().map(new_record).chain(corrected).collect()
    }

    fn note(records: Vec<DnsRecord>, observed: &mut Observed) {
        for record in records {
            observed.records.retain(|known| known.name != record.name);
            observed.records.push(record);
        }
    }
}

impl fmt::Display for EnsureRecords {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.posts.iter().map(|post| post.name.as_str()).collect();
        let made =
            (!names.is_empty()).then(|| format!("create the DNS records {}", names.join(" and ")));
        let patches = self.patches.len();
        let corrected = (patches > 0).then(|| format!("correct {}", counted(patches)));
        let both: Vec<_> = made.into_iter().chain(corrected).collect();
        formatter.write_str(&both.join("; "))
    }
}

/// Delete the instance's own records at host names that it does not have.
#[derive(Debug, Clone, PartialEq)]
pub struct DeleteRecords(pub Vec<RecordId>);

impl PartStep for DeleteRecords {
    /// Those that are gone.
    type Outcome = Vec<RecordId>;

    fn touches_only_own(&self, own: &Own<'_>) -> bool {
        self.0.iter().all(|id| own.record(id))
    }

    fn foresee(&self, _: &Wanted, _: &Observed) -> Vec<RecordId> {
        self.0.clone()
    }

    fn note(gone: Vec<RecordId>, observed: &mut Observed) {
        observed.stray_records.retain(|record| !gone.contains(&record.id));
    }
}

impl fmt::Display for DeleteRecords {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let records = counted(self.0.len());
        write!(formatter, "delete {records} of this instance at other host names")
    }
}

/// What becomes of an instance's records when it is deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecordsRemoval {
    Delete(Vec<RecordId>),
    /// Leave them, with comments that say so.
    Retain(Vec<RecordId>),
}

impl PartRemoval for RecordsRemoval {
    fn touches_only_own(&self, own: &OwnRemains<'_>) -> bool {
        let (Self::Delete(ids) | Self::Retain(ids)) = self;
        ids.iter().all(|id| own.records.iter().any(|record| record.id == *id))
    }

    fn note(&self, remains: &mut Remains) {
        let (Self::Delete(ids) | Self::Retain(ids)) = self;
        remains.records.retain(|record| !ids.contains(&record.id));
    }
}

impl fmt::Display for RecordsRemoval {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Delete(ids) => write!(formatter, "delete {}", counted(ids.len())),
            Self::Retain(ids) => {
                write!(formatter, "mark {} as retained and leave them", counted(ids.len()))
            }
        }
    }
}

/// What a deletion does with the records, if there are any.
pub fn removal(policy: DeletionPolicy, records: &[&DnsRecord]) -> Option<RecordsRemoval> {
    let ids: Vec<_> = records.iter().map(|record| record.id.clone()).collect();
    (!ids.is_empty()).then_some(match policy {
        DeletionPolicy::Delete => RecordsRemoval::Delete(ids),
        DeletionPolicy::Retain => RecordsRemoval::Retain(ids),
    })
}

/// A number of records in words.
fn counted(records: usize) -> String {
    if records == 1 { "1 DNS record".to_owned() } else { format!("{records} DNS records") }
}

fn corrected(record: DnsRecord, patch: &DnsPatch) -> DnsRecord {
    DnsRecord {
        content: patch.content.clone().or(record.content),
        proxied: patch.proxied.or(record.proxied),
        comment: patch.comment.clone().or(record.comment),
        ..record
    }
}

/// Both names lead to the tunnel; the rules that they rely on are planned before.
pub fn plan(wanted: &Wanted, observed: &Observed, _: Timing) -> Part {
    let passable = Part { passable: true, ..Part::default() };
    let Some(tunnel) = &observed.tunnel else { return passable };
    let due = due(&wanted.subject, &tunnel.id, &observed.records).map(Step::from);
    // First: whoever has the instance removed by force, and applies it again with another host name, must
    // not leave two records each time.
    let steps: Vec<_> =
        strays(&observed.stray_records).map(Step::from).into_iter().chain(due).collect();
    if steps.is_empty() {
        return passable;
    }
    let verdict = Verdict::no(RoutesReady, Reason::Progressing, "The DNS records are being set");
    Part { steps, verdicts: vec![verdict], ..passable }
}

fn strays(records: &[DnsRecord]) -> Option<DeleteRecords> {
    let ids: Vec<_> = records.iter().map(|record| record.id.clone()).collect();
    (!ids.is_empty()).then_some(DeleteRecords(ids))
}

/// What has to be made or corrected so that both names lead to the tunnel.
fn due(subject: &Subject, tunnel: &TunnelId, records: &[DnsRecord]) -> Option<EnsureRecords> {
    let comment = subject.record_comment();
    let (mut posts, mut patches) = (Vec::new(), Vec::new());
    for host in subject.hosts() {
        match records.iter().find(|record| record.name == host) {
            None => posts.push(NewDnsRecord::tunnel_cname(host, tunnel, comment.clone())),
            Some(record) => {
                let (astray, nameless) = (!leads_to(record, tunnel), record.mark().is_none());
                if astray || nameless {
                    patches.push(DnsPatch {
                        id: record.id.clone(),
                        content: astray.then(|| tunnel.dns_target()),
                        proxied: astray.then_some(true),
                        // Without it the record is known only as long as the tunnel is.
                        comment: nameless.then(|| comment.clone()),
                    });
                }
            }
        }
    }
    let nothing = posts.is_empty() && patches.is_empty();
    (!nothing).then_some(EnsureRecords { posts, patches })
}

/// Why the instance cannot have its host names, if something that is not its own stands there.
pub fn taken(owner: &Owner, view: &InstanceView) -> Option<Problem> {
    let tunnels: Vec<_> = view.tunnels.iter().map(|tunnel| tunnel.id.clone()).collect();
    let (record, whose) = view
        .records
        .iter()
        .map(|record| (record, owner.record(record, &tunnels)))
        .find(|(_, whose)| !whose.is_ours())?;
    let host = &record.name;
    // One tenant is not told the names of another.
    let of = |place: Option<Place>| match place {
        Some(place) if place.namespace() == Some(&*owner.namespace) => format!("instance {place}"),
        Some(_) => "an instance in another namespace".to_owned(),
        None => "an instance".to_owned(),
    };
    let (reason, message) = match whose {
        Ownership::Ours => return None,
        Ownership::Retained(place) => (
            Reason::Retained,
            format!(
                "The DNS record at {host} was kept for the server of {}, which was deleted with deletionPolicy Retain. Remove the record when that server is no longer needed, or make this instance with another hostname",
                of(place)
            ),
        ),
        Ownership::FormerInstallation { installation, place } => (
            Reason::ForeignDnsRecord,
            format!(
                "The DNS record at {host} is of {} of another Moorage installation, {installation}, and is left untouched. If that was this cluster before it was lost, restore its Secret moorage-master-key and the instance finds its server again; else make this one with another hostname",
                of(place)
            ),
        ),
        Ownership::AnotherInstance { place, .. } => (
            Reason::ForeignDnsRecord,
            format!(
                "The DNS record at {host} is of {} of this installation, and is left untouched. Make this one with another hostname, or have that instance deleted (its manifest is applied again if it is gone already)",
                of(place)
            ),
        ),
        Ownership::Foreign => (Reason::ForeignDnsRecord, foreign(record)),
    };
    Some(Problem::whole(reason, message))
}

/// A record that nothing shows to be Moorage's.
fn foreign(record: &DnsRecord) -> String {
    let DnsRecord { name, record_type, .. } = record;
    let content = record.content.as_deref().unwrap_or_default();
    let advice = if content.ends_with(".cfargotunnel.com") {
        "If that tunnel is of a lost Moorage, see what it serves before you remove it; else make the instance with another hostname"
    } else {
        "If nobody needs it, remove it, or make the instance with another hostname"
    };
    format!(
        "There is a DNS record at {name} ({record_type} {content}) that is not this instance's, and it is left untouched. {advice}"
    )
}

fn leads_to(record: &DnsRecord, tunnel: &TunnelId) -> bool {
    record.record_type == RecordType::Cname
        && record.content.as_deref() == Some(tunnel.dns_target().as_str())
        && record.proxied == Some(true)
}
