//! The units of a server. All are constants: nothing that differs from server to server is in them.
//! Each service starts from the same sandbox ([`sandboxed`]) and says where it needs more.

mod agent;
mod connector;
mod first_boot;
mod openclaw;
mod upkeep;

use super::unit::Unit;
pub(super) use connector::settings as connector_settings;

/// Root's own programs and nothing of the user's.
const PROGRAMS: &str = "/opt/moorage";

pub(super) fn all() -> Vec<Unit> {
    let mut units = agent::units();
    units.extend([openclaw::gateway(), connector::cloudflared()]);
    units.extend(first_boot::units());
    units.extend(upkeep::reboot());
    units
}

/// What every service lives without.
const SANDBOX: &[(&str, &str)] = &[
    ("UMask", "0077"),
    ("NoNewPrivileges", "yes"),
    ("ProtectSystem", "strict"),
    ("ProtectHome", "yes"),
    ("PrivateTmp", "yes"),
    ("PrivateDevices", "yes"),
    ("ProtectProc", "invisible"),
    ("ProtectClock", "yes"),
    ("ProtectHostname", "yes"),
    ("ProtectKernelLogs", "yes"),
    ("ProtectKernelModules", "yes"),
    ("ProtectKernelTunables", "yes"),
    ("ProtectControlGroups", "yes"),
    ("RestrictNamespaces", "yes"),
    ("RestrictRealtime", "yes"),
    ("RestrictSUIDSGID", "yes"),
    ("LockPersonality", "yes"),
    ("RemoveIPC", "yes"),
    ("KeyringMode", "private"),
    ("SystemCallArchitectures", "native"),
    ("DevicePolicy", "closed"),
    ("LimitCORE", "0"),
];

/// No interpreter with a compiler inside: memory is writable or executable, never both.
const NO_JIT: (&str, &str) = ("MemoryDenyWriteExecute", "yes");

/// The metadata service, which hands out user-data. nftables says the same to all users but root;
/// this is a second line.
const NO_METADATA: (&str, &str) =
    ("IPAddressDeny", "169.254.169.254 fd00:ec2::254 fe80::a9fe:a9fe");

/// A service with the sandbox laid around it; the `[Service]` section is open.
fn sandboxed(unit: Unit) -> Unit {
    unit.section("Service").all(SANDBOX)
}

/// No capability at all, now or later.
fn powerless(unit: Unit) -> Unit {
    unit.set("CapabilityBoundingSet", "").set("AmbientCapabilities", "")
}

/// The system calls of an ordinary service, without those that need privileges.
fn ordinary_calls(unit: Unit) -> Unit {
    unit.set("SystemCallFilter", "@system-service")
        .set("SystemCallFilter", "~@privileged @resources")
        .set("SystemCallErrorNumber", "EPERM")
}

/// Unix sockets and the internet.
fn internet(unit: Unit) -> Unit {
    unit.words("RestrictAddressFamilies", ["AF_UNIX", "AF_INET", "AF_INET6"])
}

fn wanted_by(unit: Unit, target: &'static str) -> Unit {
    unit.section("Install").set("WantedBy", target)
}
