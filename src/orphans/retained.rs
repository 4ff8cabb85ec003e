//! What was left behind on purpose: by `deletionPolicy: Retain`, or by a person's label. It is billed, so
//! that it is told; nothing here leads to a deletion. Pure.

use std::cmp::Reverse;

use super::{Found, MOST_LISTED, monthly_cost};
use crate::api::pool::{OrphanKind, RetainedObject, RetainedStatus};

/// What the status says of it; nothing if there is nothing.
pub fn status(found: &[Found]) -> Option<RetainedStatus> {
    let mut all: Vec<_> = found.iter().filter(|one| one.retained).collect();
    if all.is_empty() {
        return None;
    }
    // The oldest first. Of a DNS record no age is known.
    all.sort_by_cached_key(|one| (Reverse(one.created.map(Reverse)), one.key()));
    let of = |kind| all.iter().filter(|one| one.kind == kind).count();
    let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    let one = |one: &&Found| RetainedObject {
        kind: one.kind,
        id: one.id.clone(),
        name: one.name.clone(),
        owner: one.owner.describe(),
        created: one.created.map(|created| created.to_string()),
        server_type: one.server_type.clone(),
        monthly_cost: one.monthly_cost.clone(),
    };
    let cost = monthly_cost(all.iter().copied());
    Some(RetainedStatus {
        servers: number(of(OrphanKind::Server)),
        tunnels: number(of(OrphanKind::Tunnel)),
        dns_records: number(of(OrphanKind::DnsRecord)),
        message: message(all.len()),
        monthly_cost: cost.map(|cost| format!("{cost:.2}")),
        first: all.iter().take(MOST_LISTED).map(one).collect(),
    })
}

/// What a status says of the price of a server, so that it stays as it was told.
pub fn known_cost(one: &Found, before: Option<&RetainedStatus>) -> Option<String> {
    let mut all = before.into_iter().flat_map(|status| &status.first);
    let known = all.find(|known| known.kind == one.kind && known.id == one.id)?;
    known.monthly_cost.clone()
}

fn message(count: usize) -> String {
    let what = if count == 1 {
        "1 object in the clouds was retained, and is".to_owned()
    } else {
        format!("{count} objects in the clouds were retained, and are")
    };
    format!(
        "{what} never deleted automatically. Delete at the providers what is no longer needed: servers are billed until then."
    )
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use moorage_wire::InstanceId;

    use super::*;
    use crate::orphans::FoundOwner;

    fn found(kind: OrphanKind, id: u32, created: Option<i64>) -> Found {
        let place = Some(("tenants".to_owned(), "ada".to_owned()));
        let owner = FoundOwner::Instance { id: InstanceId::from_bytes([3; 16]), place };
        let created = created.map(|at| Timestamp::from_second(at).unwrap());
        Found { retained: true, created, ..Found::bare(kind, id.to_string(), owner) }
    }

    fn server(id: u32, created: i64, cost: Option<&str>) -> Found {
        let monthly_cost = cost.map(str::to_owned);
        Found { monthly_cost, ..found(OrphanKind::Server, id, Some(created)) }
    }

    #[test]
    fn what_is_retained_is_told_with_what_it_costs() {
        let all = [
            found(OrphanKind::DnsRecord, 1, None),
            server(2, 20, Some("7.50")),
            found(OrphanKind::Tunnel, 3, Some(10)),
            server(4, 5, Some("2.25")),
            server(5, 1, None),
        ];
        let live = Found { retained: false, ..server(6, 0, Some("100.00")) };
        let told = status(&[&all[..], &[live]].concat()).unwrap();
        assert_eq!((told.servers, told.tunnels, told.dns_records), (3, 1, 1));
        assert_eq!(told.monthly_cost.as_deref(), Some("9.75"));
        let ids: Vec<_> = told.first.iter().map(|one| one.id.as_str()).collect();
        assert_eq!(ids, ["5", "4", "3", "2", "1"], "the oldest first");
        assert_eq!(told.first[0].owner, "tenants/ada");
        assert!(told.message.starts_with("5 objects"), "{}", told.message);
        assert_eq!(known_cost(&all[3], Some(&told)).as_deref(), Some("2.25"));
        assert_eq!(known_cost(&server(9, 1, None), Some(&told)), None);
    }

    #[test]
    fn the_list_of_what_is_retained_is_bounded() {
        let many: Vec<_> = (0..30).map(|id| server(id, i64::from(id), None)).collect();
        let told = status(&many).unwrap();
        assert_eq!((told.servers, told.first.len()), (30, 20));
        assert_eq!(status(&[]), None);
    }
}
