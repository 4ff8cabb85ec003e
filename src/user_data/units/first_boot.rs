//! The two jobs of the first boot. Both are enabled, so that a reboot in the middle continues them,
//! and leave a mark when they are done.

use moorage_wire::bootstrap::SETUP_DONE_PATH;

use super::{NO_JIT, PROGRAMS, internet, powerless, sandboxed, wanted_by};
use crate::user_data::{FIRST_BOOT_PATH, unit::Unit};

pub(super) fn units() -> Vec<Unit> {
    vec![programs(), setup()]
}

/// Fetches the agent and cloudflared, and starts them.
fn programs() -> Unit {
    let unit = job(
        "moorage-first-boot.service",
        "Moorage first boot: fetch and start the agent and cloudflared",
        "/var/lib/moorage-first-boot/done",
    );
    // Root, for what lies in /opt must not belong to whoever runs it; without any capability.
    let unit = sandboxed(unit)
        // Outside the sandbox, which is set up for each command.
        .words("ExecStartPre", ["+/usr/bin/install", "-d", "-m", "0755", PROGRAMS])
        .words("ExecStart", ["/usr/bin/python3", "-I", FIRST_BOOT_PATH, "programs"])
        .set("StateDirectory", "moorage-first-boot")
        .set("StateDirectoryMode", "0700")
        .set("ReadWritePaths", format!("-{PROGRAMS}"))
        .all(&[NO_JIT]);
    let unit = repeated(super::ordinary_calls(internet(powerless(unit))));
    wanted_by(unit, "multi-user.target")
}

/// Packages and settings. It runs apt and dpkg, which change everything there is: no sandbox fits.
fn setup() -> Unit {
    let unit =
        job("moorage-setup.service", "Moorage first boot: packages and settings", SETUP_DONE_PATH);
    let unit = unit
        .section("Service")
        .words("ExecStart", ["/usr/bin/python3", "-I", FIRST_BOOT_PATH, "setup"])
        // dpkg must not be torn down in the middle of a package.
        .set("KillMode", "mixed")
        .set("TimeoutStopSec", "5min");
    wanted_by(repeated(unit), "multi-user.target")
}

/// A job to do until there is this mark.
fn job(name: &'static str, description: &'static str, mark: &str) -> Unit {
    Unit::new(name)
        .section("Unit")
        .set("Description", description)
        .set("ConditionPathExists", format!("!{mark}"))
        .set("Wants", "network-online.target")
        .set("After", "network-online.target")
        .set("StartLimitIntervalSec", "0")
}

/// A job that is started again until it did its work, unless that is hopeless.
fn repeated(unit: Unit) -> Unit {
    // Not a oneshot: a boot is not to wait for a mirror.
    unit.set("Type", "exec")
        .set("Restart", "on-failure")
        .set("RestartSec", "10")
        .set("RestartPreventExitStatus", "78")
}
