//! The dashboard's Secret: written, and deleted when it is somebody else's name by now.

use super::{Apply, Executor, PassError};
use crate::{
    cluster::DashboardAccess,
    instance::{
        Observed,
        dashboard::{DashboardOutcome, DashboardStep},
    },
};

impl Apply for DashboardStep {
    async fn apply(
        self,
        executor: &mut Executor<'_>,
        observed: &mut Observed,
    ) -> Result<DashboardOutcome, PassError> {
        let (subject, cluster) = (&executor.wanted.subject, &executor.controller.cluster);
        match self {
            Self::Record(_) => Ok(DashboardOutcome::Recorded),
            Self::Write { name, version } => {
                let url = format!("https://{}", subject.dashboard_host());
                let token = executor.gateway_token(observed)?;
                let access = DashboardAccess { url: &url, token: token.secret() };
                let (instance, version) = (executor.instance, version.as_ref());
                let written =
                    cluster.write_dashboard_secret(instance, &name, version, &access).await?;
                Ok(DashboardOutcome::Written(written))
            }
            Self::Delete { name, version } => {
                cluster.delete_secret(&subject.namespace, &name, &version).await?;
                tracing::info!(secret = name, "deleted the Secret that was the dashboard's before");
                Ok(DashboardOutcome::Deleted)
            }
        }
    }
}
