//! Waiting for a condition, with a deadline and a message that helps.

use std::{
    future::Future,
    time::{Duration, Instant},
};

use thiserror::Error;

/// How long after one look the next one follows, at least and at most: looking is not to take the
/// processors from what is waited for.
const PAUSES: [Duration; 2] = [Duration::from_millis(100), Duration::from_millis(500)];
/// So much longer than a look is the pause after it.
const RESTRAINT: u32 = 5;
/// How long after one look the next one follows where a look costs next to nothing.
const SHORT_PAUSE: Duration = Duration::from_millis(10);

/// A condition that did not become true in time.
#[derive(Debug, Error)]
#[error("waited {:.1} s for {what}; seen last: {seen}", waited.as_secs_f64())]
pub struct NotInTime {
    /// What was waited for.
    pub what: String,
    /// What was there instead.
    pub seen: String,
    pub waited: Duration,
}

/// Looks until `look` gives a value. Until then it says what it sees, for the message at the end.
pub async fn wait_until<T, Look, Seen>(
    what: impl Into<String>,
    at_most: Duration,
    mut look: Look,
) -> Result<T, NotInTime>
where
    Look: FnMut() -> Seen,
    Seen: Future<Output = Result<T, String>>,
{
    let start = Instant::now();
    let mut seen = "nothing".to_owned();
    loop {
        let left = at_most.saturating_sub(start.elapsed());
        let began = Instant::now();
        match tokio::time::timeout(left, look()).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(now)) => seen = now,
            Err(_) => {}
        }
        if start.elapsed() >= at_most {
            return Err(NotInTime { what: what.into(), seen, waited: start.elapsed() });
        }
        let pause = (began.elapsed() * RESTRAINT).clamp(PAUSES[0], PAUSES[1]);
        tokio::time::sleep(pause.min(left)).await;
    }
}

/// Looks every few milliseconds until there is something, for tests of what goes on in one process.
///
/// # Panics
/// If there is nothing in time.
pub async fn eventually<T>(
    what: &str,
    at_most: Duration,
    mut look: impl AsyncFnMut() -> Option<T>,
) -> T {
    let start = Instant::now();
    loop {
        if let Some(seen) = look().await {
            return seen;
        }
        assert!(start.elapsed() < at_most, "waited {at_most:?} in vain for {what}");
        tokio::time::sleep(SHORT_PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_comes_true_is_given() {
        let mut count = 0;
        let value = wait_until("the third look", Duration::from_secs(10), || {
            count += 1;
            let now = count;
            async move { if now == 3 { Ok(now) } else { Err(now.to_string()) } }
        });
        assert_eq!(value.await.unwrap(), 3);
    }

    #[tokio::test]
    async fn what_does_not_come_true_says_what_was_there() {
        let never = || async { Err::<(), _>("Ready=False".to_owned()) };
        let error = wait_until("ada to be ready", Duration::from_millis(150), never).await;
        let text = error.unwrap_err().to_string();
        assert!(text.contains("for ada to be ready; seen last: Ready=False"), "{text}");
    }

    #[tokio::test]
    async fn a_look_that_hangs_does_not_hold_the_deadline() {
        let hangs = || std::future::pending::<Result<(), String>>();
        assert!(wait_until("nothing", Duration::from_millis(50), hangs).await.is_err());
    }
}
