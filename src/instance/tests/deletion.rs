//! The end of an instance.

use rstest::rstest;

use crate::{
    api::{OpenClawInstanceStatus, instance::DeletionPolicy, label},
    cluster::BoundSecret,
    credentials::secret_source::SecretVersion,
    hetzner::{Server, ServerId},
    instance::{
        Removal,
        deletion::{self, Next, Remains, forecast, has_history, server_to_record},
        fixtures::{FIRST_EPOCH, ready, status_of, subject, wanted},
        records::RecordsRemoval,
        server::ServerRemoval,
        tunnel::{TunnelRemoval, TunnelStep},
        wanted::Subject,
    },
    ownership::Marked as _,
    problem::Problem,
};

/// The status of an instance that runs.
fn status() -> OpenClawInstanceStatus {
    status_of(&wanted(), &ready(&wanted()))
}

fn next(subject: &Subject, remains: &Remains) -> Next {
    deletion::next(subject, &status(), remains)
}

/// What is removed next; nothing if it is something else's turn.
fn removals(subject: &Subject, remains: &Remains) -> Vec<Removal> {
    match next(subject, remains) {
        Next::Remove(removals) => removals,
        Next::Confirm | Next::TellOfCopies(_) | Next::LetGo => Vec::new(),
    }
}

/// Everything that a running instance has.
fn everything() -> Remains {
    let observed = ready(&wanted());
    Remains {
        servers: observed.server.present().cloned().into_iter().collect(),
        tunnels: observed.tunnel.into_iter().collect(),
        records: observed.records,
        secrets: vec![bound("ada-keys")],
        confirmed: false,
    }
}

fn bound(name: &str) -> BoundSecret {
    let version = SecretVersion { uid: "u-7".to_owned(), resource_version: "7".to_owned() };
    BoundSecret { name: name.to_owned(), version, created: jiff::Timestamp::MIN }
}

fn kinds(removals: &[Removal]) -> Vec<&'static str> {
    let kind = |removal: &Removal| match removal {
        Removal::Server(ServerRemoval::Delete(_)) => "Server",
        Removal::Tunnel(TunnelRemoval::Delete(_)) => "Tunnel",
        Removal::Records(RecordsRemoval::Delete(_)) => "Records",
        Removal::Secrets(_) => "Secrets",
        Removal::Server(ServerRemoval::Retain(..)) => "RetainServer",
        Removal::Records(RecordsRemoval::Retain(_)) => "RetainRecords",
        Removal::Tunnel(TunnelRemoval::Retain(_)) => "RetainTunnel",
    };
    removals.iter().map(kind).collect()
}

fn retaining() -> Subject {
    Subject { deletion_policy: DeletionPolicy::Retain, ..subject() }
}

#[test]
fn servers_go_first_and_names_before_what_they_lead_to() {
    assert_eq!(
        kinds(&removals(&subject(), &everything())),
        ["Server", "Records", "Tunnel", "Secrets"]
    );
}

/// A copy of the server, such as a snapshot that was restored with its labels.
fn copy(of: &Server) -> Server {
    Server { id: ServerId(5), name: "restored".to_owned(), ..of.clone() }
}

#[test]
fn a_copy_of_the_server_holds_up_the_deletion() {
    let mut remains = everything();
    remains.servers.push(copy(&remains.servers[0]));
    let steps = removals(&subject(), &remains);
    assert_eq!(kinds(&steps), ["Server", "Records", "Tunnel", "Secrets"]);
    assert_eq!(steps[0], ServerRemoval::Delete(remains.servers[0].id).into());
    for subject in [subject(), retaining()] {
        let confirmed = Remains {
            servers: vec![remains.servers[1].clone()],
            confirmed: true,
            ..Remains::default()
        };
        assert_eq!(next(&subject, &confirmed), Next::TellOfCopies(vec![ServerId(5)]));
    }
}

#[test]
fn a_lost_status_first_learns_which_server_is_the_instances() {
    let mut remains = everything();
    remains.servers.insert(0, copy(&remains.servers[0]));
    let lost = OpenClawInstanceStatus::default();
    let recorded = server_to_record(&subject(), &lost, &remains).unwrap();
    assert_eq!(recorded.id, Some(remains.servers[1].id.0), "the one with the operator's name");
    assert_eq!(recorded.epoch, FIRST_EPOCH.to_string());
    assert_eq!(server_to_record(&subject(), &status(), &remains), None, "it knows already");
}

