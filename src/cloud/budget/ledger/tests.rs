use std::time::{Duration, Instant};

use proptest::prelude::*;
use rstest::rstest;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn small_bucket() -> BudgetPlan {
    BudgetPlan {
        limit: Limit::Bucket { capacity: 20, refill_every: SECOND },
        reserve_percent: 10,
        sweep_percent: 20,
        share: 9,
        default_pause: SECOND,
    }
}

fn small_window() -> BudgetPlan {
    BudgetPlan { limit: Limit::Window { calls: 20, window: 30 * SECOND }, ..small_bucket() }
}

fn take_all(ledger: &mut Ledger, now: Instant, priority: Priority) -> u32 {
    let mut taken = 0;
    while ledger.try_take(now, priority, &Flow::Shared).is_ok() {
        taken += 1;
    }
    taken
}

#[rstest]
#[case::bucket(small_bucket())]
#[case::window(small_window())]
fn each_priority_gets_its_share(#[case] plan: BudgetPlan) {
    let now = Instant::now();
    let mut ledger = Ledger::new(plan, now);
    assert_eq!(take_all(&mut ledger, now, Priority::Sweep), 4, "a fifth for sweeps");
    assert_eq!(take_all(&mut ledger, now, Priority::Normal), 14, "all but the reserve");
    assert_eq!(take_all(&mut ledger, now, Priority::Delete), 2, "the reserve for deletions");
    assert_eq!(ledger.left(now).calls, 0);
}

#[rstest]
#[case::bucket(small_bucket())]
#[case::window(small_window())]
fn waiting_as_long_as_it_says_is_enough(#[case] plan: BudgetPlan) {
    for &priority in Priority::ALL {
        let mut now = Instant::now();
        let mut ledger = Ledger::new(plan, now);
        take_all(&mut ledger, now, Priority::Sweep);
        take_all(&mut ledger, now, Priority::Delete);
        let wait = ledger.try_take(now, priority, &Flow::Shared).unwrap_err();
        assert!(!wait.is_zero());
        now += wait;
        assert_eq!(ledger.try_take(now, priority, &Flow::Shared), Ok(()));
    }
}

#[test]
fn those_ahead_in_the_queue_lengthen_the_wait() {
    let now = Instant::now();
    let mut ledger = Ledger::new(small_bucket(), now);
    take_all(&mut ledger, now, Priority::Delete);
    assert_eq!(ledger.wait_for(now, Priority::Delete, &Flow::Shared, 0), SECOND);
    assert_eq!(ledger.wait_for(now, Priority::Delete, &Flow::Shared, 4), 5 * SECOND);
    assert_eq!(
        ledger.wait_for(now, Priority::Normal, &Flow::Shared, 0),
        3 * SECOND,
        "the reserve fills first"
    );
}

#[rstest]
#[case::fewer_is_believed(5, 1, 5)]
#[case::more_is_not(100, 1, 19)]
#[case::calls_on_their_way_may_be_missing_from_it(5, 4, 2)]
#[case::none(0, 1, 0)]
fn the_clouds_own_count_is_a_ceiling(
    #[case] remaining: u32,
    #[case] in_flight: u32,
    #[case] left: u32,
) {
    for plan in [small_bucket(), small_window()] {
        let now = Instant::now();
        let mut ledger = Ledger::new(plan, now);
        for _ in 0..in_flight {
            ledger.try_take(now, Priority::Normal, &Flow::Shared).unwrap();
        }
        ledger.observe_remaining(now, remaining);
        assert_eq!(ledger.left(now).calls, left);
    }
}

#[test]
fn a_429_pauses_everyone_deletions_included() {
    let now = Instant::now();
    let mut ledger = Ledger::new(small_window(), now);
    ledger.limited(now, Some(300 * SECOND));
    ledger.limited(now, Some(10 * SECOND));
    for &priority in Priority::ALL {
        assert_eq!(
            ledger.try_take(now + SECOND, priority, &Flow::Shared),
            Err(299 * SECOND),
            "the longer pause holds"
        );
        assert_eq!(ledger.wait_for(now + 300 * SECOND, priority, &Flow::Shared, 0), Duration::ZERO);
    }
}

#[test]
fn a_429_without_a_time_uses_the_clouds_default() {
    let now = Instant::now();
    let mut cloudflare = Ledger::new(BudgetPlan::cloudflare(), now);
    cloudflare.limited(now, None);
    assert_eq!(cloudflare.left(now).paused_for, 300 * SECOND);

    let mut hetzner = Ledger::new(BudgetPlan::hetzner(), now);
    hetzner.limited(now, None);
    assert_eq!(
        hetzner.try_take(now + SECOND, Priority::Delete, &Flow::Shared),
        Ok(()),
        "one token is back"
    );
    assert!(hetzner.try_take(now + SECOND, Priority::Normal, &Flow::Shared).is_err());
}

