//! An agent gone bad: whoever took over the process that talks to the network speaks to the real worker, with
//! all that such a process has: its key, every call that it ever passed on, and the socket. He writes
//! nothing that the operator did not sign for this, and opens nothing.

use std::{fs, path::Path};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use moorage_wire::{
    AgentPublicKey, CredentialType, DesiredState, Epoch, InstanceId, Secret,
    credential::{Binding, GATEWAY_TOKEN, SealedCredential, TUNNEL_TOKEN},
    path,
    sealing::{KeyStrength, SealingKey},
    signature::{OperatorKey, Peers},
};
use serde_json::{Value, json};

use crate::{
    machine::calls,
    messenger::{Messenger, Signer},
    operator::{desired, epoch, instance, operator_key},
};

const KIND: CredentialType = CredentialType::AnthropicApiKey;
const FIRST: &str = "sk-ant-malice-hidden-first-0000000000";
const SECOND: &str = "sk-ant-malice-hidden-second-111111111";

fn arguments() -> Vec<String> {
    let fake = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/agent/fake-openclaw.sh");
    vec!["--openclaw-bin".to_owned(), fake.to_owned()]
}

fn config(layout: &moorage_agent::Layout) -> Value {
    fs::read(layout.openclaw_config())
        .map_or(Value::Null, |bytes| serde_json::from_slice(&bytes).unwrap())
}

fn secrets(layout: &moorage_agent::Layout) -> Value {
    fs::read(layout.secrets()).map_or(Value::Null, |bytes| serde_json::from_slice(&bytes).unwrap())
}

/// Whether a file below `folder` holds `text`.
fn holds(folder: &Path, text: &str) -> bool {
    fs::read_dir(folder).unwrap().any(|entry| {
        let path = entry.unwrap().path();
        if path.is_dir() {
            return holds(&path, text);
        }
        path.is_file() && String::from_utf8_lossy(&fs::read(&path).unwrap()).contains(text)
    })
}

