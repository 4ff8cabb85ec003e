//! A tenant's Secrets in the real cluster. Whoever may edit the namespace may make, replace or relabel
//! any of them between two of our calls, so every write and every deletion names the exact object
//! that was read, and what is not ours by type or owner is never touched.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::{
    ByteString, api::core::v1::Secret as KubeSecret, apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{
    Api, Resource as _, ResourceExt as _,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions},
};
use moorage_wire::Secret;
use serde_json::json;

use super::{BoundSecret, ClusterError, DashboardAccess, DashboardSecret, InstanceKey};
use crate::{
    api::{OpenClawInstance, SEALED_SECRET_TYPE, annotation, label},
    api_server::Pages,
    credentials::secret_source::SecretVersion,
};

/// The keys in the dashboard's Secret.
const URL: &str = "url";
const TOKEN: &str = "token";

/// The Secrets of our type that carry the instance's label. The label alone says nothing: anybody may
/// put it on any Secret.
pub(super) async fn bound(
    secrets: &Api<KubeSecret>,
    key: InstanceKey<'_>,
) -> Result<Vec<BoundSecret>, ClusterError> {
    let selector = format!("{}={}", label::INSTANCE, key.name);
    let sealed = format!("type={SEALED_SECRET_TYPE}");
    let mut pages = Pages::of(ListParams::default().labels(&selector).fields(&sealed));
    let mut bound = Vec::new();
    while let Some(request) = pages.request() {
        // Type and label are those of exactly these objects: the API server has compared them.
        let page = secrets.list_metadata(request).await?;
        pages.turn(&page.metadata);
        bound.extend(page.items.into_iter().filter_map(|secret| {
            let version = version_of(&secret.metadata)?;
            // One without a time was there before everything else.
            let created = secret.metadata.creation_timestamp.map_or(Timestamp::MIN, |at| at.0);
            Some(BoundSecret { name: secret.metadata.name?, version, created })
        }));
    }
    Ok(bound)
}

/// Notes on exactly the object that was read that its instance is there.
pub(super) async fn mark(
    secrets: &Api<KubeSecret>,
    name: &str,
    version: &SecretVersion,
    mark: &str,
) -> Result<SecretVersion, ClusterError> {
    let patch = json!({"metadata": {
        "uid": version.uid,
        "resourceVersion": version.resource_version,
        "annotations": {annotation::INSTANCE_SEEN: mark},
    }});
    let params = PatchParams::default();
    let marked = secrets.patch_metadata(name, &params, &Patch::Merge(&patch)).await?;
    version_of(&marked.metadata).ok_or(ClusterError::Changed)
}

/// Deletes exactly the object that was read; tells whether there was something to delete.
pub(super) async fn delete(
    secrets: &Api<KubeSecret>,
    name: &str,
    version: &SecretVersion,
) -> Result<bool, ClusterError> {
    let preconditions = Preconditions {
        uid: Some(version.uid.clone()),
        resource_version: Some(version.resource_version.clone()),
    };
    let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
    match secrets.delete(name, &params).await {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// How the Secret of this name is.
pub(super) async fn dashboard(
    secrets: &Api<KubeSecret>,
    owner: &OpenClawInstance,
    name: &str,
) -> Result<DashboardSecret, ClusterError> {
    Ok(secrets.get_opt(name).await?.map_or(DashboardSecret::Absent, |secret| judge(owner, secret)))
}

fn judge(owner: &OpenClawInstance, secret: KubeSecret) -> DashboardSecret {
    let version = version_of(&secret.metadata).filter(|_| is_ours(owner, &secret));
    let Some(version) = version else { return DashboardSecret::Foreign };
    let mut data = secret.data.unwrap_or_default();
    let mut take = |key: &str| Secret::new(data.remove(key).unwrap_or_default().0);
    DashboardSecret::Ours { version, url: take(URL), token: take(TOKEN) }
}

/// Controlled by this very instance, and made by us. The owner alone is not enough: people let their
/// own Secrets go with an instance by the same reference. One that an older version made has no
/// label; it holds our two keys and nothing else.
fn is_ours(owner: &OpenClawInstance, secret: &KubeSecret) -> bool {
    let uid = owner.meta().uid.as_ref();
    let controlled = secret
        .owner_references()
        .iter()
        .any(|known| known.controller == Some(true) && Some(&known.uid) == uid);
    let labelled = secret.labels().get(label::DASHBOARD_OF) == owner.meta().name.as_ref();
    let data = secret.data.as_ref();
    let of_old = data.is_some_and(|data| data.keys().eq([TOKEN, URL]))
        && secret.type_.as_deref() == Some("Opaque");
    uid.is_some() && controlled && (labelled || of_old)
}

/// Makes the Secret if there is none of its name.
pub(super) async fn create_dashboard(
    secrets: &Api<KubeSecret>,
    owner: &OpenClawInstance,
    name: &str,
    access: &DashboardAccess<'_>,
) -> Result<SecretVersion, ClusterError> {
    let labels = BTreeMap::from([(label::DASHBOARD_OF.to_owned(), owner.name_any())]);
    let secret = KubeSecret {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            labels: Some(labels),
            owner_references: owner.controller_owner_ref(&()).map(|reference| vec![reference]),
            ..ObjectMeta::default()
        },
        data: Some(data(access)),
        type_: Some("Opaque".to_owned()),
        ..KubeSecret::default()
    };
    // One that somebody made in the meantime answers 409: the next look sees whose it is.
    let made = secrets.create(&PostParams::default(), &secret).await?;
    version_of(&made.metadata).ok_or(ClusterError::Changed)
}

/// Corrects exactly the object that was read.
pub(super) async fn correct_dashboard(
    secrets: &Api<KubeSecret>,
    owner: &OpenClawInstance,
    name: &str,
    version: &SecretVersion,
    access: &DashboardAccess<'_>,
) -> Result<SecretVersion, ClusterError> {
    let patch = json!({
        "metadata": {
            "uid": version.uid,
            "resourceVersion": version.resource_version,
            "labels": {label::DASHBOARD_OF: owner.name_any()},
        },
        "data": data(access),
    });
    let patched = secrets.patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await?;
    version_of(&patched.metadata).ok_or(ClusterError::Changed)
}

fn version_of(metadata: &ObjectMeta) -> Option<SecretVersion> {
    let version = metadata.uid.clone().zip(metadata.resource_version.clone());
    version.map(|(uid, resource_version)| SecretVersion { uid, resource_version })
}

fn data(access: &DashboardAccess<'_>) -> BTreeMap<String, ByteString> {
    BTreeMap::from([
        (URL.to_owned(), ByteString(access.url.as_bytes().to_vec())),
        (TOKEN.to_owned(), ByteString(access.token.expose().to_vec())),
    ])
}
