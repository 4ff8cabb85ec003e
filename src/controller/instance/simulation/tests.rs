//! Lives in number, and the operators that must not survive them.

use std::{sync::Arc, time::Duration};

use super::{
    broken::Defect,
    dice::Dice,
    invariants,
    lives::{life, live_all, runtime},
    process::Process,
    tenants,
    world::{Key, World},
};
use crate::instance::{
    deletion::has_history,
    write_rate::{AFTER_CHANGE, BURST},
};

/// Seeds that broke something once.
const KEPT: &[u64] = &[70];

/// Panics with all that happened in the life of a seed.
fn replay(seed: u64) -> ! {
    let ended = life(seed, None, true);
    let (violation, log) = (ended.violation.unwrap_or_default(), ended.log.join("\n"));
    panic!("{log}\n{violation}\nReplay it: make simulate SEED={seed}");
}

#[test]
fn no_life_breaks_what_must_hold() {
    if let Some((seed, _)) = live_all(0..200, None).violation {
        replay(seed);
    }
}

#[test]
fn a_seed_that_broke_something_once_does_not_now() {
    for seed in KEPT {
        if life(*seed, None, false).violation.is_some() {
            replay(*seed);
        }
    }
}

#[test]
fn the_same_seed_is_the_same_life() {
    for seed in 0..20 {
        assert_eq!(life(seed, None, true), life(seed, None, true), "seed {seed}");
    }
}

#[test]
fn every_broken_operator_is_caught() {
    for defect in Defect::ALL {
        let lived = live_all(0..20_000, Some(defect));
        let (seed, violation) =
            lived.violation.unwrap_or_else(|| panic!("{defect:?} is not caught"));
        println!("{defect:?}: seed {seed}: {violation}");
    }
}

/// An instance's own way: made, handed a value in, Ready.
pub(super) async fn ready(world: &Arc<World>, key: &Key) -> Process {
    tenants::create(&mut world.state(), key);
    let mut process = Process::start(world, None);
    for _ in 0..20 {
        round(&mut process, world, key).await;
        if world.state().instance(key).is_some_and(invariants::is_ready) {
            return process;
        }
    }
    panic!("it does not become Ready");
}

/// A process sees all that there is, does what can be done about an instance, and waits.
pub(super) async fn round(process: &mut Process, world: &Arc<World>, key: &Key) {
    process.sweep().await;
    process.watch(|_| true);
    process.pass(key).await;
    world.state().pass_time(Duration::from_secs(60));
}

/// Lets a process do what there is to do about an instance.
async fn go_on(process: &mut Process, world: &Arc<World>, key: &Key) {
    for _ in 0..6 {
        round(process, world, key).await;
    }
}

/// That nothing of an instance is left but the object itself.
fn assert_ended(world: &World, key: &Key) {
    let state = world.state();
    assert_eq!(state.violation, None);
    assert_eq!(invariants::left_in_clouds(&state, key), None);
    let status = state.instance(key).expect("it is held").status.as_ref();
    assert!(status.is_some_and(|status| !has_history(status)), "{status:?}");
}

#[test]
fn a_held_object_names_nothing_after_its_deletion() {
    runtime().block_on(async {
        let world = Arc::new(World::new(Dice::new(7), false));
        let [ada, ..] = tenants::keys();
        let mut process = ready(&world, &ada).await;
        tenants::hold(&mut world.state(), &ada);
        world.state().delete_instance(&ada);
        go_on(&mut process, &world, &ada).await;
        assert!(!world.state().is_held(&ada));
        assert_ended(&world, &ada);
    });
}

#[test]
fn a_deletion_goes_on_without_our_finalizer() {
    runtime().block_on(async {
        let world = Arc::new(World::new(Dice::new(7), false));
        let [ada, ..] = tenants::keys();
        let mut process = ready(&world, &ada).await;
        tenants::hold(&mut world.state(), &ada);
        world.state().delete_instance(&ada);
        tenants::take_finalizer(&mut world.state(), &ada);
        go_on(&mut process, &world, &ada).await;
        assert_ended(&world, &ada);
        // And then there is nothing more to do.
        let writes = world.state().writes;
        go_on(&mut process, &world, &ada).await;
        assert_eq!(world.state().writes, writes);
    });
}

