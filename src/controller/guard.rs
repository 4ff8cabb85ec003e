//! Objects that are not worked on because this version cannot read them, or because what all of them
//! need is missing: they get a condition that says so, once, and nothing else happens until someone
//! changes that.

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::ObjectReference,
    apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta},
};
use kube::{
    Client,
    api::{Patch, PatchParams},
    core::Request,
};
use serde_json::json;

use super::{
    context::Context,
    events,
    status::{FIELD_MANAGER, with_finalizer},
};
use crate::{
    api::{
        conditions::{ConditionType, Reason, Verdict, merge},
        guarded::{Stored, Unreadable},
    },
    metrics::WriteKind,
};

/// The API server's status of a write that does not fit the schema.
const UNPROCESSABLE: u16 = 422;

/// Writes the condition `Stalled`/`Malformed` onto an object, unless it is there already, with an
/// Event.
pub async fn report_malformed<K: Stored>(
    ctx: &Context,
    unreadable: &Unreadable<K>,
) -> Result<(), kube::Error> {
    let Unreadable { metadata, conditions: old, error, .. } = unreadable;
    let name = metadata.name.as_deref().unwrap_or_default();
    tracing::warn!(kind = %K::kind(&()), name, error, "an object cannot be read");
    if name.is_empty() {
        // Nothing that an API server stores.
        return Ok(());
    }
    let message = format!(
        "This version of Moorage cannot read the object: {error}. Correct the field, or run the version that wrote it."
    );
    let why = (Reason::Malformed, message.as_str());
    let conditions = match stall::<K>(&ctx.client, metadata, old, why, ctx.clock.now()).await {
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
    events::publish(ctx, &about::<K>(metadata), old, &conditions).await;
    Ok(())
}

/// Writes the condition `Stalled` with this reason and message onto an object that is not read any
/// further. The rest of its status stays. Gives the new conditions, or `None` if it says that
/// already.
pub async fn stall<K: Stored>(
    client: &Client,
    metadata: &ObjectMeta,
    old: &[Condition],
    why: (Reason, &str),
    now: Timestamp,
) -> Result<Option<Vec<Condition>>, kube::Error> {
    let Some(conditions) = stalled(old, why, now) else {
        return Ok(None);
    };
    // Not by server-side apply, which needs an object that fits its schema.
    let patch = Patch::Merge(json!({
        "metadata": { "uid": metadata.uid, "resourceVersion": metadata.resource_version },
        "status": { "conditions": conditions },
    }));
    let parameters =
        PatchParams { field_manager: Some(FIELD_MANAGER.into()), ..PatchParams::default() };
    let name = metadata.name.as_deref().unwrap_or_default();
    let requests = Request::new(K::url_path(&(), metadata.namespace.as_deref()));
    let request = requests.patch_subresource("status", name, &parameters, &patch);
    let mut request = request.map_err(kube::Error::BuildRequest)?;
    request.extensions_mut().insert("patch_status");
    // The answer is the object that cannot be read.
    client.request_text(request).await?;
    Ok(Some(conditions))
}

/// Removes our finalizer from an object that cannot be read, and that nothing depends on.
pub async fn let_go<K: Stored>(ctx: &Context, metadata: &ObjectMeta) -> Result<(), kube::Error> {
    let Some(finalizers) =
        with_finalizer(metadata.finalizers.as_deref().unwrap_or_default(), false)
    else {
        return Ok(());
    };
    let patch = Patch::Merge(json!({ "metadata": {
        "resourceVersion": metadata.resource_version,
        "uid": metadata.uid,
        "finalizers": finalizers,
    }}));
    let parameters =
        PatchParams { field_manager: Some(FIELD_MANAGER.into()), ..PatchParams::default() };
    let name = metadata.name.as_deref().unwrap_or_default();
    let requests = Request::new(K::url_path(&(), metadata.namespace.as_deref()));
    let request = requests.patch(name, &parameters, &patch).map_err(kube::Error::BuildRequest)?;
    match ctx.client.request_text(request).await {
        Err(kube::Error::Api(status)) if status.is_not_found() => return Ok(()),
        answered => answered?,
    };
    ctx.metrics.api_write(WriteKind::Finalizer);
    Ok(())
}

/// What an Event is about.
fn about<K: Stored>(metadata: &ObjectMeta) -> ObjectReference {
    ObjectReference {
        api_version: Some(K::api_version(&()).into_owned()),
        kind: Some(K::kind(&()).into_owned()),
        name: metadata.name.clone(),
        namespace: metadata.namespace.clone(),
        uid: metadata.uid.clone(),
        resource_version: metadata.resource_version.clone(),
        ..ObjectReference::default()
    }
}

/// The conditions of a stalled object; `None` if these are what it has.
fn stalled(
    old: &[Condition],
    (reason, message): (Reason, &str),
    now: Timestamp,
) -> Option<Vec<Condition>> {
    let verdicts = [
        Verdict::no(ConditionType::Ready, reason, message),
        Verdict::yes(ConditionType::Stalled, reason, message),
    ];
    let merged = merge(old, &verdicts, None, now);
    (merged != old).then_some(merged)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stalled_object_is_written_to_once() {
        let now = Timestamp::UNIX_EPOCH;
        let why = (Reason::Malformed, "spec.capacity: not a number");
        let conditions = stalled(&[], why, now).unwrap();
        assert_eq!((&*conditions[1].type_, &*conditions[1].reason), ("Stalled", "Malformed"));
        let later = Timestamp::from_second(90).unwrap();
        assert_eq!(stalled(&conditions, why, later), None);
    }
}
