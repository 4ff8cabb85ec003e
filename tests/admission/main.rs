//! What the real API server takes and refuses by the schemas and rules of the CRDs and by the admission
//! policies, and in which words.
//!
//! Needs the tools of `hack/tools.sh`; without them the test says that it is skipped, and fails if
//! `MOORAGE_REQUIRE_ALL=1`.

#![allow(clippy::unwrap_used)] // Helpers of tests, outside of test functions.
#![allow(clippy::needless_pass_by_value)] // The documents of a table read best as values.

mod border;
mod cases;
mod older;
mod policies;
mod schema;

use std::time::Duration;

use cases::{refused_creations, refused_updates};
use futures::StreamExt as _;
use kube::{
    Api, Client, ResourceExt as _,
    api::{DynamicObject, Patch, PatchParams, PostParams},
    core::{ApiResource, GroupVersionKind},
};
use moorage::{api::custom_resource_definitions, cli::crds};
use moorage_testbed::{Components, ControlPlane, Tool, Tools, wait_until};
use serde_json::{Value, json};

const INSTANCE: &str = include_str!("../../config/samples/instance.yaml");
const POOL: &str = include_str!("../../config/samples/pool.yaml");
const RELEASE: &str = include_str!("../../config/samples/release.yaml");

/// One server for all, since it takes seconds to start. Each part reports all that is wrong.
#[tokio::test]
async fn the_api_server_takes_what_is_right_and_says_what_is_wrong() {
    let Some(tools) = Tools::for_test(&[Tool::Etcd, Tool::KubeApiserver]) else { return };
    let plane = ControlPlane::start(tools, Components::ApiServer).await.unwrap();
    let client = plane.client().await.unwrap();

    let cluster = Cluster { client };
    cluster.has_an_older_release().await;
    definitions_are_taken_without_a_warning(&cluster.client).await;
    cluster.has_namespace("tenants").await;
    cluster.takes_the_samples().await;
    cluster.fills_in_defaults().await;
    cluster.keeps_the_older_release().await;
    let mut failures = Vec::new();
    for case in refused_creations() {
        let object = merged(case.sample, &case.change);
        failures.extend(case.check(cluster.dry_run(object).await));
    }
    for case in refused_updates() {
        let object = merged(case.sample, &case.change);
        failures.extend(case.check(cluster.dry_update(&object).await));
    }
    failures.extend(cluster.refuses_hostile_values().await);
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
    policies::policies_refuse_keys_and_nothing_else(&cluster).await;
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

pub(crate) struct Cluster {
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

    /// Every string of every spec with every hostile value; gives what is taken all the same.
    async fn refuses_hostile_values(&self) -> Vec<String> {
        let (fields, values) = (schema::fields(), schema::hostile_values());
        for definition in custom_resource_definitions() {
            let mut full = schema::full(&definition.spec.names.kind);
            if let Some(credential) = full.pointer_mut("/spec/credentials/0") {
                // The two exclude each other.
                credential.as_object_mut().unwrap().remove("sealed");
            }
            let taken = self.dry_run(serde_json::from_value(full).unwrap()).await;
            assert_eq!(taken, Ok(()), "the full {}", definition.spec.names.kind);
        }
        let tried = fields.iter().filter(|field| !field.is_free());
        let cases = tried.flat_map(|field| values.iter().map(move |value| (field, value)));
        let answers = futures::stream::iter(cases).map(|(field, value)| async move {
            let mut object = field.with(value);
            if let Some(credential) = object.pointer_mut("/spec/credentials/0") {
                credential.as_object_mut().unwrap().remove("sealed");
            }
            let answer = self.dry_run(serde_json::from_value(object).unwrap()).await;
            let wrong = match answer {
                Ok(()) => Some(format!("{} {} takes {value:?}", field.kind, field.path)),
                // A refusal for another reason would show nothing.
                Err(answer) if !answer.contains("is invalid") => {
                    Some(format!("{} {}: {value:?}: {answer}", field.kind, field.path))
                }
                Err(_) => None,
            };
            (1, wrong)
        });
        let answers: Vec<(usize, Option<String>)> = answers.buffer_unordered(8).collect().await;
        let cases: usize = answers.iter().map(|(count, _)| count).sum();
        eprintln!("admission: {} fields, {} values, {cases} cases", fields.len(), values.len());
        answers.into_iter().filter_map(|(_, wrong)| wrong).collect()
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
