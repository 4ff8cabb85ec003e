//! The end of an instance.

use rstest::rstest;

use crate::{
    api::{instance::DeletionPolicy, label},
    instance::{
        deletion::{DeletionStep, Remains, plan},
        fixtures::{ready, subject, wanted},
        wanted::Subject,
    },
    names::OwnedName as _,
};

/// Everything that a running instance has.
fn everything() -> Remains {
    let seen = ready(&wanted());
    Remains {
        servers: seen.server.present().cloned().into_iter().collect(),
        tunnels: seen.tunnel.into_iter().collect(),
        records: seen.records,
        secrets: vec!["ada-keys".to_owned()],
        confirmed: false,
    }
}

fn kinds(steps: &[DeletionStep]) -> Vec<&'static str> {
    let kind = |step: &DeletionStep| match step {
        DeletionStep::Server(_) => "Server",
        DeletionStep::Tunnel(_) => "Tunnel",
        DeletionStep::Records(_) => "Records",
        DeletionStep::Secrets(_) => "Secrets",
        DeletionStep::RetainServer(..) => "RetainServer",
        DeletionStep::RetainRecords(_) => "RetainRecords",
        DeletionStep::Confirm => "Confirm",
        DeletionStep::RemoveFinalizer => "RemoveFinalizer",
    };
    steps.iter().map(kind).collect()
}

fn retaining() -> Subject {
    Subject { deletion_policy: DeletionPolicy::Retain, ..subject() }
}

#[test]
fn servers_go_first_and_names_before_what_they_lead_to() {
    assert_eq!(kinds(&plan(&subject(), &everything())), ["Server", "Records", "Tunnel", "Secrets"]);
}

#[test]
fn every_server_and_every_tunnel_goes() {
    let mut remains = everything();
    let mut second = remains.servers[0].clone();
    second.id = crate::hetzner::ServerId(5);
    remains.servers.push(second);
    assert_eq!(
        kinds(&plan(&subject(), &remains)),
        ["Server", "Server", "Records", "Tunnel", "Secrets"]
    );
}

#[rstest]
#[case::delete(subject())]
#[case::retain(retaining())]
fn the_finalizer_goes_only_after_the_clouds_have_confirmed_that_nothing_remains(
    #[case] subject: Subject,
) {
    let nothing = |confirmed| Remains { confirmed, ..Remains::default() };
    assert_eq!(plan(&subject, &nothing(false)), [DeletionStep::Confirm]);
    assert_eq!(plan(&subject, &nothing(true)), [DeletionStep::RemoveFinalizer]);
}

#[rstest]
#[case::a_server(Remains { servers: everything().servers, ..Remains::default() })]
#[case::a_tunnel(Remains { tunnels: everything().tunnels, ..Remains::default() })]
#[case::a_record(Remains { records: everything().records, ..Remains::default() })]
#[case::a_secret(Remains { secrets: everything().secrets, ..Remains::default() })]
fn anything_that_the_confirmation_finds_is_deleted_first(#[case] remains: Remains) {
    let steps = plan(&subject(), &Remains { confirmed: true, ..remains });
    assert_eq!(steps.len(), 1);
    assert!(!steps.contains(&DeletionStep::RemoveFinalizer), "{steps:?}");
}

#[test]
fn retained_objects_are_labelled_and_only_secrets_are_deleted() {
    assert_eq!(
        kinds(&plan(&retaining(), &everything())),
        ["RetainServer", "RetainRecords", "Secrets"]
    );
}

#[test]
fn a_retained_server_has_no_owner_any_more_and_keeps_its_other_labels() {
    let remains = everything();
    let server = &remains.servers[0];
    let steps = plan(&retaining(), &remains);
    let DeletionStep::RetainServer(id, labels) = &steps[0] else { panic!("{steps:?}") };
    assert_eq!(*id, server.id);
    assert_eq!(labels.len(), server.labels.len() + 1);
    assert!(labels.contains_key(label::RETAINED));
    let retained = crate::hetzner::Server { labels: labels.clone(), ..server.clone() };
    assert!(server.owner(subject().installation).is_some());
    assert_eq!(retained.owner(subject().installation), None);
}
