//! An update of the agent as a pure state machine: what is on record, what happened, what to do next.
//! The record is on disk before anything is done, so that whatever dies in between, the next start of
//! the installer knows where it is. Everything that is to be done can be done twice.
//!
//! ```text
//! Switching → Restarting → Watching ──confirmed──────────────▶ Settling ──installer answers──▶ none
//!                 │            │ no socket, no call, no end        ▲
//!                 └────────────┴──▶ RollingBack ──old one restarts─┘  (and the digest is remembered)
//! ```

use jiff::Timestamp;
use moorage_wire::Sha256;
use serde::{Deserialize, Serialize};

use crate::installer::protocol::{AgentFailure, FailedAgent};

/// So many failed agents are remembered.
const FAILED_CAPACITY: usize = 32;
/// A new agent during whose watch the installer starts so often is taken for what brings it down.
const MOST_WATCHES: u8 = 4;
/// How often the installer restarts itself to become the version that is current.
const MOST_SELF_RESTARTS: u8 = 2;

/// What is on record, durable.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// The update that is under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub update: Option<Update>,
    /// Agents that were tried and rolled back, the oldest first.
    #[serde(default)]
    pub failed: Vec<FailedAgent>,
}

/// An update that is under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Update {
    /// The agent that is tried.
    pub new: Sha256,
    /// The one to go back to.
    pub old: Sha256,
    /// The `retry` of the desired state that asks for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<String>,
    /// How far it is.
    pub phase: Phase,
}

/// How far an update is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", rename_all_fields = "camelCase", tag = "name")]
pub enum Phase {
    /// The new one is being made the current one.
    Switching,
    /// The new one is the current one; the agent is being restarted.
    Restarting,
    /// The new agent runs and has to prove itself.
    Watching {
        /// How often the watch began; a power cut restarts it.
        watches: u8,
    },
    /// The old one is being made the current one again, and the agent restarted.
    RollingBack { failure: AgentFailure },
    /// It is decided. The worker and the installer are to be of the current version, too.
    Settling {
        /// Why it was rolled back; absent if the new one stays.
        failure: Option<AgentFailure>,
        /// How often the installer restarted itself for it.
        restarts: u8,
    },
}

/// What the installer learns while an update is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// The installer was started, after a boot or a crash.
    Resumed,
    /// The links say what they should: the new one is current.
    Switched,
    /// systemd restarted the agent.
    Restarted,
    /// systemd could not start the new agent, or it was not on its socket in time.
    Silent,
    /// The agent was reached by a signed call.
    Confirmed,
    /// It was not in time.
    Unconfirmed,
    /// The old agent is back.
    RolledBack,
    /// The installer is about to restart itself.
    RestartingItself,
    /// The installer of the current version answers, or its restart was tried often enough.
    Settled,
    /// The installer does not start any more.
    InstallerFailed,
}

/// What to do next. Each ends in an [`Event`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Nothing is under way.
    Rest,
    /// Make `new` the current one: [`Event::Switched`].
    Switch {
        /// Digest of the new agent.
        new: Sha256,
    },
    /// Restart the agent: [`Event::Restarted`] or [`Event::Silent`].
    RestartAgent,
    /// Look at the new agent: [`Event::Silent`], [`Event::Confirmed`] or [`Event::Unconfirmed`].
    Watch,
    /// Make `old` the current one and restart the agent: [`Event::RolledBack`].
    RollBack {
        /// Digest of the agent before it.
        old: Sha256,
    },
    /// Restart the worker if it runs, and then this very installer: [`Event::RestartingItself`].
    RestartInstaller,
    /// Restart the worker if it runs, and see whether this installer answers: [`Event::Settled`].
    Settle,
}

/// An update that is not begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Another one is under way.
    Busy,
    /// This one failed before, and `retry` is the same.
    FailedBefore(AgentFailure),
}

impl Record {
    /// Whether an update to `new` may begin.
    pub fn check(&self, new: Sha256, retry: Option<&str>) -> Result<(), Refusal> {
        if self.update.is_some() {
            return Err(Refusal::Busy);
        }
        let failed =
            |failed: &&FailedAgent| failed.sha256 == new && failed.retry.as_deref() == retry;
        match self.failed.iter().find(failed) {
            Some(failed) => Err(Refusal::FailedBefore(failed.reason)),
            None => Ok(()),
        }
    }

