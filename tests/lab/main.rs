//! The whole way with real servers: Debian booted by its own systemd and cloud-init from the
//! operator's user-data, the real agent, cloudflared (or what stands in for it) and OpenClaw. Otherwise
//! as `e2e`, with which it shares the stage and the tenants.
//!
//! Needs root, what `hack/lab.sh` makes, and the programs that `make test` names; without them it says
//! that it is skipped, and fails if `MOORAGE_REQUIRE_ALL=1`.

#![allow(clippy::unwrap_used)] // A scenario fails by panicking, like any test.

mod cuts;
mod hardening;
mod kernel;
mod keys;
#[allow(dead_code, reason = "what only the other scenarios do")]
#[path = "../e2e/lifecycle.rs"]
mod lifecycle;
mod lockout;
#[allow(dead_code, reason = "what only the other scenarios do")]
#[path = "../e2e/objects.rs"]
mod objects;
mod openclaw;
mod outages;
mod rotation;
mod server;
#[allow(dead_code, reason = "what only the other scenarios do")]
#[path = "../e2e/stage.rs"]
mod stage;
mod stand_in;
#[allow(dead_code, reason = "what only the other scenarios do")]
#[path = "../e2e/tenant.rs"]
mod tenant;
#[allow(dead_code, reason = "what only the other scenarios do")]
#[path = "../e2e/trouble.rs"]
mod trouble;
mod tunnel;
mod updates;

use std::{path::PathBuf, process::ExitCode, sync::OnceLock, time::Duration};

use moorage_testbed::{
    Cloudflared, LabParts, Pace, ReleaseFolder, Scenario, or_skip, run_scenarios, scenario, skip,
};
use stage::{Servers, Stage};
use tenant::Tenant;

/// With the simulator's own lab ten minutes.
const TIME_BOX: Duration = Duration::from_secs(480);
/// Real programs start slowly where several do at once.
const PATIENCE: Duration = Duration::from_secs(240);
/// An emulated processor is slower still.
const MORE_PATIENCE: Duration = Duration::from_secs(600);

/// The OpenClaw of the release, and the one before it.
const OPENCLAW: (&str, &str) = ("2026.9.6", "MOORAGE_LAB_OPENCLAW");
const OLDER_OPENCLAW: (&str, &str) = ("2026.9.5", "MOORAGE_LAB_OPENCLAW_OLDER");

/// What servers can fetch.
static PROGRAMS: OnceLock<ReleaseFolder> = OnceLock::new();

fn scenarios() -> Vec<Scenario<Tenant>> {
    // The longest first, so that none runs on alone at the end.
    vec![
        scenario!(kernel::a_virtual_machine_becomes_ready_and_survives_a_power_cut),
        scenario!(openclaw::token_devices_and_plugins_become_what_the_spec_says),
        scenario!(cuts::an_update_of_openclaw_survives_a_power_cut_in_each_step),
        scenario!(updates::an_agent_update_survives_a_power_cut_at_any_step),
        scenario!(hardening::a_server_is_locked_down_whatever_is_killed),
        scenario!(tunnel::the_old_token_is_cut_off_and_never_the_server),
        scenario!(updates::an_openclaw_that_does_not_work_is_rolled_back),
        scenario!(outages::a_server_comes_up_wherever_its_power_is_cut),
        scenario!(keys::keys_rotate_live_while_openclaw_runs),
    ]
}

fn main() -> ExitCode {
    // Each boots a machine and starts OpenClaw, which takes a core for a quarter of a minute, and waits
    // a good part of its time.
    let pace = Pace { at_once: 3, time_box: Some(TIME_BOX) };
    run_scenarios(pace, async { Stage::start(servers()?).await }, scenarios())
}

/// Whether servers with a kernel of their own have to do without KVM, as `hack/lab.sh` found.
fn is_emulated() -> bool {
    std::env::var_os("MOORAGE_LAB_ACCELERATION").is_none_or(|how| how != "kvm")
}

/// The programs of a release; `None`, said loudly, where one is missing.
fn servers() -> Option<Servers> {
    let parts = LabParts::for_test()?;
    let cloudflared = or_skip(Cloudflared::from_env())?;
    let mut programs = ReleaseFolder::new().unwrap();
    programs.add("cloudflared", &cloudflared.version, &cloudflared.program).unwrap();
    for (kind, (version, variable)) in [
        ("agent", (env!("CARGO_PKG_VERSION"), "MOORAGE_LAB_AGENT")),
        ("node", ("24.21.0", "MOORAGE_LAB_NODE")),
        ("openclaw", OPENCLAW),
    ] {
        programs.add(kind, version, &program(kind, variable)?).unwrap();
    }
    program("openclaw", OLDER_OPENCLAW.1)?;
    let servers = Servers {
        agent: None,
        arguments: parts.simulator_arguments(Some(&programs.path())),
        artifacts: programs.release("", "")["spec"]["artifacts"].clone(),
        patience: if is_emulated() { MORE_PATIENCE } else { PATIENCE },
        rhythm: ["--sweep-interval=4s", "--routes-interval=20s"],
    };
    PROGRAMS.set(programs).unwrap();
    Some(servers)
}

/// The file that a variable names; `None`, said loudly, where it names none.
fn program(kind: &str, variable: &str) -> Option<PathBuf> {
    let file = std::env::var_os(variable).map(PathBuf::from);
    if file.is_none() {
        skip(format!("{variable} names no {kind}: see `make test`"));
    }
    file
}
