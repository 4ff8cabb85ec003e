//! The certificates that `moorage seal` finds in a cluster, through the user's kubeconfig.

use async_trait::async_trait;
use kube::{Api, Client};

use super::{
    cluster_reader::{self, readable},
    seal::{CertificateSource, LookupError},
};
use crate::api::{Guarded, HostingPool, OpenClawInstance};

/// Reads the status of pools and instances. Connects only when it is asked.
#[derive(Debug, Clone, Copy, Default)]
pub struct ClusterCertificates;

#[async_trait]
impl CertificateSource for ClusterCertificates {
    async fn of_pool(&self, pool: &str) -> Result<String, LookupError> {
        let pools = Api::<Guarded<HostingPool>>::all(connect().await?);
        let pool = readable(pools.get_opt(pool).await)?.ok_or("there is no such HostingPool")?;
        let published = pool.status.and_then(|status| status.sealing_certificate);
        published
            .ok_or_else(|| "its status has no certificate yet: is the operator running?".into())
    }

    async fn of_agent(&self, namespace: &str, instance: &str) -> Result<String, LookupError> {
        let instances = Api::<Guarded<OpenClawInstance>>::namespaced(connect().await?, namespace);
        let found = readable(instances.get_opt(instance).await)?;
        let found = found.ok_or("there is no such OpenClawInstance")?;
        let agent = found.status.and_then(|status| status.agent);
        let agent =
            agent.ok_or("its server has not enrolled yet: wait for condition AgentReady")?;
        Ok(agent.sealing_certificate)
    }
}

async fn connect() -> Result<Client, LookupError> {
    let connected = cluster_reader::connect().await;
    connected.map_err(|error| {
        format!("{error}; set KUBECONFIG, or give the certificate with --cert").into()
    })
}
