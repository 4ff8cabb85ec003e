//! A customer's keys on their way: delivered once, rotated, removed, replayed; and what is refused.

use std::os::unix::fs::PermissionsExt as _;

use serde_json::{Value, json};

use crate::tenant::{ANTHROPIC_KEY, Tenant, is};

const OTHER_KEY: &str = "sk-ant-api03-another-key-of-a-test-that-opens-nothing-98765";
const TELEGRAM_TOKEN: &str = "123456789:AAtesttokentesttokentesttoken";

fn from_secret(name: &str, kind: &str, secret: &str) -> Value {
    json!({"name": name, "type": kind, "secretRef": {"name": secret, "key": name}})
}

/// An instance with one Anthropic key that was delivered from the Secret `keys`; gives the ciphertext.
async fn delivered(tenant: &Tenant) -> (Value, String) {
    let sealed = tenant.seal("keys", ANTHROPIC_KEY).await;
    tenant.apply_secret("keys", "ada", &[("anthropic", &sealed)]).await;
    let credentials = json!([from_secret("anthropic", "AnthropicApiKey", "keys")]);
    tenant.apply_instance("ada", json!({"credentials": credentials})).await;
    let ada = tenant.until_ready("ada").await;
    tenant.until_secret_gone("keys").await;
    (ada, sealed)
}

async fn until_on_disk(tenant: &Tenant, ada: &Value, name: &str, wanted: Option<&str>) {
    tenant
        .eventually(&format!("{name} on the disk is {}", wanted.is_some()), || async {
            let keys = tenant.keys_on_disk(ada);
            if keys[name].as_str() == wanted { Ok(()) } else { Err("another value".to_owned()) }
        })
        .await;
}

pub(crate) async fn every_type_is_delivered_from_one_secret_which_then_goes(tenant: Tenant) {
    let values = [
        ("anthropic", "AnthropicApiKey", ANTHROPIC_KEY),
        ("openai", "OpenAiApiKey", "sk-proj-of-a-test-0123456789abcdef"),
        ("openrouter", "OpenRouterApiKey", "sk-or-v1-of-a-test-0123456789abcdef"),
        ("gemini", "GeminiApiKey", "AIzaSy-of-a-test-0123456789abcdef0123456"),
        ("telegram", "TelegramBotToken", TELEGRAM_TOKEN),
        (
            "discord",
            "DiscordBotToken",
            "MTIzNDU2Nzg5MDEyMzQ1Njc4.GabcdE.of-a-test-0123456789abcdef012345",
        ),
        ("slack-bot", "SlackBotToken", "xoxb-1234567890-test"),
        ("slack-app", "SlackAppToken", "xapp-1234567890-test"),
        ("slack-signing", "SlackSigningSecret", "0123456789abcdef0123456789abcdef"),
        (
            "google",
            "GoogleOAuthClient",
            r#"{"installed":{"client_id":"id","client_secret":"of a test"}}"#,
        ),
        ("mistral", "ProviderApiKey", "a-key-of-some-provider"),
        ("brave", "ProviderApiKey", "a-key-of-a-search"),
        ("work-bot", "TelegramBotToken", "7654321:of-a-test-0123456789abcdefghij"),
    ];
    // Where no type says that it belongs, it is referred to.
    let config = json!({
        "plugins": {"entries": {"brave": {"config": {"webSearch": {"apiKey": {"credentialRef": "brave"}}}}}},
        "channels": {"telegram": {"accounts": {"work": {"botToken": {"credentialRef": "work-bot"}}}}},
    });
    let mut sealed = Vec::new();
    for (name, _, value) in values {
        sealed.push((name, tenant.seal("keys", value).await));
    }
    let data: Vec<_> = sealed.iter().map(|(name, value)| (*name, value.as_str())).collect();
    tenant.apply_secret("keys", "ada", &data).await;
    let credentials: Vec<_> =
        values.iter().map(|(name, kind, _)| from_secret(name, kind, "keys")).collect();
    tenant.apply_instance("ada", json!({"config": config, "credentials": credentials})).await;
    let ada = tenant.until_ready("ada").await;
    tenant.until_secret_gone("keys").await;

    let keys = tenant.keys_on_disk(&ada);
    let config = tenant.openclaw_config(&ada);
    for (place, id) in [
        ("/plugins/entries/brave/config/webSearch/apiKey/id", "/brave"),
        ("/channels/telegram/accounts/work/botToken/id", "/work-bot"),
        ("/channels/telegram/botToken/id", "/telegram"),
    ] {
        assert_eq!(config.pointer(place), Some(&json!(id)), "{place}");
    }
    let config = config.to_string();
    for (name, kind, value) in values {
        let expected = if kind == "GoogleOAuthClient" { Value::Null } else { json!(value) };
        assert_eq!(keys[name], expected, "{name}");
        assert!(!config.contains(value), "{name} stands in the configuration");
    }
    for file in ["secrets.json", "google-oauth-client.json"] {
        let path = tenant.disk(&ada).join("var/lib/openclaw/credentials").join(file);
        let mode = std::fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
}

pub(crate) async fn whoever_may_make_instances_can_seal_for_them(tenant: Tenant) {
    let folder = tempfile::tempdir().unwrap();
    let kubeconfig = tenant.editor(folder.path()).await;
    let moorage = |options: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_moorage"));
        command.args(options).env("KUBECONFIG", &kubeconfig);
        let output = command.output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.success(), text(output.stdout), text(output.stderr))
    };
    let value = format!("anthropic={ANTHROPIC_KEY}");
    let seal = ["seal", "-n", &tenant.name, "--instance", "ada", "--name", "keys"];
    let seal = [&seal[..], &["--from-literal", &value]].concat();
    // By what is published, and by a pool that an editor may not read.
    for certificate in [&[][..], &["--pool", tenant.name.as_str()]] {
        let (sealed, manifest, words) = moorage(&[&seal[..], certificate].concat());
        assert!(sealed, "{words}");
        let secret: Value = serde_saphyr::from_str(&manifest).unwrap();
        tenant.apply::<k8s_openapi::api::core::v1::Secret>(Some(&tenant.name), secret).await;
    }
    let elsewhere = ["--operator-namespace", "elsewhere"];
    let (sealed, _, words) = moorage(&[&seal[..], &elsewhere].concat());
    assert!(!sealed && words.contains("--cert") && !words.contains('{'), "{words}");
    let (planned, _, words) = moorage(&["status", "-n", "kube-system", "ada"]);
    assert!(!planned && words.contains("You may not read") && !words.contains('{'), "{words}");

    let credentials = json!([from_secret("anthropic", "AnthropicApiKey", "keys")]);
    tenant.apply_instance("ada", json!({"credentials": credentials})).await;
    let ada = tenant.until_ready("ada").await;
    tenant.until_secret_gone("keys").await;
    assert_eq!(tenant.keys_on_disk(&ada)["anthropic"], ANTHROPIC_KEY);
}

