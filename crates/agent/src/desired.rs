//! The desired state as it was received, and what became of it: which document was the last good
//! one, which failed. Durable; how to converge is not known here.

use std::{
    collections::BTreeSet,
    fs,
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use moorage_wire::{
    CredentialName, DesiredState, Sha256,
    desired::{Artifacts, Integration},
    report::{ConvergenceState, DesiredProgress, FailedDigest, FailureReason},
};
use serde::{Deserialize, Serialize};

use crate::{
    disk::{Disk, DiskError},
    failure::DocumentFailure,
    layout::Layout,
    signed::SignedCall,
};

/// So many failed documents are remembered. The current one is always among them: it failed last.
const FAILED_CAPACITY: usize = 32;

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Document {
    pub(crate) digest: Sha256,
    pub(crate) state: DesiredState,
}

/// The two programs that make up a running `OpenClaw`, by their digests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Pair {
    pub(crate) openclaw: Sha256,
    pub(crate) node: Sha256,
}

impl Pair {
    pub(crate) fn of(artifacts: &Artifacts) -> Self {
        Self { openclaw: artifacts.openclaw.sha256, node: artifacts.node.sha256 }
    }
}

/// The last document that worked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct LastGood {
    pub(crate) digest: Sha256,
    /// `openclaw.json` as it was written.
    pub(crate) config: String,
    /// What it needs: these stay while another document is being tried.
    pub(crate) credentials: BTreeSet<CredentialName>,
    /// What it ran with, where programs are managed.
    #[serde(default)]
    pub(crate) programs: Option<Pair>,
    /// The version of `OpenClaw` among them.
    #[serde(default)]
    pub(crate) version: String,
    /// The integrations that it has.
    #[serde(default)]
    pub(crate) integrations: Vec<Integration>,
}

/// Where the current document stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Not tried to the end yet.
    New,
    Good,
    /// It was tried and failed.
    Failed,
}

/// The desired state of this server.
pub(crate) struct Desired {
    disk: Disk,
    layout: Layout,
    document: Option<Arc<Document>>,
    /// The operator's signature over it, for installer and worker.
    order: Option<Arc<SignedCall>>,
    /// Whether the worker has taken it; unknown, so false, after a restart.
    passed_on: bool,
    last_good: Option<Arc<LastGood>>,
    failed: Vec<FailedDigest>,
    /// When this process learnt of the last failure.
    failed_at: Instant,
    /// The document of which everything was seen to be as it says, the connector and this agent
    /// included; forgotten at a restart.
    reached: Option<Sha256>,
    /// What holds up the current document; forgotten at a restart, since it is retried.
    trouble: Option<FailedDigest>,
}

/// A body that is not a desired state. Its text is not repeated.
#[derive(Debug, thiserror::Error)]
#[error("the body is not a desired state: see line {line}, column {column}")]
pub(crate) struct InvalidDocument {
    line: usize,
    column: usize,
}

/// Parses a document without repeating any of it in the error.
pub(crate) fn parse(bytes: &[u8]) -> Result<Document, InvalidDocument> {
    let state = serde_json::from_slice(bytes)
        .map_err(|error| InvalidDocument { line: error.line(), column: error.column() })?;
    Ok(Document { digest: Sha256::of(bytes), state })
}

/// A stored document that this agent cannot read was stored by a newer one that was rolled back. The
/// server stays as it is and manageable; the operator sees that there is no document and sends one.
fn readable(bytes: &[u8]) -> Option<Document> {
    let unreadable = |error: &InvalidDocument| {
        tracing::error!(%error, "the stored desired state cannot be read; waiting for another");
    };
    parse(bytes).inspect_err(unreadable).ok()
}

impl Desired {
    pub(crate) fn open(disk: &Disk, layout: &Layout) -> Result<Self, DiskError> {
        let stored = disk.read(&layout.desired())?;
        let document = stored.and_then(|bytes| readable(&bytes)).map(Arc::new);
        let order = match &document {
            Some(document) => disk.read_json(&layout.order(&document.digest))?,
            None => None,
        };
        Ok(Self {
            disk: disk.clone(),
            layout: layout.clone(),
            document,
            order: order.map(Arc::new),
            passed_on: false,
            failed_at: Instant::now(),
            last_good: disk.read_json(&layout.last_good())?.map(Arc::new),
            failed: disk.read_json(&layout.failed())?.unwrap_or_default(),
            reached: None,
            trouble: None,
        })
    }

    /// The document to converge to.
    pub(crate) fn document(&self) -> Option<Arc<Document>> {
        self.document.clone()
    }

    pub(crate) fn digest(&self) -> Option<Sha256> {
        self.document.as_ref().map(|document| document.digest)
    }

    /// The last document that worked.
    pub(crate) fn last_good(&self) -> Option<Arc<LastGood>> {
        self.last_good.clone()
    }

    /// The operator's signature over the document.
    pub(crate) fn order(&self) -> Option<Arc<SignedCall>> {
        self.order.clone()
    }

    /// Whether the worker has taken the document.
    pub(crate) fn is_passed_on(&self) -> bool {
        self.passed_on
    }

    /// Notes whether the worker has taken the document with this digest.
    pub(crate) fn set_passed_on(&mut self, digest: Sha256, passed_on: bool) {
        if self.digest() == Some(digest) {
            self.passed_on = passed_on;
        }
    }

