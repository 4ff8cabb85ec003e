//! What the real API server takes and refuses by the schemas and rules of the CRDs, and in which words.
//!
//! Needs the tools of `hack/tools.sh`; without them the test says that it is skipped, and fails if
//! `MOORAGE_REQUIRE_ALL=1`.

#![allow(clippy::unwrap_used)] // Helpers of tests, outside of test functions.
#![allow(clippy::needless_pass_by_value)] // The documents of a table read best as values.

use std::time::Duration;

use kube::{
    Api, Client, ResourceExt as _,
    api::{DynamicObject, Patch, PatchParams, PostParams},
    core::{ApiResource, GroupVersionKind},
};
use moorage::{api::custom_resource_definitions, cli::crds};
use moorage_testbed::{Components, ControlPlane, Tool, Tools, wait_until};
use serde_json::{Value, json};

const INSTANCE: &str = include_str!("../config/samples/instance.yaml");
const POOL: &str = include_str!("../config/samples/pool.yaml");
const RELEASE: &str = include_str!("../config/samples/release.yaml");

/// One server for all, since it takes seconds to start. Each part reports all that is wrong.
#[tokio::test]
async fn the_api_server_takes_what_is_right_and_says_what_is_wrong() {
    let Some(tools) = Tools::for_test(&[Tool::Etcd, Tool::KubeApiserver]) else { return };
    let plane = ControlPlane::start(tools, Components::ApiServer).await.unwrap();
    let client = plane.client().await.unwrap();

    definitions_are_taken_without_a_warning(&client).await;
    let cluster = Cluster { client };
    cluster.has_namespace("tenants").await;
    cluster.takes_the_samples().await;
    cluster.fills_in_defaults().await;
    let mut failures = Vec::new();
    for case in refused_creations() {
        let object = merged(case.sample, &case.change);
        failures.extend(case.check(cluster.dry_run(object).await));
    }
    for case in refused_updates() {
        let object = merged(case.sample, &case.change);
        failures.extend(case.check(cluster.dry_update(&object).await));
    }
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
}

async fn definitions_are_taken_without_a_warning(client: &Client) {
    for (definition, file) in custom_resource_definitions().iter().zip(crds::files().unwrap()) {
        let name = definition.name_any();
        // As the file is, so that its YAML is tried as well.
        let path = format!("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}");
        let request =
            http::Request::patch(format!("{path}?fieldManager=test&fieldValidation=Strict"))
                .header("content-type", "application/apply-patch+yaml")
                .body(kube::client::Body::from(file.text.into_bytes()))
                .unwrap();
        let response = client.send(request).await.unwrap();
        let warnings: Vec<_> = response.headers().get_all("warning").iter().cloned().collect();
        let status = response.status();
        let body = response.into_body().collect_bytes().await.unwrap();
        assert!(status.is_success(), "{name}: {}", String::from_utf8_lossy(&body));
        assert!(warnings.is_empty(), "{name}: {warnings:?}");

        let established =
            wait_until(format!("{name} to be served"), Duration::from_secs(30), || async {
                let request = http::Request::get(&path).body(Vec::new()).unwrap();
                let found: Value =
                    client.request(request).await.map_err(|error| error.to_string())?;
                let conditions = found["status"]["conditions"].clone();
                let holds = |kind: &str, status: &str| {
                    let conditions = conditions.as_array().into_iter().flatten();
                    conditions.clone().any(|one| one["type"] == kind && one["status"] == status)
                };
                let violates = holds("NonStructuralSchema", "True");
                if violates {
                    return Ok(Err(conditions.to_string()));
                }
                if holds("Established", "True") && holds("NamesAccepted", "True") {
                    Ok(Ok(()))
                } else {
                    Err(conditions.to_string())
                }
            });
        established.await.unwrap().unwrap();
    }
}

struct Cluster {
    client: Client,
}

