//! The tunnel's connector: the only way into the server.

use moorage_wire::bootstrap::{CLOUDFLARED_USER, TUNNEL_TOKEN_PATH};

use zeroize::Zeroizing;

use super::{NO_JIT, NO_METADATA, internet, ordinary_calls, sandboxed, wanted_by};
use crate::{
    api::pool::ConnectorProtocol,
    user_data::{cloud_config::WriteFile, unit::Unit},
};

const PROGRAM: &str = "/opt/moorage/cloudflared/current/cloudflared";
/// Where cloudflared answers `/ready`, and the agent asks. A port that only who may can bind: whoever
/// sat there in its place, OpenClaw for example, could say that the tunnel works, or keep cloudflared
/// from starting.
pub(super) const METRICS: &str = "127.0.0.1:241";
/// Binds such ports, and nothing else.
const BINDS: &str = "CAP_NET_BIND_SERVICE";

/// What differs from pool to pool.
const SETTINGS_PATH: &str = "/etc/moorage/connector.env";

/// Its settings. Without a word cloudflared takes QUIC, which is not tried as long as HTTP/2 was.
pub(crate) fn settings(protocol: ConnectorProtocol) -> WriteFile {
    let text = format!("TUNNEL_TRANSPORT_PROTOCOL={}\n", protocol.as_str());
    WriteFile::value(SETTINGS_PATH, Zeroizing::new(text))
}

pub(super) fn cloudflared() -> Unit {
    let unit = Unit::new("cloudflared.service")
        .section("Unit")
        .set("Description", "Cloudflare Tunnel connector")
        .set("Wants", "network-online.target")
        .words("After", ["network-online.target", "moorage-agent.socket"])
        .set("StartLimitIntervalSec", "0");
    let unit = sandboxed(unit)
        .words(
            "ExecStart",
            [
                PROGRAM,
                "tunnel",
                "--no-autoupdate",
                "--edge-ip-version",
                "auto",
                "--metrics",
                METRICS,
                "run",
            ],
        )
        .set("Environment", format!("TUNNEL_TOKEN_FILE={TUNNEL_TOKEN_PATH}"))
        .set("EnvironmentFile", format!("-{SETTINGS_PATH}"))
        // Absent in production; points a laboratory's connector to the laboratory's edge.
        .set("EnvironmentFile", "-/etc/moorage/cloudflared.env")
        .set("User", CLOUDFLARED_USER)
        .set("Group", CLOUDFLARED_USER)
        .set("Restart", "always")
        .set("RestartSec", "2")
        .set("TimeoutStopSec", "40")
        .set("OOMScoreAdjust", "-400")
        .set("MemoryMax", "512M")
        .set("LimitNOFILE", "65536")
        .set("TasksMax", "256")
        .set("ProcSubset", "pid")
        .all(&[NO_JIT, NO_METADATA]);
    let unit = unit.set("CapabilityBoundingSet", BINDS).set("AmbientCapabilities", BINDS);
    wanted_by(ordinary_calls(internet(unit)), "multi-user.target")
}
