//! Objects with hostile values, as an older version's definitions let them in.

use std::{fmt, time::Instant};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject, Patch, PatchParams, PostParams},
};
use moorage::api::{HostingPool, OpenClawInstance, OpenClawRelease, custom_resource_definitions};
use moorage_testbed::wait_until;
use serde_json::{Value, json};

use crate::{
    PATIENCE,
    schema::{Field, full},
};

/// Stands in each hostile value that has room for it, and nowhere else.
pub(crate) const MARKER: &str = "leaked0text";

/// The hostile values of the schemas' test, with the marker where that leaves them hostile.
pub(crate) fn marked_values() -> Vec<String> {
    let marked = |value: String| match value.as_str() {
        "" | " " | "." | ".." => value,
        _ => format!("{value}{MARKER}"),
    };
    crate::schema::hostile_values().into_iter().map(marked).collect()
}

/// An object with one hostile value.
pub(crate) struct Hostile {
    pub(crate) kind: String,
    pub(crate) name: String,
    /// Of the field, such as `spec.pool`.
    pub(crate) path: String,
    pub(crate) value: String,
    pub(crate) document: Value,
}

impl fmt::Display for Hostile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value: String = self.value.chars().take(40).collect();
        write!(f, "{} {} ({value:?})", self.kind, self.path)
    }
}

impl Hostile {
    /// The full object of the field's kind with this value there, in a namespace and a pool that take it.
    pub(crate) fn new(field: &Field, value: &str, number: usize, tenant: &str) -> Self {
        let name = format!("hostile-{number}");
        let mut document = full(&field.kind);
        document["metadata"]["name"] = json!(name);
        if field.kind == "OpenClawInstance" {
            document["metadata"]["namespace"] = json!(tenant);
            let spec = &mut document["spec"];
            spec["pool"] = json!(tenant);
            spec["hostname"] = json!(name);
            spec["release"] = json!(format!("release-{tenant}"));
            spec["server"] = json!({});
            spec["integrations"] = json!([]);
            let dropped = if field.path.ends_with("].sealed") { "secretRef" } else { "sealed" };
            spec["credentials"][0].as_object_mut().unwrap().remove(dropped);
        }
        *field.place(&mut document) = json!(value);
        let (kind, path) = (field.kind.clone(), field.path.clone());
        Self { kind, name, path, value: value.to_owned(), document }
    }

    pub(crate) fn api(&self, client: &Client) -> Api<DynamicObject> {
        let namespace = self.document["metadata"]["namespace"].as_str();
        api(client, &self.kind, namespace)
    }

    /// Waits until one of its conditions names the field, without the value.
    pub(crate) async fn until_told(&self, client: &Client, end: Instant) -> Result<(), String> {
        let what = format!("{self}: a condition");
        let told = wait_until(what, end.saturating_duration_since(Instant::now()), || async {
            let object = self.api(client).get_status(&self.name).await;
            let object = object.map_err(|error| error.to_string())?;
            let conditions = object.data["status"]["conditions"].to_string();
            assert!(!conditions.contains(MARKER), "{}: {conditions}", self.path);
            if self.is_named_in(&conditions) { Ok(()) } else { Err(conditions) }
        });
        told.await.map_err(|late| late.to_string())
    }

    fn is_named_in(&self, conditions: &str) -> bool {
        if is_parsed_by_entry(&self.path) {
            return ["spec.credentials", "credential key-", "spec.credentials.key-"]
                .iter()
                .any(|name| conditions.contains(name));
        }
        // Without the numbers of list items.
        let plain = regex::Regex::new(r"\[[0-9]+\]").unwrap().replace_all(conditions, "[]");
        plain.contains(&format!("{}: ", self.path))
    }
}

/// Whether the operator parses a field with its entry, instead of with the whole object.
pub(crate) fn is_parsed_by_entry(path: &str) -> bool {
    ["name", "type", "sealed"].iter().any(|name| path == format!("spec.credentials[].{name}"))
}

