//! The task that lists a pool's clouds again and again for as long as its session lasts.

use std::{sync::Arc, time::Duration};

use tokio::sync::{Notify, watch};

use crate::{
    api::conditions::Reason,
    cloud::CloudError,
    controller::backoff::{Backoff, random},
    inventory::Inventory,
    pool::supply::SweepState,
    problem::{Problem, Retry},
};

use super::SLOWLY;

/// The task that reads a pool's clouds again and again.
pub(super) struct Sweeper {
    pub(super) pool: String,
    pub(super) inventory: Arc<Inventory>,
    pub(super) interval: Duration,
    pub(super) news: watch::Sender<SweepState>,
    pub(super) wake: Arc<dyn Fn(&str) + Send + Sync>,
    pub(super) now: Arc<Notify>,
}

impl Sweeper {
    pub(super) async fn run(self) {
        let backoff = Backoff::default();
        loop {
            let result = self.inventory.sweep().await;
            let state = next_state(&self.news.borrow(), result);
            let pause = match &state {
                SweepState::Failed { error, .. } => {
                    tracing::warn!(pool = self.pool, %error, "a sweep failed");
                    let problem = Problem::of_pool(error, "");
                    match problem.retry {
                        // A refused token: it may be mended at the cloud, of which nothing tells here.
                        _ if problem.reason == Reason::Unauthorized => SLOWLY,
                        Retry::After(pause) => pause.max(backoff.next(&(), random())),
                        _ => backoff.next(&(), random()),
                    }
                }
                SweepState::Done | SweepState::Pending => {
                    backoff.reset(&());
                    self.interval
                }
            };
            let changed = self.news.send_if_modified(|old| {
                let changed = *old != state;
                *old = state;
                changed
            });
            if changed {
                (self.wake)(&self.pool);
            }
            // A person who asks does not wait for a pause to end.
            let _ = tokio::time::timeout(pause, self.now.notified()).await;
        }
    }
}

fn next_state(old: &SweepState, result: Result<(), CloudError>) -> SweepState {
    let (swept_before, times) = match old {
        SweepState::Pending => (false, 0),
        SweepState::Done => (true, 0),
        SweepState::Failed { swept_before, times, .. } => (*swept_before, *times),
    };
    match result {
        Ok(()) => SweepState::Done,
        Err(error) => SweepState::Failed { error, swept_before, times: times.saturating_add(1) },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cloud::{Cloud, ErrorKind};

    #[test]
    fn failures_in_a_row_are_counted_and_a_success_is_remembered() {
        let kind = ErrorKind::Transient { maybe_applied: false };
        let error = CloudError::new(Cloud::Hetzner, "list_servers", kind, "");
        let mut state = next_state(&SweepState::Pending, Err(error.clone()));
        assert!(matches!(state, SweepState::Failed { swept_before: false, times: 1, .. }));
        state = next_state(&state, Ok(()));
        assert_eq!(state, SweepState::Done);
        state = next_state(&state, Err(error.clone()));
        state = next_state(&state, Err(error));
        assert!(matches!(state, SweepState::Failed { swept_before: true, times: 2, .. }));
    }
}
