//! Handing over values, and deleting the Secrets that held them.

use rstest::rstest;

use crate::{
    api::{conditions::Reason, instance::CredentialStatus},
    credentials::refusal::Refusal,
    instance::{
        Observed, Step, Wanted,
        credentials::CredentialStep,
        credentials::{Delivery, delivery},
        fixtures::{
            self, SECRET, before, envelope, kinds, name, nothing, plan_of, status_of, walk, wanted,
        },
    },
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

/// A Secret that came after everything was delivered.
const LATER: &str = "2026-09-02T00:00:00Z";

fn asking() -> Wanted {
    wanted().with_two_credentials()
}

/// Both values stored and receipted, the Secret gone.
fn delivered() -> Observed {
    walk(&asking(), nothing().with_both_values(), |_| false)
        .without_secret(&["anthropic", "telegram"])
}

fn of_first(observed: &Observed) -> Delivery {
    delivery(&asking().credentials[0], observed, observed.view())
}

fn condition(wanted: &Wanted, observed: &Observed) -> Condition {
    let status = status_of(wanted, observed);
    status.conditions.into_iter().find(|known| known.type_ == "CredentialsDelivered").unwrap()
}

fn record<'a>(observed: &'a mut Observed, credential: &str) -> &'a mut CredentialStatus {
    observed.status.credentials.iter_mut().find(|known| known.name == credential).unwrap()
}

fn not_found() -> Refusal {
    Refusal::NotFound { secret: SECRET.to_owned() }
}

fn plaintext() -> Refusal {
    Refusal::Plaintext { place: format!("Key anthropic of Secret {SECRET}") }
}

#[rstest]
#[case::stored_and_the_secret_gone(delivered(), Delivery::Delivered)]
#[case::stored_and_handed_in_again(delivered().with_both_values(), Delivery::Delivered)]
#[case::a_new_value(delivered().with_secret(LATER, &[("anthropic", 9)]), Delivery::Due)]
#[case::an_older_value_after_a_newer_one(
    walk(&asking(), delivered().with_secret(LATER, &[("anthropic", 9), ("telegram", 2)]), |_| false).with_both_values(),
    Delivery::Delivered
)]
#[case::a_key_in_the_clear(delivered().with_refusal("anthropic", &plaintext()), Delivery::Refused(plaintext()))]
#[case::erased_on_the_server_and_its_value_comes_back(
    delivered().with_both_values().with_view(|view| view.report.receipts.clear()),
    Delivery::Again
)]
#[case::lost_with_its_server(
    delivered().with_view(|view| { view.report.receipts.clear(); view.report.consumed.clear(); }),
    Delivery::Again
)]
#[case::never_handed_in(
    before(&asking(), |step| *step == Step::Credentials(CredentialStep::DeliverGatewayToken)).with_refusal("anthropic", &not_found()),
    Delivery::Refused(not_found())
)]
fn a_credential_is_as_the_agent_and_the_cluster_say(
    #[case] observed: Observed,
    #[case] expected: Delivery,
) {
    assert_eq!(of_first(&observed), expected);
}

#[test]
fn a_value_that_the_agent_refuses_is_not_sent_twice_in_one_pass() {
    let mut observed = delivered().with_secret(LATER, &[("anthropic", 9)]);
    observed.agent_refused.insert(name("anthropic"), "not a key of Anthropic".to_owned());
    assert_eq!(of_first(&observed), Delivery::RefusedByAgent("not a key of Anthropic".to_owned()));
    assert_eq!(plan_of(&asking(), &observed).steps, []);
    let condition = condition(&asking(), &observed);
    assert_eq!(condition.reason, Reason::AgentRefused);
    assert!(
        condition.message.contains("anthropic: not a key of Anthropic"),
        "{}",
        condition.message
    );
}

#[test]
fn a_value_that_is_due_is_not_called_delivered() {
    let observed = delivered().with_secret(LATER, &[("anthropic", 9), ("telegram", 2)]);
    assert_eq!(kinds(&plan_of(&asking(), &observed)), ["DeliverCredential"]);
    let condition = condition(&asking(), &observed);
    assert_eq!(
        (condition.status.as_str(), condition.reason.as_str()),
        ("False", Reason::Progressing.as_str())
    );
}

#[test]
fn a_secret_goes_once_every_value_is_receipted() {
    let at_deletion = walk(&asking(), nothing().with_both_values(), |step| {
        matches!(step, Step::Credentials(CredentialStep::DeleteSecret { .. }))
    });
    assert_eq!(at_deletion.status.credentials.len(), 2);
    for missing in 0..2 {
        let mut observed = walk(&asking(), nothing().with_both_values(), |step| {
            matches!(step, Step::Credentials(CredentialStep::DeleteSecret { .. }))
        });
        observed.status.credentials.remove(missing);
        assert!(
            !kinds(&plan_of(&asking(), &observed)).contains(&"DeleteSecret"),
            "the agent's word alone is not enough"
        );
    }
}

#[test]
fn a_secret_stays_when_the_agent_refuses_its_value_now() {
    let mut observed = delivered().with_both_values().with_view(|view| {
        view.report.receipts.retain(|known| known.credential != name("anthropic"));
        view.report.consumed.retain(|known| known.credential != name("anthropic"));
    });
    assert_eq!(kinds(&plan_of(&asking(), &observed)), ["DeliverCredential"]);
    observed.agent_refused.insert(name("anthropic"), "not a key of Anthropic".to_owned());
    assert!(!kinds(&plan_of(&asking(), &observed)).contains(&"DeleteSecret"));
}

