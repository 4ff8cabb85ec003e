//! The nspawn backend: servers that are Debian, booted by their own systemd and cloud-init. One
//! simulator serves all scenarios, each with a server of its own; those that kill the simulator have
//! their own.
//!
//! Needs root and what `hack/lab.sh` makes; without them it says that it is skipped, and fails if
//! `MOORAGE_REQUIRE_ALL=1`.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod boot;
mod ends;
mod kernel;
mod network;
mod stage;
mod tunnel;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use moorage_testbed::{Pace, Scenario, run_scenarios, scenario};

use crate::stage::Stage;

/// With the lab of real programs ten minutes.
const TIME_BOX: Duration = Duration::from_secs(120);

fn scenarios() -> Vec<Scenario<Arc<Stage>>> {
    vec![
        // The longest first.
        scenario!(kernel::a_virtual_machine_has_a_kernel_and_clock_of_its_own),
        scenario!(boot::a_server_boots_and_applies_its_user_data),
        scenario!(boot::a_package_is_installed_from_the_mirror_while_it_boots),
        scenario!(boot::a_reboot_keeps_the_disk_and_forgets_the_rules_of_the_network),
        scenario!(boot::power_off_and_on_keep_the_disk),
        scenario!(boot::a_rebuild_wipes_the_disk_and_applies_the_new_user_data),
        scenario!(boot::the_disk_has_its_size_and_can_be_full),
        scenario!(boot::programs_run_inside_as_root_and_as_a_user),
        scenario!(network::each_server_gets_its_own_metadata),
        scenario!(network::the_mirror_is_reached_and_nothing_else),
        scenario!(network::ports_are_probed_from_outside),
        scenario!(network::artifacts_are_resumed_and_fail_on_demand),
        scenario!(network::connectors_reach_the_edge),
        scenario!(tunnel::cloudflared_carries_visitors_to_a_server),
        scenario!(ends::a_deleted_server_leaves_nothing),
        scenario!(ends::a_killed_simulator_leaves_no_process_behind),
        scenario!(ends::a_simulator_that_ends_leaves_nothing),
    ]
}

fn main() -> ExitCode {
    // Booting is what is heavy.
    let pace = Pace { at_once: 3, time_box: Some(TIME_BOX) };
    run_scenarios(pace, Stage::start(), scenarios())
}
