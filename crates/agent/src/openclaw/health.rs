//! OpenClaw's health endpoints. All are unauthenticated and on loopback.

use std::net::SocketAddr;

use crate::probe;

/// What the three endpoints say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Health {
    /// `/healthz` and `/startupz` are 200.
    pub(crate) started: bool,
    /// `/readyz` is 200: channels are up as well.
    pub(crate) ready: bool,
}

pub(crate) async fn ask(gateway: SocketAddr) -> Health {
    let (live, started, ready) = tokio::join!(
        probe::is_ok(gateway, "/healthz"),
        probe::is_ok(gateway, "/startupz"),
        probe::is_ok(gateway, "/readyz"),
    );
    let started = live && started;
    Health { started, ready: started && ready }
}
