//! The DNS records: made and corrected in a batch that instances share.

use super::{Apply, Ending, Executor, Gone, PassError, Remove};
use crate::{
    api::conditions::ConditionType,
    cloud::{CloudError, Conflict, ErrorKind, Priority},
    cloudflare::{DnsPatch, DnsRecord, RecordId},
    dns::DnsChange,
    instance::{
        Observed,
        records::{DeleteRecords, EnsureRecords, RecordsRemoval},
    },
};

impl Apply for EnsureRecords {
    async fn apply(
        self,
        executor: &mut Executor<'_>,
        observed: &mut Observed,
    ) -> Result<Vec<DnsRecord>, PassError> {
        let Self { posts, patches } = self;
        let pool = executor.pool;
        let records = match pool.dns.apply(DnsChange::Ensure { posts, patches }).await {
            // Made before, and the answer was lost: no need to wait for the next sweep.
            Err(error)
                if matches!(
                    error.kind,
                    ErrorKind::Conflict(Conflict::RecordExists | Conflict::HostExists)
                ) =>
            {
                executor.find_records(error, observed).await?
            }
            records => records.map_err(PassError::of_cloud(ConditionType::RoutesReady))?,
        };
        for record in &records {
            pool.inventory.note_record(record.clone());
        }
        Ok(records)
    }
}

impl Apply for DeleteRecords {
    async fn apply(
        self,
        executor: &mut Executor<'_>,
        _: &mut Observed,
    ) -> Result<Vec<RecordId>, PassError> {
        let Self(ids) = self;
        let deleted = executor.pool.dns.apply(DnsChange::Delete(ids.clone())).await;
        deleted.map_err(PassError::of_cloud(ConditionType::RoutesReady))?;
        for id in &ids {
            executor.pool.inventory.forget_record(id);
        }
        Ok(ids)
    }
}

impl Remove for RecordsRemoval {
    async fn remove(&self, ending: &Ending<'_>) -> Result<Gone, PassError> {
        let (subject, pool) = (ending.subject, ending.pool);
        let (change, ids) = match self {
            Self::Delete(ids) => (DnsChange::Delete(ids.clone()), ids),
            Self::Retain(ids) => {
                let comment = subject.retained_comment();
                let retained = |id: &RecordId| DnsPatch {
                    id: id.clone(),
                    content: None,
                    proxied: None,
                    comment: Some(comment.clone()),
                };
                let patches = ids.iter().map(retained).collect();
                (DnsChange::Ensure { posts: Vec::new(), patches }, ids)
            }
        };
        let kept = pool.dns.apply(change).await;
        let kept = kept.map_err(PassError::of_cloud(ConditionType::Ready))?;
        for id in ids {
            pool.inventory.forget_record(id);
        }
        for record in kept {
            pool.inventory.note_record(record);
        }
        Ok(Gone::Yes)
    }
}

impl Executor<'_> {
    /// The instance's records at its host names that were not seen yet; without any the conflict is
    /// with somebody else's, which the next sweep shows.
    async fn find_records(
        &self,
        conflict: CloudError,
        observed: &Observed,
    ) -> Result<Vec<DnsRecord>, PassError> {
        let subject = &self.wanted.subject;
        let owner = self.owner(observed);
        let comment = owner.comment_prefix();
        let (cloudflare, zone) = (&self.pool.cloudflare, self.pool.dns.zone());
        let found = cloudflare.list_dns_records(Priority::Normal, zone, &comment).await;
        let mut found = found.map_err(PassError::of_cloud(ConditionType::RoutesReady))?;
        let hosts = subject.hosts();
        found.retain(|record| {
            owner.record(record, &[]).is_ours()
                && hosts.contains(&record.name)
                && !observed.records.iter().any(|known| known.id == record.id)
        });
        if found.is_empty() {
            return Err(PassError::of_cloud(ConditionType::RoutesReady)(conflict));
        }
        Ok(found)
    }
}
