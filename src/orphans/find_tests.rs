//! What is found in lists, and whose it is. Removals are walked against the simulated clouds.

use std::sync::Arc;

use moorage_wire::InstallationId;
use serde_json::json;

use super::{find::*, *};
use crate::{
    api::label,
    cloudflare::{DnsRecord, NewDnsRecord, Tunnel, TunnelId, ZoneId},
    hetzner::Server,
    instance::placeholders::new_record,
    inventory::fakes::Fakes,
    names,
};

const OURS: InstallationId = InstallationId::from_bytes([1; 8]);
const THEIRS: InstallationId = InstallationId::from_bytes([2; 8]);
const ADA: InstanceId = InstanceId::from_bytes([3; 16]);

fn server(installation: InstallationId, change: impl FnOnce(&mut serde_json::Value)) -> Server {
    let mut document = json!({
        "id": 7, "name": "ada-03030303", "status": "running", "created": "2026-01-01T00:00:00Z",
        "labels": {
            label::INSTALLATION: installation.to_string(), label::INSTANCE: ADA.to_string(),
            label::NAMESPACE: "tenants", label::NAME: "ada", label::POOL: "eu-1",
        },
        "server_type": {"name": "cx33"}, "location": {"name": "fsn1"},
    });
    change(&mut document);
    serde_json::from_value(document).unwrap()
}

fn tunnel(installation: InstallationId) -> Tunnel {
    let id = TunnelId::parse("6ff42ae2-765d-4adf-8112-31c55c1551ef").unwrap();
    let name = names::tunnel(installation, ADA);
    Tunnel { id, name, status: None, created_at: None, deleted_at: None }
}

fn record(comment: &str) -> DnsRecord {
    let tunnel = tunnel(OURS).id;
    new_record(&NewDnsRecord::tunnel_cname("ada.example.com", &tunnel, comment.to_owned()))
}

fn found(servers: &[Server], tunnels: &[Tunnel], records: &[DnsRecord]) -> Vec<Found> {
    let (clouds, _) = Fakes::new();
    let (hetzner, cloudflare) = (Arc::clone(&clouds), clouds);
    let zone = ZoneId::parse("zone").unwrap();
    let place =
        Place { hetzner: &*hetzner, cloudflare: &*cloudflare, zone: &zone, installation: OURS };
    place.instances(servers, tunnels, records)
}

fn kinds(found: &[Found]) -> Vec<(OrphanKind, bool)> {
    let mut kinds: Vec<_> = found.iter().map(|one| (one.kind, one.retained)).collect();
    kinds.sort_unstable();
    kinds
}

#[test]
fn all_that_an_instance_has_says_whose_it_is() {
    let found = found(&[server(OURS, |_| ())], &[tunnel(OURS)], &[record("")]);
    let (server, record, tunnel) = (OrphanKind::Server, OrphanKind::DnsRecord, OrphanKind::Tunnel);
    assert_eq!(kinds(&found), [(server, false), (record, false), (tunnel, false)]);
    // The tunnel by its server, the record by where it leads.
    assert!(found.iter().all(|one| one.owner.describe() == "tenants/ada"), "{found:?}");
}

#[test]
fn what_is_of_another_installation_is_not_found() {
    let comment = names::record_comment(THEIRS, ADA, "tenants", "ada");
    let theirs = found(&[server(THEIRS, |_| ())], &[tunnel(THEIRS)], &[record(&comment)]);
    assert_eq!(theirs, []);
}

#[test]
fn a_server_on_its_way_out_is_not_found() {
    assert_eq!(found(&[server(OURS, |server| server["status"] = json!("deleting"))], &[], &[]), []);
}

#[test]
fn what_has_the_id_of_a_retained_server_stays_with_it() {
    let kept = || server(OURS, |server| server["labels"][label::RETAINED] = json!("true"));
    let tunnels = [tunnel(OURS)];
    let comment = names::record_comment(OURS, ADA, "tenants", "ada");
    let all = found(&[kept()], &tunnels, &[record(""), record(&comment)]);
    assert!(all.iter().all(|one| one.retained), "{all:?}");
    // Not where a second life of the name has a server again.
    let second = server(OURS, |server| server["id"] = json!(8));
    let tunnel = (OrphanKind::Tunnel, false);
    assert!(kinds(&found(&[kept(), second], &tunnels, &[])).contains(&tunnel));
}

#[test]
fn a_later_lifes_tunnel_does_not_stay_with_a_retained_server() {
    // It was made at the beginning of 2026.
    let kept = || server(OURS, |server| server["labels"][label::RETAINED] = json!("true"));
    let made = |at: &str| Tunnel { created_at: Some(at.parse().unwrap()), ..tunnel(OURS) };
    let comment = names::record_comment(OURS, ADA, "tenants", "ada");
    let records = [record(""), record(&comment)];
    let retained = |tunnels: &[Tunnel]| {
        let all = found(&[kept()], tunnels, &records);
        all.into_iter().filter(|one| one.retained).map(|one| (one.kind, one.id)).collect::<Vec<_>>()
    };
    let own = retained(&[made("2025-12-31T23:59:58Z")]);
    assert_eq!(own.len(), 4, "its own was made before it: {own:?}");
    let later = retained(&[made("2026-01-01T00:05:00Z")]);
    assert_eq!(later, [(OrphanKind::Server, "7".to_owned())]);
    // Its own says so itself: there is none left for it.
    let id = TunnelId::parse("11111111-765d-4adf-8112-31c55c1551ef").unwrap();
    let name = names::retained_tunnel(OURS, ADA, &id);
    let named = Tunnel { id, name, ..made("2025-12-31T23:00:00Z") };
    let both = retained(&[named, made("2025-12-31T23:59:58Z")]);
    let kinds: Vec<_> = both.iter().map(|(kind, _)| *kind).collect();
    assert_eq!(kinds, [OrphanKind::Server, OrphanKind::Tunnel], "{both:?}");
}

#[test]
fn a_server_costs_what_the_catalogue_says_of_its_location() {
    let mut found = found(&[server(OURS, |_| ())], &[], &[]);
    let price = |location: &str, gross: &str| {
        json!({
            "location": location, "price_monthly": {"net": "1", "gross": gross},
        })
    };
    let catalogue = serde_json::from_value(json!([{
        "name": "cx33", "architecture": "x86",
        "prices": [price("nbg1", "9.99"), price("fsn1", "7.1285759999999998")],
    }]));
    price_all(&mut found, &catalogue.unwrap() as &Vec<_>);
    assert_eq!(found[0].monthly_cost.as_deref(), Some("7.13"));
    price_all(&mut found, &[]);
    assert_eq!(found[0].monthly_cost, None);
}

fn price_all(found: &mut [Found], catalogue: &[crate::hetzner::ServerType]) {
    find::price(found.iter_mut(), catalogue);
}