    /// Forgets a document that cannot be passed on as it is signed: the operator sends it again.
    pub(crate) fn withdraw(&mut self, digest: Sha256) -> Result<(), DiskError> {
        if self.digest() == Some(digest) {
            self.disk.remove(&self.layout.desired())?;
            self.document = None;
            self.order = None;
            self.trouble = None;
        }
        Ok(())
    }

    /// Stores a document, exactly as it was sent, after the order that it came with: a document that
    /// is stored always has its order. `passed_on` says whether the worker has taken it.
    pub(crate) fn replace(
        &mut self,
        document: Document,
        bytes: &[u8],
        order: Option<SignedCall>,
        passed_on: bool,
    ) -> Result<(), DiskError> {
        let path = self.layout.order(&document.digest);
        if let Some(order) = &order {
            self.disk.write_json(&path, order)?;
        }
        self.disk.write(&self.layout.desired(), bytes)?;
        self.document = Some(Arc::new(document));
        self.order = order.map(Arc::new);
        self.passed_on = passed_on;
        self.trouble = None;
        self.remove_other_orders(&path)
    }

    /// Takes a newer signature over the present document.
    pub(crate) fn renew_order(&mut self, order: SignedCall) -> Result<(), DiskError> {
        let Some(digest) = self.digest() else { return Ok(()) };
        self.disk.write_json(&self.layout.order(&digest), &order)?;
        self.order = Some(Arc::new(order));
        Ok(())
    }

    fn remove_other_orders(&self, keep: &std::path::Path) -> Result<(), DiskError> {
        let folder = self.layout.state();
        let failed = |source| DiskError::Io { action: "list", path: folder.clone(), source };
        for entry in fs::read_dir(&folder).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if name.starts_with("order-") && name.ends_with(".json") && path != keep {
                self.disk.remove(&path)?;
            }
        }
        Ok(())
    }

    /// Where the current document stands.
    pub(crate) fn standing(&self) -> Standing {
        let digest = self.digest();
        if self.failed.iter().any(|failed| Some(failed.digest) == digest) {
            // Even if OpenClaw works with it: the connector or the agent may not.
            Standing::Failed
        } else if self.last_good.as_ref().map(|good| good.digest) == digest {
            Standing::Good
        } else {
            Standing::New
        }
    }

    /// Records that a document works.
    pub(crate) fn worked(&mut self, good: LastGood) -> Result<(), DiskError> {
        self.disk.write_json(&self.layout.last_good(), &good)?;
        self.last_good = Some(Arc::new(good));
        self.trouble = None;
        Ok(())
    }

    /// Records that a document does not work.
    pub(crate) fn did_not_work(&mut self, failed: FailedDigest) -> Result<(), DiskError> {
        let mut all = self.failed.clone();
        all.retain(|known| known.digest != failed.digest);
        all.push(failed);
        all.drain(..all.len().saturating_sub(FAILED_CAPACITY));
        self.disk.write_json(&self.layout.failed(), &all)?;
        self.failed = all;
        self.failed_at = Instant::now();
        self.trouble = None;
        Ok(())
    }

    /// Everything is as the document says.
    pub(crate) fn reached(&mut self, digest: Sha256) {
        self.reached = Some(digest);
    }

    /// Whether the current document failed for something that somebody may have repaired since, and
    /// was not tried for so long.
    pub(crate) fn is_repair_due(&self, interval: Duration) -> bool {
        let digest = self.digest();
        let failed = self.failed.iter().find(|failed| Some(failed.digest) == digest);
        let repairable = [FailureReason::Artifact, FailureReason::Integration];
        failed.is_some_and(|failed| repairable.contains(&failed.reason))
            && self.failed_at.elapsed() >= interval
    }

    /// Lets the current document be retried.
    pub(crate) fn forget_failure(&mut self) -> Result<(), DiskError> {
        let digest = self.digest();
        let mut others = self.failed.clone();
        others.retain(|failed| Some(failed.digest) != digest);
        if others.len() != self.failed.len() {
            self.disk.write_json(&self.layout.failed(), &others)?;
            self.failed = others;
        }
        Ok(())
    }

    /// Notes what holds up the document `of`, or that nothing does any more. Nothing is noted if another
    /// one came meanwhile: that one may correct it.
    pub(crate) fn set_trouble(
        &mut self,
        of: Option<Sha256>,
        trouble: Option<DocumentFailure>,
        now: Timestamp,
    ) {
        let digest = self.digest().filter(|current| Some(*current) == of);
        self.trouble = trouble.zip(digest).map(|(trouble, digest)| trouble.of(digest, now));
    }

    pub(crate) fn progress(&self) -> DesiredProgress {
        let state = match (&self.document, self.standing()) {
            (None, _) => ConvergenceState::Waiting,
            (_, Standing::Good) if self.trouble.is_none() && self.reached == self.digest() => {
                ConvergenceState::Converged
            }
            (_, Standing::Good | Standing::New) => ConvergenceState::Converging,
            (_, Standing::Failed) if self.last_good.is_some() => ConvergenceState::RolledBack,
            (_, Standing::Failed) => ConvergenceState::Failed,
        };
        let failed = self.failed.iter().chain(&self.trouble).cloned().collect();
        DesiredProgress { digest: self.digest(), state, failed }
    }
}

#[cfg(test)]
mod tests;
