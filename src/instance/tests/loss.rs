//! Servers that are gone: by accident, many at once, or on purpose.

use rstest::rstest;

use crate::{
    api::{
        conditions::{ConditionType, Reason},
        instance::Phase,
    },
    instance::{
        Observed, Step,
        fixtures::{SECOND_EPOCH, kinds, plan_of, ready, status_of, walk, wanted},
        observed::{Disappearance, ServerState},
        placeholders,
        server::ServerStep,
    },
};

#[test]
fn a_lost_server_is_recreated_behind_the_same_tunnel() {
    let wanted = wanted();
    let observed = ready(&wanted).with_lost_server();
    assert_eq!(
        plan_of(&wanted, &observed).steps,
        [Step::Server(ServerStep::RecordEpoch(SECOND_EPOCH))]
    );

    let at_creation = walk(&wanted, observed, |step| *step == Step::Server(ServerStep::Create));
    assert_eq!(at_creation.epoch, Some(SECOND_EPOCH));
    assert_eq!(
        at_creation.tunnel_memory.bootstrapped,
        Some(SECOND_EPOCH),
        "the tunnel takes the token of user-data"
    );
    let end = walk(&wanted, at_creation, |_| false);
    assert_eq!(status_of(&wanted, &end).phase, Some(Phase::Ready));
}

#[test]
fn a_new_server_says_which_keys_have_to_be_sealed_again() {
    let wanted = wanted().with_two_credentials();
    let observed =
        walk(&wanted, crate::instance::fixtures::nothing().with_both_values(), |_| false);
    let observed = observed.with_lost_server().without_secret(&["anthropic", "telegram"]);
    let end = walk(&wanted, observed, |_| false);
    let status = status_of(&wanted, &end);
    let condition =
        status.conditions.iter().find(|known| known.type_ == "CredentialsDelivered").unwrap();
    assert_eq!(condition.reason, Reason::RedeliveryRequired);
    assert!(condition.message.contains("anthropic, telegram"), "{}", condition.message);
    assert_eq!(status.phase, Some(Phase::Stalled));
}

#[rstest]
#[case::one(1, 5, false)]
#[case::three_of_three(3, 3, false)]
#[case::four_of_four(4, 4, true)]
#[case::four_of_thirty_nine(4, 39, true)]
#[case::exactly_a_tenth(4, 40, false)]
#[case::more_than_a_tenth(5, 40, true)]
#[case::all_of_many(1000, 1000, true)]
fn many_at_once_are_more_than_three_and_more_than_a_tenth(
    #[case] missing: usize,
    #[case] total: usize,
    #[case] mass: bool,
) {
    assert_eq!(Disappearance { missing, total }.is_mass(), mass);
}

#[test]
fn after_a_mass_disappearance_nothing_is_made_unaccepted() {
    let wanted = wanted();
    let disappearance = Disappearance { missing: 8, total: 10 };
    let observed = Observed { disappearance, ..ready(&wanted).with_lost_server() };
    assert_eq!(plan_of(&wanted, &observed).steps, []);
    let status = status_of(&wanted, &observed);
    assert_eq!(status.phase, Some(Phase::Stalled));
    let condition = status.conditions.iter().find(|known| known.type_ == "ServerReady").unwrap();
    assert_eq!(condition.reason, Reason::MassDisappearance);
    assert!(
        condition.message.contains("moorage.dev/accept-missing-servers=8"),
        "{}",
        condition.message
    );
    assert_eq!(
        status.server.and_then(|server| server.id),
        Some(u64::MAX),
        "the lost server still counts as missing"
    );

    let accepted = Observed { accepted_loss: true, ..observed };
    assert_eq!(
        plan_of(&wanted, &accepted).steps,
        [Step::Server(ServerStep::RecordEpoch(SECOND_EPOCH))]
    );
}

#[test]
fn a_mass_disappearance_does_not_disturb_a_server_that_is_there() {
    let wanted = wanted();
    let observed =
        Observed { disappearance: Disappearance { missing: 8, total: 10 }, ..ready(&wanted) };
    assert_eq!(plan_of(&wanted, &observed).steps, []);
    assert_eq!(status_of(&wanted, &observed).phase, Some(Phase::Ready));
}

