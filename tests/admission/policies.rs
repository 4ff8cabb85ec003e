//! What the admission policies of the chart refuse on a real API server, and what they leave alone.

use std::{fs, path::Path, time::Duration};

use k8s_openapi::api::{
    admissionregistration::v1::{ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding},
    core::v1::{ConfigMap, Secret as KubeSecret},
};
use kube::{
    Api, Client, ResourceExt as _,
    api::{DeleteParams, DynamicObject, Patch, PatchParams, PostParams},
};
use moorage::{admission_policy::policies, cli::policies, openclaw};
use moorage_testbed::wait_until;
use moorage_wire::sealing::{KeyStrength, SealingKey, strict_label};
use serde_json::{Value, json};

use crate::{Cluster, INSTANCE, merged, message};

const KEY: &str = "sk-ant-api03-this-key-opens-nothing-0123456789";
const TABLE: &str = include_str!("../literal-keys.jsonl");

pub(crate) async fn policies_refuse_keys_and_nothing_else(cluster: &Cluster) {
    // From before there were policies.
    cluster.api(&instance(&json!({}))).create(&PostParams::default(), &bad("old")).await.unwrap();
    let old = json!({"k": "plaintext of old"});
    secrets(cluster).create(&PostParams::default(), &secret("old", SEALED, &old)).await.unwrap();

    install(cluster.client.clone()).await;
    wait_until("the policies to be in force", Duration::from_secs(60), || async {
        let key = cluster.dry_run(bad("new")).await;
        let plain = try_secret(cluster, SEALED, &json!({"k": "plaintext"})).await;
        if key.is_err() && plain.is_err() { Ok(()) } else { Err(format!("{key:?} {plain:?}")) }
    })
    .await
    .unwrap();

    the_table_is_refused_as_far_as_cel_can_see(cluster).await;
    plaintext_in_the_place_of_sealed_values_is_refused(cluster).await;
    other_objects_are_left_alone(cluster).await;
    what_is_too_large_for_cel_is_left_to_the_operator(cluster).await;
    what_was_there_before_can_be_edited_and_deleted(cluster).await;
}

async fn install(client: Client) {
    let params = PostParams::default();
    for (policy, binding) in policies() {
        let policies: Api<ValidatingAdmissionPolicy> = Api::all(client.clone());
        policies.create(&params, &policy).await.unwrap();
        let bindings: Api<ValidatingAdmissionPolicyBinding> = Api::all(client.clone());
        bindings.create(&params, &binding).await.unwrap();
    }
    assert_eq!(policies::files().unwrap().len(), policies().len());
}

const SEALED: &str = "moorage.dev/sealed-credentials";

fn instance(spec: &Value) -> DynamicObject {
    merged(INSTANCE, &json!({"spec": spec}))
}

fn with_config(name: &str, config: &Value) -> DynamicObject {
    let mut object = instance(&json!({"config": null}));
    object.metadata.name = Some(name.to_owned());
    object.data["spec"]["config"] = config.clone();
    object
}

fn bad(name: &str) -> DynamicObject {
    with_config(name, &json!({"notes": [KEY]}))
}

/// Each row of the table, and of the cases beside a checkout, where they are.
fn rows() -> Vec<Value> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let beside =
        ["..", "../.."].map(|up| root.join(up).join("shared/cases/config/literal-keys.jsonl"));
    let beside = beside.iter().filter_map(|path| fs::read_to_string(path).ok());
    let tables: Vec<_> = [TABLE.to_owned()].into_iter().chain(beside).collect();
    let lines = tables.iter().flat_map(|table| table.lines()).filter(|line| !line.is_empty());
    lines.map(|line| serde_json::from_str(line).unwrap()).collect()
}

async fn the_table_is_refused_as_far_as_cel_can_see(cluster: &Cluster) {
    let (mut here, mut later, mut wrong) = (0, Vec::new(), Vec::new());
    for row in rows() {
        let taken = cluster.dry_run(with_config("new", &row["config"])).await;
        match (row["right"].as_str().unwrap(), taken) {
            ("refused", Err(answer)) => {
                here += 1;
                if !answer.contains("moorage seal") {
                    wrong.push(format!("{}: {answer}", row["name"]));
                }
            }
            ("refused", Ok(())) => {
                later.push(row["name"].to_string());
                let refused =
                    openclaw::check(row["config"].as_object().unwrap(), openclaw::Named::NONE);
                assert!(refused.is_err(), "{} is refused by nobody", row["name"]);
            }
            (_, Err(answer)) => wrong.push(format!("{}: false alarm: {answer}", row["name"])),
            (_, Ok(())) => {}
        }
    }
    eprintln!("{here} refused at admission, {} by the operator alone: {later:?}", later.len());
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    // What needs more than one look at a text, or the next item of a list.
    assert!(later.len() <= 10 && here >= 57, "{later:?}");
}

fn secrets(cluster: &Cluster) -> Api<KubeSecret> {
    Api::namespaced(cluster.client.clone(), "tenants")
}

fn secret(name: &str, kind: &str, data: &Value) -> KubeSecret {
    let secret = json!({"metadata": {"name": name}, "type": kind, "stringData": data});
    serde_json::from_value(secret).unwrap()
}

