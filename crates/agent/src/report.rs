//! The report: gathered when it is asked for.

use std::{fs, sync::Arc};

use moorage_wire::{
    Report,
    report::{CloudflaredHealth, Machine, OpenClawHealth, OpenClawState},
};

use crate::{
    connector,
    core::{Core, blocking},
    identity::Keys,
    installer::protocol::Unit,
    layout::Layout,
    openclaw::health,
};

/// What is on the server and how it is.
pub(crate) async fn gather(core: &Arc<Core>, keys: &Keys) -> Report {
    let (openclaw, connected) = tokio::join!(openclaw_health(core), connector::is_connected(core));
    let layout = core.settings.layout.clone();
    let machine = blocking(core, move |_| machine(&layout)).await;
    let mut vault = core.vault();
    let cloudflared = CloudflaredHealth {
        connected,
        active_token_sha256: vault.tunnel().active_sha256(),
        token_sha256: vault.tunnel().sha256(),
    };
    let (receipts, consumed) = (vault.receipts(), vault.consumed());
    drop(vault);
    Report {
        identity: keys.identity.clone(),
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        desired: core.desired().progress(),
        receipts,
        consumed,
        openclaw,
        cloudflared,
        machine,
    }
}

async fn openclaw_health(core: &Core) -> OpenClawHealth {
    let (health, status) =
        tokio::join!(health::ask(core.settings.gateway), core.installer.status(Unit::Openclaw));
    let (state, mut message) = match (health.ready, health.started, status) {
        (true, _, _) => (OpenClawState::Ready, None),
        (_, true, _) => {
            let message = "OpenClaw runs, but /readyz is not 200: look at its channels";
            (OpenClawState::Degraded, Some(message.to_owned()))
        }
        (_, _, Ok(status)) if status.running => (OpenClawState::Starting, None),
        (_, _, Ok(_)) => (OpenClawState::Stopped, None),
        (_, _, Err(error)) => (OpenClawState::Stopped, Some(error.to_string())),
    };
    let notes = core.notes().clone();
    message = message.or(notes.reload_trouble).or(notes.tunnel_trouble);
    OpenClawHealth { state, version: notes.openclaw_version, message }
}

fn machine(layout: &Layout) -> Machine {
    let disk = rustix::fs::statvfs(layout.openclaw_home());
    Machine {
        disk_free_bytes: disk.map_or(0, |disk| disk.f_bavail.saturating_mul(disk.f_frsize)),
        memory_available_bytes: fs::read_to_string("/proc/meminfo")
            .ok()
            .and_then(|text| memory_available(&text))
            .unwrap_or(0),
        reboot_pending: layout.reboot_required().exists(),
    }
}

/// `MemAvailable` of `/proc/meminfo` (proc(5)), which is in KiB.
fn memory_available(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn available_memory_is_read_in_bytes() {
        let text = "MemTotal:       8000000 kB\nMemFree: 1 kB\nMemAvailable:    2048 kB\n";
        assert_eq!(memory_available(text), Some(2 * 1024 * 1024));
        assert_eq!(memory_available("MemTotal: 1 kB\n"), None);
    }
}
