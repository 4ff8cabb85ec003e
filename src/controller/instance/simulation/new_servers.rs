//! Servers that do not come up by themselves, in virtual time.

use std::{collections::BTreeSet, sync::Arc};

use super::{
    dice::Dice,
    hetzner::action,
    invariants,
    lives::runtime,
    process::{POOL, Process},
    tenants,
    tests::{ready, round},
    world::{DOMAIN, INSTALLATION, Key, Machine, RecordThere, Resolver, World},
};
use crate::{
    cloudflare::{DnsRecord, NewDnsRecord},
    hetzner::{ActionError, ActionStatus, ServerStatus},
    instance::{first_boot::MOST_GIVEN_UP, placeholders::new_record},
    names,
};

/// Hetzner's servers are like this for ever, from now on.
fn stall(world: &World, as_what: ServerStatus) {
    world.state().stuck = Some(as_what);
}

/// The servers that are there, and where.
fn servers(world: &World) -> Vec<(u64, String)> {
    let place = |machine: &Machine| machine.server.location.clone().expect("it has one").name;
    world.state().servers.iter().map(|(id, machine)| (*id, place(machine))).collect()
}

fn server_ready(world: &World, key: &Key) -> (String, String) {
    let state = world.state();
    let status = state.instance(key).and_then(|instance| instance.status.clone()).unwrap();
    let condition = status.conditions.into_iter().find(|known| known.type_ == "ServerReady");
    condition.map(|known| (known.reason, known.message)).unwrap()
}

async fn minutes(process: &mut Process, world: &Arc<World>, key: &Key, count: usize) {
    for _ in 0..count {
        round(process, world, key).await;
    }
    assert_eq!(world.state().violation, None);
}

#[test]
fn a_new_server_that_stays_off_is_powered_on() {
    runtime().block_on(async {
        let world = Arc::new(World::new(Dice::new(7), false));
        let [ada, ..] = tenants::keys();
        stall(&world, ServerStatus::Off);
        ready(&world, &ada).await;
        assert_eq!(world.state().violation, None);
    });
}

#[test]
fn a_server_that_never_runs_is_replaced_elsewhere() {
    runtime().block_on(async {
        let world = Arc::new(World::new(Dice::new(7), false));
        let [ada, ..] = tenants::keys();
        stall(&world, ServerStatus::Initializing);
        tenants::create(&mut world.state(), &ada);
        let mut process = Process::start(&world, None);
        minutes(&mut process, &world, &ada, 10).await;
        let first = servers(&world);
        assert_eq!(first.len(), 1);
        assert_eq!(first[0].1, "fsn1");
        assert_eq!(server_ready(&world, &ada).0, "ServerNotStarted");
        world.state().stuck = None;
        minutes(&mut process, &world, &ada, 12).await;
        let second = servers(&world);
        assert_eq!(second.len(), 1);
        assert_eq!(second[0].1, "nbg1");
        assert!(world.state().instance(&ada).is_some_and(invariants::is_ready));
        let status = world.state().instance(&ada).and_then(|ada| ada.status.clone()).unwrap();
        let server = status.server.unwrap();
        assert_eq!((server.first_boot, server.given_up), (None, Vec::new()));
    });
}

#[test]
fn what_hetzner_failed_at_is_told_and_waits_no_longer() {
    runtime().block_on(async {
        let world = Arc::new(World::new(Dice::new(7), false));
        let [ada, ..] = tenants::keys();
        stall(&world, ServerStatus::Initializing);
        let mut failed = action(1, "start_server", ActionStatus::Error);
        failed.error =
            Some(ActionError { code: "host_lost".into(), message: "the host is gone".into() });
        world.state().failed_actions = vec![failed.clone()];
        tenants::create(&mut world.state(), &ada);
        let mut process = Process::start(&world, None);
        minutes(&mut process, &world, &ada, 6).await;
        let (_, message) = server_ready(&world, &ada);
        let told = "start_server failed (host_lost: the host is gone)";
        assert!(message.contains(told), "{message}");
        let first = servers(&world);

        failed.command = "create_server".into();
        world.state().failed_actions = vec![failed];
        minutes(&mut process, &world, &ada, 3).await;
        let second = servers(&world);
        assert!(second.len() == 1 && second != first, "{second:?}");
    });
}

