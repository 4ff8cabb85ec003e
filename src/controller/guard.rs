//! Objects that are not worked on because this version cannot read them, or because what all of them
//! need is missing: they get a condition that says so, once, and nothing else happens until someone
//! changes that.

use std::fmt::Debug;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{
    Api, Client, Resource, ResourceExt as _,
    api::{ApiResource, DynamicObject, Patch, PatchParams},
    core::error_boundary::InvalidObject,
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{context::Context, events, status::FIELD_MANAGER};
use crate::{
    api::conditions::{ConditionType, Verdict, merge, reason},
    metrics::WriteKind,
};

/// The API server's status of a write that does not fit the schema.
const UNPROCESSABLE: u16 = 422;

/// Writes the condition `Stalled`/`Malformed` onto the raw object, unless it is there already, with an
/// Event.
pub async fn report_malformed<K>(ctx: &Context, invalid: &InvalidObject) -> Result<(), kube::Error>
where
    K: Resource<DynamicType = ()> + DeserializeOwned + Debug,
{
    let name = invalid.metadata.name.as_deref().unwrap_or_default();
    tracing::warn!(kind = %K::kind(&()), name, error = %invalid.error, "an object cannot be read");
    let resource = ApiResource::erase::<K>(&());
    let api = api_of(&ctx.client, &resource, invalid.metadata.namespace.as_deref());
    let Some(object) = api.get_opt(name).await? else { return Ok(()) };
    let message = format!(
        "This version of Moorage cannot read the object: {}. Correct the field, or run the version that wrote it.",
        what_is_wrong::<K>(&object).unwrap_or_else(|| invalid.error.clone())
    );
    let why = (reason::MALFORMED, message.as_str());
    let conditions = match stall(&ctx.client, &resource, &object, why, ctx.clock.now()).await {
        Ok(None) => return Ok(()),
        Ok(Some(conditions)) => {
            ctx.metrics.api_write(WriteKind::Status);
            conditions
        }
        // A rule of the schema cannot be evaluated on what is there, so that the API server takes no
        // write at all, of the status neither. The Event is all that can be said.
        Err(kube::Error::Api(status)) if status.code == UNPROCESSABLE => {
            tracing::warn!(
                name,
                "the API server takes no status of an object that breaks its schema"
            );
            stalled(&[], why, ctx.clock.now()).unwrap_or_default()
        }
        Err(error) => return Err(error),
    };
    let about = object.object_ref(&resource);
    events::publish(ctx, &about, &conditions_of(object.data.get("status")), &conditions).await;
    Ok(())
}

/// Writes the condition `Stalled` with this reason and message onto an object that is not read any
/// further. The rest of its status stays. Gives the new conditions, or `None` if it says that
/// already.
pub async fn stall(
    client: &Client,
    resource: &ApiResource,
    object: &DynamicObject,
    why: (&'static str, &str),
    now: Timestamp,
) -> Result<Option<Vec<Condition>>, kube::Error> {
    let Some(conditions) = stalled(&conditions_of(object.data.get("status")), why, now) else {
        return Ok(None);
    };
    // Not by server-side apply, which needs an object that fits its schema.
    let patch = Patch::Merge(json!({
        "metadata": { "uid": object.metadata.uid },
        "status": { "conditions": conditions },
    }));
    let parameters =
        PatchParams { field_manager: Some(FIELD_MANAGER.into()), ..PatchParams::default() };
    let api = api_of(client, resource, object.metadata.namespace.as_deref());
    api.patch_status(&object.name_any(), &parameters, &patch).await?;
    Ok(Some(conditions))
}

fn api_of(client: &Client, resource: &ApiResource, namespace: Option<&str>) -> Api<DynamicObject> {
    match namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, resource),
        None => Api::all_with(client.clone(), resource),
    }
}

/// The conditions of a stalled object; `None` if these are what it has.
fn stalled(
    old: &[Condition],
    (reason, message): (&'static str, &str),
    now: Timestamp,
) -> Option<Vec<Condition>> {
    let verdicts = [
        Verdict::no(ConditionType::Ready, reason, message),
        Verdict::yes(ConditionType::Stalled, reason, message),
    ];
    let merged = merge(old, &verdicts, None, now);
    (merged != old).then_some(merged)
}

/// The path of the field that cannot be read, and why not.
fn what_is_wrong<K: DeserializeOwned>(object: &DynamicObject) -> Option<String> {
    let object = serde_json::to_value(object).ok()?;
    let error = serde_path_to_error::deserialize::<_, K>(object).err()?;
    Some(format!("{}: {}", error.path(), error.inner()))
}

/// The conditions of a status, as far as they can be read.
fn conditions_of(status: Option<&Value>) -> Vec<Condition> {
    let conditions = status.and_then(|status| status.get("conditions")).cloned();
    conditions.and_then(|list| serde_json::from_value(list).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::HostingPool;

    #[test]
    fn a_stalled_object_is_written_to_once() {
        let now = Timestamp::UNIX_EPOCH;
        let why = (reason::MALFORMED, "spec.capacity: not a number");
        let conditions = stalled(&[], why, now).unwrap();
        assert_eq!((&*conditions[1].type_, &*conditions[1].reason), ("Stalled", "Malformed"));
        let later = Timestamp::from_second(90).unwrap();
        assert_eq!(stalled(&conditions, why, later), None);
    }

    #[test]
    fn the_field_that_cannot_be_read_is_named() {
        let resource = ApiResource::erase::<HostingPool>(&());
        let spec = json!({"spec": {"hetzner": {"tokenSecretRef": {"name": 7}}}});
        let pool = DynamicObject::new("eu-1", &resource).data(spec);
        let said = what_is_wrong::<HostingPool>(&pool).unwrap();
        assert!(said.starts_with("spec.hetzner.tokenSecretRef.name: "), "{said}");
    }
}