#[test]
fn after_a_429_reconciles_go_on_while_the_reserve_fills_up() {
    let plan = BudgetPlan::hetzner();
    let begin = Instant::now();
    let mut ledger = Ledger::new(plan, begin);
    ledger.limited(begin, Some(SECOND));
    let mut now = begin;
    let mut granted = 0;
    while now < begin + 600 * SECOND {
        granted += u32::from(ledger.try_take(now, Priority::Normal, &Flow::Shared).is_ok());
        now += SECOND;
    }
    assert!((290..=310).contains(&granted), "half of what is regained: {granted}");
    let left = ledger.left(now).calls;
    assert!((290..=310).contains(&left), "the other half is the reserve's: {left}");
    assert_eq!(take_all(&mut ledger, now, Priority::Delete), left);
}

#[test]
fn nine_tenths_of_cloudflares_limit_stay_for_reconciles() {
    let plan = BudgetPlan::cloudflare();
    assert!((plan.limit.capacity() - plan.reserve()) * 10 >= 1200 * 9);
}

#[test]
fn a_namespace_alone_gets_nine_tenths_of_cloudflares_limit() {
    let mut now = Instant::now();
    let mut ledger = Ledger::new(BudgetPlan::cloudflare(), now);
    let alone = namespace("alone");
    // Again and again, not only from a full budget.
    for _ in 0..3 {
        let taken = take_for(&mut ledger, now, Priority::Normal, &alone);
        assert!(taken * 10 >= 1200 * 9, "{taken}");
        now += 304 * SECOND;
    }
}

#[test]
fn a_latecomer_is_served_before_the_window_ends() {
    let begin = Instant::now();
    let mut ledger = Ledger::new(BudgetPlan::cloudflare(), begin);
    let heavy = namespace("heavy");
    // As bring-ups come: some each second, all that it may have.
    let mut served = Vec::new();
    for second in 0..900 {
        let now = begin + second * SECOND;
        for _ in 0..12 {
            let _ = ledger.try_take(now, Priority::Normal, &heavy);
        }
        // Every two minutes another tenant makes an instance.
        if second % 120 == 60 {
            let newcomer = namespace(&second.to_string());
            let calls = take_up_to(&mut ledger, now, &newcomer, BRING_UP);
            served.push(calls);
        }
    }
    assert!(served.iter().all(|calls| *calls == BRING_UP), "{served:?}");
}

fn take_up_to(ledger: &mut Ledger, now: Instant, flow: &Flow, most: u32) -> u32 {
    let granted = |_: &u32| ledger.try_take(now, Priority::Normal, flow).is_ok();
    u32::try_from((0..most).take_while(granted).count()).unwrap()
}

fn take_for(ledger: &mut Ledger, now: Instant, priority: Priority, flow: &Flow) -> u32 {
    let mut taken = 0;
    while ledger.try_take(now, priority, flow).is_ok() {
        taken += 1;
    }
    taken
}

fn namespace(name: &str) -> Flow {
    Flow::Namespace(name.into())
}

#[test]
fn after_a_429_every_namespace_goes_on() {
    let begin = Instant::now();
    let mut ledger = Ledger::new(BudgetPlan::hetzner(), begin);
    let (busy, other) = (namespace("busy"), namespace("other"));
    for _ in 0..100 {
        assert_eq!(ledger.try_take(begin, Priority::Normal, &busy), Ok(()));
    }
    ledger.limited(begin, Some(SECOND));
    // Others take what comes back as it comes, so that there is never much of it.
    let goes_on = (1..60).any(|seconds| {
        let now = begin + seconds * SECOND;
        let served = ledger.try_take(now, Priority::Normal, &busy).is_ok();
        let _ = ledger.try_take(now, Priority::Normal, &other);
        let _ = ledger.try_take(now, Priority::Sweep, &Flow::Shared);
        served
    });
    assert!(goes_on);
}

/// Calls of one bring-up that are charged to its namespace, its rotation included.
const BRING_UP: u32 = 7;

#[rstest]
#[case::hetzner(BudgetPlan::hetzner())]
#[case::cloudflare(BudgetPlan::cloudflare())]
fn a_greedy_namespace_leaves_others_enough_to_begin(#[case] plan: BudgetPlan) {
    let now = Instant::now();
    let mut ledger = Ledger::new(plan, now);
    let heavy = namespace("heavy");
    let taken = take_for(&mut ledger, now, Priority::Delete, &heavy);
    assert!(taken >= plan.limit.capacity() * 80 / 100, "{taken}: most of it is there to be used");
    for newcomer in ["a", "b", "c", "d"] {
        for _ in 0..BRING_UP {
            assert_eq!(ledger.try_take(now, Priority::Normal, &namespace(newcomer)), Ok(()));
        }
    }
    assert_eq!(
        ledger.try_take(now, Priority::Normal, &Flow::Shared),
        Ok(()),
        "and the pool itself"
    );
}

