//! Objects as they come from the API server, each read by itself: one that cannot be read, however
//! deep or strange, costs only itself. Lists, watches and the answers of writes are read as this type.

use std::{borrow::Cow, collections::BTreeMap};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta};
use kube::Resource;
use serde::{Deserialize, Deserializer, de::DeserializeOwned};
use serde_json::value::RawValue;

/// The longest path of a field that is told.
const LONGEST_PATH: usize = 200;

/// In memory, on an instance of which only the essence is kept. It is read from no object.
pub(super) const IN_PART: &str = "moorage.dev/in-part";
/// What our annotations and labels begin with.
const OUR_PREFIX: &str = "moorage.dev/";
/// The longest value of one of them that is kept, in characters.
const LONGEST_VALUE: usize = 256;

/// A kind of this group that can be read part by part.
pub trait Stored: Resource<DynamicType = ()> {
    /// What it should be.
    type Spec: DeserializeOwned;
    /// What is known of it.
    type Status: DeserializeOwned;

    /// The object of its parts.
    fn of_parts(metadata: ObjectMeta, spec: Self::Spec, status: Option<Self::Status>) -> Self;

    /// As much as its deletion needs, if spec or status cannot be read as a whole.
    fn salvage(_: &ObjectMeta, _spec: &Fields<'_>, _status: Option<Self::Status>) -> Option<Self>
    where
        Self: Sized,
    {
        None
    }

    /// Whether its status names anything that is in a cloud.
    fn names_cloud_objects(status: &Fields<'_>) -> bool;
}

/// An object, or why it is none that this version can read.
#[derive(Debug, Clone)]
pub struct Guarded<K>(pub Result<K, Unreadable<K>>);

/// What is known of an object that cannot be read.
#[derive(Debug, Clone)]
pub struct Unreadable<K> {
    /// The path of the field, and what is wrong. Never a value.
    pub error: String,
    /// Its metadata, without `managedFields`.
    pub metadata: ObjectMeta,
    /// The conditions of its status.
    pub conditions: Vec<Condition>,
    /// What its deletion needs.
    pub salvage: Option<Box<K>>,
    /// Whether its status names anything that is in a cloud.
    pub in_cloud: bool,
}

impl<'de, K: Stored> Deserialize<'de> for Guarded<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // A raw value is skipped without recursion, so that no depth is too much for it.
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        Ok(Self::read(raw.get()))
    }
}

#[derive(Deserialize, Default)]
struct Parts<'a> {
    #[serde(borrow)]
    metadata: Option<&'a RawValue>,
    #[serde(borrow)]
    spec: Option<&'a RawValue>,
    #[serde(borrow)]
    status: Option<&'a RawValue>,
}

impl<K: Stored> Guarded<K> {
    /// Reads one object. If a part cannot be read, the error has what the other parts hold.
    pub fn read(text: &str) -> Self {
        let parts: Parts<'_> = serde_json::from_str(text).unwrap_or_default();
        let metadata = metadata(&Fields::of(parts.metadata));
        let spec = read_part::<K::Spec>("spec", parts.spec.map_or("{}", RawValue::get));
        let status = parts.status.map(|status| read_part::<K::Status>("status", status.get()));
        Self(match (spec, status.transpose()) {
            (Ok(spec), Ok(status)) => Ok(K::of_parts(metadata, spec, status)),
            (Err(error), status) => Err(unreadable(error, metadata, &parts, status.ok().flatten())),
            (_, Err(error)) => Err(unreadable(error, metadata, &parts, None)),
        })
    }
}

fn unreadable<K: Stored>(
    error: String,
    metadata: ObjectMeta,
    parts: &Parts<'_>,
    status: Option<K::Status>,
) -> Unreadable<K> {
    let fields = Fields::of(parts.status);
    let salvage = K::salvage(&metadata, &Fields::of(parts.spec), status);
    Unreadable {
        error,
        metadata,
        conditions: fields.get("conditions").unwrap_or_default(),
        salvage: salvage.map(Box::new),
        in_cloud: K::names_cloud_objects(&fields),
    }
}

impl<K: Stored> Resource for Guarded<K> {
    type DynamicType = ();
    type Scope = K::Scope;

    fn kind((): &()) -> Cow<'_, str> {
        K::kind(&())
    }

    fn group((): &()) -> Cow<'_, str> {
        K::group(&())
    }

    fn version((): &()) -> Cow<'_, str> {
        K::version(&())
    }

    fn plural((): &()) -> Cow<'_, str> {
        K::plural(&())
    }

    fn meta(&self) -> &ObjectMeta {
        self.0.as_ref().map_or_else(|unreadable| &unreadable.metadata, K::meta)
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        self.0.as_mut().map_or_else(|unreadable| &mut unreadable.metadata, K::meta_mut)
    }
}

