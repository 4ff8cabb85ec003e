//! What the conditions say of the machine below the programs.

use rstest::rstest;

use super::programs::find;
use crate::{
    api::{
        OpenClawInstanceStatus,
        conditions::Reason,
        instance::{Phase, Shortage},
    },
    instance::{
        Observed,
        fixtures::{ready, status_of, wanted},
    },
};

const GIB: u64 = 1024 * 1024 * 1024;

#[test]
fn a_pending_reboot_is_named_and_changes_nothing_else() {
    let observed = ready(&wanted()).with_view(|view| view.report.machine.reboot_pending = true);
    let status = status_of(&wanted(), &observed);
    let (holds, _, message) = find(&status, "UpToDate");
    assert_eq!((holds.as_str(), status.phase), ("True", Some(Phase::Ready)));
    assert!(message.contains("between 03:00 and 05:00 UTC"), "{message}");
    assert!(status.agent.unwrap().reboot_pending);
}

#[rstest]
#[case::right(-200, None)]
#[case::behind(-301, Some("more than five minutes behind"))]
#[case::ahead(4_000, Some("more than an hour ahead of"))]
#[case::in_1970(-1_780_000_000, Some("more than a day behind"))]
fn a_wrong_clock_is_told_with_what_to_do(#[case] off: i64, #[case] words: Option<&str>) {
    let observed = ready(&wanted()).with_view(|view| {
        view.report.details.clock = Some(view.at + jiff::SignedDuration::from_secs(off));
    });
    let status = status_of(&wanted(), &observed);
    let (holds, reason, message) = find(&status, "ServerReady");
    assert_eq!(holds, "True");
    match words {
        None => assert_eq!(reason, Reason::Ready),
        Some(words) => {
            assert_eq!(reason, Reason::ClockSkewed);
            assert!(message.contains(&format!("its clock is {words}")), "{message}");
            assert!(message.contains("NTP"), "{message}");
        }
    }
}

#[rstest]
#[case::done(true, "2026-09-01T12:00:00Z", None)]
#[case::in_a_normal_bring_up(false, "2026-09-01T11:02:00Z", None)]
#[case::by_a_slow_mirror(false, "2026-09-01T11:10:00Z", None)]
#[case::not_done(
    false,
    "2026-09-01T11:10:01Z",
    Some("not set up yet (nftables, fail2ban, unattended-upgrades")
)]
fn packages_that_do_not_come_are_told_and_the_server_is_ready(
    #[case] done: bool,
    #[case] at: &str,
    #[case] words: Option<&str>,
) {
    // It was made at 11:00.
    let observed = ready(&wanted()).with_view(|view| {
        view.at = at.parse().unwrap();
        view.report.machine.setup_done = done;
    });
    let status = status_of(&wanted(), &observed);
    let (holds, reason, message) = find(&status, "ServerReady");
    assert_eq!((holds.as_str(), find(&status, "Ready").0.as_str()), ("True", "True"));
    match words {
        None => assert_eq!((reason.as_str(), status.phase), ("Ready", Some(Phase::Ready))),
        Some(words) => {
            assert_eq!((reason.as_str(), status.phase), ("SetupIncomplete", Some(Phase::Degraded)));
            assert!(message.contains(words), "{message}");
            assert!(message.contains("journalctl -u moorage-setup"), "{message}");
        }
    }
}

fn with_disk(observed: Observed, free: u64, total: u64) -> Observed {
    observed.with_view(|view| {
        view.report.machine.disk_free_bytes = free;
        view.report.details.disk_total_bytes = total;
    })
}

fn with_memory(observed: Observed, available: u64, total: u64) -> Observed {
    observed.with_view(|view| {
        view.report.machine.memory_available_bytes = available;
        view.report.details.memory_total_bytes = total;
    })
}

