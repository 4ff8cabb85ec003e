//! What the commands that only look read from a cluster, through the user's kubeconfig.

use async_trait::async_trait;
use k8s_openapi::api::core::v1::Secret as KubeSecret;
use kube::{Api, Client, Config};

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
    /// Reads the kubeconfig.
    pub async fn connect() -> Result<Self, ReadError> {
        Ok(Self(connect().await.map_err(|error| format!("{error}; set KUBECONFIG"))?))
    }
}

/// The cluster of the user's kubeconfig, or why there is none.
pub(super) async fn connect() -> Result<Client, String> {
    let config = Config::infer().await;
    let config = config.map_err(|error| format!("no cluster can be reached: {error}"))?;
    api_server::client(config)
        .map_err(|error| format!("no cluster can be reached: {}", told(&error)))
}

/// An object that was read, or which field of it cannot be.
pub(super) fn readable<K>(
    read: Result<Option<Guarded<K>>, kube::Error>,
) -> Result<Option<K>, ReadError> {
    let read = read.map_err(|error| told(&error))?;
    let found = read.map(|object| object.0.map_err(|unreadable| unreadable.error));
    Ok(found.transpose()?)
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
        readable(Api::namespaced(self.0.clone(), namespace).get_opt(name).await)
    }

    async fn pool(&self, name: &str) -> Result<Option<HostingPool>, ReadError> {
        readable(Api::all(self.0.clone()).get_opt(name).await)
    }

    async fn release(&self, name: &str) -> Result<Option<OpenClawRelease>, ReadError> {
        readable(Api::all(self.0.clone()).get_opt(name).await)
    }

    async fn secret(&self, namespace: &str, name: &str) -> Result<Option<SecretView>, ReadError> {
        let secrets = Api::<KubeSecret>::namespaced(self.0.clone(), namespace);
        let found = secrets.get_opt(name).await.map_err(|error| told(&error))?;
        Ok(found.map(SecretView::from))
    }
}