#[test]
fn a_rebuild_waits_while_much_is_missing() {
    let unasked = wanted();
    let present = ready(&unasked);
    let id = present.server.present().unwrap().id;
    let wanted = unasked.clone().with_rebuild_of(id.0);
    let disappearance = Disappearance { missing: 8, total: 10 };
    for epoch in [present.epoch, None] {
        let observed = Observed { epoch, disappearance, ..ready(&unasked) };
        assert_eq!(plan_of(&wanted, &observed).steps, []);
    }
    let observed = Observed { disappearance, ..ready(&unasked) };
    let plan = plan_of(&wanted, &observed);
    let told = plan.verdicts.iter().find(|told| told.reason == Reason::MassDisappearance);
    assert!(told.unwrap().message.contains("8 of the pool's 10 servers"), "{told:?}");
    let ready = plan.verdicts.iter().find(|told| told.kind == ConditionType::ServerReady);
    assert_eq!(ready.unwrap().reason, Reason::Ready, "the server is looked after meanwhile");
    let accepted = Observed { accepted_loss: true, ..observed };
    assert_eq!(plan_of(&wanted, &accepted).steps, [Step::Server(ServerStep::Delete(id))]);
}

#[test]
fn a_second_rebuild_waits_and_the_server_is_served() {
    let mut observed = ready(&wanted());
    let id = observed.server.present().unwrap().id;
    let asked = wanted().with_rebuild_of(id.0);
    assert_eq!(kinds(&plan_of(&asked, &observed)), ["DeleteServer"], "the first one is at once");

    let minutes = |minutes| jiff::SignedDuration::from_mins(minutes);
    let replaced_at = (observed.now - minutes(9)).to_string();
    observed.status.server.get_or_insert_default().replaced_at = Some(replaced_at);
    let plan = plan_of(&asked, &observed);
    assert_eq!(kinds(&plan), [""; 0]);
    assert!(
        plan.requeue_after
            .is_some_and(|requeue_after| requeue_after <= std::time::Duration::from_mins(1))
    );
    let told = plan.verdicts.iter().find(|verdict| verdict.reason == Reason::RebuildTooSoon);
    let end = (observed.now + minutes(1)).to_string();
    assert!(told.unwrap().message.contains(&end), "{told:?}");

    observed.now += minutes(2);
    assert_eq!(kinds(&plan_of(&asked, &observed)), ["DeleteServer"]);
}

#[test]
fn a_rebuild_deletes_the_named_server_and_nothing_else() {
    let plain = wanted();
    let observed = ready(&plain);
    let id = observed.server.present().unwrap().id;
    let steps = plan_of(&plain.clone().with_rebuild_of(id.0), &observed).steps;
    assert_eq!(steps, [Step::Server(ServerStep::Delete(id))]);
    let other = plain.with_rebuild_of(id.0 - 1);
    assert_eq!(plan_of(&other, &observed).steps, []);
}

#[test]
fn a_rebuild_ends_when_the_named_server_is_gone() {
    let plain = wanted();
    let mut observed = ready(&plain);
    let mut old = placeholders::new_server(&plain, observed.epoch);
    old.id = crate::hetzner::ServerId(4711);
    observed.server = ServerState::Present(Box::new(old));
    let wanted = plain.with_rebuild_of(4711);
    let end = walk(&wanted, observed, |_| false);
    assert_eq!(end.epoch, Some(SECOND_EPOCH));
    assert_eq!(
        status_of(&wanted, &end).phase,
        Some(Phase::Ready),
        "the annotation that still stands does nothing"
    );
}

#[test]
fn a_server_without_an_epoch_is_not_touched() {
    let wanted = wanted();
    let observed = Observed { epoch: None, ..ready(&wanted) };
    let observed = Observed { status: crate::api::OpenClawInstanceStatus::default(), ..observed };
    assert_eq!(plan_of(&wanted, &observed).steps, []);
    assert_eq!(status_of(&wanted, &observed).phase, Some(Phase::Stalled));
}

#[test]
fn without_randomness_no_server_is_made() {
    let wanted = wanted();
    let observed = Observed { fresh_epoch: None, ..ready(&wanted).with_lost_server() };
    assert_eq!(kinds(&plan_of(&wanted, &observed)), <[&str; 0]>::default());
}
