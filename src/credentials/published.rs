//! The certificate to seal to, where whoever may make instances can read it: a `ConfigMap` of its own in
//! the operator's namespace. A pool's status has it as well, but pools are for administrators.

use std::collections::BTreeMap;

use k8s_openapi::{api::core::v1::ConfigMap, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};

use crate::controller::status::FIELD_MANAGER;

/// Its name. The chart lets people read the `ConfigMap` of exactly this name.
pub const SEALING_CERTIFICATE_CONFIG_MAP: &str = "moorage-sealing-certificate";
/// The key of the PEM in it.
pub const CERTIFICATE_KEY: &str = "cert.pem";

/// Writes the certificate if it is not what stands there; tells whether it was.
pub async fn publish(client: &Client, namespace: &str, pem: &str) -> Result<bool, kube::Error> {
    let maps = Api::<ConfigMap>::namespaced(client.clone(), namespace);
    let current = maps.get_opt(SEALING_CERTIFICATE_CONFIG_MAP).await?;
    let stands = current.and_then(|map| map.data?.remove(CERTIFICATE_KEY));
    if stands.as_deref() == Some(pem) {
        return Ok(false);
    }
    let map = ConfigMap {
        metadata: ObjectMeta {
            name: Some(SEALING_CERTIFICATE_CONFIG_MAP.to_owned()),
            ..ObjectMeta::default()
        },
        data: Some(BTreeMap::from([(CERTIFICATE_KEY.to_owned(), pem.to_owned())])),
        ..ConfigMap::default()
    };
    let params = PatchParams::apply(FIELD_MANAGER).force();
    maps.patch(SEALING_CERTIFICATE_CONFIG_MAP, &params, &Patch::Apply(&map)).await?;
    Ok(true)
}