fn reason(answer: &Value) -> &str {
    assert_eq!(answer["result"], "refused", "{answer}");
    answer["reason"].as_str().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_written_without_the_operators_signature() {
    let messenger = Messenger::start(&arguments()).await;
    let document = desired(json!({"evil": 1}), &[]);
    let body = document.to_bytes();
    let plain = BASE64.encode(FIRST);
    let unsigned = json!({"body": BASE64.encode(&body), "agent-key": "08".repeat(32),
                          "signature-input": "", "signature": ""});
    let bodiless = json!({"body": BASE64.encode(&body)});
    for request in [
        json!({"verb": "set-secret", "name": "anthropic", "value": plain}),
        json!({"verb": "set-google-client", "value": plain}),
        json!({"verb": "store-credential", "name": "anthropic", "value": plain}),
        json!({"verb": "store-credential", "name": "anthropic", "call": bodiless}),
        json!({"verb": "store-credential", "name": "anthropic", "call": unsigned}),
        json!({"verb": "write-config", "config": "{\"evil\": 1}"}),
        json!({"verb": "write-config", "document": document.digest()}),
        json!({"verb": "put-document", "document": BASE64.encode(&body), "keep": []}),
        json!({"verb": "put-document", "call": bodiless, "keep": []}),
        json!({"verb": "put-document", "call": unsigned, "keep": [document.digest()]}),
    ] {
        let answer = messenger.file(request.clone()).await;
        assert!(["failed", "refused"].contains(&answer["result"].as_str().unwrap()), "{request}");
    }
    let integration = json!({"kind": "Plugin", "name": "evil", "version": "1.0.0"});
    for request in [
        json!({"verb": "validate", "config": "{}"}),
        json!({"verb": "validate", "document": document.digest()}),
        json!({"verb": "add-integrations", "wanted": [integration]}),
        json!({"verb": "add-integrations", "document": document.digest()}),
        json!({"verb": "remove-integrations", "document": document.digest()}),
    ] {
        let answer = messenger.program(request.clone()).await;
        assert!(["failed", "refused"].contains(&answer["result"].as_str().unwrap()), "{request}");
    }
    assert_eq!((config(&messenger.layout), secrets(&messenger.layout)), (Value::Null, Value::Null));
    assert!(!holds(&messenger.root(), "evil") && !holds(&messenger.root(), FIRST));
    assert_eq!(calls(&messenger.layout, "validate"), 0);

    // The same with a signature.
    let digest = messenger.want(&document).await;
    let written = messenger.file(json!({"verb": "write-config", "document": digest})).await;
    assert_eq!(written, json!({"result": "done"}));
    assert_eq!(config(&messenger.layout), json!({"evil": 1}));
    messenger.deliver("anthropic", KIND, FIRST).await;
    assert_eq!(secrets(&messenger.layout), json!({"anthropic": FIRST}));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signature_for_anything_else_is_no_signature() {
    let messenger = Messenger::start(&arguments()).await;
    let document = desired(json!({"evil": 1}), &[]).to_bytes();
    let sealed = serde_json::to_vec(&messenger.seal("anthropic", KIND, FIRST).await).unwrap();
    let own = Peers { instance: instance(), epoch: epoch(), agent: Signer::genuine().peers.agent };
    let stranger = || OperatorKey::from_seed(&Secret::from([9; 32]));
    let signers = [
        Signer { key: stranger(), peers: own },
        Signer {
            key: operator_key(),
            peers: Peers { instance: InstanceId::from_bytes([9; 16]), ..own },
        },
        Signer { key: operator_key(), peers: Peers { epoch: Epoch::from_bytes([9; 8]), ..own } },
    ];
    let target = format!("{}/anthropic", path::CREDENTIALS);
    for signer in &signers {
        let call = signer.sign(path::DESIRED, &messenger.nonce().await, &document);
        assert_eq!(reason(&messenger.put_document(&call, &[]).await), "signature");
        let call = signer.sign(&target, &messenger.nonce().await, &sealed);
        assert_eq!(reason(&messenger.store("anthropic", &call).await), "signature");
    }

    let genuine = Signer::genuine();
    let wanted = genuine.sign(path::DESIRED, &messenger.nonce().await, &document);
    let delivered = genuine.sign(&target, &messenger.nonce().await, &sealed);
    // One for the other call, one that was changed, and one in another's name.
    assert_eq!(reason(&messenger.put_document(&delivered, &[]).await), "signature");
    assert_eq!(reason(&messenger.store("anthropic", &wanted).await), "signature");
    let other = desired(json!({"evil": 2}), &[]).to_bytes();
    let other_key = AgentPublicKey::from_bytes([7; 32]).to_string();
    for (field, value) in [
        ("body", BASE64.encode(&other)),
        ("agent-key", other_key),
        ("if-match", "\"none\"".to_owned()),
        ("signature-input", delivered["signature-input"].as_str().unwrap().to_owned()),
    ] {
        let mut changed = wanted.clone();
        changed[field] = value.into();
        assert_eq!(reason(&messenger.put_document(&changed, &[]).await), "signature", "{field}");
    }
    assert_eq!((config(&messenger.layout), secrets(&messenger.layout)), (Value::Null, Value::Null));
    assert!(!holds(&messenger.root(), "evil") && !holds(&messenger.root(), FIRST));

    assert_eq!(messenger.put_document(&wanted, &[]).await, json!({"result": "done"}));
    // With a nonce that the agent made up.
    for nonce in ["0".repeat(32), "0".repeat(48)] {
        let call = genuine.sign(path::DESIRED, &nonce, &other);
        assert_eq!(reason(&messenger.put_document(&call, &[]).await), "stale");
        let call = genuine.sign(&target, &nonce, &sealed);
        assert_eq!(reason(&messenger.store("anthropic", &call).await), "stale");
    }
    assert_eq!(secrets(&messenger.layout), Value::Null);
    assert_eq!(messenger.store("anthropic", &delivered).await["result"], "secrets");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_signed_before_does_not_come_back() {
    let mut messenger = Messenger::start(&arguments()).await;
    let genuine = Signer::genuine();
    let target = format!("{}/anthropic", path::CREDENTIALS);
    let (mut documents, mut credentials) = (Vec::new(), Vec::new());
    for (number, value) in [(1, FIRST), (2, SECOND)] {
        let document = desired(json!({"number": number}), &["anthropic"]);
        let nonce = messenger.nonce().await;
        let call = genuine.sign(path::DESIRED, &nonce, &document.to_bytes());
        assert_eq!(messenger.put_document(&call, &[]).await, json!({"result": "done"}));
        documents.push((document.digest(), call));
        let sealed = serde_json::to_vec(&messenger.seal("anthropic", KIND, value).await).unwrap();
        let call = genuine.sign(&target, &messenger.nonce().await, &sealed);
        assert_eq!(messenger.store("anthropic", &call).await["result"], "secrets");
        credentials.push(call);
    }
    let write = |digest| json!({"verb": "write-config", "document": digest});
    assert_eq!(messenger.file(write(documents[1].0)).await, json!({"result": "done"}));
    for _life in 0..2 {
        let (old, call) = &documents[0];
        assert_eq!(reason(&messenger.put_document(call, &[]).await), "stale");
        assert_eq!(reason(&messenger.put_document(call, &[*old]).await), "stale");
        assert_eq!(reason(&messenger.file(write(*old)).await), "unknown-document");
        for call in &credentials {
            assert_eq!(reason(&messenger.store("anthropic", call).await), "stale");
        }
        assert_eq!(config(&messenger.layout), json!({"number": 2}));
        assert_eq!(secrets(&messenger.layout), json!({"anthropic": SECOND}));
        messenger.restart().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_of_the_data_brings_no_old_configuration_back() {
    let messenger = Messenger::start(&arguments()).await;
    let write = |document| json!({"verb": "write-config", "document": document});
    let done = json!({"result": "done"});
    let first = messenger.want(&desired(json!({"number": 1}), &[])).await;
    assert_eq!(messenger.file(write(first)).await, done);
    fs::write(messenger.layout.openclaw_state().join("data"), "old").unwrap();
    assert_eq!(messenger.program(json!({"verb": "take-snapshot"})).await, done);
    let second = messenger.want(&desired(json!({"number": 2}), &[])).await;
    assert_eq!(messenger.file(write(second)).await, done);
    fs::write(messenger.layout.openclaw_state().join("data"), "new").unwrap();
    assert_eq!(messenger.program(json!({"verb": "restore-snapshot"})).await, done);
    let data = fs::read_to_string(messenger.layout.openclaw_state().join("data")).unwrap();
    assert_eq!(data, "old");
    assert_eq!(config(&messenger.layout), Value::Null, "it is written again, or OpenClaw waits");
    assert_eq!(messenger.file(write(second)).await, done);
    assert_eq!(config(&messenger.layout), json!({"number": 2}));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_envelope_opens_under_its_own_name_and_type_alone() {
    let messenger = Messenger::start(&arguments()).await;
    let genuine = Signer::genuine();
    let sealed = messenger.seal("anthropic", KIND, FIRST).await;
    let body = serde_json::to_vec(&sealed).unwrap();
    let signed = genuine.sign("/v1/credentials/anthropic", &messenger.nonce().await, &body);
    assert_eq!(reason(&messenger.store("other", &signed).await), "signature");

    // Even if the operator signed it.
    let provider = CredentialType::ProviderApiKey;
    let labelled = Binding::Courier { source_sha256: moorage_wire::Sha256::of(b"other") };
    let disguised = [
        ("other", sealed.clone()),
        ("anthropic", SealedCredential { r#type: provider, ..sealed.clone() }),
        ("anthropic", SealedCredential { binding: labelled, ..sealed }),
    ];
    for (name, sealed) in disguised {
        let body = serde_json::to_vec(&sealed).unwrap();
        let target = format!("{}/{name}", path::CREDENTIALS);
        let call = genuine.sign(&target, &messenger.nonce().await, &body);
        let answer = messenger.store(name, &call).await;
        assert_eq!(reason(&answer), "cannot-unseal");
        assert!(!answer.to_string().contains("hidden"));
    }
    // Values of Moorage's own names and types only together, and the tunnel's token not at all.
    for (name, kind) in [
        (TUNNEL_TOKEN, CredentialType::TunnelToken),
        ("anthropic", CredentialType::TunnelToken),
        ("anthropic", CredentialType::GatewayToken),
        (GATEWAY_TOKEN, KIND),
    ] {
        let body = serde_json::to_vec(&messenger.seal(name, kind, FIRST).await).unwrap();
        let target = format!("{}/{name}", path::CREDENTIALS);
        let call = genuine.sign(&target, &messenger.nonce().await, &body);
        assert_eq!(reason(&messenger.store(name, &call).await), "invalid", "{name} {kind}");
    }
    assert_eq!(secrets(&messenger.layout), Value::Null);
    assert!(!holds(&messenger.root(), FIRST));
    assert_eq!(messenger.store("anthropic", &signed).await["result"], "secrets");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_exchanges_the_key_that_credentials_are_sealed_to() {
    let messenger = Messenger::start(&arguments()).await;
    let certificate = messenger.certificate().await;
    let day = std::time::Duration::from_hours(24);
    let (own, pkcs8) =
        SealingKey::generate(KeyStrength::Agent, "evil", jiff::Timestamp::now(), day).unwrap();
    let key = BASE64.encode(BASE64.encode(pkcs8.expose()));
    let adopt = json!({"verb": "adopt-key", "key": key, "certificate": own.certificate().pem()});
    assert_eq!(reason(&messenger.file(adopt).await), "other-key");
    assert_eq!(messenger.certificate().await.fingerprint(), certificate.fingerprint());
    messenger.deliver("anthropic", KIND, FIRST).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_pairings_of_the_newest_document_reach_openclaw() {
    let messenger = Messenger::start(&arguments()).await;
    let list = json!({"pending": [{"requestId": "good"}, {"requestId": "evil"}], "paired": []});
    fs::write(messenger.layout.openclaw_state().join("devices"), list.to_string()).unwrap();
    let approve = json!({"verb": "approve-pairings", "requests": ["evil", "good"]});
    let nothing = json!({"result": "pairings", "approved": [], "refused": []});
    assert_eq!(messenger.program(approve.clone()).await, nothing, "there is no document");
    let approving = |ids: &[&str]| DesiredState {
        approved_pairings: ids.iter().map(|id| (*id).to_owned()).collect(),
        ..desired(json!({}), &[])
    };
    messenger.want(&approving(&["good"])).await;
    let answer = messenger.program(approve.clone()).await;
    assert_eq!(answer["approved"], json!(["good"]), "{answer}");
    messenger.want(&approving(&[])).await;
    assert_eq!(messenger.program(approve).await, nothing, "it is not approved any more");
    let approved = |id: &str| calls(&messenger.layout, &format!("approve {id}"));
    assert_eq!((approved("good"), approved("evil")), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_does_not_know_its_operator_trusts_nobody() {
    let mut messenger = Messenger::unprepared(&arguments());
    messenger.restart().await;
    let body = desired(json!({"evil": 1}), &[]).to_bytes();
    let call = Signer::genuine().sign(path::DESIRED, &messenger.nonce().await, &body);
    assert_eq!(reason(&messenger.put_document(&call, &[]).await), "unprepared");
    let sealed = serde_json::to_vec(&messenger.seal("anthropic", KIND, FIRST).await).unwrap();
    let target = format!("{}/anthropic", path::CREDENTIALS);
    let credential = Signer::genuine().sign(&target, &messenger.nonce().await, &sealed);
    assert_eq!(reason(&messenger.store("anthropic", &credential).await), "unprepared");
    assert!(!holds(&messenger.root(), "evil") && !holds(&messenger.root(), FIRST));
    messenger.prepare();
    assert_eq!(messenger.put_document(&call, &[]).await, json!({"result": "done"}));
    assert_eq!(messenger.store("anthropic", &credential).await["result"], "secrets");
}