pub(crate) async fn a_new_ciphertext_rotates_and_an_old_one_never_returns(tenant: Tenant) {
    let (ada, old) = delivered(&tenant).await;
    let new = tenant.seal("keys", OTHER_KEY).await;
    tenant.apply_secret("keys", "ada", &[("anthropic", &new)]).await;
    tenant.until_secret_gone("keys").await;
    until_on_disk(&tenant, &ada, "anthropic", Some(OTHER_KEY)).await;

    tenant.apply_secret("keys", "ada", &[("anthropic", &old)]).await;
    tenant.until_secret_gone("keys").await;
    assert_eq!(tenant.keys_on_disk(&ada)["anthropic"], OTHER_KEY);
    tenant.until_ready("ada").await;
}

pub(crate) async fn a_secret_that_something_recreates_is_left_alone_in_the_end(tenant: Tenant) {
    let (_, sealed) = delivered(&tenant).await;
    for _ in 0..2 {
        // The API server dates objects by the second.
        tenant.next_second().await;
        tenant.apply_secret("keys", "ada", &[("anthropic", &sealed)]).await;
        tenant.until_secret_gone("keys").await;
    }
    tenant.next_second().await;
    tenant.apply_secret("keys", "ada", &[("anthropic", &sealed)]).await;
    let message = tenant.until_reason("ada", "CredentialsDelivered", "RecreatedBySource").await;
    assert!(message.contains("keys"), "{message}");
    tenant.sweep_passed().await;
    assert!(tenant.secret("keys").await.is_some());
    tenant.until_ready("ada").await;
}

pub(crate) async fn a_credential_can_come_later_and_go_again(tenant: Tenant) {
    let (ada, _) = delivered(&tenant).await;
    let inline = tenant.seal("ada", TELEGRAM_TOKEN).await;
    let credentials = json!([
        from_secret("anthropic", "AnthropicApiKey", "keys"),
        {"name": "telegram", "type": "TelegramBotToken", "sealed": inline},
    ]);
    tenant.apply_instance("ada", json!({"credentials": credentials})).await;
    tenant.until_ready("ada").await;
    until_on_disk(&tenant, &ada, "telegram", Some(TELEGRAM_TOKEN)).await;

    let credentials = json!([{"name": "telegram", "type": "TelegramBotToken", "sealed": inline}]);
    tenant.apply_instance("ada", json!({"credentials": credentials})).await;
    until_on_disk(&tenant, &ada, "anthropic", None).await;
    assert_eq!(tenant.keys_on_disk(&ada)["telegram"], TELEGRAM_TOKEN);
}

