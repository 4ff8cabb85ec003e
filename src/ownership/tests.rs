//! Whose is what, as a table, and that no two instances ever share anything.

use std::collections::BTreeSet;

use moorage_wire::{Epoch, Secret};
use proptest::prelude::*;
use rstest::rstest;
use serde_json::json;

use super::*;
use crate::{
    api::label,
    master_key::{GatewayGeneration, GatewayLife, MasterKey, TunnelGeneration},
};

const HERE: InstallationId = InstallationId::from_bytes([1; 8]);
const ELSEWHERE: InstallationId = InstallationId::from_bytes([9; 8]);
const TUNNEL: &str = "6ff42ae2-765d-4adf-8112-31c55c1551ef";
const OTHER_TUNNEL: &str = "00000000-0000-4000-8000-000000000001";

fn id_of(name: &str) -> InstanceId {
    instance_id(HERE, "tenants", name)
}

fn tunnel_id(text: &str) -> TunnelId {
    TunnelId::parse(text).unwrap()
}

/// tenants/ada, of which the status knows server 1 and the tunnel.
fn ada() -> Owner {
    Owner {
        installation: HERE,
        instance: id_of("ada"),
        namespace: "tenants".to_owned(),
        name: "ada".to_owned(),
        hostname: "ada".to_owned(),
        domain: "example.com".to_owned(),
        recorded: Recorded { server: Some(ServerId(1)), tunnel: Some(tunnel_id(TUNNEL)) },
    }
}

fn place(name: &str) -> Place {
    Place::new("tenants", name)
}

fn of_another(name: &str) -> Ownership {
    Ownership::AnotherInstance { instance: id_of(name), place: Some(place(name)) }
}

/// A server with the labels of an instance, changed.
fn server(number: u64, name: &str, labels: &[(&str, Option<&str>)]) -> Server {
    let identity = names::ServerIdentity {
        installation: HERE,
        instance: id_of("ada"),
        epoch: Epoch::from_bytes([1; 8]),
        namespace: "tenants",
        name: "ada",
        pool: "eu-1",
    };
    let mut all = identity.labels();
    for (label, value) in labels {
        match value {
            Some(value) => drop(all.insert((*label).to_owned(), (*value).to_owned())),
            None => drop(all.remove(*label)),
        }
    }
    serde_json::from_value(json!({
        "id": number, "name": name, "status": "running", "created": "2026-01-01T00:00:00Z",
        "labels": all, "server_type": {"name": "cx33"},
    }))
    .unwrap()
}

const NO_LABELS: &[(&str, Option<&str>)] = &[
    (label::INSTALLATION, None),
    (label::INSTANCE, None),
    (label::EPOCH, None),
    (label::NAMESPACE, None),
    (label::NAME, None),
    (label::POOL, None),
];

#[rstest]
#[case::as_made(2, "x", &[], Ownership::Ours)]
#[case::a_place_that_was_taken_off(2, "x", &[(label::NAME, None)], Ownership::Ours)]
#[case::another_place(2, "x", &[(label::NAME, Some("bob"))],
    Ownership::AnotherInstance { instance: id_of("ada"), place: Some(place("bob")) })]
#[case::another_namespace(2, "x", &[(label::NAMESPACE, Some("team-b"))],
    Ownership::AnotherInstance { instance: id_of("ada"), place: Some(Place::new("team-b", "ada")) })]
#[case::another_id(2, "x", &[(label::INSTANCE, Some("00000000000000000000000000000000"))],
    Ownership::AnotherInstance { instance: InstanceId::from_bytes([0; 16]), place: Some(place("ada")) })]
#[case::another_installation(2, "x", &[(label::INSTALLATION, Some("0909090909090909"))],
    Ownership::FormerInstallation { installation: ELSEWHERE, place: Some(place("ada")) })]
#[case::retained(1, "x", &[(label::RETAINED, Some("true"))], Ownership::Retained(Some(place("ada"))))]
#[case::no_labels_and_unknown(2, &names::server("ada", id_of("ada")), NO_LABELS, Ownership::Foreign)]
#[case::no_labels_and_another_name(1, "x", NO_LABELS, Ownership::Foreign)]
#[case::no_labels_but_recorded(1, &names::server("ada", id_of("ada")), NO_LABELS, Ownership::Ours)]
fn a_server_is_known_by_its_labels(
    #[case] number: u64,
    #[case] name: &str,
    #[case] labels: &[(&str, Option<&str>)],
    #[case] expected: Ownership,
) {
    assert_eq!(ada().server(&server(number, name, labels)), expected);
}

