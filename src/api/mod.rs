//! The custom resources of group `moorage.dev`, version `v1alpha1`, and nothing that acts on them.
//! What can be checked at admission is a schema or CEL rule here; `crds/` is generated from these types.

#![allow(unreachable_pub, reason = "the derives of kube put public types behind private modules")]

pub mod annotation;
pub mod conditions;
pub mod guarded;
pub mod instance;
pub mod names;
pub mod pool;
mod reason;
pub mod release;
pub(crate) mod reserved_users;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use kube::CustomResourceExt as _;

pub use guarded::Guarded;
pub use instance::{OpenClawInstance, OpenClawInstanceSpec, OpenClawInstanceStatus};
pub use pool::{HostingPool, HostingPoolSpec, HostingPoolStatus};
pub use release::{OpenClawRelease, OpenClawReleaseSpec, OpenClawReleaseStatus};

/// API group of all resources.
pub const GROUP: &str = "moorage.dev";
/// Held by every object whose disappearance needs work in the clouds.
pub const FINALIZER: &str = "moorage.dev/finalizer";
/// Type of the Secrets that customers hand their sealed values in with.
pub const SEALED_SECRET_TYPE: &str = "moorage.dev/sealed-credentials";

/// Names of labels, on Kubernetes objects and on Hetzner's.
pub mod label {
    /// On a Secret: the instance that it is for. On a server: the instance id.
    pub const INSTANCE: &str = "moorage.dev/instance";
    /// On a Secret that Moorage made: the instance whose dashboard it opens.
    pub const DASHBOARD_OF: &str = "moorage.dev/dashboard-of";
    /// Id of the installation: tells the objects of several clusters in one cloud project apart.
    pub const INSTALLATION: &str = "moorage.dev/installation";
    /// Namespace of the instance.
    pub const NAMESPACE: &str = "moorage.dev/namespace";
    /// Name of the instance.
    pub const NAME: &str = "moorage.dev/name";
    /// Name of the pool.
    pub const POOL: &str = "moorage.dev/pool";
    /// Epoch of a server.
    pub const EPOCH: &str = "moorage.dev/epoch";
    /// Set when an instance with `deletionPolicy: Retain` let its objects go.
    pub const RETAINED: &str = "moorage.dev/retained";
}

/// The three custom resource definitions, in the order to install them.
pub fn custom_resource_definitions() -> [CustomResourceDefinition; 3] {
    let definitions = [OpenClawInstance::crd(), HostingPool::crd(), OpenClawRelease::crd()];
    definitions.map(|mut definition| {
        for version in &mut definition.spec.versions {
            let schema =
                version.schema.as_mut().and_then(|schema| schema.open_api_v3_schema.as_mut());
            if let Some(schema) = schema {
                name_known_formats(schema);
            }
        }
        definition
    })
}

/// schemars names Rust's unsigned types as formats; Kubernetes knows the signed ones alone, and warns
/// of others at every installation. The `minimum` that comes with them stays; a `maximum` keeps out what
/// the type cannot hold, for an object with it could not be read.
fn name_known_formats(schema: &mut JSONSchemaProps) {
    if schema.format.as_deref() == Some("uint32") {
        schema.maximum.get_or_insert(f64::from(u32::MAX));
    }
    if schema.format.as_deref().is_some_and(|format| format.starts_with("uint")) {
        schema.format = Some("int64".to_owned());
    }
    schema.properties.iter_mut().flat_map(|all| all.values_mut()).for_each(name_known_formats);
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = &mut schema.items {
        name_known_formats(items);
    }
    if let Some(JSONSchemaPropsOrBool::Schema(values)) = &mut schema.additional_properties {
        name_known_formats(values);
    }
}