#[test]
fn what_is_anothers_is_in_no_step() {
    let elsewhere = Subject { namespace: "team-b".to_owned(), ..subject() };
    for subject in [
        Subject {
            instance: crate::ownership::instance_id(subject().installation, "team-b", "ada"),
            ..elsewhere.clone()
        },
        // As if it had the id of the other: where it stands is on the labels as well.
        Subject { instance: subject().instance, ..elsewhere },
    ] {
        for deletion_policy in [DeletionPolicy::Delete, DeletionPolicy::Retain] {
            let subject = Subject { deletion_policy, ..subject.clone() };
            let remains = Remains { tunnels: Vec::new(), ..everything() };
            assert_eq!(kinds(&removals(&subject, &remains)), ["Secrets"]);
        }
    }
}

#[test]
fn a_record_without_comment_goes_with_its_tunnel() {
    let mut remains = everything();
    for record in &mut remains.records {
        record.comment = Some(String::new());
    }
    assert_eq!(kinds(&removals(&subject(), &remains)), ["Server", "Records", "Tunnel", "Secrets"]);
    // Also when the tunnel went before.
    let left = Remains { records: remains.records, confirmed: true, ..Remains::default() };
    assert_eq!(kinds(&removals(&subject(), &left)), ["Records"]);
}

#[test]
fn nothing_was_made_as_long_as_no_epoch_was_written_down() {
    assert!(!has_history(&OpenClawInstanceStatus::default()));
    let refused = Problem::whole(crate::api::conditions::Reason::PoolNotFound, "");
    let refused = crate::instance::status::of_refusal(
        &OpenClawInstanceStatus::default(),
        &refused,
        Some(1),
        jiff::Timestamp::UNIX_EPOCH,
    );
    assert!(!has_history(&refused));
    let begun = crate::instance::fixtures::before(&wanted(), |step| {
        matches!(step, crate::instance::Step::Tunnel(TunnelStep::Create))
    });
    assert!(has_history(&begun.status), "before the first call to a cloud");
}

#[rstest]
#[case::delete(subject())]
#[case::retain(retaining())]
fn the_finalizer_goes_once_the_clouds_confirm(#[case] subject: Subject) {
    let nothing = |confirmed| Remains { confirmed, ..Remains::default() };
    assert_eq!(next(&subject, &nothing(false)), Next::Confirm);
    assert_eq!(next(&subject, &nothing(true)), Next::LetGo);
}

#[rstest]
#[case::a_server(Remains { servers: everything().servers, ..Remains::default() })]
#[case::a_tunnel(Remains { tunnels: everything().tunnels, ..Remains::default() })]
#[case::a_record(Remains { records: everything().records, ..Remains::default() })]
#[case::a_secret(Remains { secrets: everything().secrets, ..Remains::default() })]
fn anything_that_the_confirmation_finds_is_deleted_first(#[case] remains: Remains) {
    let steps = removals(&subject(), &Remains { confirmed: true, ..remains });
    assert_eq!(steps.len(), 1, "{steps:?}");
}

#[test]
fn retained_objects_are_labelled_and_only_secrets_are_deleted() {
    assert_eq!(
        kinds(&removals(&retaining(), &everything())),
        ["RetainServer", "RetainRecords", "RetainTunnel", "Secrets"]
    );
}

#[test]
fn a_retained_server_loses_its_owner_and_keeps_its_labels() {
    let remains = everything();
    let server = &remains.servers[0];
    let steps = removals(&retaining(), &remains);
    let Removal::Server(ServerRemoval::Retain(id, labels)) = &steps[0] else { panic!("{steps:?}") };
    assert_eq!(*id, server.id);
    assert_eq!(labels.len(), server.labels.len() + 1);
    assert!(labels.contains_key(label::RETAINED));
    let retained = crate::hetzner::Server { labels: labels.clone(), ..server.clone() };
    assert!(server.owner(subject().installation).is_some());
    assert_eq!(retained.owner(subject().installation), None);
}

#[rstest]
#[case::delete(subject())]
#[case::retain(retaining())]
fn a_removal_of_what_is_anothers_is_recognised(#[case] subject: Subject) {
    let (mine, owner) = (everything(), subject.owner(&status()));
    let instance = crate::ownership::instance_id(subject.installation, "team-b", "ada");
    let elsewhere = Subject { namespace: "team-b".to_owned(), instance, ..subject.clone() };
    let anothers = elsewhere.owner(&OpenClawInstanceStatus::default());
    for removal in removals(&subject, &mine) {
        assert!(removal.touches_only_own(&owner, &mine), "{removal}");
        let own = matches!(removal, Removal::Secrets(_));
        assert_eq!(removal.touches_only_own(&anothers, &mine), own, "{removal}");
    }
}

#[test]
fn the_forecast_of_a_deletion_ends_with_the_finalizer() {
    let told = forecast(&subject(), &status(), everything()).join("\n");
    insta::assert_snapshot!(told);
}
