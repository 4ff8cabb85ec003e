//! The machine below the programs: whether it is set up, how much room there is, whether its clock is
//! right, and whether it waits for a reboot. Figures that move never come into words; words change at
//! coarse limits, and back only well above them.

use jiff::SignedDuration;
use moorage_wire::report::Machine;

use super::{Observed, observed::AgentView};
use crate::api::conditions::ConditionType::ServerReady;

const MIB: u64 = 1024 * 1024;
/// Free disk: percent of the whole, and bytes. Below either the room is short; the worst comes first.
const DISK: [(u64, u64); 3] = [(2, 256 * MIB), (5, 512 * MIB), (10, 1024 * MIB)];
/// Available memory, percent of the whole.
const MEMORY: [(u64, u64); 1] = [(10, 0)];
/// How far a clock may be off before it is told, seconds, and the words for it; the worst comes first.
/// Nothing of ours fails below the first: nonces have no date.
const CLOCK: [(u64, &str); 3] =
    [(86_400, "more than a day"), (3_600, "more than an hour"), (300, "more than five minutes")];
/// How old a server may be until its packages are missed. They take a minute; a slow mirror is no news.
const SETUP: SignedDuration = SignedDuration::from_mins(10);
/// So much more than the limit has to be free, percent, until a shortage is over.
const RECOVERED: u64 = 150;

/// What is said of a pending reboot; nothing if there is none.
pub(super) fn reboot(view: &AgentView) -> &'static str {
    if view.report.machine.reboot_pending {
        "; an upgrade waits for the server's reboot, which comes by itself between 03:00 and 05:00 UTC"
    } else {
        ""
    }
}

/// What is wrong with the machine, if anything.
pub(super) fn trouble(seen: &Observed) -> Option<String> {
    let view = seen.agent.view()?;
    let trouble = unfinished(seen, view).into_iter().chain(wrong_clock(view));
    let trouble: Vec<_> = trouble.chain(shortages(seen, view)).collect();
    (!trouble.is_empty()).then(|| trouble.join("; "))
}

fn unfinished(seen: &Observed, view: &AgentView) -> Option<String> {
    let late = view.at.duration_since(seen.server.present()?.created) > SETUP;
    let words = "its packages are not set up yet (nftables, fail2ban, unattended-upgrades and what has to go), so it is less protected than it should be: see that it reaches Debian's mirrors; over the pool's SSH fall-back journalctl -u moorage-setup says what fails";
    (late && !view.report.machine.setup_done).then(|| words.to_owned())
}

fn wrong_clock(view: &AgentView) -> Option<String> {
    let ahead = view.report.details.clock?.as_second() - view.at.as_second();
    let (_, far) = CLOCK.iter().find(|(limit, _)| ahead.unsigned_abs() > *limit)?;
    let way = if ahead > 0 { "ahead of" } else { "behind" };
    Some(format!(
        "its clock is {far} {way} the operator's, so certificates and upgrades may be refused there: see that it reaches a time server (NTP), or set it"
    ))
}

/// What the machine is short of.
fn shortages(seen: &Observed, view: &AgentView) -> Vec<String> {
    let report = &view.report;
    let Machine { disk_free_bytes, memory_available_bytes, .. } = report.machine;
    let before = said_before(seen);
    let disk = Room {
        free: disk_free_bytes,
        total: report.details.disk_total_bytes,
        what: "disk",
        limits: &DISK,
    };
    let memory = Room {
        free: memory_available_bytes,
        total: report.details.memory_total_bytes,
        what: "memory",
        limits: &MEMORY,
    };
    let remedy = [
        "remove data of OpenClaw that is not needed",
        "ask less of OpenClaw, or rebuild the instance with a larger server type",
    ];
    let short = [disk, memory].into_iter().zip(remedy).filter_map(|(room, remedy)| {
        let short = room.shortage(before)?;
        Some(format!("{short}: {remedy}"))
    });
    short.collect()
}

fn said_before(seen: &Observed) -> &str {
    let mut conditions = seen.status.conditions.iter();
    conditions
        .find(|known| known.type_ == ServerReady.as_str())
        .map_or("", |known| known.message.as_str())
}

struct Room<'a> {
    free: u64,
    total: u64,
    what: &'a str,
    limits: &'a [(u64, u64)],
}

impl Room<'_> {
    /// The worst limit that is undershot, or was and is not left far enough behind yet. Where the size
    /// is not known nothing can be said.
    fn shortage(&self, before: &str) -> Option<String> {
        let Self { free, total, what, limits } = self;
        let undershot = |&(percent, least): &(u64, u64)| {
            let limit = (total.saturating_mul(percent) / 100).max(least);
            let words =
                format!("less than {} of its {} of {what} are free", size(limit), size(*total));
            let recovered = limit / 100 * RECOVERED;
            let short = *free < limit || (*free < recovered && before.contains(&words));
            short.then_some(words)
        };
        (*total > 0).then(|| limits.iter().find_map(undershot)).flatten()
    }
}

/// In the unit in which it is at least one, with a digit after the point.
fn size(bytes: u64) -> String {
    let mib = bytes / MIB;
    if mib < 1024 {
        format!("{mib} MiB")
    } else {
        format!("{}.{} GiB", mib / 1024, mib % 1024 * 10 / 1024)
    }
}