/// The fields of a JSON object, each read by itself.
pub struct Fields<'a>(BTreeMap<String, &'a RawValue>);

impl<'a> Fields<'a> {
    /// None where there is no object.
    pub fn of(object: Option<&'a RawValue>) -> Self {
        Self(object.and_then(|raw| serde_json::from_str(raw.get()).ok()).unwrap_or_default())
    }

    /// A field, if it is there and can be read.
    pub fn get<T: DeserializeOwned>(&self, name: &str) -> Option<T> {
        serde_json::from_str(self.0.get(name)?.get()).ok()
    }

    /// Whether a field is there and not null.
    pub fn has(&self, name: &str) -> bool {
        self.0.get(name).is_some_and(|value| value.get() != "null")
    }
}

/// The metadata as far as it is of use: of annotations and labels only our own, since whoever edits the
/// object can write 256 KiB of others. Without `managedFields`, which are as deep as what they speak of.
pub fn metadata(fields: &Fields<'_>) -> ObjectMeta {
    ObjectMeta {
        annotations: fields.get("annotations").map(ours),
        creation_timestamp: fields.get("creationTimestamp"),
        deletion_grace_period_seconds: fields.get("deletionGracePeriodSeconds"),
        deletion_timestamp: fields.get("deletionTimestamp"),
        finalizers: fields.get("finalizers"),
        generate_name: None,
        generation: fields.get("generation"),
        labels: fields.get("labels").map(ours),
        managed_fields: None,
        name: fields.get("name"),
        namespace: fields.get("namespace"),
        owner_references: None,
        resource_version: fields.get("resourceVersion"),
        self_link: None,
        uid: fields.get("uid"),
    }
}

/// What begins with the name of our group, and of that as much as any of it can be long.
fn ours(all: BTreeMap<String, String>) -> BTreeMap<String, String> {
    let ours = |key: &str| key.starts_with(OUR_PREFIX) && key != IN_PART;
    let ours = all.into_iter().filter(|(key, _)| ours(key));
    let short = |value: String| match value.char_indices().nth(LONGEST_VALUE) {
        Some((end, _)) => value[..end].to_owned(),
        None => value,
    };
    ours.map(|(key, value)| (key, short(value))).collect()
}

fn read_part<T: DeserializeOwned>(name: &str, text: &str) -> Result<T, String> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let path = match error.path().to_string().as_str() {
            "." => name.to_owned(),
            path => format!("{name}.{path}"),
        };
        // A path may hold keys of maps, which are somebody's text.
        let path: String = path.escape_default().take(LONGEST_PATH).collect();
        format!("{path}: {}", without_values(error.inner()))
    })
}