#[rstest]
#[case::ours(OTHER_TUNNEL, names::tunnel(HERE, id_of("ada")), Ownership::Ours)]
#[case::anothers(TUNNEL, names::tunnel(HERE, id_of("bob")),
    Ownership::AnotherInstance { instance: id_of("bob"), place: None })]
#[case::of_elsewhere(TUNNEL, names::tunnel(ELSEWHERE, id_of("ada")),
    Ownership::FormerInstallation { installation: ELSEWHERE, place: None })]
#[case::retained(TUNNEL, names::retained_tunnel(HERE, id_of("ada"), &tunnel_id(TUNNEL)),
    Ownership::Retained(None))]
#[case::renamed(TUNNEL, "office".to_owned(), Ownership::Ours)]
#[case::unknown(OTHER_TUNNEL, "office".to_owned(), Ownership::Foreign)]
fn a_tunnel_is_known_by_its_name(
    #[case] id: &str,
    #[case] name: String,
    #[case] expected: Ownership,
) {
    let tunnel =
        Tunnel { id: tunnel_id(id), name, status: None, created_at: None, deleted_at: None };
    assert_eq!(ada().tunnel(&tunnel), expected);
}

fn record(name: &str, kind: &str, content: &str, comment: Option<&str>) -> DnsRecord {
    serde_json::from_value(json!({
        "id": "r1", "name": name, "type": kind, "content": content, "proxied": true,
        "comment": comment,
    }))
    .unwrap()
}

fn comment_of(name: &str) -> String {
    names::record_comment(HERE, id_of(name), "tenants", name)
}

fn to(tunnel: &str) -> String {
    format!("{tunnel}.cfargotunnel.com")
}

#[rstest]
#[case::ours(
    "ada.example.com",
    "CNAME",
    "astray.example.net",
    Some(comment_of("ada")),
    Ownership::Ours
)]
#[case::ours_elsewhere(
    "x.example.com",
    "CNAME",
    "y.example.net",
    Some(comment_of("ada")),
    Ownership::Ours
)]
#[case::with_words_behind("x.example.com", "CNAME", "y.example.net", Some(comment_of("ada") + " do not touch"), Ownership::Ours)]
#[case::anothers("ada.example.com", "CNAME", &to(TUNNEL), Some(comment_of("bob")), of_another("bob"))]
#[case::of_elsewhere("ada.example.com", "CNAME", &to(TUNNEL),
    Some(names::record_comment(ELSEWHERE, id_of("ada"), "tenants", "ada")),
    Ownership::FormerInstallation { installation: ELSEWHERE, place: Some(place("ada")) })]
#[case::retained("ada.example.com", "CNAME", &to(TUNNEL),
    Some(names::retained_comment(HERE, id_of("ada"), "tenants", "ada")), Ownership::Retained(Some(place("ada"))))]
#[case::retained_by_an_earlier_version("ada.example.com", "CNAME", &to(TUNNEL),
    Some("retained by moorage for tenants/ada".to_owned()), Ownership::Retained(Some(place("ada"))))]
#[case::emptied("ada-mgmt.example.com", "CNAME", &to(TUNNEL), Some(String::new()), Ownership::Ours)]
#[case::without_a_comment("ada.example.com", "CNAME", &to(TUNNEL), None, Ownership::Ours)]
#[case::overwritten("ada.example.com", "CNAME", &to(TUNNEL), Some("the shop".to_owned()), Ownership::Ours)]
#[case::emptied_and_elsewhere("bob.example.com", "CNAME", &to(TUNNEL), None, Ownership::Foreign)]
#[case::emptied_and_astray("ada.example.com", "CNAME", &to(OTHER_TUNNEL), None, Ownership::Foreign)]
#[case::emptied_and_of_another_kind("ada.example.com", "TXT", &to(TUNNEL), None, Ownership::Foreign)]
#[case::by_hand("ada.example.com", "A", "192.0.2.1", Some("moorage".to_owned()), Ownership::Foreign)]
fn a_record_is_known_by_its_comment_or_by_where_it_leads(
    #[case] name: &str,
    #[case] kind: &str,
    #[case] content: &str,
    #[case] comment: Option<String>,
    #[case] expected: Ownership,
) {
    let record = record(name, kind, content, comment.as_deref());
    assert_eq!(ada().record(&record, &[]), expected);
}

#[test]
fn a_swept_tunnel_counts_like_a_recorded_one() {
    let lost = Owner { recorded: Recorded::default(), ..ada() };
    let emptied = record("ada.example.com", "CNAME", &to(TUNNEL), None);
    assert_eq!(lost.record(&emptied, &[]), Ownership::Foreign);
    assert_eq!(lost.record(&emptied, &[tunnel_id(TUNNEL)]), Ownership::Ours);
}

