//! The routes: the tunnel's ingress rules, and the DNS records that lead to it.

use std::time::Duration;

use super::{Executor, Trouble, failed};
use crate::{
    api::conditions::ConditionType,
    cloud::{CloudError, Conflict, ErrorKind, Priority},
    cloudflare::{DnsRecord, TunnelConfiguration, TunnelId},
    dns::DnsChange,
    instance::{Observed, routes},
};

/// For how long a comparison of the rules is put off when the budget has no call for it.
const CHECK_PUT_OFF: Duration = Duration::from_mins(5);

impl Executor<'_> {
    pub(super) async fn put_routes(
        &self,
        id: &TunnelId,
        rules: &TunnelConfiguration,
        observed: &mut Observed,
    ) -> Result<(), Trouble> {
        self.pool
            .cloudflare
            .put_tunnel_configuration(id, rules)
            .await
            .map_err(failed(ConditionType::RoutesReady))?;
        observed.tunnel_memory.rules = Some((routes::digest(rules), observed.now));
        Ok(())
    }

    pub(super) async fn check_routes(
        &self,
        id: &TunnelId,
        rules: &TunnelConfiguration,
        observed: &mut Observed,
    ) -> Result<(), Trouble> {
        let found = match self.pool.cloudflare.get_tunnel_configuration(Priority::Sweep, id).await {
            // Nothing waits for a comparison: what else the instance needs goes on.
            Err(CloudError { kind: ErrorKind::BudgetExhausted { .. }, .. }) => {
                let interval = self.controller.ctx.intervals.routes;
                let again = interval.saturating_sub(CHECK_PUT_OFF.min(interval / 2));
                let as_if = observed.now.checked_sub(again).unwrap_or(observed.now);
                observed.tunnel_memory.rules = Some((routes::digest(rules), as_if));
                return Ok(());
            }
            found => found.map_err(failed(ConditionType::RoutesReady))?,
        };
        let same = found
            .and_then(|found| found.config)
            .is_some_and(|found| found.ingress == rules.ingress);
        if !same {
            tracing::info!(
                "the tunnel's ingress rules were changed by somebody; setting them again"
            );
            return self.put_routes(id, rules, observed).await;
        }
        observed.tunnel_memory.rules = Some((routes::digest(rules), observed.now));
        Ok(())
    }

    pub(super) async fn ensure_records(
        &self,
        change: DnsChange,
        observed: &mut Observed,
    ) -> Result<(), Trouble> {
        let records = match self.pool.dns.apply(change).await {
            // Made before, and the answer was lost: no need to wait for the next sweep.
            Err(error)
                if matches!(
                    error.kind,
                    ErrorKind::Conflict(Conflict::RecordExists | Conflict::HostExists)
                ) =>
            {
                self.find_records(error, observed).await?
            }
            records => records.map_err(failed(ConditionType::RoutesReady))?,
        };
        for record in records {
            self.pool.inventory.note_record(record.clone());
            observed.records.retain(|known| known.name != record.name);
            observed.records.push(record);
        }
        Ok(())
    }

    /// The instance's records at its host names that were not seen yet; without any the conflict is
    /// with somebody else's, which the next sweep shows.
    async fn find_records(
        &self,
        conflict: CloudError,
        observed: &Observed,
    ) -> Result<Vec<DnsRecord>, Trouble> {
        let subject = &self.wanted.subject;
        let owner = self.owner(observed);
        let comment = owner.comment_prefix();
        let (cloudflare, zone) = (&self.pool.cloudflare, self.pool.dns.zone());
        let found = cloudflare.list_dns_records(Priority::Normal, zone, &comment).await;
        let mut found = found.map_err(failed(ConditionType::RoutesReady))?;
        let hosts = subject.hosts();
        found.retain(|record| {
            owner.record(record, &[]).is_ours()
                && hosts.contains(&record.name)
                && !observed.records.iter().any(|known| known.id == record.id)
        });
        if found.is_empty() {
            return Err(failed(ConditionType::RoutesReady)(conflict));
        }
        Ok(found)
    }
}
