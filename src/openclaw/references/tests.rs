//! References to credentials: where they may stand, what they become, and what is said of the others.

use std::collections::{BTreeMap, BTreeSet};

use moorage_wire::{CredentialName, CredentialType};
use rstest::rstest;
use serde_json::{Map, Value, json};

use crate::{
    api::conditions::Reason,
    openclaw::{Named, RenderInput, check, keys::tests::SURFACES, render, told},
};

type Types = BTreeMap<CredentialName, CredentialType>;

fn types(credentials: &[(&str, CredentialType)]) -> Types {
    credentials.iter().map(|(name, kind)| (name.parse().unwrap(), *kind)).collect()
}

fn object(config: Value) -> Map<String, Value> {
    let Value::Object(map) = config else { panic!("{config} is no object") };
    map
}

/// What is said of a configuration in a spec with these credentials; nothing if it is taken.
fn refused(config: Value, types: &Types) -> Option<(Reason, String)> {
    let all: BTreeSet<_> = types.keys().cloned().collect();
    let refusals = check(&object(config), Named { all: &all, types }).err()?;
    Some((refusals[0].reason(), told(&refusals)))
}

fn rendered(config: Value, stored: &Types) -> Value {
    let config = object(config);
    let dashboard_url = "https://ada.example.com";
    render(&RenderInput { config: &config, dashboard_url, credentials: stored })
}

fn stored(name: &str) -> Value {
    json!({"source": "file", "provider": "moorage", "id": format!("/{name}")})
}

fn nested(path: &str, leaf: Value) -> Value {
    path.rsplit('.')
        .fold(leaf, |inner, key| json!({ (if key == "*" { "one" } else { key }): inner }))
}

#[test]
fn a_credential_stands_wherever_openclaw_takes_one() {
    let brave = types(&[("brave", CredentialType::ProviderApiKey)]);
    for surface in SURFACES.lines() {
        let config = nested(surface, json!({"credentialRef": "brave"}));
        assert_eq!(refused(config.clone(), &brave), None, "{surface}");
        let document = rendered(config, &brave);
        let pointer = format!("/{}", surface.replace('*', "one").replace('.', "/"));
        assert_eq!(document.pointer(&pointer), Some(&stored("brave")), "{surface}");
        assert_eq!(
            document.pointer("/models/providers/brave"),
            None,
            "its type's place is not meant"
        );
    }
}

#[test]
fn a_provider_may_have_a_name_that_no_credential_has() {
    let key = types(&[("my-proxy", CredentialType::ProviderApiKey)]);
    let reference = json!({"credentialRef": "my-proxy"});
    let config = json!({"models": {"providers": {"my_proxy": {"apiKey": reference}}}});
    let document = rendered(config, &key);
    let providers = document["models"]["providers"].as_object().unwrap();
    assert_eq!(providers.len(), 1);
    assert_eq!(providers["my_proxy"]["apiKey"], stored("my-proxy"));
}

fn two_bots(main: &Value, work: &Value) -> Value {
    json!({"channels": {"telegram": {"enabled": true, "accounts": {
        "default": {"dmPolicy": "pairing", "botToken": main},
        "work": {"dmPolicy": "allowlist", "botToken": work},
    }}}})
}

#[test]
fn two_bots_each_have_their_token() {
    let bot = CredentialType::TelegramBotToken;
    let (main, work) = (json!({"credentialRef": "main"}), json!({"credentialRef": "work"}));
    let both = types(&[("main", bot), ("work", bot)]);
    assert_eq!(refused(two_bots(&main, &work), &both), None);
    let telegram = rendered(two_bots(&main, &work), &both)["channels"]["telegram"].clone();
    assert_eq!(telegram["accounts"]["default"]["botToken"], stored("main"));
    assert_eq!(telegram["accounts"]["work"]["botToken"], stored("work"));
    assert_eq!(telegram.get("botToken"), None);
}

#[test]
fn an_account_without_its_token_is_off_until_it_comes() {
    let (main, work) = (json!({"credentialRef": "main"}), json!({"credentialRef": "work"}));
    let delivered = types(&[("main", CredentialType::TelegramBotToken)]);
    let telegram = rendered(two_bots(&main, &work), &delivered)["channels"]["telegram"].clone();
    assert_eq!(telegram["enabled"], true);
    assert_eq!(telegram["accounts"]["default"].get("enabled"), None);
    assert_eq!(telegram["accounts"]["work"], json!({"dmPolicy": "allowlist", "enabled": false}));
}

#[test]
fn a_search_key_that_is_not_delivered_yet_leaves_no_trace() {
    let search = |leaf| json!({"plugins": {"entries": {"brave": {"config": {"webSearch": leaf}}}}});
    let config = search(json!({"apiKey": {"credentialRef": "brave"}, "mode": "llm"}));
    let document = rendered(config, &Types::new());
    assert_eq!(document["plugins"], search(json!({"mode": "llm"}))["plugins"]);
}

