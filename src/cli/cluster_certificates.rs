//! The certificates that `moorage seal` finds in a cluster, through the user's kubeconfig.

use async_trait::async_trait;
use kube::{Api, Client};

use super::seal::{CertificateSource, LookupError};
use crate::api::{HostingPool, OpenClawInstance};

/// Reads the status of pools and instances. Connects only when it is asked.
#[derive(Debug, Clone, Copy, Default)]
pub struct ClusterCertificates;

#[async_trait]
impl CertificateSource for ClusterCertificates {
    async fn of_pool(&self, pool: &str) -> Result<String, LookupError> {
        let pools = Api::<HostingPool>::all(connect().await?);
        let pool = pools.get_opt(pool).await?.ok_or("there is no such HostingPool")?;
        let published = pool.status.and_then(|status| status.sealing_certificate);
        published
            .ok_or_else(|| "its status has no certificate yet: is the operator running?".into())
    }

    async fn of_agent(&self, namespace: &str, instance: &str) -> Result<String, LookupError> {
        let instances = Api::<OpenClawInstance>::namespaced(connect().await?, namespace);
        let found = instances.get_opt(instance).await?;
        let found = found.ok_or("there is no such OpenClawInstance")?;
        let agent = found.status.and_then(|status| status.agent);
        let agent =
            agent.ok_or("its server has not enrolled yet: wait for condition AgentReady")?;
        Ok(agent.sealing_certificate)
    }
}

async fn connect() -> Result<Client, LookupError> {
    let client = Client::try_default().await;
    client.map_err(|error| format!("no cluster can be reached: {error}; set KUBECONFIG, or give the certificate with --cert").into())
}
