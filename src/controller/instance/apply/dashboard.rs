//! The dashboard's Secret: recorded in the status before it is made, so that it is found again when
//! the spec names another or none.

use super::{Hands, Trouble};
use crate::{
    api::OpenClawInstanceStatus,
    cluster::DashboardAccess,
    credentials::secret_source::SecretVersion,
    instance::{Observed, observed::DashboardSight},
};

impl Hands<'_> {
    pub(super) async fn record_dashboard_secret(
        &mut self,
        name: Option<String>,
        seen: &mut Observed,
    ) -> Result<(), Trouble> {
        let status = OpenClawInstanceStatus { dashboard_secret_name: name, ..seen.status.clone() };
        Ok(self.persist(status, seen).await?)
    }

    pub(super) async fn write_dashboard_secret(
        &self,
        name: &str,
        version: Option<&SecretVersion>,
        seen: &mut Observed,
    ) -> Result<(), Trouble> {
        let url = format!("https://{}", self.wanted.subject.dashboard_host());
        let token = self.gateway_token(seen)?;
        let access = DashboardAccess { url: &url, token: token.secret() };
        let cluster = &self.controller.cluster;
        let written = cluster.write_dashboard_secret(self.instance, name, version, &access).await?;
        seen.dashboard_secret = DashboardSight::Current(written);
        Ok(())
    }

    pub(super) async fn delete_dashboard_secret(
        &self,
        name: &str,
        version: &SecretVersion,
        seen: &mut Observed,
    ) -> Result<(), Trouble> {
        let namespace = &self.wanted.subject.namespace;
        self.controller.cluster.delete_secret(namespace, name, version).await?;
        tracing::info!(secret = name, "deleted the Secret that was the dashboard's before");
        seen.former_dashboard = None;
        Ok(())
    }
}
