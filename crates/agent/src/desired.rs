//! The desired state as it was received, and what became of it: which document was the last good
//! one, which failed. Durable; how to converge is not known here.

use std::{collections::BTreeSet, sync::Arc};

use jiff::Timestamp;
use moorage_wire::{
    CredentialName, DesiredState, Sha256,
    report::{ConvergenceState, DesiredProgress, FailedDigest, FailureReason},
};
use serde::{Deserialize, Serialize};

use crate::{
    disk::{Disk, DiskError},
    layout::Layout,
};

/// So many failed documents are remembered.
const FAILED_CAPACITY: usize = 32;

/// A received document.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Document {
    pub(crate) digest: Sha256,
    pub(crate) state: DesiredState,
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
}

/// Where the current document stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Not tried to the end yet.
    New,
    /// It works.
    Good,
    /// It was tried and failed.
    Failed,
}

/// The desired state of this server.
pub(crate) struct Desired {
    disk: Disk,
    layout: Layout,
    document: Option<Arc<Document>>,
    last_good: Option<Arc<LastGood>>,
    failed: Vec<FailedDigest>,
    /// What holds up the current document; forgotten at a restart, since it is tried again.
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
        Ok(Self {
            disk: disk.clone(),
            layout: layout.clone(),
            document: stored.and_then(|bytes| readable(&bytes)).map(Arc::new),
            last_good: disk.read_json(&layout.last_good())?.map(Arc::new),
            failed: disk.read_json(&layout.failed())?.unwrap_or_default(),
            trouble: None,
        })
    }

    /// The document to converge to.
    pub(crate) fn document(&self) -> Option<Arc<Document>> {
        self.document.clone()
    }

    /// Its digest.
    pub(crate) fn digest(&self) -> Option<Sha256> {
        self.document.as_ref().map(|document| document.digest)
    }

    /// The last document that worked.
    pub(crate) fn last_good(&self) -> Option<Arc<LastGood>> {
        self.last_good.clone()
    }

    /// Stores a document, exactly as it was sent.
    pub(crate) fn replace(&mut self, document: Document, bytes: &[u8]) -> Result<(), DiskError> {
        self.disk.write(&self.layout.desired(), bytes)?;
        self.document = Some(Arc::new(document));
        self.trouble = None;
        Ok(())
    }

    /// Where the current document stands.
    pub(crate) fn standing(&self) -> Standing {
        let digest = self.digest();
        if self.last_good.as_ref().map(|good| good.digest) == digest {
            Standing::Good
        } else if self.failed.iter().any(|failed| Some(failed.digest) == digest) {
            Standing::Failed
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
        self.trouble = None;
        Ok(())
    }

    /// Notes what holds up the current document, or that nothing does any more.
    pub(crate) fn set_trouble(&mut self, message: Option<String>, now: Timestamp) {
        let digest = self.digest();
        self.trouble = message.zip(digest).map(|(message, digest)| FailedDigest {
            digest,
            reason: FailureReason::System,
            message,
            path: None,
            at: now,
        });
    }

    /// For the report.
    pub(crate) fn progress(&self) -> DesiredProgress {
        let state = match (&self.document, self.standing()) {
            (None, _) => ConvergenceState::Waiting,
            (_, Standing::Good) if self.trouble.is_none() => ConvergenceState::Converged,
            (_, Standing::Good | Standing::New) => ConvergenceState::Converging,
            (_, Standing::Failed) if self.last_good.is_some() => ConvergenceState::RolledBack,
            (_, Standing::Failed) => ConvergenceState::Failed,
        };
        let failed = self.failed.iter().chain(&self.trouble).cloned().collect();
        DesiredProgress { digest: self.digest(), state, failed }
    }
}
