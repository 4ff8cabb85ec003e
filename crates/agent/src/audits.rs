//! What is known of OpenClaw's own security audits, and when the next one is due. One that comes to
//! nothing, as on a machine that is busy starting, is repeated ever more seldom.

use std::time::{Duration, Instant};

use moorage_wire::{Sha256, report::Audit};

/// What is known of audits since the agent started.
#[derive(Debug, Clone, Default)]
pub(crate) struct Audits {
    done: Option<(Sha256, Audit)>,
    failed: Option<Failed>,
}

/// The last audit that failed, and when it is tried again.
#[derive(Debug, Clone)]
struct Failed {
    digest: Sha256,
    again: Instant,
    /// What was waited for after the last one.
    wait: Duration,
}

impl Audits {
    /// What the last one found.
    pub(crate) fn findings(&self) -> Option<Audit> {
        self.done.map(|(_, findings)| findings)
    }

    /// Whether the configuration with this digest is to be audited now.
    pub(crate) fn is_due(&self, digest: Sha256, now: Instant) -> bool {
        if self.done.is_some_and(|(done, _)| done == digest) {
            return false;
        }
        let failed = self.failed.as_ref().filter(|failed| failed.digest == digest);
        failed.is_none_or(|failed| now >= failed.again)
    }

    /// Notes what an audit found.
    pub(crate) fn found(&mut self, digest: Sha256, findings: Audit) {
        *self = Self { done: Some((digest, findings)), failed: None };
    }

    /// Notes a failed attempt, and gives how long to wait: at first and at most as long as `waits` says.
    pub(crate) fn came_to_nothing(
        &mut self,
        digest: Sha256,
        waits: (Duration, Duration),
        now: Instant,
    ) -> Duration {
        let before = self.failed.take().filter(|failed| failed.digest == digest);
        let wait = before.map_or(waits.0, |failed| (failed.wait * 2).min(waits.1));
        *self = Self { done: None, failed: Some(Failed { digest, again: now + wait, wait }) };
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WAITS: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(900));

    fn digest(name: &str) -> Sha256 {
        Sha256::of(name.as_bytes())
    }

    #[test]
    fn an_audit_that_comes_to_nothing_is_repeated_ever_more_seldom() {
        let (mut audits, mut now) = (Audits::default(), Instant::now());
        let mut waits = Vec::new();
        for _ in 0..7 {
            assert!(audits.is_due(digest("a"), now));
            let wait = audits.came_to_nothing(digest("a"), WAITS, now);
            assert!(!audits.is_due(digest("a"), now + wait / 2));
            waits.push(wait.as_secs());
            now += wait;
        }
        assert_eq!(waits, [30, 60, 120, 240, 480, 900, 900]);
        assert_eq!(audits.came_to_nothing(digest("b"), WAITS, now), WAITS.0, "another document");
    }

    #[test]
    fn an_audit_with_findings_is_not_repeated_for_its_document() {
        let (mut audits, now) = (Audits::default(), Instant::now());
        audits.found(digest("a"), Audit { critical: 2, warn: 1 });
        assert!(!audits.is_due(digest("a"), now + WAITS.1) && audits.is_due(digest("b"), now));
        assert_eq!(audits.findings(), Some(Audit { critical: 2, warn: 1 }));
        audits.came_to_nothing(digest("b"), WAITS, now);
        assert_eq!(audits.findings(), None, "those were of another configuration");
    }
}
