//! The machine below the programs: whether it is set up, how much room there is, whether its clock is
//! right, and whether it waits for a reboot. Figures that move never come into words; words change at
//! coarse limits, and back only well above them.

use jiff::SignedDuration;

use super::{Observed, observed::AgentView};
use crate::api::{
    conditions::Reason,
    instance::{AgentStatus, Shortage},
};

const MIB: u64 = 1024 * 1024;
/// Free disk: percent of the whole, and bytes. Below either it is short; the worst level comes first.
const DISK: [Limit; 3] = [
    Limit { level: Shortage::Critical, percent: 2, least: 256 * MIB },
    Limit { level: Shortage::VeryLow, percent: 5, least: 512 * MIB },
    Limit { level: Shortage::Low, percent: 10, least: 1024 * MIB },
];
/// When a server is short of available memory.
const MEMORY: [Limit; 1] = [Limit { level: Shortage::Low, percent: 10, least: 0 }];
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

/// What is wrong with the machine, if anything: the reason of what comes first, and the words of all.
pub(super) fn shortcomings(observed: &Observed) -> Option<(Reason, String)> {
    let view = observed.agent.view()?;
    let found = [
        (Reason::SetupIncomplete, unfinished(observed, view)),
        (Reason::ClockSkewed, wrong_clock(view)),
        (Reason::DiskPressure, disk_shortage(observed, view)),
        (Reason::MemoryPressure, memory_shortage(observed, view)),
    ];
    let found = found.into_iter().filter_map(|(reason, words)| Some((reason, words?)));
    found.reduce(|(reason, words), (_, more)| (reason, format!("{words}; {more}")))
}

fn unfinished(observed: &Observed, view: &AgentView) -> Option<String> {
    let late = view.at.duration_since(observed.server.present()?.created) > SETUP;
    let words = "its packages are not set up yet (nftables, fail2ban, unattended-upgrades and what has to go), so it is less protected than it should be: see that it reaches Debian's mirrors; over the pool's SSH fallback journalctl -u moorage-setup says what fails";
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

fn disk_shortage(observed: &Observed, view: &AgentView) -> Option<String> {
    let words = Room::disk(view).shortage(observed)?;
    Some(format!("{words}: remove data of OpenClaw that is not needed"))
}

fn memory_shortage(observed: &Observed, view: &AgentView) -> Option<String> {
    let words = Room::memory(view).shortage(observed)?;
    Some(format!(
        "{words}: ask less of OpenClaw, or rebuild the instance with a larger server type (a rebuild deletes its data)"
    ))
}

/// How short the machine is of disk and of memory, for the status.
pub(super) fn levels(observed: &Observed, view: &AgentView) -> [Option<Shortage>; 2] {
    let level = |room: Room| room.limit(observed).map(|limit| limit.level);
    [Room::disk(view), Room::memory(view)].map(level)
}

/// A level of shortage.
struct Limit {
    level: Shortage,
    percent: u64,
    /// Bytes.
    least: u64,
}

impl Limit {
    fn bytes(&self, total: u64) -> u64 {
        (total.saturating_mul(self.percent) / 100).max(self.least)
    }
}

struct Room {
    free: u64,
    /// Zero if unknown.
    total: u64,
    what: &'static str,
    limits: &'static [Limit],
    /// The level that the status of this agent remembers.
    before: fn(&AgentStatus) -> Option<Shortage>,
}

impl Room {
    fn disk(view: &AgentView) -> Self {
        Self {
            free: view.report.machine.disk_free_bytes,
            total: view.report.details.disk_total_bytes,
            what: "disk",
            limits: &DISK,
            before: |agent| agent.disk_shortage,
        }
    }

    fn memory(view: &AgentView) -> Self {
        Self {
            free: view.report.machine.memory_available_bytes,
            total: view.report.details.memory_total_bytes,
            what: "memory",
            limits: &MEMORY,
            before: |agent| agent.memory_shortage,
        }
    }

    /// The worst limit that is undershot, or was and is not left far enough behind yet. Where the size
    /// is not known nothing can be said.
    fn limit(&self, observed: &Observed) -> Option<&'static Limit> {
        let epoch = observed.epoch?.to_string();
        let agent = observed.status.agent.as_ref().filter(|agent| agent.epoch == epoch);
        let before = agent.and_then(self.before);
        let is_undershot = |limit: &&Limit| {
            let bytes = limit.bytes(self.total);
            let is_recovering = before.is_some_and(|before| before >= limit.level);
            self.free < bytes || (is_recovering && self.free < bytes / 100 * RECOVERED)
        };
        self.limits.iter().filter(|_| self.total > 0).find(is_undershot)
    }

    /// What it is short of, in words.
    fn shortage(&self, observed: &Observed) -> Option<String> {
        self.limit(observed).map(|limit| self.words(limit))
    }

    fn words(&self, limit: &Limit) -> String {
        let (limit, total) = (size(limit.bytes(self.total)), size(self.total));
        format!("less than {limit} of its {total} of {} are free", self.what)
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
