//! Objects in etcd that this version cannot read: they get a condition that says so, once, and
//! nothing else happens until someone changes them.

use std::fmt::Debug;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{
    Api, Client, Resource,
    api::{ApiResource, DynamicObject, Patch, PatchParams},
    core::error_boundary::InvalidObject,
};
use serde_json::{Map, Value, json};

use super::status::FIELD_MANAGER;
use crate::{
    api::conditions::{ConditionType, Verdict, merge, reason},
    metrics::{Metrics, WriteKind},
};

/// Writes the condition `Stalled`/`Malformed` onto the raw object, unless it is there already.
pub async fn report_malformed<K>(
    client: &Client,
    invalid: &InvalidObject,
    metrics: &Metrics,
    now: Timestamp,
) -> Result<(), kube::Error>
where
    K: Resource<DynamicType = ()> + Debug,
{
    let name = invalid.metadata.name.as_deref().unwrap_or_default();
    tracing::warn!(kind = %K::kind(&()), name, error = %invalid.error, "an object cannot be read");
    let resource = ApiResource::erase::<K>(&());
    let api: Api<DynamicObject> = match invalid.metadata.namespace.as_deref() {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    };
    let Some(object) = api.get_opt(name).await? else { return Ok(()) };
    let Some(status) = malformed_status(object.data.get("status"), &invalid.error, now) else {
        return Ok(());
    };
    let document = json!({
        "apiVersion": K::api_version(&()),
        "kind": K::kind(&()),
        "metadata": { "name": name, "uid": object.metadata.uid },
        "status": status,
    });
    let parameters = PatchParams::apply(FIELD_MANAGER).force();
    api.patch_status(name, &parameters, &Patch::Apply(document)).await?;
    metrics.api_write(WriteKind::Status);
    Ok(())
}

/// The status with the conditions of a malformed object in it and everything else kept, so that
/// nothing that was recorded is lost; `None` if that is what it says already.
fn malformed_status(status: Option<&Value>, error: &str, now: Timestamp) -> Option<Value> {
    let mut status = status.and_then(Value::as_object).cloned().unwrap_or_else(Map::new);
    let old = status.get("conditions").cloned().unwrap_or_default();
    let old: Vec<Condition> = serde_json::from_value(old).unwrap_or_default();
    let message = format!(
        "This version of Moorage cannot read the object: {error}. Correct the field, or run the version that wrote it."
    );
    let verdicts = [
        Verdict::no(ConditionType::Ready, reason::MALFORMED, message.clone()),
        Verdict::yes(ConditionType::Stalled, reason::MALFORMED, message),
    ];
    let merged = merge(&old, &verdicts, None, now);
    if merged == old {
        return None;
    }
    status.insert("conditions".to_owned(), serde_json::to_value(merged).ok()?);
    Some(Value::Object(status))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_malformed_object_keeps_what_was_recorded_and_is_written_to_once() {
        let now = Timestamp::UNIX_EPOCH;
        let recorded = json!({ "firewallId": 7 });
        let status = malformed_status(Some(&recorded), "spec.capacity: not a number", now).unwrap();
        assert_eq!(status["firewallId"], 7);
        assert_eq!(status["conditions"][1]["type"], "Stalled");
        assert_eq!(status["conditions"][1]["reason"], "Malformed");
        let later = Timestamp::from_second(90).unwrap();
        assert_eq!(malformed_status(Some(&status), "spec.capacity: not a number", later), None);
    }
}
