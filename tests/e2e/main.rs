//! The whole way against a real Kubernetes control plane: the chart is installed with the real helm,
//! the operator runs with the chart's `ServiceAccount`, and the clouds are simulated at their HTTP
//! border. One control plane serves all scenarios, which run in parallel, each with tenants of its own.
//!
//! Needs the tools of `hack/tools.sh` and the workspace's binaries; without them it says that it is
//! skipped, and fails if `MOORAGE_REQUIRE_ALL=1`.

#![allow(clippy::unwrap_used)] // A scenario fails by panicking, like any test.

mod borders;
mod credentials;
mod drift;
mod faults;
mod identity;
mod lifecycle;
mod neighbours;
mod new_servers;
mod objects;
mod orphans;
mod removal;
mod stage;
mod tenant;
mod trouble;
mod updates;
mod ways_back;

use std::process::ExitCode;

use moorage_testbed::{Pace, Scenario, run_scenarios, scenario};
use stage::{Servers, Stage};
use tenant::Tenant;

fn scenarios() -> Vec<Scenario<Tenant>> {
    vec![
        scenario!(borders::a_configuration_that_is_too_deep_costs_its_own_instance_only),
        scenario!(credentials::every_type_is_delivered_from_one_secret_which_then_goes),
        scenario!(credentials::a_new_ciphertext_rotates_and_an_old_one_never_returns),
        scenario!(credentials::a_secret_that_something_recreates_is_left_alone_in_the_end),
        scenario!(credentials::a_credential_can_come_later_and_go_again),
        scenario!(credentials::a_value_sealed_to_the_agent_passes_through_unread),
        scenario!(credentials::what_is_handed_in_wrongly_is_refused_kept_and_healed),
        scenario!(credentials::a_replaced_server_asks_for_its_keys_again),
        scenario!(credentials::a_deleted_instance_takes_its_undelivered_secrets_with_it),
        scenario!(identity::nothing_a_tenant_writes_changes_whose_a_server_is),
        scenario!(identity::an_instance_of_an_earlier_version_keeps_its_id_until_it_goes),
        scenario!(identity::what_never_had_anything_goes_at_once_with_its_secrets),
        scenario!(identity::what_was_retained_is_not_taken_over_by_the_next_of_the_name),
        scenario!(credentials::whoever_may_make_instances_can_seal_for_them),
        scenario!(lifecycle::an_instance_becomes_ready_with_few_calls_and_writes),
        scenario!(lifecycle::a_quiet_instance_causes_no_writes),
        scenario!(updates::a_rejected_configuration_is_rolled_back),
        scenario!(updates::a_forbidden_key_is_refused_with_its_path),
        scenario!(updates::what_an_instance_cannot_have_is_refused_until_it_can),
        scenario!(updates::a_release_for_another_processor_reaches_no_server),
        scenario!(updates::the_older_instance_keeps_a_contested_host_name),
        scenario!(updates::a_suspended_instance_is_written_to_by_nobody),
        scenario!(updates::a_retained_server_outlives_its_instance),
        scenario!(updates::wishes_for_another_server_are_told_and_not_fulfilled),
        scenario!(updates::the_dashboards_secret_opens_the_dashboard),
        scenario!(drift::a_vanished_server_is_recreated_and_asks_for_its_keys),
        scenario!(drift::dns_records_that_somebody_changes_are_set_again),
        scenario!(drift::ingress_rules_that_somebody_changes_are_set_again),
        scenario!(drift::a_deleted_tunnel_is_reported_and_a_rebuild_heals_it),
        scenario!(drift::a_token_of_another_project_stops_everything),
        scenario!(drift::a_deleted_firewall_stops_the_pool_until_accepted),
        scenario!(drift::a_mass_loss_is_recreated_only_when_accepted),
        scenario!(drift::a_lost_status_is_rebuilt_without_touching_the_clouds),
        scenario!(drift::a_foreign_dns_record_is_left_alone_and_its_removal_heals),
        scenario!(drift::a_foreign_server_of_the_same_name_is_left_alone),
        scenario!(faults::a_refused_server_is_reported_and_not_tried_in_a_loop),
        scenario!(faults::messages_that_differ_each_time_cause_no_hot_loop),
        scenario!(faults::what_is_out_of_stock_falls_back_to_the_next_place_and_type),
        scenario!(faults::answers_that_are_lost_lead_to_exactly_one_of_each),
        scenario!(faults::answers_that_cannot_be_read_lead_to_exactly_one_of_each),
        scenario!(faults::a_cloud_that_hangs_leads_to_exactly_one_server),
        scenario!(faults::a_token_that_cloudflare_refuses_stops_one_pool_and_no_other),
        scenario!(faults::an_expired_token_heals_when_its_secret_is_replaced),
        scenario!(faults::a_missing_token_secret_is_named_and_heals),
        scenario!(faults::an_instance_goes_while_somebody_deletes_its_server),
        scenario!(faults::words_that_nobody_knows_are_tolerated),
        scenario!(new_servers::a_firewall_that_shows_late_is_no_refusal),
        scenario!(new_servers::a_new_server_that_stays_off_is_powered_on),
        scenario!(neighbours::two_pools_share_a_project_and_never_a_zone),
        scenario!(neighbours::a_restart_changes_nothing_of_an_instance_that_is_well),
        scenario!(neighbours::a_pool_deleted_by_mistake_serves_on_and_can_be_had_back),
        scenario!(neighbours::whoever_is_not_admitted_takes_nothing_from_others),
        scenario!(neighbours::a_status_of_an_older_object_never_lies_over_a_newer_one),
        scenario!(orphans::an_orphan_is_listed_and_goes_when_the_pool_says_so),
        scenario!(orphans::an_instance_takes_over_what_was_an_orphan_of_its_name),
        scenario!(orphans::whoever_strips_finalizers_has_no_room_for_another_server),
        scenario!(orphans::tunnels_that_no_instance_has_take_a_place),
        scenario!(orphans::what_is_retained_is_told_and_hides_no_later_life),
        scenario!(orphans::prepared_instances_do_not_begin_past_the_hourly_rate),
        scenario!(orphans::one_that_was_let_in_and_rests_hides_nothing),
        scenario!(orphans::a_lost_installation_is_found_and_removed_without_its_cluster),
        scenario!(removal::what_is_removed_in_the_wrong_order_has_a_way_back),
        scenario!(removal::a_master_key_is_rotated_under_crashes_and_the_old_one_can_go),
        scenario!(ways_back::servers_are_found_again_by_their_master_key_alone),
        scenario!(ways_back::a_release_deleted_while_it_is_used_can_be_had_back),
        scenario!(ways_back::only_the_releases_that_a_pool_allows_run_in_it),
        scenario!(ways_back::an_uninstalled_chart_comes_back_and_definitions_go_in_order),
    ]
}

fn main() -> ExitCode {
    // Each scenario waits most of its time; the servers behind them are what is heavy.
    let pace = Pace { at_once: 4, time_box: None };
    run_scenarios(pace, Stage::start(Servers::processes()), scenarios())
}