#[rstest]
#[case::hetzner(BudgetPlan::hetzner())]
#[case::cloudflare(BudgetPlan::cloudflare())]
fn waiting_for_its_share_as_long_as_it_says_is_enough(#[case] plan: BudgetPlan) {
    let mut now = Instant::now();
    let mut ledger = Ledger::new(plan, now);
    let heavy = namespace("heavy");
    for _ in 0..20 {
        take_for(&mut ledger, now, Priority::Normal, &heavy);
        let wait = ledger.try_take(now, Priority::Normal, &heavy).unwrap_err();
        assert!(!wait.is_zero() && wait <= plan.limit.full_after() * 2, "{wait:?}");
        now += wait;
        assert_eq!(ledger.try_take(now, Priority::Normal, &heavy), Ok(()));
    }
}

#[test]
fn the_reserve_is_for_deletions_of_whoever_needs_it() {
    let now = Instant::now();
    let mut ledger = Ledger::new(BudgetPlan::hetzner(), now);
    while ledger.try_take(now, Priority::Normal, &Flow::Shared).is_ok() {}
    assert_eq!(ledger.left(now).calls, 360);
    let (a, b) = (namespace("a"), namespace("b"));
    assert_eq!(take_for(&mut ledger, now, Priority::Delete, &a), 324, "nine tenths of it");
    assert!(take_for(&mut ledger, now, Priority::Delete, &b) > 30);
}

#[test]
fn single_instances_leave_half_the_sweeps_share() {
    let now = Instant::now();
    let mut ledger = Ledger::new(BudgetPlan::cloudflare(), now);
    let checks = take_for(&mut ledger, now, Priority::Sweep, &namespace("a"));
    let sweeps = take_all(&mut ledger, now, Priority::Sweep);
    assert!(checks.abs_diff(sweeps) <= 1, "{checks} and {sweeps}");
}

#[test]
fn namespaces_that_took_nothing_lately_are_forgotten() {
    let mut now = Instant::now();
    let mut ledger = Ledger::new(BudgetPlan::cloudflare(), now);
    for number in 0..1_000 {
        now += 10 * SECOND;
        ledger.try_take(now, Priority::Normal, &namespace(&number.to_string())).unwrap();
    }
    assert!(ledger.flows.len() <= MANY_FLOWS, "{}", ledger.flows.len());
}

#[derive(Debug, Clone)]
enum Event {
    Pass(u64),
    Take(Priority, u32),
    Observe(u32),
    Answered,
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let priority =
        prop_oneof![Just(Priority::Delete), Just(Priority::Normal), Just(Priority::Sweep)];
    let event = prop_oneof![
        4 => (0_u64..5_000).prop_map(Event::Pass),
        4 => (priority, 1_u32..12).prop_map(|(priority, times)| Event::Take(priority, times)),
        1 => (0_u32..30).prop_map(Event::Observe),
        1 => Just(Event::Answered),
    ];
    proptest::collection::vec(event, 1..120)
}

/// Plays events and returns when which calls were granted, checking the reserve on the way.
fn play(plan: BudgetPlan, events: &[Event]) -> Vec<(Instant, Priority)> {
    let mut now = Instant::now();
    let mut ledger = Ledger::new(plan, now);
    let mut granted = Vec::new();
    for event in events {
        match *event {
            Event::Pass(milliseconds) => now += Duration::from_millis(milliseconds),
            Event::Observe(remaining) => ledger.observe_remaining(now, remaining),
            Event::Answered => ledger.answered(),
            Event::Take(priority, times) => {
                for _ in 0..times {
                    if ledger.try_take(now, priority, &Flow::Shared).is_err() {
                        break;
                    }
                    granted.push((now, priority));
                    if priority != Priority::Delete {
                        assert!(
                            ledger.left(now).calls >= plan.reserve(),
                            "the reserve was touched"
                        );
                    }
                }
            }
        }
    }
    granted
}

/// The most calls in any span between two of them is at most what `allowed` says for its length.
fn never_more_than(times: &[Instant], allowed: impl Fn(Duration) -> u128) {
    for (from, start) in times.iter().enumerate() {
        for (to, end) in times.iter().enumerate().skip(from) {
            let made = (to - from + 1) as u128;
            assert!(made <= allowed(*end - *start), "{made} calls in {:?}", *end - *start);
        }
    }
}

fn of(granted: &[(Instant, Priority)], only: Option<Priority>) -> Vec<Instant> {
    granted.iter().filter(|(_, p)| only.is_none_or(|only| *p == only)).map(|(at, _)| *at).collect()
}

proptest! {
    #[test]
    fn a_bucket_is_never_exceeded_over_any_span(events in events()) {
        let granted = play(small_bucket(), &events);
        never_more_than(&of(&granted, None), |span| 20 + u128::from(span.as_secs()));
        never_more_than(&of(&granted, Some(Priority::Sweep)), |span| 4 + u128::from(span.as_secs() / 5));
    }

    #[test]
    fn a_window_is_never_exceeded_over_any_span(events in events()) {
        let granted = play(small_window(), &events);
        // 30 s exactly belongs to two windows; a shorter span to one.
        let windows = |span: Duration| u128::from(span.as_secs() / 30) + 1;
        never_more_than(&of(&granted, None), |span| 20 * windows(span));
        never_more_than(&of(&granted, Some(Priority::Sweep)), |span| 4 * windows(span));
    }
}
