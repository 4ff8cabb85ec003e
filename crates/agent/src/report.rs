//! The report: gathered when it is asked for.

use std::{fs, sync::Arc};

use jiff::Timestamp;
use moorage_wire::{
    Failure, Program, Report, Sha256,
    desired::Artifacts,
    failure::{FailureCode, Stage},
    plain_text::VersionText,
    report::{
        CloudflaredHealth, Details, FailedProgram, InstalledProgram, Machine, OpenClawHealth,
        OpenClawState, UnitReport,
    },
};

use crate::{
    connector,
    core::{Core, blocking},
    identity::Keys,
    installer::{
        client::{InstallerError, UnitStatus},
        protocol::{AgentFailure, Inventory, Unit},
    },
    layout::Layout,
    openclaw::health,
};

/// What is on the server and how it is.
pub(crate) async fn gather(core: &Arc<Core>, keys: &Keys) -> Report {
    let status = |unit| core.installer.status(unit);
    let (health, openclaw, cloudflared, agent, connected, inventory) = tokio::join!(
        health::ask(core.settings.gateway),
        status(Unit::Openclaw),
        status(Unit::Cloudflared),
        status(Unit::Agent),
        connector::is_connected(core),
        inventory(core),
    );
    let units =
        [(Unit::Openclaw, &openclaw), (Unit::Cloudflared, &cloudflared), (Unit::Agent, &agent)];
    let reports = units.into_iter();
    let units =
        reports.filter_map(|(unit, status)| Some(unit_report(unit, *status.as_ref().ok()?)));
    let units = units.collect();
    let openclaw = openclaw_health(core, health, openclaw);
    let details = Details { units, ..programs(core, &inventory) };
    // Files and the vault's lock may take their time.
    blocking(core, {
        let identity = core.obeyed().identity(&keys.identity);
        move |core| assemble(core, identity, openclaw, connected, details)
    })
    .await
}

fn assemble(
    core: &Core,
    identity: moorage_wire::enrolment::AgentIdentity,
    openclaw: OpenClawHealth,
    connected: bool,
    details: Details,
) -> Report {
    let layout = &core.settings.layout;
    let mut vault = core.vault();
    let cloudflared = CloudflaredHealth {
        connected,
        active_token_sha256: vault.tunnel().active_sha256(),
        token_sha256: vault.tunnel().sha256(),
    };
    let (receipts, consumed) = (vault.receipts(), vault.consumed());
    drop(vault);
    let remembered =
        |error: &crate::disk::DiskError| tracing::warn!(%error, "left out of the report");
    let (disk_total_bytes, memory_total_bytes) = totals(layout);
    let notes = core.notes().clone();
    Report {
        identity,
        agent_version: env!("CARGO_PKG_VERSION").into(),
        desired: core.desired().progress(),
        receipts,
        consumed,
        openclaw,
        cloudflared,
        machine: machine(core),
        details: Details {
            last_rollback: core
                .disk
                .read_json(&layout.last_rollback())
                .inspect_err(remembered)
                .unwrap_or(None),
            backup: core.disk.read_json(&layout.backup()).inspect_err(remembered).unwrap_or(None),
            audit: notes.audits.findings(),
            failed_pairings: notes.failed_pairings,
            disk_total_bytes,
            memory_total_bytes,
            packed_integrations: true,
            clock: Some(Timestamp::now()),
            operator_keys: core.obeyed().keys(),
            ..details
        },
    }
}

async fn inventory(core: &Core) -> Inventory {
    if !core.settings.programs.are_managed() {
        return Inventory::default();
    }
    let inventory = core.installer.inventory().await;
    inventory
        .inspect_err(|error| tracing::debug!(%error, "what is installed is not known"))
        .unwrap_or_default()
}

fn programs(core: &Core, inventory: &Inventory) -> Details {
    let document = core.desired().document();
    let artifacts = document.as_ref().map(|document| &document.state.artifacts);
    let programs = inventory.artifacts.iter().map(|one| InstalledProgram {
        kind: one.kind.into(),
        sha256: one.sha256,
        version: artifacts.and_then(|artifacts| version_of(artifacts, one.kind, one.sha256)),
        active: one.active,
    });
    let failed = inventory.failed_agents.iter().map(|failed| FailedProgram {
        kind: Program::Agent.into(),
        sha256: failed.sha256,
        reason: agent_failure(failed.reason).into(),
        failure: Some(failure_of_agent(failed.reason)),
        at: failed.at,
    });
    Details {
        programs: programs.collect(),
        failed_programs: failed.collect(),
        ..Details::default()
    }
}

fn version_of(artifacts: &Artifacts, program: Program, sha256: Sha256) -> Option<VersionText> {
    let artifact = program.pinned(artifacts);
    (artifact.sha256 == sha256).then(|| artifact.version.as_str().into())
}

