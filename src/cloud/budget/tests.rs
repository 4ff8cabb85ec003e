use std::time::Duration;

use super::*;

fn plan(capacity: u32, refill_every: Duration) -> BudgetPlan {
    BudgetPlan {
        limit: Limit::Bucket { capacity, refill_every },
        reserve_percent: 0,
        sweep_percent: 50,
        share: 9,
        default_pause: Duration::from_secs(60),
    }
}

fn within(milliseconds: u64) -> Instant {
    Instant::now() + Duration::from_millis(milliseconds)
}

#[tokio::test]
async fn a_short_wait_is_waited_and_a_long_one_refused_at_once() {
    let started = Instant::now();
    let budget = Budget::new(plan(1, Duration::from_secs(2)));
    drop(budget.acquire(Priority::Normal, within(0)).await.unwrap());

    let refused = budget.acquire(Priority::Normal, within(5)).await.unwrap_err();
    assert!(refused.wait > Duration::ZERO && refused.wait <= Duration::from_secs(2));

    drop(budget.acquire(Priority::Normal, within(60_000)).await.unwrap());
    assert!(started.elapsed() >= Duration::from_secs(1), "it waited for the refill");
}

#[tokio::test]
async fn callers_are_served_in_the_order_they_came() {
    let budget = Arc::new(Budget::new(plan(1, Duration::from_millis(10))));
    let served = Arc::new(Mutex::new(Vec::new()));
    let mut callers = Vec::new();
    for caller in 0..6 {
        let (budget, served) = (Arc::clone(&budget), Arc::clone(&served));
        callers.push(async move {
            let permit = budget.acquire(Priority::Normal, within(60_000)).await.unwrap();
            served.lock().push(caller);
            drop(permit);
        });
    }
    futures::future::join_all(callers).await;
    assert_eq!(*served.lock(), [0, 1, 2, 3, 4, 5]);
}

#[tokio::test]
async fn a_full_queue_refuses_without_waiting() {
    let budget = Budget::new(plan(1, Duration::from_secs(60)));
    drop(budget.acquire(Priority::Normal, within(0)).await.unwrap());
    let first = budget.acquire(Priority::Normal, within(600_000));
    let second = budget.acquire(Priority::Normal, within(90_000));
    tokio::select! {
        biased;
        _ = first => panic!("the first is still waiting"),
        refused = second => assert!(refused.unwrap_err().wait > Duration::from_secs(90)),
    }
    assert_eq!(
        budget.queue(Priority::Normal, &Flow::Shared).waiting.load(Ordering::Relaxed),
        0,
        "cancelled callers leave"
    );
}

#[tokio::test]
async fn a_429_reaches_everyone_who_shares_the_group() {
    let registry = BudgetRegistry::default();
    let ours = registry.budget(Cloud::Cloudflare, "team-a");
    let permit = ours.acquire(Priority::Normal, within(0)).await.unwrap();
    permit.settle(RateFeedback { limited: true, ..RateFeedback::default() });

    let same = registry.budget(Cloud::Cloudflare, "team-a");
    let refused = same.acquire(Priority::Delete, within(1_000)).await.unwrap_err();
    assert!(refused.wait > Duration::from_secs(290));
    let other = registry.budget(Cloud::Cloudflare, "team-b");
    assert!(other.acquire(Priority::Normal, within(0)).await.is_ok());
    let hetzner = registry.budget(Cloud::Hetzner, "team-a");
    assert!(hetzner.acquire(Priority::Normal, within(0)).await.is_ok());
    assert_eq!(registry.left().len(), 3);
}

#[tokio::test]
async fn those_who_wait_in_one_namespace_do_not_stand_before_another() {
    let budget = Budget::new(plan(10, Duration::from_secs(60)));
    let of = |name: &str| Flow::Namespace(name.into());
    let take = |deadline| budget.acquire(Priority::Delete, deadline);
    while of("heavy").scope(take(within(0))).await.is_ok() {}
    let heavy = of("heavy").scope(take(within(600_000)));
    let light = of("light").scope(take(within(0)));
    tokio::select! {
        biased;
        _ = heavy => panic!("its share is used up"),
        granted = light => assert!(granted.is_ok()),
    }
}