impl Cluster {
    fn api(&self, object: &DynamicObject) -> Api<DynamicObject> {
        let types = object.types.as_ref().unwrap();
        let kind = GroupVersionKind::gvk("moorage.dev", "v1alpha1", &types.kind);
        let resource = ApiResource::from_gvk(&kind);
        match &object.metadata.namespace {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, &resource),
            None => Api::all_with(self.client.clone(), &resource),
        }
    }

    async fn has_namespace(&self, name: &str) {
        let namespace: k8s_openapi::api::core::v1::Namespace =
            serde_json::from_value(json!({"metadata": {"name": name}})).unwrap();
        let namespaces = Api::all(self.client.clone());
        namespaces.create(&PostParams::default(), &namespace).await.unwrap();
    }

    /// They stay, for the updates.
    async fn takes_the_samples(&self) {
        for sample in [INSTANCE, POOL, RELEASE] {
            let object = merged(sample, &json!({}));
            // A definition is served a moment after it says so.
            let taken = wait_until("the sample to be taken", Duration::from_secs(30), || async {
                match self.api(&object).create(&PostParams::default(), &object).await {
                    Err(kube::Error::Api(status)) if status.code == 404 => Err(status.message),
                    result => Ok(result),
                }
            });
            taken.await.unwrap().unwrap();
        }
    }

    async fn fills_in_defaults(&self) {
        let instance = merged(INSTANCE, &json!({}));
        let found = self.api(&instance).get("ada").await.unwrap();
        assert_eq!(found.data["spec"]["suspend"], json!(false));
        assert_eq!(found.data["spec"]["deletionPolicy"], "Delete");
        assert_eq!(found.data["spec"]["credentials"][0]["sealedTo"], "Operator");
        let primary = &found.data["spec"]["config"]["agents"]["defaults"]["model"]["primary"];
        assert_eq!(primary, "anthropic/claude-sonnet-4-5", "the configuration was pruned");
        let pool = merged(POOL, &json!({}));
        let found = self.api(&pool).get("eu-1").await.unwrap();
        assert_eq!(found.data["spec"]["hetzner"]["image"], "debian-13");
        assert_eq!(found.data["spec"]["hetzner"]["tokenSecretRef"]["key"], "token");
    }

    async fn dry_run(&self, mut object: DynamicObject) -> Result<(), String> {
        if object.metadata.name.as_deref().is_some_and(|name| name == "ada" || name == "eu-1") {
            object.metadata.name = Some("new".to_owned());
        }
        if object.metadata.name.as_deref() == Some("2026.9.6-1") {
            object.metadata.name = Some("new".to_owned());
        }
        let params = PostParams { dry_run: true, ..PostParams::default() };
        let result = self.api(&object).create(&params, &object).await;
        result.map(drop).map_err(message)
    }

    async fn dry_update(&self, object: &DynamicObject) -> Result<(), String> {
        let params = PatchParams { dry_run: true, ..PatchParams::default() };
        let patch = Patch::Merge(json!({"spec": object.data["spec"]}));
        let result = self.api(object).patch(&object.name_any(), &params, &patch).await;
        result.map(drop).map_err(message)
    }
}

fn message(error: kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message,
        other => other.to_string(),
    }
}

/// A sample with a JSON merge patch (RFC 7396) over it.
fn merged(sample: &str, change: &Value) -> DynamicObject {
    fn merge(target: &mut Value, change: &Value) {
        let Value::Object(change) = change else {
            *target = change.clone();
            return;
        };
        if !target.is_object() {
            *target = json!({});
        }
        let target = target.as_object_mut().unwrap();
        for (key, value) in change {
            if value.is_null() {
                target.remove(key);
            } else {
                merge(target.entry(key).or_insert(Value::Null), value);
            }
        }
    }
    let mut object: Value = serde_saphyr::from_str(sample).unwrap();
    merge(&mut object, change);
    serde_json::from_value(object).unwrap()
}

struct Case {
    what: &'static str,
    sample: &'static str,
    change: Value,
    /// What the answer must say: the field and what is wrong with it.
    says: &'static [&'static str],
}

impl Case {
    fn check(&self, result: Result<(), String>) -> Option<String> {
        match result {
            Ok(()) => Some(format!("{}: was taken", self.what)),
            Err(answer) => {
                let missing = self.says.iter().find(|part| !answer.contains(**part))?;
                Some(format!("{}: does not say {missing:?}: {answer}", self.what))
            }
        }
    }
}