#[rstest]
#[case::two_of_a_type(&[("main", CredentialType::TelegramBotToken), ("work", CredentialType::TelegramBotToken)], json!({}), "spec.config.channels.telegram.botToken")]
#[case::a_type_and_a_name(&[("key", CredentialType::AnthropicApiKey), ("anthropic", CredentialType::ProviderApiKey)], json!({}), "spec.config.models.providers.anthropic.apiKey")]
#[case::a_type_and_a_reference(
    &[("main", CredentialType::TelegramBotToken), ("other", CredentialType::ProviderApiKey)],
    json!({"channels": {"telegram": {"botToken": {"credentialRef": "other"}}}}),
    "spec.config.channels.telegram.botToken"
)]
fn two_credentials_for_one_place_are_refused(
    #[case] credentials: &[(&str, CredentialType)],
    #[case] config: Value,
    #[case] place: &str,
) {
    let (reason, told) = refused(config, &types(credentials)).unwrap();
    assert_eq!(reason, Reason::ContestedPlace);
    assert!(told.starts_with(&format!("{place} is the place of several")), "{told}");
    for (name, _) in credentials {
        assert!(told.contains(name), "{told}");
    }
}

#[rstest]
#[case::of_no_credential("models.providers.a.apiKey", json!({"credentialRef": "other"}), "does not have")]
#[case::that_is_no_name("models.providers.a.apiKey", json!({"credentialRef": "Hunter2!"}), "write exactly")]
#[case::with_more("models.providers.a.apiKey", json!({"credentialRef": "key", "id": 1}), "write exactly")]
#[case::in_a_header("mcp.servers.a.headers.Authorization", json!({"credentialRef": "key"}), "no credential can be given")]
#[case::where_only_text_is_taken("hooks.token", json!({"credentialRef": "key"}), "no credential can be given")]
#[case::to_a_variable("models.providers.a.apiKey", json!("${KEY}"), "write {credentialRef: NAME}")]
#[case::to_a_variable_in_a_text("hooks.token", json!("${KEY}"), "no credential can be given")]
fn a_reference_that_leads_nowhere_is_refused(
    #[case] place: &str,
    #[case] reference: Value,
    #[case] why: &str,
) {
    let named = types(&[("key", CredentialType::ProviderApiKey)]);
    let (reason, told) = refused(nested(place, reference), &named).unwrap();
    assert_eq!(reason, Reason::KeyReference);
    assert!(told.starts_with(&format!("spec.config.{place} ")) && told.contains(why), "{told}");
    assert!(!told.contains("other:") && !told.contains("Hunter2"), "{told}");
}

#[test]
fn whoever_writes_a_key_where_only_text_is_taken_is_told_so() {
    let (reason, told) =
        refused(json!({"hooks": {"token": "not-a-real-value"}}), &Types::new()).unwrap();
    assert_eq!(reason, Reason::LiteralSecret);
    assert!(told.contains("OpenClaw takes no reference there"), "{told}");
}

#[rstest]
#[case("http.endpoints.chatCompletions.enabled", json!(true))]
#[case("nodes.commands.deny", json!(["camera.snap"]))]
#[case("auth.rateLimit.maxAttempts", json!(5))]
#[case("controlUi.environment.label", json!("Ada"))]
#[case("tools.deny", json!(["exec"]))]
fn harmless_settings_of_the_gateway_are_taken(#[case] leaf: &str, #[case] value: Value) {
    let config = nested(&format!("gateway.{leaf}"), value.clone());
    assert_eq!(refused(config.clone(), &Types::new()), None);
    let pointer = format!("/gateway/{}", leaf.replace('.', "/"));
    assert_eq!(rendered(config, &Types::new()).pointer(&pointer), Some(&value));
}

#[rstest]
#[case("bind", json!("lan"), "loopback")]
#[case("auth.mode", json!("none"), "token")]
#[case("auth.rateLimit.exemptLoopback", json!(true), "token")]
#[case("trustedProxies", json!(["0.0.0.0/0"]), "connector")]
#[case("terminal.enabled", json!(true), "shell")]
#[case("controlUi.basePath", json!("/claw"), "root of the dashboard")]
#[case("controlUi.allowedOrigins", json!(["*"]), "address alone")]
#[case("nodes.pairing.autoApproveCidrs", json!(["0.0.0.0/0"]), "unseen")]
#[case("tools.allow", json!(["exec"]), "default")]
#[case("tailscale.mode", json!("funnel"), "only way in")]
#[case("nodes", json!([]), "unseen")]
fn the_rest_of_the_gateway_is_refused_with_what_it_is_set_to(
    #[case] leaf: &str,
    #[case] value: Value,
    #[case] why: &str,
) {
    let config = nested(&format!("gateway.{leaf}"), value);
    let (reason, told) = refused(config, &Types::new()).unwrap();
    assert_eq!(reason, Reason::ReservedConfigKey);
    assert!(told.starts_with("spec.config.gateway.") && told.contains(why), "{told}");
}