/// One instance for all values of a field that is parsed entry by entry, so that one does not cost the
/// others: it is served, and each entry is told. Each has a place of its own in the configuration, by its name.
pub(crate) fn with_entries(field: &Field, number: usize, tenant: &str) -> Hostile {
    let mut hostile = Hostile::new(field, "", number, tenant);
    let last = field.path.rsplit('.').next().unwrap();
    let entries = marked_values().into_iter().enumerate().map(|(at, value)| {
        let mut entry = json!({"name": format!("key-{at}"), "type": "ProviderApiKey"});
        entry["sealed"] = json!("AAAA");
        entry[last] = json!(value);
        entry
    });
    // Together they are to fit into etcd, and the longest value is known already.
    let entries = entries.filter(|entry| entry.to_string().len() < 100_000);
    hostile.document["spec"]["credentials"] = entries.collect();
    hostile.document["spec"]["access"] = json!({});
    hostile
}

/// Objects of one of the three kinds, of any form.
pub(crate) fn api(client: &Client, kind: &str, namespace: Option<&str>) -> Api<DynamicObject> {
    let resource = match kind {
        "HostingPool" => ApiResource::erase::<HostingPool>(&()),
        "OpenClawRelease" => ApiResource::erase::<OpenClawRelease>(&()),
        _ => ApiResource::erase::<OpenClawInstance>(&()),
    };
    match namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    }
}

/// Makes all of them.
pub(crate) async fn create(client: &Client, objects: &[Hostile]) {
    let made = stream::iter(objects).map(|hostile| async move {
        let document = serde_json::from_value(hostile.document.clone()).unwrap();
        let made = hostile.api(client).create(&PostParams::default(), &document).await;
        made.map(drop).map_err(|error| format!("{hostile}: {error}"))
    });
    made.buffer_unordered(16).try_collect::<()>().await.unwrap();
}

/// Puts definitions in place that say no more than which fields there are and of which types.
pub(crate) async fn relax_definitions(client: &Client) {
    for definition in custom_resource_definitions() {
        let mut versions = serde_json::to_value(&definition.spec.versions).unwrap();
        relax(&mut versions[0]["schema"]["openAPIV3Schema"]);
        put_versions(client, definition.metadata.name.as_deref().unwrap(), &versions).await;
    }
    // Refused by definitions and policies of this version.
    let probe = json!({
        "apiVersion": "moorage.dev/v1alpha1", "kind": "OpenClawInstance",
        "metadata": {"name": "probe", "namespace": "default"},
        "spec": {"pool": "?", "credentials": [{"sealed": "?"}]},
    });
    wait_until("the older definitions to count", PATIENCE, || async {
        let params = PostParams { dry_run: true, ..PostParams::default() };
        let probe = serde_json::from_value(probe.clone()).unwrap();
        let made = api(client, "OpenClawInstance", Some("default")).create(&params, &probe).await;
        made.map(drop).map_err(|error| error.to_string())
    })
    .await
    .unwrap();
}

async fn put_versions(client: &Client, name: &str, versions: &Value) {
    let resource = ApiResource::erase::<
        k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
    >(&());
    let definitions = Api::<DynamicObject>::all_with(client.clone(), &resource);
    let patch = Patch::Merge(json!({"spec": {"versions": versions}}));
    definitions.patch(name, &PatchParams::default(), &patch).await.unwrap();
}

/// Takes away everything that says what a value may be, but its type.
fn relax(schema: &mut Value) {
    let Some(fields) = schema.as_object_mut() else { return };
    fields.retain(|name, _| {
        !matches!(
            name.as_str(),
            "pattern"
                | "format"
                | "enum"
                | "minLength"
                | "maxLength"
                | "minItems"
                | "maxItems"
                | "minimum"
                | "maximum"
                | "required"
                | "x-kubernetes-validations"
                | "x-kubernetes-list-type"
                | "x-kubernetes-list-map-keys"
        )
    });
    for property in
        fields.get_mut("properties").and_then(Value::as_object_mut).into_iter().flatten()
    {
        relax(property.1);
    }
    if let Some(items) = fields.get_mut("items") {
        relax(items);
    }
}