#[test]
fn a_record_of_an_earlier_server_is_no_receipt() {
    let mut observed = delivered().with_both_values();
    record(&mut observed, "telegram").epoch = fixtures::SECOND_EPOCH.to_string();
    assert!(!kinds(&plan_of(&asking(), &observed)).contains(&"DeleteSecret"));
}

#[test]
fn a_record_of_another_ciphertext_is_no_receipt() {
    let mut observed = delivered().with_both_values();
    record(&mut observed, "telegram").ciphertext_sha256 = envelope(77).sha256().to_string();
    observed.view_mut().report.consumed.retain(|known| known.credential != name("telegram"));
    assert!(!kinds(&plan_of(&asking(), &observed)).contains(&"DeleteSecret"));
}

#[test]
fn the_deletion_names_the_exact_object_that_was_read() {
    let observed = delivered().with_both_values();
    let plan = plan_of(&asking(), &observed);
    let [Step::Credentials(CredentialStep::DeleteSecret { name, version, recreated })] =
        &plan.steps[..]
    else {
        panic!("{:?}", plan.steps)
    };
    assert_eq!(
        (name.as_str(), version.uid.as_str(), version.resource_version.as_str()),
        (SECRET, "uid of 2026-09-01T11:30:00Z", "7")
    );
    assert_eq!(recreated, &[], "it is older than the delivery");
}

#[test]
fn a_key_that_no_credential_names_keeps_the_secret() {
    let mut observed = delivered().with_both_values();
    observed.bundles[0].unused =
        Some(Refusal::UnusedKey { secret: SECRET.to_owned(), keys: vec!["spare".to_owned()] });
    assert_eq!(plan_of(&asking(), &observed).steps, []);
    let condition = condition(&asking(), &observed);
    assert_eq!(
        (condition.status.as_str(), condition.reason.as_str()),
        ("False", Reason::UnusedKey.as_str())
    );
    assert!(condition.message.contains("spare"), "{}", condition.message);
}

#[test]
fn one_wrong_value_keeps_the_secret_and_does_not_stop_the_other() {
    let observed = nothing().with_both_values().with_refusal("anthropic", &plaintext());
    let end = walk(&asking(), observed, |_| false);
    assert_eq!(
        end.status.credentials.iter().map(|known| known.name.as_str()).collect::<Vec<_>>(),
        ["telegram"]
    );
    assert_eq!(end.bundles.len(), 1);
    assert_eq!(condition(&asking(), &end).reason, "NotSealed");
}

#[test]
fn a_secret_that_comes_back_is_left_alone_the_third_time() {
    let mut observed = delivered();
    for times in 1..=2 {
        observed = walk(
            &asking(),
            observed.with_secret(LATER, &[("anthropic", 1), ("telegram", 2)]),
            |_| false,
        );
        assert_eq!(observed.bundles.len(), 0, "deleted again");
        assert_eq!(record(&mut observed, "anthropic").recreated, times);
    }
    let observed = observed.with_secret(LATER, &[("anthropic", 1), ("telegram", 2)]);
    assert_eq!(plan_of(&asking(), &observed).steps, []);
    let condition = condition(&asking(), &observed);
    assert_eq!(
        (condition.status.as_str(), condition.reason.as_str()),
        ("True", Reason::RecreatedBySource.as_str())
    );
    assert!(condition.message.contains(SECRET), "{}", condition.message);
}

#[test]
fn a_replaced_ciphertext_resets_the_count() {
    let mut observed = walk(
        &asking(),
        delivered().with_secret(LATER, &[("anthropic", 1), ("telegram", 2)]),
        |_| false,
    );
    assert_eq!(record(&mut observed, "anthropic").recreated, 1);
    let observed = observed
        .at("2026-09-03T00:00:00Z")
        .with_secret("2026-09-02T12:00:00Z", &[("anthropic", 9), ("telegram", 2)]);
    assert!(
        plan_of(&asking(), &observed)
            .steps
            .contains(&Step::Credentials(CredentialStep::Deliver(name("anthropic"))))
    );
    let mut end = walk(&asking(), observed, |_| false);
    let known = record(&mut end, "anthropic");
    assert_eq!(known.recreated, 0);
    assert_eq!(known.ciphertext_sha256, envelope(9).sha256().to_string());
    assert_eq!(known.delivered_at, "2026-09-03T00:00:00Z");
    assert_eq!(end.bundles.len(), 0);
}

#[test]
fn a_record_keeps_the_date_of_the_delivery() {
    let wanted = asking();
    let before = delivered();
    let later = status_of(&wanted, &delivered().at("2026-10-01T00:00:00Z"));
    assert_eq!(later.credentials, before.status.credentials);
}

#[test]
fn the_record_of_a_credential_that_is_no_longer_asked_for_goes() {
    let wanted =
        wanted().with_credential("anthropic", moorage_wire::CredentialType::AnthropicApiKey);
    let status = status_of(&wanted, &delivered());
    assert_eq!(
        status.credentials.iter().map(|known| known.name.as_str()).collect::<Vec<_>>(),
        ["anthropic"]
    );
}

#[test]
fn the_gateway_token_is_delivered_again_when_it_has_changed() {
    let mut observed = delivered();
    let own = observed.own_tokens.as_mut().unwrap();
    own.gateway = moorage_wire::Sha256::of(b"rotated");
    assert_eq!(kinds(&plan_of(&asking(), &observed)), ["DeliverGatewayToken"]);
}
