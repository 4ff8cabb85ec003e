//! The watch over a new agent: whether it comes to its socket, and whether the operator reaches it.

use std::time::Instant;

use tokio::time::sleep;

use super::{
    Updates,
    machine::{Event, Phase},
};
use crate::{installer::units::Units, probe};

impl<U: Units> Updates<U> {
    /// Waits until the new agent has proven itself or its time is over. `None`: the record moved on.
    pub(super) async fn watch(&self) -> Option<Event> {
        let timing = &self.around.timing;
        let begin = Instant::now();
        let mut deadline = timing.socket;
        let socket = self.around.layout.agent_socket();
        while !probe::is_ok_on(&socket, moorage_wire::path::HEALTHZ).await {
            if !self.is_watching().await {
                return None;
            }
            if begin.elapsed() >= deadline {
                if deadline >= timing.confirmation || !self.is_booting().await {
                    tracing::warn!("the new agent is not on its socket");
                    return Some(Event::Silent);
                }
                deadline = begin.elapsed() + timing.socket;
            }
            sleep(timing.poll).await;
        }
        tracing::info!("the new agent is on its socket");
        let left = timing.confirmation.saturating_sub(begin.elapsed());
        tokio::pin! { let deadline = sleep(left); }
        loop {
            if !self.is_watching().await {
                return None;
            }
            tokio::select! {
                () = self.changed.notified() => {}
                () = &mut deadline => {
                    tracing::warn!("no signed call reached the new agent");
                    return Some(Event::Unconfirmed);
                }
            }
        }
    }

    /// Whether the machine has too much to do for a verdict on an agent that says nothing.
    async fn is_booting(&self) -> bool {
        self.units.is_booting().await.unwrap_or_else(|error| {
            tracing::warn!(%error, "whether the machine boots is not known");
            false
        })
    }

    async fn is_watching(&self) -> bool {
        let record = self.record.lock().await;
        record.update.as_ref().is_some_and(|update| matches!(update.phase, Phase::Watching { .. }))
    }
}
