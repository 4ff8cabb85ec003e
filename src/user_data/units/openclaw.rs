//! OpenClaw's unit. The agent starts it, through the installer, when its configuration and its
//! credentials are there; it is not enabled at boot.

use moorage_wire::bootstrap::{OPENCLAW_HOME, OPENCLAW_USER};

use super::{NO_METADATA, internet, ordinary_calls, powerless, sandboxed};
use crate::user_data::unit::Unit;

const NODE: &str = "/opt/moorage/node/current/bin/node";
const PROGRAM: &str = "/opt/moorage/openclaw/current/bin/openclaw";

/// What OpenClaw is told by its environment: where its files are, that something else manages its
/// life, and to leave updates and the local network alone. Not that its configuration is read-only:
/// then it would refuse approved plugins. The agent sets right what anybody else changes there.
const ENVIRONMENT: &[&str] = &[
    "HOME=/var/lib/openclaw",
    // OpenClaw installs plugins with the npm of its own bundle.
    "PATH=/opt/moorage/node/current/bin:/opt/moorage/openclaw/current/bin:/usr/bin:/bin",
    "OPENCLAW_STATE_DIR=/var/lib/openclaw/.openclaw",
    "OPENCLAW_CONFIG_PATH=/var/lib/openclaw/.openclaw/openclaw.json",
    "OPENCLAW_NO_AUTO_UPDATE=1",
    "OPENCLAW_SERVICE_REPAIR_POLICY=external",
    "OPENCLAW_DISABLE_BONJOUR=1",
];

pub(super) fn gateway() -> Unit {
    let unit = Unit::new("openclaw.service")
        .section("Unit")
        .set("Description", "OpenClaw gateway")
        .set("Wants", "network-online.target")
        .set("After", "network-online.target")
        .set("ConditionPathExists", PROGRAM)
        .set("StartLimitIntervalSec", "300")
        .set("StartLimitBurst", "10");
    let unit = sandboxed(unit)
        .words("ExecStart", [NODE, PROGRAM, "gateway"])
        .set("User", OPENCLAW_USER)
        .set("Group", OPENCLAW_USER)
        .set("StateDirectory", "openclaw")
        .set("StateDirectoryMode", "0700")
        .set("WorkingDirectory", OPENCLAW_HOME)
        .set("Restart", "always")
        .set("RestartSec", "5")
        // A configuration that a restart cannot mend.
        .set("RestartPreventExitStatus", "78")
        .words("SuccessExitStatus", ["0", "143"])
        .set("TimeoutStopSec", "330")
        .set("KillMode", "mixed")
        .set("OOMPolicy", "continue")
        // It can keep every processor busy; agent and connector come first where they are short.
        .set("CPUWeight", "20")
        // Memory that runs out must not take the way in with it.
        .set("OOMScoreAdjust", "500")
        .set("MemoryMax", "90%")
        .set("LimitNOFILE", "65536")
        .set("TasksMax", "1024")
        // The worker's own: what credentials are sealed to, and what the operator signed.
        .set("InaccessiblePaths", format!("-{OPENCLAW_HOME}/worker"))
        .all(&[NO_METADATA]);
    ordinary_calls(reach(powerless(environment(unit))))
}

pub(super) fn environment(unit: Unit) -> Unit {
    ENVIRONMENT.iter().fold(unit, |unit, assignment| unit.set("Environment", *assignment))
}

/// What OpenClaw and its command line need beside the sandbox: the internet; netlink, by which Node.js
/// lists the network's interfaces; and openat2(2), by which OpenClaw opens its lock files. systemd's
/// filter against set-user-id files cannot look into that call, and so forbids it. And the start times
/// of others' processes: OpenClaw takes a lock for its own as long as the process that it names may be
/// the one that took it, which after a power cut is anybody's whose number is the same.
pub(super) fn reach(unit: Unit) -> Unit {
    internet(unit)
        .set("RestrictAddressFamilies", "AF_NETLINK")
        .set("RestrictSUIDSGID", "no")
        .set("ProtectProc", "default")
}