pub(crate) async fn a_value_sealed_to_the_agent_passes_through_unread(tenant: Tenant) {
    tenant.apply_instance("ada", json!({})).await;
    let ada = tenant.until_ready("ada").await;
    let certificate = ada["status"]["agent"]["sealingCertificate"].as_str().unwrap();
    // With the line end that `echo` writes.
    let sealed = tenant.seal_to(certificate, "ada", &format!("{ANTHROPIC_KEY}\n"));
    let credential = json!({"name": "anthropic", "type": "AnthropicApiKey", "sealed": sealed, "sealedTo": "Agent"});
    tenant.apply_instance("ada", json!({"credentials": [credential]})).await;
    tenant.until_ready("ada").await;
    until_on_disk(&tenant, &ada, "anthropic", Some(ANTHROPIC_KEY)).await;
}

pub(crate) async fn what_is_handed_in_wrongly_is_refused_kept_and_healed(tenant: Tenant) {
    let right = tenant.seal("keys", ANTHROPIC_KEY).await;
    let elsewhere = tenant.seal("other", ANTHROPIC_KEY).await;
    let malformed = tenant.seal("keys", "not-an-anthropic-key").await;
    let admin = tenant.seal("keys", "sk-ant-admin01-0123456789abcdef0123456789").await;
    // What the API server does not take for plaintext; that is refused before anybody sees it.
    let unsealed = format!("AgA {}", "not sealed ".repeat(60));
    let credentials = json!([from_secret("anthropic", "AnthropicApiKey", "keys")]);
    tenant.apply_instance("ada", json!({"credentials": credentials})).await;
    tenant.until_reason("ada", "CredentialsDelivered", "SecretNotFound").await;
    let cases = [
        ("ada", unsealed.as_str(), "NotSealed"),
        ("ada", elsewhere.as_str(), "CannotUnseal"),
        ("ada", malformed.as_str(), "InvalidFormat"),
        ("ada", admin.as_str(), "InvalidFormat"),
        ("bob", right.as_str(), "SecretNotBound"),
    ];
    for (bound_to, value, reason) in cases {
        tenant.apply_secret("keys", bound_to, &[("anthropic", value)]).await;
        let message = tenant.until_reason("ada", "CredentialsDelivered", reason).await;
        // What a key looks like may be said, never what was in one.
        assert!(!message.contains("opens-nothing") && !message.contains("admin01"), "{message}");
        assert!(tenant.secret("keys").await.is_some(), "{reason}: nothing is deleted");
    }
    tenant.apply_secret("keys", "ada", &[("wrong-key", &right)]).await;
    tenant.until_reason("ada", "CredentialsDelivered", "KeyMissing").await;
    tenant.apply_secret("keys", "ada", &[("anthropic", &right), ("spare", &right)]).await;
    let message = tenant.until_reason("ada", "CredentialsDelivered", "UnusedKey").await;
    assert!(message.contains("spare"), "{message}");
    assert!(tenant.secret("keys").await.is_some());
    tenant
        .until("ada", "the configuration is applied", |ada| is(ada, "ConfigApplied", "True"))
        .await;

    tenant.apply_secret("keys", "ada", &[("anthropic", &right)]).await;
    tenant.until_ready("ada").await;
    tenant.until_secret_gone("keys").await;
    assert!(!tenant.stage.operator_log().contains(ANTHROPIC_KEY));
}

pub(crate) async fn a_replaced_server_asks_for_its_keys_again(tenant: Tenant) {
    let (ada, _) = delivered(&tenant).await;
    let id = ada["status"]["server"]["id"].as_u64().unwrap();
    tenant.stage.simulator.vanish_server(&tenant.name, id).await.unwrap();
    let message = tenant.until_reason("ada", "CredentialsDelivered", "RedeliveryRequired").await;
    assert!(message.contains("anthropic"), "{message}");
    let again = tenant.seal("keys", ANTHROPIC_KEY).await;
    tenant.apply_secret("keys", "ada", &[("anthropic", &again)]).await;
    let ada = tenant.until_ready("ada").await;
    tenant.until_secret_gone("keys").await;
    assert_eq!(tenant.keys_on_disk(&ada)["anthropic"], ANTHROPIC_KEY);
}

pub(crate) async fn a_deleted_instance_takes_its_undelivered_secrets_with_it(tenant: Tenant) {
    tenant.apply_instance("ada", json!({})).await;
    tenant.until_ready("ada").await;
    let sealed = tenant.seal("keys", ANTHROPIC_KEY).await;
    tenant.apply_secret("keys", "ada", &[("anthropic", &sealed)]).await;
    // The label is anybody's to put on anything.
    let (none, basic) = (json!({"password": "p"}), json!({"username": "u", "password": "p"}));
    tenant.make_secret("prod-db", "Opaque", "ada", none).await;
    tenant.make_secret("basic", "kubernetes.io/basic-auth", "ada", basic).await;
    tenant.delete_instance("ada").await;
    tenant.until_gone("ada").await;
    tenant.until_secret_gone("keys").await;
    for kept in ["prod-db", "basic"] {
        assert!(tenant.secret(kept).await.is_some(), "Secret {kept} was deleted with the instance");
    }
}