    /// Begins an update that [`Self::check`] allows.
    #[must_use]
    pub fn begin(mut self, new: Sha256, old: Sha256, retry: Option<String>) -> Self {
        self.update = Some(Update { new, old, retry, phase: Phase::Switching });
        self
    }

    /// What to do next. `running` is the version of this installer, if it is one that was installed.
    pub fn next(&self, running: Option<Sha256>) -> Step {
        let Some(update) = &self.update else { return Step::Rest };
        match update.phase {
            Phase::Switching => Step::Switch { new: update.new },
            Phase::Restarting => Step::RestartAgent,
            Phase::Watching { .. } => Step::Watch,
            Phase::RollingBack { .. } => Step::RollBack { old: update.old },
            Phase::Settling { restarts, .. } => {
                let settled = match running {
                    Some(running) => running == update.current() || restarts >= MOST_SELF_RESTARTS,
                    None => restarts > 0,
                };
                if settled { Step::Settle } else { Step::RestartInstaller }
            }
        }
    }

    /// The record after an event. One that does not fit changes nothing: it is late or doubled.
    #[must_use]
    pub fn after(mut self, event: Event, now: Timestamp) -> Self {
        let Some(mut update) = self.update.take() else { return self };
        update.phase = match (update.phase, event) {
            (Phase::Switching, Event::Switched) => Phase::Restarting,
            (Phase::Restarting, Event::Restarted) => Phase::Watching { watches: 1 },
            (Phase::Watching { watches }, Event::Resumed) if watches < MOST_WATCHES => {
                Phase::Watching { watches: watches + 1 }
            }
            (Phase::Watching { .. }, Event::Resumed | Event::Unconfirmed) => {
                Phase::RollingBack { failure: AgentFailure::NotConfirmed }
            }
            (Phase::Switching | Phase::Restarting | Phase::Watching { .. }, Event::Silent) => {
                Phase::RollingBack { failure: AgentFailure::NoSocket }
            }
            (Phase::Watching { .. }, Event::Confirmed) => {
                Phase::Settling { failure: None, restarts: 0 }
            }
            (Phase::RollingBack { failure }, Event::RolledBack) => {
                Phase::Settling { failure: Some(failure), restarts: 0 }
            }
            (Phase::Settling { failure, restarts }, Event::RestartingItself) => {
                Phase::Settling { failure, restarts: restarts.saturating_add(1) }
            }
            (Phase::Settling { failure, .. }, Event::Settled) => {
                match failure {
                    Some(reason) => self.remember(update.new, reason, update.retry, now),
                    // It works after all.
                    None => self.failed.retain(|failed| failed.sha256 != update.new),
                }
                return self;
            }
            // A roll-back that was decided keeps its reason.
            (phase @ (Phase::RollingBack { .. } | Phase::Settling { failure: Some(_), .. }), _) => {
                phase
            }
            (_, Event::InstallerFailed) => Phase::RollingBack { failure: AgentFailure::Installer },
            (phase, _) => phase,
        };
        self.update = Some(update);
        self
    }

    /// Remembers an agent that is not to be retried.
    pub fn remember(
        &mut self,
        sha256: Sha256,
        reason: AgentFailure,
        retry: Option<String>,
        at: Timestamp,
    ) {
        self.failed.retain(|failed| failed.sha256 != sha256);
        self.failed.push(FailedAgent { sha256, reason, retry, at });
        self.failed.drain(..self.failed.len().saturating_sub(FAILED_CAPACITY));
    }
}

impl Update {
    /// The version that is, or is to be, the current one.
    pub fn current(&self) -> Sha256 {
        match self.phase {
            Phase::Switching
            | Phase::Restarting
            | Phase::Watching { .. }
            | Phase::Settling { failure: None, .. } => self.new,
            Phase::RollingBack { .. } | Phase::Settling { failure: Some(_), .. } => self.old,
        }
    }
}

#[cfg(test)]
mod tests;