/// What does not fit, without the value that does not, which serde's words quote.
pub(crate) fn without_values(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let text = text.rsplit_once(" at line ").map_or(text.as_str(), |(text, _)| text);
    // The expectation is what this program says; it comes last, whatever the value is.
    if let Some((_, expectation)) = text.rsplit_once(", expected ") {
        return format!("expected {expectation}");
    }
    if let Some(field) = text.strip_prefix("missing field ") {
        return format!("the field {field} is missing");
    }
    "it cannot be read".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{HostingPool, OpenClawInstance, OpenClawRelease};
    use kube::core::{DeserializeGuard, ObjectList, WatchEvent};
    use serde_json::json;

    const MARKER: &str = "sk-ant-of-another-tenant";

    fn instance(name: &str, config: &str) -> String {
        format!(
            r#"{{"apiVersion":"moorage.dev/v1alpha1","kind":"OpenClawInstance",
            "metadata":{{"name":"{name}","namespace":"tenants","resourceVersion":"7","finalizers":["moorage.dev/finalizer"],
            "managedFields":[{{"manager":"m","fieldsV1":{config}}}]}},
            "spec":{{"pool":"eu-1","hostname":"{name}","config":{config}}}}}"#
        )
    }

    fn deep(levels: usize) -> String {
        format!("{}{}", r#"{"a":"#.repeat(levels) + "1", "}".repeat(levels))
    }

    #[test]
    fn a_deep_object_in_a_list_leaves_the_list_and_itself_readable() {
        for levels in [10, 130, 100_000] {
            let list = format!(
                r#"{{"apiVersion":"moorage.dev/v1alpha1","kind":"OpenClawInstanceList","metadata":{{"resourceVersion":"9"}},"items":[{},{}]}}"#,
                instance("deep", &deep(levels)),
                instance("bob", "{}")
            );
            let by_kube =
                serde_json::from_str::<ObjectList<DeserializeGuard<OpenClawInstance>>>(&list);
            assert_eq!(by_kube.is_err(), levels > 100, "what kube's own guard makes of it");
            let list: ObjectList<Guarded<OpenClawInstance>> = serde_json::from_str(&list).unwrap();
            assert_eq!(list.items.len(), 2);
            for item in &list.items {
                let read = item.0.as_ref().unwrap();
                assert_eq!(read.metadata.resource_version.as_deref(), Some("7"));
                assert_eq!(read.metadata.managed_fields, None);
            }
        }
    }

    #[test]
    fn a_deep_object_in_a_watch_and_in_an_answer_is_read() {
        let object = instance("deep", &deep(5000));
        let line = format!(r#"{{"type":"MODIFIED","object":{object}}}"#);
        let event: WatchEvent<Guarded<OpenClawInstance>> = serde_json::from_str(&line).unwrap();
        let WatchEvent::Modified(read) = event else { panic!("{event:?}") };
        assert_eq!(read.meta().name.as_deref(), Some("deep"));
        assert!(read.0.is_ok());
        assert!(serde_json::from_str::<Guarded<OpenClawInstance>>(&object).unwrap().0.is_ok());
    }

    #[test]
    fn an_unreadable_field_is_named_by_its_path_alone() {
        let read = |spec: serde_json::Value| {
            let object =
                json!({"metadata": {"name": "x"}, "spec": spec, "status": {"firewallId": 7}});
            Guarded::<HostingPool>::read(&object.to_string()).0.unwrap_err()
        };
        let wrong = read(json!({"hetzner": {"tokenSecretRef": {"name": [MARKER]}}}));
        assert!(wrong.error.starts_with("spec.hetzner.tokenSecretRef.name: "), "{}", wrong.error);
        assert!(wrong.in_cloud);
        for value in [json!(MARKER), json!(format!("{MARKER}, expected {MARKER}"))] {
            let told = read(json!({"hetzner": value})).error;
            assert!(
                told.starts_with("spec.hetzner: expected ") && !told.contains(MARKER),
                "{told}"
            );
        }
        let told = read(json!({})).error;
        assert_eq!(told, "spec: the field `hetzner` is missing");
        assert!(Guarded::<OpenClawRelease>::read("[]").0.is_err(), "an object without anything");
    }

    #[test]
    fn of_annotations_and_labels_only_our_own_are_kept() {
        let long = "n".repeat(256 << 10);
        let both = json!({
            "kubectl.kubernetes.io/last-applied-configuration": long,
            "moorage.dev/reconcile-at": long, "moorage.dev/rebuild": "4711", IN_PART: "",
        });
        let object = json!({
            "metadata": {"name": "ada", "annotations": both, "labels": both},
            "spec": {"pool": "eu-1", "hostname": "ada"},
        });
        let read = Guarded::<OpenClawInstance>::read(&object.to_string()).0.unwrap().metadata;
        for kept in [read.annotations.unwrap(), read.labels.unwrap()] {
            assert_eq!(kept["moorage.dev/rebuild"], "4711");
            assert_eq!(kept["moorage.dev/reconcile-at"].len(), LONGEST_VALUE);
            assert_eq!(kept.len(), 2);
        }
    }

    #[test]
    fn a_phase_of_another_version_leaves_an_instance_readable() {
        let object = json!({
            "metadata": {"name": "ada"}, "spec": {"pool": "eu-1", "hostname": "ada"},
            "status": {"phase": "Hibernating", "tunnel": {"id": "t"}},
        });
        let ada = Guarded::<OpenClawInstance>::read(&object.to_string()).0.unwrap();
        let status = ada.status.unwrap();
        assert_eq!(status.phase, None);
        assert!(status.tunnel.is_some());
    }

    #[test]
    fn what_a_deletion_needs_is_salvaged_from_a_malformed_instance() {
        let object = json!({
            "metadata": {"name": "ada", "finalizers": ["moorage.dev/finalizer"]},
            "spec": {"pool": "eu-1", "hostname": "ada", "deletionPolicy": "Retain", "integrations": "none"},
            "status": {"tunnel": {"id": "t"}},
        });
        let unreadable = Guarded::<OpenClawInstance>::read(&object.to_string()).0.unwrap_err();
        assert!(unreadable.in_cloud);
        let salvaged = unreadable.salvage.unwrap();
        assert_eq!(&*salvaged.spec.hostname, "ada");
        assert_eq!(salvaged.spec.deletion_policy, crate::api::instance::DeletionPolicy::Retain);
        assert!(salvaged.status.unwrap().tunnel.is_some());
    }
}
