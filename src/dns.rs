//! DNS changes of many instances in shared batches: what queues while a batch is in flight goes with
//! the next one, and an idle queue waits [`GATHER`] for company. A batch is one transaction at
//! Cloudflare, so a refused one is halved until the culprit stands alone.

use std::{sync::Arc, time::Duration};

use tokio::sync::{mpsc, oneshot};

use crate::{
    clock::Clock,
    cloud::{Cloud, CloudError, ErrorKind, Outcome},
    cloudflare::{CloudflareApi, DnsBatch, DnsPatch, DnsRecord, NewDnsRecord, RecordId, ZoneId},
};

/// How long an idle queue waits for more changes before it sends the first.
pub const GATHER: Duration = Duration::from_millis(200);
/// The most operations that Cloudflare takes in one batch on a free zone.
pub const MAX_BATCH: usize = 200;

/// What one instance wants changed; applied as a whole or not at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DnsChange {
    /// New records, and corrections of our own.
    Ensure {
        posts: Vec<NewDnsRecord>,
        /// Records of ours to correct.
        patches: Vec<DnsPatch>,
    },
    /// Records of ours to delete.
    Delete(Vec<RecordId>),
}

impl DnsChange {
    fn len(&self) -> usize {
        match self {
            Self::Ensure { posts, patches } => posts.len() + patches.len(),
            Self::Delete(ids) => ids.len(),
        }
    }

    /// Deletions travel alone: they have a budget of their own, and must not fail with others' posts.
    fn is_deletion(&self) -> bool {
        matches!(self, Self::Delete(_))
    }

    fn add_to(&self, batch: &mut DnsBatch) {
        match self {
            Self::Ensure { posts, patches } => {
                batch.posts.extend(posts.iter().cloned());
                batch.patches.extend(patches.iter().cloned());
            }
            Self::Delete(ids) => batch.deletes.extend(ids.iter().cloned()),
        }
    }
}

struct Job {
    change: DnsChange,
    answer: oneshot::Sender<Result<Vec<DnsRecord>, CloudError>>,
}

/// The queue of one zone. Its worker ends when the queue is dropped.
pub struct DnsQueue {
    zone: ZoneId,
    jobs: mpsc::UnboundedSender<Job>,
}

impl DnsQueue {
    /// An empty queue. Must be called within a tokio runtime.
    pub fn new(cloudflare: Arc<dyn CloudflareApi>, zone: ZoneId, clock: Arc<dyn Clock>) -> Self {
        let (jobs, waiting) = mpsc::unbounded_channel();
        tokio::spawn(work(cloudflare, clock, zone.clone(), waiting));
        Self { zone, jobs }
    }

    pub fn zone(&self) -> &ZoneId {
        &self.zone
    }

    /// Applies a change with the next batch and gives the records that it made or corrected.
    pub async fn apply(&self, change: DnsChange) -> Result<Vec<DnsRecord>, CloudError> {
        let (answer, applied) = oneshot::channel();
        let stopped = || {
            let kind = ErrorKind::Transient { maybe_applied: true };
            CloudError::new(Cloud::Cloudflare, "dns_batch", kind, "the DNS queue was stopped")
        };
        self.jobs.send(Job { change, answer }).map_err(|_| stopped())?;
        applied.await.unwrap_or_else(|_| Err(stopped()))
    }
}

async fn work(
    cloudflare: Arc<dyn CloudflareApi>,
    clock: Arc<dyn Clock>,
    zone: ZoneId,
    mut waiting: mpsc::UnboundedReceiver<Job>,
) {
    while let Some(first) = waiting.recv().await {
        let mut jobs = vec![first];
        // With company already there nothing is gained by waiting.
        if waiting.is_empty() {
            clock.sleep(GATHER).await;
        }
        while let Ok(job) = waiting.try_recv() {
            jobs.push(job);
        }
        let (deletions, others): (Vec<_>, Vec<_>) =
            jobs.into_iter().partition(|job| job.change.is_deletion());
        for group in [deletions, others] {
            for batch in split(group) {
                send(cloudflare.as_ref(), &zone, batch).await;
            }
        }
    }
}

/// Cuts jobs into batches that Cloudflare takes.
fn split(jobs: Vec<Job>) -> Vec<Vec<Job>> {
    let (mut batches, mut batch, mut size) = (Vec::new(), Vec::new(), 0);
    for job in jobs {
        if size + job.change.len() > MAX_BATCH && !batch.is_empty() {
            batches.push(std::mem::take(&mut batch));
            size = 0;
        }
        size += job.change.len();
        batch.push(job);
    }
    if !batch.is_empty() {
        batches.push(batch);
    }
    batches
}

/// Sends one batch; halves it while the cloud blames the request.
async fn send(cloudflare: &dyn CloudflareApi, zone: &ZoneId, jobs: Vec<Job>) {
    let mut stack = vec![jobs];
    while let Some(mut jobs) = stack.pop() {
        let mut batch = DnsBatch::default();
        for job in &jobs {
            job.change.add_to(&mut batch);
        }
        if batch.is_empty() {
            for job in jobs {
                drop(job.answer.send(Ok(Vec::new())));
            }
            continue;
        }
        match cloudflare.dns_batch(zone, &batch).await {
            Ok(result) => {
                let records: Vec<_> = result.posts.into_iter().chain(result.patches).collect();
                for job in jobs {
                    let own = records.iter().filter(|record| concerns(&job.change, record));
                    drop(job.answer.send(Ok(own.cloned().collect())));
                }
            }
            Err(error) if jobs.len() > 1 && halves(&error) => {
                stack.push(jobs.split_off(jobs.len() / 2));
                stack.push(jobs);
            }
            Err(error) => {
                for job in jobs {
                    drop(job.answer.send(Err(error.clone())));
                }
            }
        }
    }
}

/// A refused transaction that would be refused again: some of its jobs may be fine without the others.
fn halves(error: &CloudError) -> bool {
    error.outcome() == Outcome::NotApplied && error.blames_the_request()
}

fn concerns(change: &DnsChange, record: &DnsRecord) -> bool {
    match change {
        DnsChange::Ensure { posts, patches } => {
            posts.iter().any(|post| post.name == record.name)
                || patches.iter().any(|patch| patch.id == record.id)
        }
        DnsChange::Delete(_) => false,
    }
}

#[cfg(test)]
mod tests;
