//! Tests of the queue, against a Cloudflare that answers when it is told to.

use std::collections::BTreeSet;

use super::*;
use crate::{clock::SystemClock, cloud::Conflict, cloudflare::TunnelId, inventory::fakes::Fakes};

fn tunnel() -> TunnelId {
    TunnelId::parse("6ff42ae2-765d-4adf-8112-31c55c1551ef").unwrap()
}

fn post(host: &str) -> NewDnsRecord {
    NewDnsRecord::tunnel_cname(format!("{host}.example.com"), &tunnel(), "moorage")
}

fn ensure(hosts: &[&str]) -> DnsChange {
    DnsChange::Ensure { posts: hosts.iter().map(|host| post(host)).collect(), patches: Vec::new() }
}

fn delete(ids: &[&str]) -> DnsChange {
    DnsChange::Delete(ids.iter().map(|id| RecordId::parse(*id).unwrap()).collect())
}

fn queue(clouds: &Arc<Fakes>) -> DnsQueue {
    DnsQueue::new(clouds.clone(), ZoneId::parse("zone").unwrap(), Arc::new(SystemClock))
}

fn hosts(batch: &DnsBatch) -> BTreeSet<&str> {
    batch.posts.iter().filter_map(|post| post.name.strip_suffix(".example.com")).collect()
}

#[tokio::test]
async fn changes_that_come_together_share_a_batch() {
    let (clouds, _questions) = Fakes::new();
    let queue = queue(&clouds);
    let (ada, bob) =
        tokio::join!(queue.apply(ensure(&["ada", "ada-mgmt"])), queue.apply(ensure(&["bob"])));
    let names =
        |records: Vec<DnsRecord>| records.into_iter().map(|record| record.name).collect::<Vec<_>>();
    assert_eq!(names(ada.unwrap()), ["ada.example.com", "ada-mgmt.example.com"]);
    assert_eq!(names(bob.unwrap()), ["bob.example.com"]);
    assert_eq!(clouds.state().batches.len(), 1);
}

#[tokio::test]
async fn what_queues_while_a_batch_is_in_flight_goes_with_the_next() {
    let (clouds, mut questions) = Fakes::with_answers(0);
    let queue = queue(&clouds);
    let others = ["b", "c", "d"].map(|host| [host]);
    let changes = async {
        questions.recv().await.unwrap();
        let waiting =
            futures::future::join_all(others.iter().map(|host| queue.apply(ensure(host))));
        let (answers, ()) = tokio::join!(waiting, async { clouds.answers.add_permits(2) });
        answers
    };
    let first = ["a"];
    let (first, others) = tokio::join!(queue.apply(ensure(&first)), changes);
    assert!(first.is_ok() && others.iter().all(Result::is_ok));
    let state = clouds.state();
    assert_eq!(
        state.batches.iter().map(hosts).collect::<Vec<_>>(),
        [BTreeSet::from(["a"]), BTreeSet::from(["b", "c", "d"])]
    );
}

#[tokio::test]
async fn a_refused_batch_is_halved_until_the_culprit_stands_alone() {
    let (clouds, _questions) = Fakes::new();
    clouds.state().refuses = Some(|batch| {
        hosts(batch).contains("taken").then_some(ErrorKind::Conflict(Conflict::RecordExists))
    });
    let queue = queue(&clouds);
    let all = [["a"], ["b"], ["c"], ["taken"], ["d"], ["e"], ["f"], ["g"]];
    let answers = futures::future::join_all(all.iter().map(|host| queue.apply(ensure(host)))).await;
    for (host, answer) in all.iter().zip(&answers) {
        assert_eq!(answer.is_err(), host == &["taken"], "{host:?}: {answer:?}");
    }
    let state = clouds.state();
    let refused: Vec<_> = state
        .batches
        .iter()
        .filter(|batch| hosts(batch).contains("taken"))
        .map(DnsBatch::len)
        .collect();
    assert_eq!(refused, [8, 4, 2, 1]);
    assert_eq!(state.batches.len(), 7, "each half without the culprit passes at once");
}