fn instance(what: &'static str, spec: Value, says: &'static [&'static str]) -> Case {
    Case { what, sample: INSTANCE, change: json!({"spec": spec}), says }
}

fn pool(what: &'static str, spec: Value, says: &'static [&'static str]) -> Case {
    Case { what, sample: POOL, change: json!({"spec": spec}), says }
}

fn release(what: &'static str, spec: Value, says: &'static [&'static str]) -> Case {
    Case { what, sample: RELEASE, change: json!({"spec": spec}), says }
}

fn credential(change: Value) -> Value {
    let mut credential = json!({
        "name": "anthropic",
        "type": "AnthropicApiKey",
        "secretRef": {"name": "ada-keys", "key": "anthropic"},
    });
    let object = credential.as_object_mut().unwrap();
    let Value::Object(change) = change else { panic!("not an object") };
    object.extend(change);
    object.retain(|_, value| !value.is_null());
    json!({"credentials": [credential]})
}

fn refused_creations() -> Vec<Case> {
    let mut cases = hostnames();
    cases.extend(credentials());
    cases.extend(pools_and_releases());
    cases.extend([
        instance("no pool", json!({"pool": null}), &["spec.pool", "Required"]),
        instance("an empty pool", json!({"pool": ""}), &["spec.pool"]),
        instance("no hostname", json!({"hostname": null}), &["spec.hostname", "Required"]),
        instance(
            "a deletion policy that is not known",
            json!({"deletionPolicy": "Orphan"}),
            &["spec.deletionPolicy", "\"Delete\", \"Retain\""],
        ),
        instance(
            "a configuration that is no object",
            json!({"config": [1]}),
            &["spec.config", "object"],
        ),
        instance(
            "the same integration twice",
            json!({"integrations": [{"name": "a"}, {"name": "a"}]}),
            &["spec.integrations[1]", "Duplicate value"],
        ),
        Case {
            what: "a name that is no label's value",
            sample: INSTANCE,
            change: json!({"metadata": {"name": "a".repeat(64)}}),
            says: &[
                "metadata.name must be at most 63 characters: it becomes a label of the server",
            ],
        },
    ]);
    cases
}

fn hostnames() -> Vec<Case> {
    let label = "hostname must be one DNS label: a-z, 0-9 and -, starting and ending with a letter or digit";
    let label: &'static [&'static str] = Box::leak(Box::new(["spec.hostname", label]));
    vec![
        instance(
            "a hostname of 59 characters",
            json!({"hostname": "a".repeat(59)}),
            &["spec.hostname", "at most 58 characters: hostname-mgmt must fit into one DNS label"],
        ),
        instance(
            "a hostname of the management API",
            json!({"hostname": "ada-mgmt"}),
            &["spec.hostname", "must not end in -mgmt: those names belong to the management API"],
        ),
        instance("a hostname with a dot", json!({"hostname": "ada.example"}), label),
        instance("a hostname with capitals", json!({"hostname": "Ada"}), label),
        instance("a hostname that starts with a hyphen", json!({"hostname": "-ada"}), label),
        instance("a hostname that ends with a hyphen", json!({"hostname": "ada-"}), label),
        instance("a hostname with a wildcard", json!({"hostname": "*"}), label),
        instance("an empty hostname", json!({"hostname": ""}), &["spec.hostname"]),
    ]
}

fn credentials() -> Vec<Case> {
    let one = "a credential needs exactly one of secretRef and sealed";
    let one: &'static [&'static str] = Box::leak(Box::new(["spec.credentials[0]", one]));
    let name: &'static [&'static str] =
        &["spec.credentials[0].name", "does not start with moorage-"];
    let same = json!({"name": "a", "type": "OpenAiApiKey", "sealed": "AAAA"});
    vec![
        instance("neither secretRef nor sealed", credential(json!({"secretRef": null})), one),
        instance("secretRef and sealed", credential(json!({"sealed": "AAAA"})), one),
        instance(
            "the same credential twice",
            json!({"credentials": [same, same]}),
            &["spec.credentials[1]", "Duplicate value", "\"a\""],
        ),
        instance(
            "a type that is not known",
            credential(json!({"type": "AwsKey"})),
            &[
                "spec.credentials[0].type",
                "\"AwsKey\"",
                "\"AnthropicApiKey\"",
                "\"TelegramBotToken\"",
            ],
        ),
        instance(
            "a type of Moorage's own",
            credential(json!({"type": "TunnelToken"})),
            &["spec.credentials[0].type", "\"TunnelToken\""],
        ),
        instance("a reserved name", credential(json!({"name": "moorage-tunnel"})), name),
        instance("a name with a slash", credential(json!({"name": "a/../b"})), name),
        instance(
            "a name that is too long",
            credential(json!({"name": "a".repeat(41)})),
            &["spec.credentials[0].name", "40"],
        ),
        instance(
            "sealed to nobody we know",
            credential(json!({"sealedTo": "Nobody"})),
            &["spec.credentials[0].sealedTo", "\"Operator\", \"Agent\""],
        ),
    ]
}