#[rstest]
#[case::room(with_disk(ready(&wanted()), 20 * GIB, 40 * GIB), None)]
#[case::size_unknown(with_disk(ready(&wanted()), 0, 0), None)]
#[case::below_a_tenth(with_disk(ready(&wanted()), 3 * GIB, 40 * GIB), Some((Reason::DiskPressure, "less than 4.0 GiB of its 40.0 GiB of disk are free")))]
#[case::below_a_gibibyte(with_disk(ready(&wanted()), GIB - 1, 8 * GIB), Some((Reason::DiskPressure, "less than 1.0 GiB of its 8.0 GiB of disk are free")))]
#[case::almost_full(with_disk(ready(&wanted()), 0, 40 * GIB), Some((Reason::DiskPressure, "less than 819 MiB of its 40.0 GiB of disk are free")))]
#[case::memory(with_memory(ready(&wanted()), GIB / 4, 4 * GIB), Some((Reason::MemoryPressure, "less than 409 MiB of its 4.0 GiB of memory are free")))]
fn a_server_that_is_short_of_room_is_degraded_and_ready(
    #[case] observed: Observed,
    #[case] expected: Option<(Reason, &str)>,
) {
    let status = status_of(&wanted(), &observed);
    let (holds, reason, message) = find(&status, "ServerReady");
    assert_eq!(holds, "True");
    assert_eq!(find(&status, "Ready").0, "True");
    match expected {
        None => assert_eq!((reason.as_str(), status.phase), ("Ready", Some(Phase::Ready))),
        Some((short, words)) => {
            let degraded = (short.as_str(), Some(Phase::Degraded));
            assert_eq!((reason.as_str(), status.phase), degraded);
            assert!(message.contains(words), "{message}");
        }
    }
}

#[test]
fn a_shortage_is_over_only_well_above_its_limit() {
    let wanted = wanted();
    let after = |free: u64, before: &OpenClawInstanceStatus| {
        let observed = Observed { status: before.clone(), ..ready(&wanted) };
        status_of(&wanted, &with_disk(observed, free, 40 * GIB))
    };
    let plenty = after(9 * GIB / 2, &OpenClawInstanceStatus::default());
    assert_eq!(find(&plenty, "ServerReady").1, Reason::Ready);
    let short = after(4 * GIB - GIB / 4, &plenty);
    assert_eq!(find(&short, "ServerReady").1, Reason::DiskPressure);
    assert_eq!(after(9 * GIB / 2, &short), short, "it swings about the limit");
    assert_eq!(find(&after(7 * GIB, &short), "ServerReady").1, Reason::Ready);
}

#[test]
fn a_shortage_lasts_whatever_the_condition_says() {
    let wanted = wanted();
    let after = |free: u64, before: &OpenClawInstanceStatus| {
        let observed = Observed { status: before.clone(), ..ready(&wanted) };
        status_of(&wanted, &with_disk(observed, free, 40 * GIB))
    };
    let mut short = after(4 * GIB - GIB / 4, &OpenClawInstanceStatus::default());
    assert_eq!(short.agent.as_ref().unwrap().disk_shortage, Some(Shortage::Low));
    short.conditions.clear();
    let status = after(9 * GIB / 2, &short);
    assert_eq!(find(&status, "ServerReady").1, Reason::DiskPressure);
    assert_eq!(status.agent.unwrap().disk_shortage, Some(Shortage::Low));
}

#[test]
fn each_level_of_a_shortage_is_left_by_itself() {
    let wanted = wanted();
    let mut status = OpenClawInstanceStatus::default();
    let percent = 40 * GIB / 100;
    let path = [
        (1, Some(Shortage::Critical)),
        (2, Some(Shortage::Critical)),
        (3, Some(Shortage::VeryLow)),
        (7, Some(Shortage::VeryLow)),
        (8, Some(Shortage::Low)),
        (14, Some(Shortage::Low)),
        (15, None),
        (11, None),
        (9, Some(Shortage::Low)),
    ];
    for (free, level) in path {
        let observed = Observed { status: status.clone(), ..ready(&wanted) };
        status = status_of(&wanted, &with_disk(observed, free * percent + percent / 10, 40 * GIB));
        assert_eq!(status.agent.as_ref().unwrap().disk_shortage, level, "{free} %");
    }
}

#[test]
fn a_new_server_does_not_inherit_a_shortage() {
    let wanted = wanted();
    let mut observed = ready(&wanted);
    let agent = observed.status.agent.as_mut().unwrap();
    agent.disk_shortage = Some(Shortage::Critical);
    agent.epoch = "00".repeat(8);
    let status = status_of(&wanted, &with_disk(observed, 9 * GIB / 2, 40 * GIB));
    assert_eq!(status.agent.unwrap().disk_shortage, None);
}