#[test]
fn a_cloud_where_no_server_runs_is_not_asked_for_ever() {
    runtime().block_on(async {
        let world = Arc::new(World::new(Dice::new(7), false));
        let [ada, ..] = tenants::keys();
        stall(&world, ServerStatus::Starting);
        tenants::create(&mut world.state(), &ada);
        let mut process = Process::start(&world, None);
        let mut seen = BTreeSet::new();
        for _ in 0..180 {
            minutes(&mut process, &world, &ada, 1).await;
            seen.extend(servers(&world));
        }
        assert_eq!(seen.len(), MOST_GIVEN_UP + 1, "{seen:?}");
        assert_eq!(servers(&world).len(), 1);
        assert_eq!(server_ready(&world, &ada).0, "ServersNeverStart");
    });
}

#[test]
fn a_server_that_a_person_turned_off_is_left_alone() {
    runtime().block_on(async {
        let world = Arc::new(World::new(Dice::new(7), false));
        let [ada, ..] = tenants::keys();
        let mut process = ready(&world, &ada).await;
        let there = servers(&world);
        tenants::turn_off(&mut world.state(), &ada);
        minutes(&mut process, &world, &ada, 60).await;
        assert_eq!(server_ready(&world, &ada).0, "ServerOff");
        // A status that was lost says nothing about what the server did before.
        tenants::lose_status(&mut world.state(), &ada);
        minutes(&mut process, &world, &ada, 60).await;
        assert_eq!(server_ready(&world, &ada).0, "ServerOff");
        assert_eq!(servers(&world), there);
    });
}

/// The operator's names are looked up by a resolver with a memory for names that were not there.
fn with_resolver() -> Arc<World> {
    let world = Arc::new(World::new(Dice::new(7), false));
    world.state().resolver = Some(Resolver::default());
    world
}

/// The pool's own record, as its controller makes it.
fn make_anchor(world: &World) {
    let mut state = world.state();
    let comment = names::pool_comment(INSTALLATION, POOL);
    let post = NewDnsRecord::originless(names::pool_host(INSTALLATION, POOL, DOMAIN), comment);
    let record = DnsRecord { created_on: Some(state.now), ..new_record(&post) };
    state.records.insert("anchor".to_owned(), RecordThere { record, owner: None });
}

#[test]
fn a_name_is_not_asked_for_before_it_is_known() {
    runtime().block_on(async {
        let world = with_resolver();
        make_anchor(&world);
        let [ada, bob, ..] = tenants::keys();
        let mut process = ready(&world, &ada).await;
        // The next one is reached at once: the pool's record is known by now.
        tenants::create(&mut world.state(), &bob);
        minutes(&mut process, &world, &bob, 6).await;
        assert!(world.state().instance(&bob).is_some_and(invariants::is_ready));
    });
}

#[test]
fn without_the_pools_record_names_get_time_to_be_known() {
    runtime().block_on(async {
        let world = with_resolver();
        let [ada, bob, ..] = tenants::keys();
        let mut process = ready(&world, &ada).await;
        tenants::create(&mut world.state(), &bob);
        minutes(&mut process, &world, &bob, 10).await;
        assert!(world.state().instance(&bob).is_some_and(invariants::is_ready));
    });
}

#[test]
fn a_name_that_is_asked_for_too_early_is_denied_for_long() {
    runtime().block_on(async {
        let world = with_resolver();
        world.state().hasty = true;
        let [ada, ..] = tenants::keys();
        tenants::create(&mut world.state(), &ada);
        let mut process = Process::start(&world, None);
        minutes(&mut process, &world, &ada, 25).await;
        assert!(!world.state().instance(&ada).is_some_and(invariants::is_ready));
    });
}
