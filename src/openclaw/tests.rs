use std::collections::BTreeMap;

use moorage_wire::{CredentialName, CredentialType};
use proptest::prelude::*;
use rstest::rstest;
use serde_json::{Map, Value, json};

use super::{Named, RenderInput, check, render};
use crate::api::conditions::Reason;

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => panic!("not an object"),
    }
}

fn refusals(config: Value) -> Vec<(String, Reason)> {
    let refused = check(&object(config), Named::NONE).err().unwrap_or_default();
    refused.into_iter().map(|refusal| (refusal.path.clone(), refusal.reason())).collect()
}

fn stored(credentials: &[(&str, CredentialType)]) -> BTreeMap<CredentialName, CredentialType> {
    credentials.iter().map(|(name, kind)| (name.parse().unwrap(), *kind)).collect()
}

fn rendered(config: Value, credentials: &[(&str, CredentialType)]) -> Value {
    let (config, credentials) = (object(config), stored(credentials));
    render(&RenderInput {
        config: &config,
        dashboard_url: "https://ada.example.com",
        credentials: &credentials,
    })
}

#[rstest]
#[case(json!({"gateway": {"bind": "lan"}}), "spec.config.gateway.bind", Reason::ReservedConfigKey)]
#[case(json!({"secrets": {"providers": {}}}), "spec.config.secrets", Reason::ReservedConfigKey)]
#[case(json!({"plugins": {"load": {"paths": ["/x"]}}}), "spec.config.plugins.load", Reason::ReservedConfigKey)]
#[case(json!({"channels": {"telegram": {"botToken": "x"}}}), "spec.config.channels.telegram.botToken", Reason::LiteralSecret)]
#[case(json!({"models": {"providers": {"anthropic": {"apiKey": "anything"}}}}), "spec.config.models.providers.anthropic.apiKey", Reason::LiteralSecret)]
#[case(json!({"agents": {"notes": ["call with sk-ant-api03-abcdefghijklmnopqrstuv"]}}), "spec.config.agents.notes[0]", Reason::LiteralSecret)]
#[case(json!({"models": {"providers": {"a": {"apiKey": {"source": "env", "provider": "default", "id": "PATH"}}}}}), "spec.config.models.providers.a.apiKey", Reason::KeyReference)]
fn what_a_customer_may_not_set_is_refused_with_its_path(
    #[case] config: Value,
    #[case] path: &str,
    #[case] reason: Reason,
) {
    assert!(
        refusals(config.clone()).iter().any(|(at, why)| at == path && *why == reason),
        "{config}"
    );
}

#[test]
fn an_ordinary_configuration_is_not_refused() {
    let config = json!({
        "agents": {"defaults": {"model": {"primary": "anthropic/claude-sonnet-4-5"}, "maxTokens": 4096}},
        "channels": {"telegram": {"enabled": true, "dmPolicy": "pairing"}},
        "tools": {"exec": {"security": "allowlist"}},
    });
    assert_eq!(refusals(config), []);
}

#[test]
fn the_document_of_a_typical_instance() {
    let config = json!({
        "agents": {"defaults": {"model": {"primary": "anthropic/claude-sonnet-4-5"}}},
        "channels": {"telegram": {"enabled": true}, "discord": {"enabled": true}},
    });
    let credentials = [
        ("anthropic", CredentialType::AnthropicApiKey),
        ("telegram", CredentialType::TelegramBotToken),
    ];
    insta::assert_json_snapshot!(rendered(config, &credentials));
}

#[test]
fn a_customers_choice_beats_defaults_but_not_enforced_keys() {
    let config =
        json!({"tools": {"exec": {"security": "full"}}, "gateway": {"bind": "lan", "port": 1}});
    let document = rendered(config, &[]);
    assert_eq!(document["tools"]["exec"]["security"], "full");
    assert_eq!(document["gateway"]["bind"], "loopback");
    assert_eq!(document["gateway"]["port"], 18789);
}

#[test]
fn a_channel_without_its_secret_is_off_until_it_is_delivered() {
    let config = json!({"channels": {"telegram": {"enabled": true}}});
    assert_eq!(rendered(config.clone(), &[])["channels"]["telegram"]["enabled"], false);
    let delivered = [("bot", CredentialType::TelegramBotToken)];
    assert_eq!(rendered(config, &delivered)["channels"]["telegram"]["enabled"], true);
}

fn json_tree() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        "[ -~]{0,12}".prop_map(Value::from)
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::hash_map("[a-z]{1,8}", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn a_known_key_is_found_at_any_depth_and_never_repeated(
        tree in json_tree(),
        depth in prop::collection::vec("[a-z]{1,8}", 1..6),
    ) {
        let key = "sk-ant-api03-thiskeymustneverbeshown0";
        let nested = depth.iter().rev().fold(json!(key), |inner, name| json!({ (name.as_str()): inner }));
        let mut config = Map::from_iter([("other".to_owned(), tree)]);
        config.extend(object(nested));
        let refused = check(&config, Named::NONE).unwrap_err();
        prop_assert!(refused.iter().any(|refusal| refusal.reason() == Reason::LiteralSecret));
        let told: String = refused.iter().map(ToString::to_string).collect();
        prop_assert!(!told.contains("thiskeymustneverbeshown"));
    }

    #[test]
    fn rendering_keeps_all_that_is_not_enforced(tree in json_tree()) {
        let document = rendered(json!({"custom": tree.clone()}), &[]);
        prop_assert_eq!(&document["custom"], &tree);
    }

    #[test]
    fn rendering_is_deterministic(tree in json_tree()) {
        let config = json!({"custom": tree});
        prop_assert_eq!(rendered(config.clone(), &[]).to_string(), rendered(config, &[]).to_string());
    }
}
