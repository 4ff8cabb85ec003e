//! The dashboard's Secret: recorded in the status before it is made, so that it is found again when
//! the spec names another or none.

use super::{Executor, Trouble};
use crate::{
    api::OpenClawInstanceStatus,
    cluster::DashboardAccess,
    credentials::secret_source::SecretVersion,
    instance::{Observed, observed::DashboardState},
};

impl Executor<'_> {
    pub(super) async fn record_dashboard_secret(
        &mut self,
        name: Option<String>,
        observed: &mut Observed,
    ) -> Result<(), Trouble> {
        let status =
            OpenClawInstanceStatus { dashboard_secret_name: name, ..observed.status.clone() };
        Ok(self.persist(status, observed).await?)
    }

    pub(super) async fn write_dashboard_secret(
        &self,
        name: &str,
        version: Option<&SecretVersion>,
        observed: &mut Observed,
    ) -> Result<(), Trouble> {
        let url = format!("https://{}", self.wanted.subject.dashboard_host());
        let token = self.gateway_token(observed)?;
        let access = DashboardAccess { url: &url, token: token.secret() };
        let cluster = &self.controller.cluster;
        let written = cluster.write_dashboard_secret(self.instance, name, version, &access).await?;
        observed.dashboard_secret = DashboardState::Current(written);
        Ok(())
    }

    pub(super) async fn delete_dashboard_secret(
        &self,
        name: &str,
        version: &SecretVersion,
        observed: &mut Observed,
    ) -> Result<(), Trouble> {
        let namespace = &self.wanted.subject.namespace;
        self.controller.cluster.delete_secret(namespace, name, version).await?;
        tracing::info!(secret = name, "deleted the Secret that was the dashboard's before");
        observed.former_dashboard = None;
        Ok(())
    }
}
