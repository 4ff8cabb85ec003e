//! The reboot that an upgrade asks for, in a window, at another minute on each server.

use super::{NO_JIT, ordinary_calls, powerless, sandboxed, wanted_by};
use crate::user_data::unit::Unit;

/// When the window opens.
const OPENS: &str = "*-*-* 03:00:00 UTC";
/// How long it is open.
const LASTS: &str = "2h";

pub(super) fn reboot() -> [Unit; 2] {
    let timer = Unit::new("moorage-reboot.timer")
        .section("Unit")
        .set("Description", "Moorage: the window for reboots that upgrades ask for")
        .section("Timer")
        .set("OnCalendar", OPENS)
        .set("RandomizedDelaySec", LASTS)
        .set("AccuracySec", "1s")
        // A server that was off in its window waits for the next one.
        .set("Persistent", "no");
    let service = Unit::new("moorage-reboot.service")
        .section("Unit")
        .set("Description", "Moorage: reboot if an upgrade asked for it")
        .set("ConditionPathExists", "/run/reboot-required");
    let service = sandboxed(service)
        .set("Type", "oneshot")
        .words("ExecStart", ["/usr/bin/systemctl", "--no-block", "reboot"])
        .set("RestrictAddressFamilies", "AF_UNIX")
        .set("PrivateNetwork", "yes")
        .set("IPAddressDeny", "any")
        .set("ProcSubset", "pid")
        .all(&[NO_JIT]);
    [wanted_by(timer, "timers.target"), ordinary_calls(powerless(service))]
}
