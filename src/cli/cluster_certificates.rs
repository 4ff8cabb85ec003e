//! The certificates that `moorage seal` finds in a cluster, through the user's kubeconfig.

use async_trait::async_trait;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;

use super::{
    cluster_error::ClusterReadError,
    cluster_reader::{connect, readable},
    seal::CertificateSource,
};
use crate::{
    api::{Guarded, HostingPool, OpenClawInstance},
    credentials::published::{CERTIFICATE_KEY, SEALING_CERTIFICATE_CONFIG_MAP},
};

/// Reads what the operator publishes, and the status of pools and instances. Connects only when it is
/// asked.
#[derive(Debug, Clone, Copy, Default)]
pub struct ClusterCertificates;

#[async_trait]
impl CertificateSource for ClusterCertificates {
    async fn published(&self, namespace: &str) -> Result<String, ClusterReadError> {
        let maps = Api::<ConfigMap>::namespaced(connect().await?, namespace);
        let what = format!("ConfigMap {namespace}/{SEALING_CERTIFICATE_CONFIG_MAP}");
        let found = maps.get(SEALING_CERTIFICATE_CONFIG_MAP).await;
        let found = found.map_err(|error| ClusterReadError::of(&what, &error))?;
        let certificate = found.data.and_then(|mut data| data.remove(CERTIFICATE_KEY));
        certificate.ok_or(ClusterReadError::NotYet { what, remedy: "Is the operator running?" })
    }

    async fn of_pool(&self, pool: &str) -> Result<String, ClusterReadError> {
        let pools = Api::<Guarded<HostingPool>>::all(connect().await?);
        let what = format!("HostingPool {pool}");
        let found = readable(&what, pools.get_opt(pool).await)?;
        let found = found.ok_or_else(|| ClusterReadError::NotFound { what: what.clone() })?;
        let published = found.status.and_then(|status| status.sealing_certificate);
        published.ok_or(ClusterReadError::NotYet { what, remedy: "Is the operator running?" })
    }

    async fn of_agent(&self, namespace: &str, instance: &str) -> Result<String, ClusterReadError> {
        let instances = Api::<Guarded<OpenClawInstance>>::namespaced(connect().await?, namespace);
        let what = format!("OpenClawInstance {namespace}/{instance}");
        let found = readable(&what, instances.get_opt(instance).await)?;
        let found = found.ok_or_else(|| ClusterReadError::NotFound { what: what.clone() })?;
        let agent = found.status.and_then(|status| status.agent);
        let remedy = "Its server has not enrolled yet: wait for condition AgentReady";
        let agent = agent.ok_or(ClusterReadError::NotYet { what, remedy })?;
        Ok(agent.sealing_certificate)
    }
}
