//! The agent's side of `confirm-agent`: telling the installer, once in the life of a process, that a
//! signed call of the operator reached this agent.

use std::time::Duration;

use tokio::{sync::Notify, time::sleep};

use super::client::{InstallerClient, InstallerError};

const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(15);

/// Whether the operator was heard. `Core` holds one.
#[derive(Debug, Default)]
pub struct Confirmation {
    heard: Notify,
}

impl Confirmation {
    /// A signed call that names this agent's key was verified. To be called for each of them, at the
    /// end of `api::gates::check_signature` (where `named.is_ok()`); it costs nothing.
    pub fn operator_called(&self) {
        self.heard.notify_one();
    }

    /// Waits for the first such call and tells the installer, until that succeeds. To be joined with
    /// the loops in `agent::prepare_and_work`; it ends when it is done. Not to be run where nothing
    /// is installed (`--programs external`).
    pub async fn run(&self, installer: &InstallerClient) {
        self.heard.notified().await;
        let mut wait = FIRST_WAIT;
        loop {
            match installer.confirm_agent().await {
                Ok(()) => return,
                // The installer is being replaced as well, or busy.
                Err(error) if error.is_transient() => {
                    tracing::warn!(%error, "the installer cannot be told yet that this agent works");
                }
                Err(error @ InstallerError::Failed { .. }) => {
                    tracing::error!(%error, "the installer does not take this agent's confirmation");
                    return;
                }
                Err(error) => tracing::warn!(%error, "the installer cannot be told"),
            }
            sleep(wait).await;
            wait = (wait * 2).min(LONGEST_WAIT);
        }
    }
}
