//! Telling the server from its copies.

use rstest::rstest;

use crate::{
    api::{conditions::Reason, instance::ServerStatus},
    hetzner::{Server, ServerId, ServerStatus as Power},
    instance::{
        copies::{Known, ToldApart, tell_apart},
        fixtures::{FIRST_EPOCH, SECOND_EPOCH, plan_of, ready, wanted},
        placeholders::new_server,
    },
};

const NAME: &str = "the operator's name";

/// A server of a life; the higher its id, the later it was made.
fn server(id: u64, epoch: moorage_wire::Epoch, name: &str) -> Server {
    let made = new_server(&wanted(), Some(epoch));
    let created = jiff::Timestamp::from_second(i64::try_from(id).unwrap()).unwrap();
    Server { id: ServerId(id), name: name.to_owned(), created, ..made }
}

fn recorded(epoch: moorage_wire::Epoch, id: Option<u64>) -> ServerStatus {
    ServerStatus { epoch: epoch.to_string(), id, ..ServerStatus::default() }
}

#[rstest]
#[case::the_recorded_one(Some(recorded(FIRST_EPOCH, Some(1))), false, &[(1, FIRST_EPOCH), (2, FIRST_EPOCH)], Some(1), &[2])]
#[case::not_one_before_the_recorded_was_asked_for(Some(recorded(FIRST_EPOCH, Some(1))), false, &[(2, FIRST_EPOCH)], None, &[2])]
#[case::a_snapshot_in_the_place_of_a_lost_one(Some(recorded(FIRST_EPOCH, Some(1))), true, &[(2, FIRST_EPOCH)], Some(2), &[])]
#[case::a_status_that_is_older_than_the_server(Some(recorded(FIRST_EPOCH, Some(1))), true, &[(2, SECOND_EPOCH)], Some(2), &[])]
#[case::made_and_not_yet_written_down(Some(recorded(SECOND_EPOCH, None)), false, &[(1, FIRST_EPOCH), (2, SECOND_EPOCH)], Some(2), &[1])]
#[case::one_of_the_life_before(Some(recorded(SECOND_EPOCH, None)), false, &[(1, FIRST_EPOCH)], None, &[1])]
#[case::a_lost_status(None, false, &[(1, FIRST_EPOCH)], Some(1), &[])]
fn the_recorded_server_is_the_instances_and_others_are_copies(
    #[case] recorded: Option<ServerStatus>,
    #[case] gone: bool,
    #[case] servers: &[(u64, moorage_wire::Epoch)],
    #[case] own: Option<u64>,
    #[case] copies: &[u64],
) {
    let servers: Vec<_> = servers.iter().map(|(id, epoch)| server(*id, *epoch, "x")).collect();
    let told = tell_apart(&servers, Known { recorded: recorded.as_ref(), gone, name: NAME });
    assert_eq!(told.own.map(|server| server.id.0), own);
    assert_eq!(told.copies.iter().map(|id| id.0).collect::<Vec<_>>(), copies);
}

#[test]
fn without_a_status_the_name_tells_the_server() {
    let (own, copy) = (server(1, FIRST_EPOCH, NAME), server(2, FIRST_EPOCH, "restored"));
    let deleted = Server { status: Power::Deleting, ..server(3, FIRST_EPOCH, NAME) };
    let known = Known { recorded: None, gone: false, name: NAME };
    let told = tell_apart(&[deleted, copy, own.clone()], known);
    assert_eq!(told, ToldApart { own: Some(own), copies: vec![ServerId(2)] });
}

#[test]
fn a_copy_is_told_and_nothing_is_done_about_it() {
    let wanted = wanted();
    let mut observed = ready(&wanted);
    observed.copies = vec![ServerId(5)];
    let plan = plan_of(&wanted, &observed);
    assert_eq!(plan.steps, []);
    let told =
        plan.verdicts.iter().find(|verdict| verdict.reason == Reason::DuplicateServer).unwrap();
    assert!(told.message.contains("server 5"), "{}", told.message);
}