#[test]
fn a_comment_that_was_cut_is_recognised_and_its_rest_compared() {
    let name = "a".repeat(60);
    let owner = Owner { instance: id_of(&name), name: name.clone(), ..ada() };
    let comment = comment_of(&name);
    assert_eq!(comment.chars().count(), 100);
    let cut = record("x.example.com", "CNAME", "y.example.net", Some(&comment));
    assert_eq!(owner.record(&cut, &[]), Ownership::Ours);
    let other = Owner { name: "b".repeat(60), ..owner };
    assert!(!other.record(&cut, &[]).is_ours(), "the same id at another place");
}

#[test]
fn an_id_is_what_it_always_was() {
    // Computed by an independent implementation (Python's hashlib).
    assert_eq!(id_of("ada").to_string(), "8f0373593c97f4c22ae340431cb8a65c");
}

const DRAWN: InstanceId = InstanceId::from_bytes([0xaa; 16]);
const DRAWN_TOO: InstanceId = InstanceId::from_bytes([0xbb; 16]);

#[rstest]
#[case::nothing_is_known(&[], &[], None, None, id_of("ada"))]
#[case::an_old_server(&[(7, DRAWN)], &[], None, None, DRAWN)]
#[case::an_old_server_that_was_recorded_and_is_gone(&[], &[], Some(DRAWN), Some(7), DRAWN)]
#[case::old_records_alone(&[], &[DRAWN], None, None, DRAWN)]
#[case::a_new_server(&[(7, id_of("ada"))], &[], None, None, id_of("ada"))]
#[case::a_new_server_and_an_old_status(&[(7, id_of("ada"))], &[], Some(DRAWN), Some(3), id_of("ada"))]
#[case::a_new_server_beside_an_odd_one(&[(3, DRAWN), (7, id_of("ada"))], &[], None, None, id_of("ada"))]
#[case::the_recorded_server_before_all(&[(3, DRAWN_TOO), (7, DRAWN)], &[], Some(DRAWN_TOO), Some(7), DRAWN)]
#[case::the_recorded_id(&[(3, DRAWN_TOO), (7, DRAWN)], &[], Some(DRAWN), None, DRAWN)]
fn an_earlier_id_stays_as_long_as_something_holds_it(
    #[case] servers: &[(u64, InstanceId)],
    #[case] records: &[InstanceId],
    #[case] earlier: Option<InstanceId>,
    #[case] server: Option<u64>,
    #[case] expected: InstanceId,
) {
    let servers = servers.iter().map(|(id, instance)| (ServerId(*id), *instance)).collect();
    let named = Named { servers, records: records.to_vec() };
    assert_eq!(effective_id(id_of("ada"), &named, earlier, server.map(ServerId)), expected);
}

/// Everything that is derived for an instance, in a comparable form.
fn everything(installation: InstallationId, namespace: &str, name: &str) -> BTreeSet<String> {
    let master = MasterKey::new(Secret::new((0..32).collect()), installation).unwrap();
    let (id, epoch) = (instance_id(installation, namespace, name), Epoch::from_bytes([5; 8]));
    let text = |secret: &Secret| secret.expose_str().unwrap().to_owned();
    let gateway =
        master.gateway_token(id, GatewayLife::Server(epoch), GatewayGeneration::default());
    BTreeSet::from([
        id.to_string(),
        names::tunnel(installation, id),
        names::server("same", id),
        names::record_comment(installation, id, namespace, name),
        master.operator_key(id, epoch).public_key().to_string(),
        text(master.bearer_token(id, epoch).secret()),
        text(&master.tunnel_secret(id, epoch, TunnelGeneration::BOOTSTRAP).to_base64()),
        master.enrolment_key(id, epoch).to_text().expose().to_owned(),
        text(gateway.secret()),
    ])
}

proptest! {
    /// Parts that only together are the same are the dangerous ones: `a`, `b/c` and `a/b`, `c`.
    #[test]
    fn no_two_instances_share_anything(
        installations in (any::<[u8; 8]>(), any::<[u8; 8]>()),
        namespaces in ("[a-z/-]{0,4}", "[a-z/-]{0,4}"),
        names in ("[a-z/-]{0,4}", "[a-z/-]{0,4}"),
        same in any::<(bool, bool)>(),
    ) {
        let of = |bytes| InstallationId::from_bytes(bytes);
        let one = (of(installations.0), namespaces.0.as_str(), names.0.as_str());
        let other = (
            if same.0 { one.0 } else { of(installations.1) },
            if same.1 { one.1 } else { namespaces.1.as_str() },
            names.1.as_str(),
        );
        prop_assume!(one != other);
        let (left, right) = (everything(one.0, one.1, one.2), everything(other.0, other.1, other.2));
        prop_assert_eq!(left.intersection(&right).count(), 0);
    }
}