async fn try_secret(cluster: &Cluster, kind: &str, data: &Value) -> Result<(), String> {
    let params = PostParams { dry_run: true, ..PostParams::default() };
    let made = secrets(cluster).create(&params, &secret("new", kind, data)).await;
    made.map(drop).map_err(message)
}

async fn plaintext_in_the_place_of_sealed_values_is_refused(cluster: &Cluster) {
    let mut sealed = Vec::new();
    for strength in [KeyStrength::Operator, KeyStrength::Agent] {
        let day = Duration::from_secs(86_400);
        let made = SealingKey::generate(strength, "test", jiff::Timestamp::now(), day).unwrap();
        let label = strict_label("tenants", "new");
        // Short and long, and several of each: the first characters hold some random bits.
        for value in ["hunter2", KEY, &"k".repeat(4000)] {
            for _ in 0..4 {
                let value = value.to_owned().into();
                sealed.push(made.0.certificate().seal(&value, &label).unwrap().to_base64());
            }
        }
    }
    for text in &sealed {
        try_secret(cluster, SEALED, &json!({"k": text})).await.unwrap();
        try_secret(cluster, SEALED, &json!({"k": format!("{text}\n")})).await.unwrap();
        let entry = json!([{"name": "a", "type": "AnthropicApiKey", "sealed": text}]);
        cluster.dry_run(named(instance(&json!({"credentials": entry})))).await.unwrap();
    }
    for plain in [KEY, "AgA", "hunter2", &"x".repeat(600)] {
        let both = json!({"k": sealed[0], "l": plain});
        let answer = try_secret(cluster, SEALED, &both).await.unwrap_err();
        assert!(answer.contains("not sealed") && !answer.contains(plain), "{answer}");
        let entry = json!([{"name": "a", "type": "AnthropicApiKey", "sealed": plain}]);
        let inline = named(instance(&json!({"credentials": entry})));
        let answer = cluster.dry_run(inline).await.unwrap_err();
        assert!(answer.contains("under sealed"), "{answer}");
    }
}

fn named(mut object: DynamicObject) -> DynamicObject {
    object.metadata.name = Some("new".to_owned());
    object
}

async fn other_objects_are_left_alone(cluster: &Cluster) {
    let key = json!({"password": KEY, "k": "plaintext"});
    for kind in ["Opaque", "example.com/other"] {
        try_secret(cluster, kind, &key).await.unwrap();
    }
    try_secret(cluster, SEALED, &json!({})).await.unwrap();
    let map: ConfigMap =
        serde_json::from_value(json!({"metadata": {"name": "new"}, "data": key})).unwrap();
    let params = PostParams { dry_run: true, ..PostParams::default() };
    let maps: Api<ConfigMap> = Api::namespaced(cluster.client.clone(), "tenants");
    maps.create(&params, &map).await.unwrap();
    cluster.dry_run(with_config("new", &json!({}))).await.unwrap();
    cluster.dry_run(named(instance(&json!({"config": null, "credentials": null})))).await.unwrap();
}

async fn what_is_too_large_for_cel_is_left_to_the_operator(cluster: &Cluster) {
    let config = json!({"prompt": "lorem ipsum ".repeat(25_000), "notes": [KEY]});
    cluster.dry_run(with_config("new", &config)).await.unwrap();
    assert!(openclaw::check(config.as_object().unwrap(), openclaw::Named::NONE).is_err());
    // What configurations usually have is not.
    let config = json!({"prompt": "lorem ipsum ".repeat(2500), "notes": [KEY]});
    cluster.dry_run(with_config("new", &config)).await.unwrap_err();
}

async fn what_was_there_before_can_be_edited_and_deleted(cluster: &Cluster) {
    let old = bad("old");
    let api = cluster.api(&old);
    let merge = async |patch: Value| {
        api.patch("old", &PatchParams::default(), &Patch::Merge(patch)).await.map(drop)
    };
    merge(json!({"metadata": {"finalizers": ["moorage.dev/finalizer"]}})).await.unwrap();
    merge(json!({"spec": {"suspend": true}})).await.unwrap();
    let worse = merge(json!({"spec": {"config": {"more": [KEY]}}})).await.unwrap_err();
    assert!(message(worse).contains("moorage seal"));
    let status = json!({"status": {"phase": "Stalled"}});
    let patch = Patch::Merge(status);
    api.patch_status("old", &PatchParams::default(), &patch).await.unwrap();
    api.delete("old", &DeleteParams::default()).await.unwrap();
    // Whatever it is that changes while it is being deleted.
    merge(json!({"spec": {"config": {"more": [KEY]}}})).await.unwrap();
    merge(json!({"metadata": {"finalizers": null}})).await.unwrap();
    assert!(api.get_opt("old").await.unwrap().is_none());

    let labels = json!({"metadata": {"labels": {"a": "b"}}});
    let patch = Patch::Merge(labels);
    let patched = secrets(cluster).patch("old", &PatchParams::default(), &patch).await.unwrap();
    assert!(patched.labels().contains_key("a"));
    secrets(cluster).delete("old", &DeleteParams::default()).await.unwrap();
}