/// A deletion that a process still has to see, and the next instance of the name.
#[test]
fn a_stale_deletion_spares_the_next_instances_secret() {
    runtime().block_on(async {
        let world = Arc::new(World::new(Dice::new(7), false));
        let [ada, ..] = tenants::keys();
        let mut leader = ready(&world, &ada).await;
        world.state().delete_instance(&ada);
        let former = Process::start(&world, None);
        former.sweep().await;
        go_on(&mut leader, &world, &ada).await;
        assert!(world.state().instance(&ada).is_none(), "the first instance is gone");
        tenants::create(&mut world.state(), &ada);
        tenants::hand_in(&mut world.state(), &ada);
        let there = world.state().secrets.len();
        for _ in 0..3 {
            former.pass(&ada).await;
        }
        assert_eq!(world.state().violation, None);
        assert_eq!(world.state().secrets.len(), there);
    });
}

/// Passes in a row, `pause` after each.
async fn passes(process: &mut Process, world: &Arc<World>, key: &Key, count: u32, pause: Duration) {
    for _ in 0..count {
        process.watch(|_| true);
        process.pass(key).await;
        world.state().pass_time(pause);
    }
}

fn writes_and_events(world: &World) -> (u64, u64) {
    let state = world.state();
    (state.status_writes, state.events)
}

/// A server whose every report differs, asked as often as one that is brought up.
#[test]
fn a_lying_server_costs_few_writes_and_events() {
    runtime().block_on(async {
        let world = Arc::new(World::new(Dice::new(7), false));
        let [ada, ..] = tenants::keys();
        let mut process = ready(&world, &ada).await;
        world.state().lying = true;
        let pause = Duration::from_secs(10);
        let mut counts = Vec::new();
        for _hour in 0..3 {
            let before = writes_and_events(&world);
            passes(&mut process, &world, &ada, 360, pause).await;
            let after = writes_and_events(&world);
            counts.push((after.0 - before.0, after.1 - before.1));
        }
        assert_eq!(world.state().violation, None);
        let bounded = |burst: u64, (writes, events): (u64, u64)| {
            (15..=burst + 21).contains(&writes) && events <= 3 * writes
        };
        assert!(bounded(u64::from(BURST), counts[0]), "{counts:?}");
        assert!(counts[1..].iter().all(|count| bounded(0, *count)), "{counts:?}");
        // The truth is told as soon as there is one, a write's time later at most.
        world.state().lying = false;
        passes(&mut process, &world, &ada, 20, pause).await;
        assert!(world.state().instance(&ada).is_some_and(invariants::is_ready));
    });
}

/// An edit is answered at once, whatever the server has said before.
#[test]
fn an_update_is_told_at_once_after_lies() {
    runtime().block_on(async {
        let world = Arc::new(World::new(Dice::new(7), false));
        let [ada, ..] = tenants::keys();
        let mut process = ready(&world, &ada).await;
        world.state().lying = true;
        passes(&mut process, &world, &ada, 200, Duration::from_secs(1)).await;
        world.state().lying = false;
        tenants::reconfigure(&mut world.state(), &ada);
        passes(&mut process, &world, &ada, 10, Duration::from_secs(1)).await;
        assert!(world.state().instance(&ada).is_some_and(invariants::is_ready));
    });
}

/// A bring-up and an update take far less than what may be written at once.
#[test]
fn an_honest_server_is_never_held_up() {
    runtime().block_on(async {
        let world = Arc::new(World::new(Dice::new(7), false));
        let [ada, ..] = tenants::keys();
        tenants::create(&mut world.state(), &ada);
        let mut process = Process::start(&world, None);
        process.sweep().await;
        passes(&mut process, &world, &ada, 60, Duration::from_secs(1)).await;
        assert!(world.state().instance(&ada).is_some_and(invariants::is_ready));
        let (up, _) = writes_and_events(&world);
        assert!((3..=u64::from(BURST) / 2).contains(&up), "{up} writes for a bring-up");
        tenants::reconfigure(&mut world.state(), &ada);
        passes(&mut process, &world, &ada, 10, Duration::from_secs(1)).await;
        assert!(world.state().instance(&ada).is_some_and(invariants::is_ready));
        let update = writes_and_events(&world).0 - up;
        assert!((2..=u64::from(AFTER_CHANGE)).contains(&update), "{update} writes for an update");
        println!("{up} writes for a bring-up, {update} for an update");
    });
}
