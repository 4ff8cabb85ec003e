//! The agent's three units, each with a socket that systemd holds, and the way back from an update
//! that went wrong.

use moorage_wire::bootstrap::{
    AGENT_SOCKET_PATH, AGENT_USER, INSTALLER_SOCKET_PATH, OPENCLAW_HOME, OPENCLAW_USER,
    TUNNEL_GROUP, WORKER_SOCKET_PATH,
};

use super::{
    NO_JIT, NO_METADATA, PROGRAMS, connector, internet, openclaw, ordinary_calls, powerless,
    sandboxed, wanted_by,
};
use crate::user_data::unit::Unit;

const AGENT: &str = "/opt/moorage/agent/current/moorage-agent";
const INSTALLER: &str = "moorage-installer.service";
const AGAIN: &str = "moorage-installer-again.service";
/// What a moment took does not stay with the agent, as it would in heaps of each thread and in a heap
/// that is to grow to the largest block that it ever gave.
const ALLOCATOR: [&str; 3] =
    ["MALLOC_ARENA_MAX=1", "MALLOC_MMAP_THRESHOLD_=131072", "MALLOC_TRIM_THRESHOLD_=131072"];
const PREVIOUS_AGENT: &str = "/opt/moorage/agent/previous/moorage-agent";

pub(super) fn units() -> Vec<Unit> {
    vec![
        socket("moorage-agent.socket", AGENT_SOCKET_PATH, (AGENT_USER, TUNNEL_GROUP, "0660")),
        agent(),
        socket("moorage-worker.socket", WORKER_SOCKET_PATH, (OPENCLAW_USER, AGENT_USER, "0660")),
        worker(),
        socket("moorage-installer.socket", INSTALLER_SOCKET_PATH, (AGENT_USER, AGENT_USER, "0600")),
        installer(),
        roll_back(),
        again(),
    ]
}

