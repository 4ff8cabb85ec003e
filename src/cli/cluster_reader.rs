//! What the commands that only look read from a cluster, through the user's kubeconfig.

use async_trait::async_trait;
use k8s_openapi::api::core::v1::Secret as KubeSecret;
use kube::{Api, Client};

use crate::{
    api::{HostingPool, OpenClawInstance, OpenClawRelease},
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
        let client = Client::try_default().await;
        client
            .map(Self)
            .map_err(|error| format!("no cluster can be reached: {error}; set KUBECONFIG").into())
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
        Ok(Api::namespaced(self.0.clone(), namespace).get_opt(name).await?)
    }

    async fn pool(&self, name: &str) -> Result<Option<HostingPool>, ReadError> {
        Ok(Api::all(self.0.clone()).get_opt(name).await?)
    }

    async fn release(&self, name: &str) -> Result<Option<OpenClawRelease>, ReadError> {
        Ok(Api::all(self.0.clone()).get_opt(name).await?)
    }

    async fn secret(&self, namespace: &str, name: &str) -> Result<Option<SecretView>, ReadError> {
        let secrets = Api::<KubeSecret>::namespaced(self.0.clone(), namespace);
        Ok(secrets.get_opt(name).await?.map(SecretView::from))
    }
}