pub(crate) fn failure_of_agent(failure: AgentFailure) -> Failure {
    let (stage, code, detail) = match failure {
        AgentFailure::Trial => (
            Stage::Installation,
            FailureCode::BadArtifact,
            "it did not say its version when it was tried",
        ),
        AgentFailure::NoSocket => (Stage::Start, FailureCode::DeadlineExceeded, ""),
        AgentFailure::NotConfirmed => (Stage::Confirmation, FailureCode::NotConfirmed, ""),
        AgentFailure::Installer => {
            (Stage::Start, FailureCode::ServiceFailed, "its installer did not start")
        }
        AgentFailure::Unknown => {
            (Stage::Start, FailureCode::Unknown, "see the installer's journal on the server")
        }
    };
    Failure::new(stage, code).of(Program::Agent).in_update().with_detail(detail)
}

pub(crate) fn agent_failure(failure: AgentFailure) -> &'static str {
    match failure {
        AgentFailure::Trial => "it did not say its version when it was tried",
        AgentFailure::NoSocket => "it did not answer on its socket",
        AgentFailure::NotConfirmed => "no signed call of the operator reached it",
        AgentFailure::Installer => "its installer did not start",
        AgentFailure::Unknown => "the installer's journal says more",
    }
}

fn unit_report(unit: Unit, status: UnitStatus) -> UnitReport {
    let name = match unit {
        Unit::Openclaw => "openclaw",
        Unit::Cloudflared => "cloudflared",
        Unit::Agent => "agent",
    };
    UnitReport { unit: name.into(), running: status.running, starts: status.starts }
}

fn openclaw_health(
    core: &Core,
    health: health::Health,
    status: Result<UnitStatus, InstallerError>,
) -> OpenClawHealth {
    let (state, mut message) = match (health.ready, health.started, status) {
        (true, _, _) => (OpenClawState::Ready, None),
        (_, true, _) => {
            let message = "OpenClaw runs, but /readyz is not 200: look at its channels";
            (OpenClawState::Degraded, Some(message.into()))
        }
        (_, _, Ok(status)) if status.running => (OpenClawState::Starting, None),
        (_, _, Ok(_)) => (OpenClawState::Stopped, None),
        (_, _, Err(error)) => (OpenClawState::Stopped, Some(error.to_string().into())),
    };
    let notes = core.notes().clone();
    let trouble = notes.reload_trouble.or(notes.tunnel_trouble);
    let failure = trouble.as_ref().map(|trouble| trouble.failure.clone());
    message = message.or(trouble.map(|trouble| trouble.message.into()));
    OpenClawHealth { state, version: notes.openclaw_version.map(Into::into), message, failure }
}

fn machine(core: &Core) -> Machine {
    let layout = &core.settings.layout;
    let disk = disk(layout);
    Machine {
        disk_free_bytes: disk.map_or(0, |disk| disk.f_bavail.saturating_mul(disk.f_frsize)),
        memory_available_bytes: memory("MemAvailable:"),
        reboot_pending: layout.reboot_required().exists(),
        setup_done: !core.settings.programs.are_managed() || is_setup_done(layout),
    }
}

/// Only a mark that is certainly not there is none: servers of older operators close its folder.
fn is_setup_done(layout: &Layout) -> bool {
    let missing = |error: &std::io::Error| error.kind() == std::io::ErrorKind::NotFound;
    fs::metadata(layout.setup_done()).err().is_none_or(|error| !missing(&error))
}

/// Size of the disk and of the memory, bytes.
fn totals(layout: &Layout) -> (u64, u64) {
    let disk = disk(layout).map_or(0, |disk| disk.f_blocks.saturating_mul(disk.f_frsize));
    (disk, memory("MemTotal:"))
}

/// The file system of OpenClaw's state; that of its folder if the home is closed to the agent.
fn disk(layout: &Layout) -> Option<rustix::fs::StatVfs> {
    let home = layout.openclaw_home();
    let above = || rustix::fs::statvfs(home.parent()?).ok();
    rustix::fs::statvfs(&home).ok().or_else(above)
}

fn memory(field: &str) -> u64 {
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    bytes_of(&meminfo, field).unwrap_or(0)
}

/// A field of `/proc/meminfo` (proc(5)), which is in KiB.
fn bytes_of(meminfo: &str, field: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix(field))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn available_memory_is_read_in_bytes() {
        let text = "MemTotal:       8000000 kB\nMemFree: 1 kB\nMemAvailable:    2048 kB\n";
        assert_eq!(bytes_of(text, "MemAvailable:"), Some(2 * 1024 * 1024));
        assert_eq!(bytes_of("MemTotal: 1 kB\n", "MemAvailable:"), None);
    }
}