fn socket(
    name: &'static str,
    path: &str,
    (user, group, mode): (&'static str, &'static str, &'static str),
) -> Unit {
    let unit = Unit::new(name)
        .section("Unit")
        .set("Description", format!("Moorage: {path}"))
        .section("Socket")
        .set("ListenStream", path)
        .set("SocketUser", user)
        .set("SocketGroup", group)
        .set("SocketMode", mode)
        .set("DirectoryMode", "0755")
        .set("RemoveOnStop", "yes");
    wanted_by(unit, "sockets.target")
}

fn agent() -> Unit {
    let unit = Unit::new("moorage-agent.service")
        .section("Unit")
        .set("Description", "Moorage agent")
        .set("Requires", "moorage-agent.socket")
        .words("After", ["moorage-agent.socket", "network.target"])
        // It must come up again whatever happens to it: it is the only way in.
        .set("StartLimitIntervalSec", "0");
    let unit = sandboxed(unit)
        .words(
            "ExecStart",
            [AGENT, "serve", "--listen", "systemd", "--cloudflared-metrics", connector::METRICS],
        )
        .set("User", AGENT_USER)
        .set("Group", AGENT_USER)
        .set("StateDirectory", "moorage")
        .set("StateDirectoryMode", "0700")
        .set("Restart", "always")
        .set("RestartSec", "1")
        .set("OOMScoreAdjust", "-500")
        .set("MemoryMax", "256M")
        .set("TasksMax", "64")
        .words("Environment", ALLOCATOR)
        .all(&[NO_JIT, NO_METADATA]);
    wanted_by(ordinary_calls(internet(powerless(unit))), "multi-user.target")
}

fn worker() -> Unit {
    let unit = Unit::new("moorage-worker.service")
        .section("Unit")
        .set("Description", "Moorage worker: OpenClaw's files and command line")
        .set("Requires", "moorage-worker.socket")
        .words("After", ["moorage-worker.socket", "network.target"])
        .set("StartLimitIntervalSec", "0");
    let unit = sandboxed(unit)
        .words("ExecStart", [AGENT, "worker"])
        .set("User", OPENCLAW_USER)
        .set("Group", OPENCLAW_USER)
        .set("StateDirectory", "openclaw")
        .set("StateDirectoryMode", "0700")
        .set("WorkingDirectory", OPENCLAW_HOME)
        .set("Restart", "on-failure")
        .set("RestartSec", "1")
        .all(&[NO_METADATA]);
    // It runs OpenClaw's command line, so it needs what OpenClaw needs.
    ordinary_calls(openclaw::reach(powerless(openclaw::environment(unit))))
}

/// With nothing to talk to but Unix sockets.
fn alone(unit: Unit) -> Unit {
    unit.set("PrivateNetwork", "yes")
        .set("RestrictAddressFamilies", "AF_UNIX")
        .set("IPAddressDeny", "any")
}

/// Root, but with the capabilities alone that moving files of other users takes, without a network,
/// and with a file system that is read-only but for what it installs.
fn root(unit: Unit) -> Unit {
    let unit = sandboxed(unit)
        .set("StateDirectory", "moorage-installer")
        .set("StateDirectoryMode", "0700")
        .words("ReadWritePaths", [PROGRAMS, "/etc/moorage"])
        .words(
            "CapabilityBoundingSet",
            // The last ends a new agent that hangs when it is tried, as a user without powers.
            ["CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_SETUID", "CAP_SETGID", "CAP_KILL"],
        );
    alone(unit)
        .set("SystemCallFilter", "@system-service")
        .set("SystemCallFilter", "~@resources")
        .set("SystemCallErrorNumber", "EPERM")
        .set("OOMScoreAdjust", "-500")
        .all(&[NO_JIT])
}

fn installer() -> Unit {
    let unit = Unit::new(INSTALLER)
        .section("Unit")
        .set("Description", "Moorage installer: programs and units, for the agent alone")
        .set("Requires", "moorage-installer.socket")
        .set("After", "moorage-installer.socket")
        .words("OnFailure", ["moorage-roll-back.service", AGAIN])
        // Three failures in a row, slow ones too, and OnFailure= has its turn.
        .set("StartLimitIntervalSec", "120")
        .set("StartLimitBurst", "3");
    let unit = root(unit)
        .set("Type", "notify")
        .words("ExecStart", [AGENT, "installer", "--token-group", TUNNEL_GROUP])
        .set("TimeoutStartSec", "30")
        .set("Restart", "on-failure")
        .set("RestartSec", "1")
        // Otherwise each failure is one for OnFailure=, and a single crash takes an update back.
        .set("RestartMode", "direct");
    // Not by its socket alone: after a power cut it goes on watching an update.
    wanted_by(unit, "multi-user.target")
}

fn roll_back() -> Unit {
    let unit = Unit::new("moorage-roll-back.service")
        .section("Unit")
        .set(
            "Description",
            "Moorage: put the previous agent back after an installer that cannot start",
        )
        .set("ConditionPathExists", PREVIOUS_AGENT)
        .set("StartLimitIntervalSec", "0");
    root(unit).set("Type", "oneshot").words("ExecStart", [PREVIOUS_AGENT, "roll-back"])
}

/// Starts an installer that systemd has given up, and its socket, which failed with it: without it
/// nothing on the server can be changed or mended from afar. With systemd's own programs, so that it
/// does not matter what became of ours; at a calm rhythm, for as long as it takes.
fn again() -> Unit {
    let unit = Unit::new(AGAIN)
        .section("Unit")
        .set("Description", "Moorage: start the installer again")
        .set("StartLimitIntervalSec", "0");
    let (systemctl, socket) = ("/usr/bin/systemctl", "moorage-installer.socket");
    let unit = sandboxed(unit)
        .set("Type", "oneshot")
        .words("ExecStart", ["/usr/bin/sleep", "30"])
        .words("ExecStart", [systemctl, "reset-failed", socket, INSTALLER])
        // Not waited for: should it fail, systemd starts this unit again.
        .words("ExecStart", [systemctl, "--no-block", "start", socket, INSTALLER]);
    ordinary_calls(alone(powerless(unit))).all(&[NO_JIT])
}
