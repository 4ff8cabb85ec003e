//! What is done about marks that were lost, and what is said of what is not the instance's.

use rstest::rstest;

use crate::{
    api::{
        conditions::{ConditionType, Reason},
        label,
    },
    cloud::{Cloud, CloudError, ErrorKind},
    cloudflare::{DnsRecord, Tunnel},
    hetzner::ServerId,
    instance::{
        Step,
        fixtures::{
            FIRST_EPOCH, INSTALLATION, kinds, plan_of, ready, status_of, subject, walk, wanted,
        },
        observed::ServerState,
        records::EnsureRecords,
        records::taken,
        server::ServerStep,
        wanted::Subject,
    },
    inventory::InstanceView,
    names,
    ownership::instance_id,
    problem::Problem,
};

#[test]
fn labels_that_somebody_took_off_are_set_again_and_others_stay() {
    let wanted = wanted();
    let mut observed = ready(&wanted);
    let ServerState::Present(server) = &mut observed.server else { panic!("there is one") };
    let (whole, id) = (server.labels.clone(), server.id);
    server.labels.remove(label::NAMESPACE);
    server.labels.insert("cost-centre".to_owned(), "7".to_owned());
    let plan = plan_of(&wanted, &observed);
    let [Step::Server(ServerStep::Label(labelled, labels))] = plan.steps.as_slice() else {
        panic!("{plan:?}")
    };
    assert_eq!(*labelled, id);
    assert_eq!(labels.len(), whole.len() + 1);
    let end = walk(&wanted, observed, |_| false);
    assert_eq!(plan_of(&wanted, &end).steps, []);
}

#[test]
fn a_tunnel_that_somebody_renamed_gets_its_name_back() {
    let wanted = wanted();
    let mut observed = ready(&wanted);
    observed.tunnel.as_mut().unwrap().name = "office".to_owned();
    assert_eq!(kinds(&plan_of(&wanted, &observed)), ["RenameTunnel"]);
    let end = walk(&wanted, observed, |_| false);
    assert_eq!(plan_of(&wanted, &end).steps, []);
}

#[rstest]
#[case::emptied(Some(String::new()))]
#[case::gone(None)]
#[case::overwritten(Some("the shop".to_owned()))]
fn a_comment_that_was_lost_is_set_again_and_nothing_else_is(#[case] comment: Option<String>) {
    let wanted = wanted();
    let mut observed = ready(&wanted);
    for record in &mut observed.records {
        record.comment.clone_from(&comment);
    }
    let plan = plan_of(&wanted, &observed);
    let [Step::Records(EnsureRecords { posts, patches })] = plan.steps.as_slice() else {
        panic!("{plan:?}")
    };
    assert_eq!((posts.len(), patches.len()), (0, 2));
    for patch in patches {
        assert_eq!(patch.comment, Some(wanted.subject.record_comment()));
        assert_eq!((&patch.content, patch.proxied), (&None, None));
    }
    let end = walk(&wanted, observed, |_| false);
    assert_eq!(plan_of(&wanted, &end).steps, []);
}

#[test]
fn an_earlier_id_is_in_the_status_and_a_computed_one_is_not() {
    let mut wanted = wanted();
    assert_eq!(status_of(&wanted, &ready(&wanted)).earlier_identity, None);
    wanted.subject.instance = moorage_wire::InstanceId::from_bytes([0xaa; 16]);
    let earlier = status_of(&wanted, &ready(&wanted)).earlier_identity.unwrap();
    assert_eq!(earlier.of("tenants", "ada"), Some(wanted.subject.instance));
    assert_eq!(earlier.of("team-b", "ada"), None, "as after a restore into another namespace");
    // And its tokens stay what they were.
    let life = |subject: &Subject| subject.gateway_life(FIRST_EPOCH);
    assert_ne!(life(&wanted.subject), life(&subject()));
}

/// What `taken` says of a record at ada's name with this comment, made from a right one.
fn said(change: impl Fn(&mut DnsRecord, &Tunnel)) -> Option<(Reason, String)> {
    let observed = ready(&wanted());
    let tunnel = observed.tunnel.unwrap();
    let mut view = InstanceView {
        tunnels: vec![tunnel.clone()],
        records: observed.records,
        ..InstanceView::default()
    };
    change(&mut view.records[0], &tunnel);
    let refused = taken(&subject().owner(&observed.status), &view)?;
    Some((refused.reason, refused.message))
}

#[test]
fn what_stands_at_a_name_is_called_what_it_is() {
    assert_eq!(said(|_, _| {}), None);
    assert_eq!(said(|record, _| record.comment = None), None);
    let elsewhere = moorage_wire::InstallationId::from_bytes([9; 8]);
    let bob = instance_id(INSTALLATION, "tenants", "bob");

    let (reason, message) = said(|record, _| {
        record.comment = Some(names::record_comment(INSTALLATION, bob, "tenants", "bob"));
    })
    .unwrap();
    assert_eq!(reason, Reason::ForeignDnsRecord);
    assert!(message.contains("instance tenants/bob of this installation"), "{message}");

    let (reason, message) = said(|record, _| {
        let comment = names::record_comment(elsewhere, bob, "tenants", "ada");
        record.comment = Some(comment);
    })
    .unwrap();
    assert_eq!(reason, Reason::ForeignDnsRecord);
    assert!(message.contains("0909090909090909") && message.contains("tenants/ada"), "{message}");
    assert!(message.contains("restore its Secret moorage-master-key"), "{message}");
    assert!(!message.contains("remove"), "a former self is not to be removed: {message}");

    let (reason, message) =
        said(|record, _| record.comment = Some(subject().retained_comment())).unwrap();
    assert_eq!(reason, Reason::Retained);
    assert!(message.contains("instance tenants/ada"), "{message}");

    let (reason, message) = said(|record, _| {
        (record.comment, record.content) = (None, Some("192.0.2.1".to_owned()));
    })
    .unwrap();
    assert_eq!(reason, Reason::ForeignDnsRecord);
    assert!(message.contains("CNAME 192.0.2.1") && message.contains("remove it"), "{message}");
}

#[test]
fn a_protected_server_is_reported_as_such() {
    let of = |kind| {
        let error = CloudError::new(Cloud::Hetzner, "delete_server", kind, "server is protected");
        Problem::of_server_deletion(ConditionType::Ready, ServerId(4711), &error)
    };
    let protected = of(ErrorKind::Protected);
    assert_eq!(protected.reason, Reason::DeleteProtected);
    assert!(protected.message.contains("Server 4711") && protected.message.contains("off"));
    assert_eq!(of(ErrorKind::Locked).reason, Reason::Locked);
}