fn pools_and_releases() -> Vec<Case> {
    vec![
        pool(
            "an account id that is none",
            json!({"cloudflare": {"accountId": "me"}}),
            &["accountId must be 32 lower-case hexadecimal characters"],
        ),
        pool(
            "a zone id that is none",
            json!({"cloudflare": {"zoneId": "my zone"}}),
            &["zoneId must be 32 lower-case hexadecimal characters"],
        ),
        pool(
            "a domain that is none",
            json!({"cloudflare": {"domain": "https://example.com"}}),
            &["domain must be a lower-case domain name such as example.com"],
        ),
        pool(
            "no server type",
            json!({"hetzner": {"serverTypes": []}}),
            &["spec.hetzner.serverTypes", "at least 1"],
        ),
        pool(
            "a negative capacity",
            json!({"capacity": -1}),
            &["spec.capacity", "greater than or equal to 0"],
        ),
        pool(
            "the same namespace twice",
            json!({"allowedNamespaces": ["a", "a"]}),
            &["spec.allowedNamespaces[1]", "Duplicate value"],
        ),
        pool(
            "SSH as root",
            json!({"hetzner": {"ssh": {"user": "root", "keys": ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5"]}}}),
            &["ssh.user must be a user name other than root"],
        ),
        release(
            "a digest that is none",
            json!({"artifacts": {"node": {"sha256": "abc"}}}),
            &["spec.artifacts.node.sha256", "64 lower-case hexadecimal characters"],
        ),
        release(
            "an address that is none",
            json!({"artifacts": {"node": {"url": "file:///etc/passwd"}}}),
            &["spec.artifacts.node.url", "url must start with https:// or http://"],
        ),
        release(
            "an empty file",
            json!({"artifacts": {"agent": {"size": 0}}}),
            &["spec.artifacts.agent.size", "greater than or equal to 1"],
        ),
        release(
            "an architecture that is not known",
            json!({"artifacts": {"agent": {"architecture": "riscv"}}}),
            &["architecture", "\"x86\", \"arm\""],
        ),
        release(
            "a missing artifact",
            json!({"artifacts": {"agent": null}}),
            &["spec.artifacts.agent", "Required"],
        ),
    ]
}

fn refused_updates() -> Vec<Case> {
    vec![
        instance(
            "another pool",
            json!({"pool": "us-1"}),
            &[
                "spec.pool",
                "pool cannot be changed: delete the instance and make it in the other pool",
            ],
        ),
        instance(
            "another hostname",
            json!({"hostname": "bob"}),
            &[
                "spec.hostname",
                "hostname cannot be changed: delete the instance and make it with the other name",
            ],
        ),
        pool(
            "another domain",
            json!({"cloudflare": {"domain": "example.org"}}),
            &["domain cannot be changed: make another pool"],
        ),
        release(
            "another version under the same name",
            json!({"version": "2026.9.7"}),
            &["the spec of a release cannot be changed: make a new release"],
        ),
        release(
            "another digest under the same name",
            json!({"artifacts": {"node": {"sha256": "5".repeat(64)}}}),
            &["the spec of a release cannot be changed: make a new release"],
        ),
    ]
}
