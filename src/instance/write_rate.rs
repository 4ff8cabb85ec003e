//! How often the status of an instance is written because of what its server says. Whoever has the server
//! can say something else each time it is asked, in words, digests, dates and states alike. So it is not
//! judged which of them is worth a write: all are counted together. What only the operator, the cluster and
//! the clouds determine is written at once.

use std::time::Duration;

use jiff::Timestamp;

use crate::api::OpenClawInstanceStatus;

/// Writes that may come at once: several times what a bring-up or an update takes.
pub const BURST: u32 = 30;
/// How long one write takes to come back. An agent that is well is asked every five minutes, so a server
/// that turns from good to bad and back is told at each report.
pub const INTERVAL: Duration = Duration::from_mins(3);
/// What there is at least after the spec or the release has changed, so that the end of an update is told
/// at once also of a server that has used up everything.
pub const AFTER_CHANGE: u32 = 10;

/// What is left of one instance's allowance; all of it at first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WriteRate {
    /// How long it took to get back what was used, at a moment.
    used: Duration,
    at: Timestamp,
}

impl WriteRate {
    /// How long this write has to wait. Nothing if it may be done now; then it is counted.
    #[must_use]
    pub fn take(
        &mut self,
        current: Option<&OpenClawInstanceStatus>,
        wanted: &OpenClawInstanceStatus,
        now: Timestamp,
    ) -> Option<Duration> {
        // A clock that was set back gives nothing, and takes nothing away.
        let passed = Duration::try_from(now.duration_since(self.at)).unwrap_or_default();
        let used = self.used.saturating_sub(passed);
        self.at = now;
        if !current.is_some_and(|current| only_the_server_differs(current, wanted)) {
            self.used = used.min(INTERVAL * (BURST - AFTER_CHANGE));
            return None;
        }
        let wait = (used + INTERVAL).saturating_sub(INTERVAL * BURST);
        self.used = if wait.is_zero() { used + INTERVAL } else { used };
        (!wait.is_zero()).then_some(wait)
    }
}

/// Whether two statuses say the same of all that no server has a say in.
fn only_the_server_differs(
    current: &OpenClawInstanceStatus,
    wanted: &OpenClawInstanceStatus,
) -> bool {
    let tunnel =
        |status: &OpenClawInstanceStatus| status.tunnel.as_ref().map(|tunnel| tunnel.id.clone());
    current.observed_generation == wanted.observed_generation
        && current.release == wanted.release
        && current.earlier_identity == wanted.earlier_identity
        && current.server == wanted.server
        && current.urls == wanted.urls
        && current.dashboard_secret_name == wanted.dashboard_secret_name
        && tunnel(current) == tunnel(wanted)
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use rstest::rstest;

    use super::*;
    use crate::api::instance::{AgentStatus, ServerStatus, TunnelStatus};

    /// A status at which the server has said this.
    fn said(words: &dyn ToString) -> OpenClawInstanceStatus {
        let agent = AgentStatus { last_backup: Some(words.to_string()), ..AgentStatus::default() };
        OpenClawInstanceStatus { agent: Some(agent), ..OpenClawInstanceStatus::default() }
    }

    fn at(second: u64) -> Timestamp {
        Timestamp::from_second(second.try_into().unwrap()).unwrap()
    }

    /// How many writes are done of one that is wanted every `step` seconds.
    fn written(rate: &mut WriteRate, seconds: Range<u64>, step: usize) -> usize {
        let mut current = said(&"");
        let mut count = 0;
        for second in seconds.step_by(step) {
            let wanted = said(&second);
            if rate.take(Some(&current), &wanted, at(second)).is_none() {
                (current, count) = (wanted, count + 1);
            }
        }
        count
    }

    #[rstest]
    #[case::something_else_each_second(1, 50, 20)]
    #[case::each_minute(60, 50, 20)]
    #[case::good_and_bad_at_each_report(300, 12, 12)]
    fn a_server_has_its_status_written_so_often_an_hour(
        #[case] step: usize,
        #[case] first_hour: usize,
        #[case] later: usize,
    ) {
        let mut rate = WriteRate::default();
        let began = 1_000_000;
        let hour = |number: u64| began + 3600 * number..began + 3600 * (number + 1);
        let counts = [0, 1, 2].map(|number| written(&mut rate, hour(number), step));
        assert!(counts[0].abs_diff(first_hour) <= 1, "{counts:?}");
        assert!(counts[1..].iter().all(|count| count.abs_diff(later) <= 1), "{counts:?}");
    }

    #[test]
    fn what_waits_may_be_written_when_it_was_said() {
        let mut rate = WriteRate::default();
        let (current, now) = (said(&"a"), at(1_000_000));
        let mut other = 0;
        let wait = loop {
            other += 1;
            if let Some(wait) = rate.take(Some(&current), &said(&other), now) {
                break wait;
            }
        };
        assert_eq!((other, wait), (BURST + 1, INTERVAL));
        let almost = now + INTERVAL.saturating_sub(Duration::from_secs(1));
        assert_eq!(rate.take(Some(&current), &said(&"b"), almost), Some(Duration::from_secs(1)));
        assert_eq!(rate.take(Some(&current), &said(&"b"), now + INTERVAL), None);
    }

    #[rstest]
    #[case::a_first_status(None, OpenClawInstanceStatus::default())]
    #[case::an_edit(Some(said(&"")), OpenClawInstanceStatus { observed_generation: Some(2), ..said(&"") })]
    #[case::a_release(Some(said(&"")), OpenClawInstanceStatus { release: Some("2".into()), ..said(&"") })]
    #[case::a_server(Some(said(&"")), OpenClawInstanceStatus { server: Some(ServerStatus::default()), ..said(&"") })]
    #[case::a_tunnel(Some(said(&"")), OpenClawInstanceStatus { tunnel: Some(TunnelStatus::default()), ..said(&"") })]
    fn what_no_server_has_a_say_in_is_written_at_once(
        #[case] current: Option<OpenClawInstanceStatus>,
        #[case] wanted: OpenClawInstanceStatus,
    ) {
        let mut rate = WriteRate::default();
        let began = 1_000_000;
        let _ = written(&mut rate, began..began + 60, 1);
        let now = at(began + 60);
        assert_eq!(rate.take(current.as_ref(), &wanted, now), None);
        // And what follows from it as well.
        let after = written(&mut rate, began + 60..began + 90, 1);
        assert_eq!(after, AFTER_CHANGE as usize);
    }

    #[test]
    fn a_clock_that_is_set_back_stops_nobody_for_long() {
        let mut rate = WriteRate::default();
        let _ = written(&mut rate, 2_000_000..2_000_060, 1);
        let wait = rate.take(Some(&said(&"a")), &said(&"b"), at(1_000_000)).unwrap();
        assert!(wait <= INTERVAL);
        assert_eq!(rate.take(Some(&said(&"a")), &said(&"b"), at(1_000_000) + wait), None);
    }
}
