//! Writes a status: one server-side apply, and only if it says something new.

use std::fmt::Debug;

use kube::{
    Api, ResourceExt as _,
    api::{Patch, PatchParams},
};
use serde::Serialize;
use serde_json::{Value, json};

use crate::{
    api::{Guarded, guarded::Stored},
    metrics::{Metrics, WriteKind},
};

/// Who owns the fields that the operator applies.
pub const FIELD_MANAGER: &str = "moorage";

/// Whether `wanted` says something that `current` does not. No status at all and one that is empty
/// are the same.
pub fn differs<S: Default + PartialEq>(current: Option<&S>, wanted: &S) -> bool {
    current.map_or_else(|| *wanted != S::default(), |current| current != wanted)
}

/// Applies `wanted` to the status of `object` if it differs from `current`, and gives the object as it is
/// then. What was written by others after `version`, and an object that was replaced by another of its
/// name, is left alone (409: look again).
pub async fn write<K, S>(
    api: &Api<Guarded<K>>,
    object: &K,
    version: Option<&str>,
    (current, wanted): (Option<&S>, &S),
    metrics: &Metrics,
) -> Result<Option<Guarded<K>>, kube::Error>
where
    K: Stored + Clone + Debug,
    S: Serialize + Default + PartialEq,
{
    if !differs(current, wanted) {
        return Ok(None);
    }
    let document = json!({
        "apiVersion": K::api_version(&()),
        "kind": K::kind(&()),
        "metadata": { "name": object.name_any(), "uid": object.uid(), "resourceVersion": version },
        "status": serde_json::to_value(wanted).unwrap_or(Value::Null),
    });
    let parameters = PatchParams::apply(FIELD_MANAGER).force();
    let name = object.name_any();
    let written = api.patch_status(&name, &parameters, &Patch::Apply(document)).await?;
    metrics.api_write(WriteKind::Status);
    Ok(Some(written))
}

/// Whether an error says that the object has changed since it was read: then the next pass, which sees
/// it as it is, does what is left.
pub fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 409 && status.reason == "Conflict")
}

/// Adds our finalizer or takes it away, if that is a change. The resource version guards against a
/// list that others have changed (409: the next pass sees theirs).
pub async fn set_finalizer<K>(
    api: &Api<Guarded<K>>,
    object: &K,
    version: Option<&str>,
    held: bool,
    metrics: &Metrics,
) -> Result<bool, kube::Error>
where
    K: Stored + Clone + Debug,
{
    let Some(finalizers) = with_finalizer(object.finalizers(), held) else { return Ok(false) };
    let patch = Patch::Merge(json!({ "metadata": {
        "resourceVersion": version,
        "uid": object.uid(),
        "finalizers": finalizers,
    }}));
    let parameters =
        PatchParams { field_manager: Some(FIELD_MANAGER.into()), ..PatchParams::default() };
    match api.patch(&object.name_any(), &parameters, &patch).await {
        Err(kube::Error::Api(status)) if !held && status.is_not_found() => return Ok(false),
        patched => patched?,
    };
    metrics.api_write(WriteKind::Finalizer);
    Ok(true)
}

/// The list of finalizers as it should be; `None` if it is that already.
pub(super) fn with_finalizer(finalizers: &[String], held: bool) -> Option<Vec<String>> {
    let present = finalizers.iter().any(|finalizer| finalizer == crate::api::FINALIZER);
    if present == held {
        return None;
    }
    let others = finalizers.iter().filter(|finalizer| *finalizer != crate::api::FINALIZER);
    let ours = held.then(|| crate::api::FINALIZER.to_owned());
    Some(others.cloned().chain(ours).collect())
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::api::{
        HostingPoolStatus, OpenClawInstanceStatus,
        conditions::{ConditionType, Reason, Verdict, merge},
    };

    #[test]
    fn an_equal_status_is_no_difference_and_neither_is_none_at_all() {
        let empty = HostingPoolStatus::default();
        let other = HostingPoolStatus { instances: 1, ..HostingPoolStatus::default() };
        assert!(!differs(None, &empty));
        assert!(!differs(Some(&other), &other.clone()));
        assert!(differs(None, &other));
        assert!(differs(Some(&other), &empty));
    }

    /// Else it would be written again and again.
    #[test]
    fn a_status_that_is_read_back_does_not_differ() {
        let verdict = Verdict::yes(ConditionType::Ready, Reason::Ready, "all is well");
        let now = Timestamp::from_nanosecond(1_790_000_000_123_456_789).unwrap();
        let conditions = merge(&[], &[verdict], Some(1), now);
        let wanted = OpenClawInstanceStatus { conditions, ..OpenClawInstanceStatus::default() };
        let text = serde_json::to_string(&wanted).unwrap();
        assert!(!differs(Some(&serde_json::from_str(&text).unwrap()), &wanted), "{text}");
    }

    #[test]
    fn our_finalizer_comes_and_goes_and_others_stay() {
        let other = vec!["example.com/other".to_owned()];
        let both = with_finalizer(&other, true).unwrap();
        assert_eq!(both.len(), 2);
        assert_eq!(with_finalizer(&both, true), None);
        assert_eq!(with_finalizer(&both, false), Some(other.clone()));
        assert_eq!(with_finalizer(&other, false), None);
    }
}