#[tokio::test]
async fn a_change_is_applied_as_a_whole_or_not_at_all() {
    let (clouds, _questions) = Fakes::new();
    clouds.state().refuses = Some(|batch| {
        hosts(batch).contains("taken").then_some(ErrorKind::Conflict(Conflict::RecordExists))
    });
    let queue = queue(&clouds);
    let (both, other) =
        tokio::join!(queue.apply(ensure(&["free", "taken"])), queue.apply(ensure(&["other"])));
    assert!(both.is_err() && other.is_ok());
    assert!(
        clouds
            .state()
            .batches
            .iter()
            .all(|batch| hosts(batch).contains("free") == hosts(batch).contains("taken"))
    );
}

#[rstest::rstest]
#[case::may_have_been_applied(ErrorKind::Timeout { maybe_applied: true })]
#[case::would_meet_every_request(ErrorKind::Unauthorized)]
#[case::comes_too_soon(ErrorKind::RateLimited { retry_after: Duration::from_secs(60) })]
#[tokio::test]
async fn an_error_that_no_half_could_avoid_is_everybodys(#[case] kind: ErrorKind) {
    let (clouds, _questions) = Fakes::new();
    clouds.state().refuses = Some(match kind {
        ErrorKind::Timeout { .. } => |_| Some(ErrorKind::Timeout { maybe_applied: true }),
        ErrorKind::Unauthorized => |_| Some(ErrorKind::Unauthorized),
        _ => |_| Some(ErrorKind::RateLimited { retry_after: Duration::from_secs(60) }),
    });
    let queue = queue(&clouds);
    let (first, second) = tokio::join!(queue.apply(ensure(&["a"])), queue.apply(ensure(&["b"])));
    assert_eq!(first.unwrap_err().kind, kind);
    assert_eq!(second.unwrap_err().kind, kind);
    assert_eq!(clouds.state().batches.len(), 1);
}

#[tokio::test]
async fn deletions_travel_alone_and_first() {
    let (clouds, _questions) = Fakes::new();
    let queue = queue(&clouds);
    let (made, gone, gone_too) = tokio::join!(
        queue.apply(ensure(&["a"])),
        queue.apply(delete(&["r1", "r2"])),
        queue.apply(delete(&["r3"]))
    );
    assert_eq!(made.unwrap().len(), 1);
    assert_eq!((gone.unwrap(), gone_too.unwrap()), (vec![], vec![]));
    let state = clouds.state();
    let shapes: Vec<_> =
        state.batches.iter().map(|batch| (batch.deletes.len(), batch.posts.len())).collect();
    assert_eq!(shapes, [(3, 0), (0, 1)]);
}

#[tokio::test]
async fn a_batch_is_never_larger_than_cloudflare_takes() {
    let (clouds, _questions) = Fakes::new();
    let queue = queue(&clouds);
    let names: Vec<_> = (0..167)
        .map(|number| [format!("a{number}"), format!("b{number}"), format!("c{number}")])
        .collect();
    let changes =
        names.iter().map(|names| queue.apply(ensure(&names.each_ref().map(String::as_str))));
    let answers = futures::future::join_all(changes).await;
    assert!(answers.iter().all(|answer| answer.as_ref().is_ok_and(|records| records.len() == 3)));
    let sizes: Vec<_> = clouds.state().batches.iter().map(DnsBatch::len).collect();
    assert_eq!(sizes, [198, 198, 105]);
}

#[tokio::test]
async fn a_change_of_nothing_is_done_without_a_call_and_stops_nobody() {
    let (clouds, _questions) = Fakes::new();
    let queue = queue(&clouds);
    assert_eq!(queue.apply(ensure(&[])).await.unwrap(), []);
    assert_eq!(queue.apply(delete(&[])).await.unwrap(), []);
    assert_eq!(clouds.state().batches.len(), 0);
    assert_eq!(queue.apply(ensure(&["a"])).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_dropped_queue_finishes_what_it_took() {
    let (clouds, mut questions) = Fakes::with_answers(0);
    let queue = queue(&clouds);
    let mut change = Box::pin(queue.apply(ensure(&["a"])));
    tokio::select! {
        _ = &mut change => panic!("nothing was answered yet"),
        asked = questions.recv() => asked.unwrap(),
    }
    drop(change);
    drop(queue);
    clouds.answers.add_permits(1);
    while Arc::strong_count(&clouds) > 1 {
        tokio::task::yield_now().await;
    }
    assert_eq!(clouds.state().batches.len(), 1);
}
