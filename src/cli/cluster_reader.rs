//! What the commands that only look read from a cluster, through the user's kubeconfig.

use async_trait::async_trait;
use k8s_openapi::api::core::v1::Secret as KubeSecret;
use kube::{Api, Client, Config};

use super::cluster_error::ClusterReadError;
use crate::{
    api::{Guarded, HostingPool, OpenClawInstance, OpenClawRelease},
    api_server::{self, told},
    credentials::secret_source::SecretView,
};

/// Why something cannot be read.
pub type ReadError = Box<dyn std::error::Error + Send + Sync>;

/// Reads objects. Nothing is ever written.
#[async_trait]
pub trait ClusterReader: Send + Sync {
    /// The namespace that the user works in.
    fn namespace(&self) -> &str;
    /// An instance, if there is one.
    async fn instance(
        &self,
        namespace: &str,
        name: &str,
    ) -> Result<Option<OpenClawInstance>, ReadError>;
    /// A pool, if there is one.
    async fn pool(&self, name: &str) -> Result<Option<HostingPool>, ReadError>;
    /// A release, if there is one.
    async fn release(&self, name: &str) -> Result<Option<OpenClawRelease>, ReadError>;
    /// A Secret, if there is one.
    async fn secret(&self, namespace: &str, name: &str) -> Result<Option<SecretView>, ReadError>;
}

/// The cluster of the user's kubeconfig.
pub struct KubeReader(Client);

impl KubeReader {
    /// Uses the kubeconfig, as kubectl does.
    pub async fn connect() -> Result<Self, ReadError> {
        Ok(Self(connect().await?))
    }
}

/// The cluster of the user's kubeconfig, or why there is none.
pub(super) async fn connect() -> Result<Client, ClusterReadError> {
    let config = Config::infer().await;
    let config = config.map_err(|error| ClusterReadError::Unreachable(error.to_string()))?;
    api_server::client(config).map_err(|error| ClusterReadError::Unreachable(told(&error)))
}

/// An object that was read, or which field of it cannot be.
pub(super) fn readable<K>(
    what: &str,
    read: Result<Option<Guarded<K>>, kube::Error>,
) -> Result<Option<K>, ClusterReadError> {
    let found = read.map_err(|error| ClusterReadError::of(what, &error))?;
    match found {
        None => Ok(None),
        Some(Guarded(Ok(object))) => Ok(Some(object)),
        Some(Guarded(Err(unreadable))) => {
            Err(ClusterReadError::Unreadable { what: what.to_owned(), problem: unreadable.error })
        }
    }
}

#[async_trait]
impl ClusterReader for KubeReader {
    fn namespace(&self) -> &str {
        self.0.default_namespace()
    }

    async fn instance(
        &self,
        namespace: &str,
        name: &str,
    ) -> Result<Option<OpenClawInstance>, ReadError> {
        let what = format!("OpenClawInstance {namespace}/{name}");
        Ok(readable(&what, Api::namespaced(self.0.clone(), namespace).get_opt(name).await)?)
    }

    async fn pool(&self, name: &str) -> Result<Option<HostingPool>, ReadError> {
        let found = Api::all(self.0.clone()).get_opt(name).await;
        Ok(readable(&format!("HostingPool {name}"), found)?)
    }

    async fn release(&self, name: &str) -> Result<Option<OpenClawRelease>, ReadError> {
        let found = Api::all(self.0.clone()).get_opt(name).await;
        Ok(readable(&format!("OpenClawRelease {name}"), found)?)
    }

    async fn secret(&self, namespace: &str, name: &str) -> Result<Option<SecretView>, ReadError> {
        let secrets = Api::<KubeSecret>::namespaced(self.0.clone(), namespace);
        let what = format!("Secret {namespace}/{name}");
        let found = secrets.get_opt(name).await;
        let found = found.map_err(|error| ClusterReadError::of(what, &error))?;
        Ok(found.map(SecretView::from))
    }
}
