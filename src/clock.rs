//! Time as the reconciler sees it: a narrow port, so that tests and the simulation can run it.

use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;

/// Where time comes from.
#[async_trait]
pub trait Clock: Send + Sync {
    /// The time of day. It may jump in both directions, as the machine's does.
    fn now(&self) -> Timestamp;

    /// Returns once `duration` has passed.
    async fn sleep(&self, duration: Duration);
}

/// The clock of the machine and tokio's timers.
pub struct SystemClock;

#[async_trait]
impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}
