//! A whole life, with a crash at each step of each write in turn.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use futures::{StreamExt as _, stream};
use http::{Method, StatusCode};
use moorage_agent::{Agent, Disk};
use moorage_wire::{
    CredentialType, DesiredState, Report, Sha256, enrolment::EnrolmentAnswer, path,
    report::ConvergenceState,
};
use serde_json::json;
use tokio::sync::Notify;

use crate::{
    operator::{CHALLENGE, Operator, desired},
    world::{World, eventually},
};

const FIRST: &str = "sk-ant-crash-hidden-first-0000000000";
const SECOND: &str = "sk-ant-crash-hidden-second-111111111";
const TUNNEL: &str = "crash-tunnel-token-hidden-0123456789";
const KIND: CredentialType = CredentialType::AnthropicApiKey;

/// A disk that is dead from step `at` on, and says so.
pub(crate) fn disk_that_dies_at(at: usize) -> (Disk, Arc<Notify>) {
    let (steps, died) = (AtomicUsize::new(0), Arc::new(Notify::new()));
    let notify = Arc::clone(&died);
    let disk = Disk::with_failpoint(Arc::new(move |_, _| {
        if steps.fetch_add(1, Ordering::SeqCst) < at {
            return Ok(());
        }
        notify.notify_one();
        Err(io::Error::other("crashed"))
    }));
    (disk, died)
}

/// Lives with a crash at step 0, at step 1 and so on, some at a time, until one does not come so far;
/// how many did.
pub(crate) async fn count_crashes<F: Future<Output = bool>>(
    life: impl FnMut(usize) -> F,
    at_a_time: usize,
) -> usize {
    let lives = stream::iter(0..).map(life).buffered(at_a_time);
    lives.take_while(|crashed| std::future::ready(*crashed)).count().await
}

/// Has work done with an agent that crashes at step `at`, and again with the one after it: that one, what
/// came of the work, and whether the first one came so far.
pub(crate) async fn in_two_lives<T>(
    world: &World,
    operator: &mut Operator,
    at: usize,
    mut work: impl AsyncFnMut(&mut Operator) -> T,
) -> (Agent, T, bool) {
    let (disk, died) = disk_that_dies_at(at);
    let mut crashed = false;
    match world.start_on(disk).await {
        Err(_) => crashed = true,
        Ok(agent) => {
            operator.follow(&agent);
            operator.wait_until_ready().await;
            tokio::select! {
                () = died.notified() => crashed = true,
                _ = work(operator) => {}
            }
        }
    }
    let agent = world.start().await;
    operator.follow(&agent);
    operator.wait_until_ready().await;
    let limit = std::time::Duration::from_secs(60);
    let done = tokio::time::timeout(limit, work(operator)).await;
    let done = done.unwrap_or_else(|_| panic!("stuck after a crash at step {at}"));
    (agent, done, crashed)
}

/// What an operator does, starting from what it sees: each step is skipped when the report says
/// that it is done.
struct Script {
    good: DesiredState,
    bad: DesiredState,
}

impl Script {
    fn new() -> Self {
        Self {
            good: desired(json!({"a": 1}), &["anthropic"]),
            bad: desired(json!({"unknownKey": 1}), &["anthropic"]),
        }
    }

    async fn play(&self, world: &World, operator: &mut Operator) -> Result<(), String> {
        self.enrol(operator).await?;
        deliver(operator, "anthropic", KIND, FIRST).await?;
        if report(operator).await?.desired.digest != Some(self.bad.digest()) {
            self.put(operator, &self.good).await?;
            self.wait(operator, &self.good, ConvergenceState::Converged).await?;
        }
        deliver(operator, "moorage-tunnel", CredentialType::TunnelToken, TUNNEL).await?;
        world.machine(|machine| TUNNEL.clone_into(&mut machine.token_accepted));
        deliver(operator, "anthropic", KIND, SECOND).await?;
        self.put(operator, &self.bad).await?;
        self.wait(operator, &self.bad, ConvergenceState::RolledBack).await?;
        let only = [Sha256::of(TUNNEL.as_bytes())];
        wait(operator, |report| report.cloudflared.token_sha256 == only).await
    }

    async fn enrol(&self, operator: &mut Operator) -> Result<(), String> {
        let target = format!("{}?challenge={CHALLENGE}", path::ENROLMENT);
        let bearer = Operator::bearer();
        loop {
            let reply = operator.send(Method::GET, &target, &bearer, b"").await?;
            if reply.status == StatusCode::SERVICE_UNAVAILABLE {
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
                continue;
            }
            if reply.status == StatusCode::OK {
                let answer: EnrolmentAnswer = reply.json();
                operator.peers.agent = Some(answer.identity.public_key);
                operator.identity = Some(answer.identity);
            }
            return report(operator).await.map(drop);
        }
    }

    async fn put(&self, operator: &mut Operator, document: &DesiredState) -> Result<(), String> {
        let has = report(operator).await?.desired.digest;
        if has == Some(document.digest()) {
            return Ok(());
        }
        let tag = has.map_or("\"none\"".to_owned(), |digest| format!("\"{digest}\""));
        let body = document.to_bytes();
        let reply = operator.try_call(Method::PUT, path::DESIRED, Some(&tag), &body).await?;
        if reply.status == StatusCode::ACCEPTED { Ok(()) } else { Err(format!("{reply:?}")) }
    }

    async fn wait(
        &self,
        operator: &mut Operator,
        document: &DesiredState,
        state: ConvergenceState,
    ) -> Result<(), String> {
        let digest = Some(document.digest());
        wait(operator, |report| report.desired.digest == digest && report.desired.state == state)
            .await
    }
}

async fn report(operator: &mut Operator) -> Result<Report, String> {
    let reply = operator.try_call(Method::GET, path::REPORT, None, b"").await?;
    if reply.status == StatusCode::OK { Ok(reply.json()) } else { Err(format!("{reply:?}")) }
}

async fn wait(operator: &mut Operator, condition: impl Fn(&Report) -> bool) -> Result<(), String> {
    while !condition(&report(operator).await?) {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    Ok(())
}

/// Delivers what was not consumed yet.
async fn deliver(
    operator: &mut Operator,
    name: &str,
    kind: CredentialType,
    value: &str,
) -> Result<(), String> {
    let sealed = operator.seal(name, kind, value);
    let consumed = report(operator).await?.consumed;
    if consumed.iter().any(|entry| entry.source_sha256 == sealed.source_sha256()) {
        return Ok(());
    }
    let body = serde_json::to_vec(&sealed).unwrap();
    let target = format!("{}/{name}", path::CREDENTIALS);
    let reply = operator.try_call(Method::PUT, &target, None, &body).await?;
    if reply.status == StatusCode::OK { Ok(()) } else { Err(format!("{reply:?}")) }
}

/// Lives with a crash at step `at`; whether the life was long enough to reach it.
async fn live(at: usize) -> bool {
    let world = World::new().await;
    let script = Script::new();
    let (disk, died) = disk_that_dies_at(at);
    let mut crashed = false;
    let mut operator = None;
    match world.start_on(disk).await {
        Err(_) => crashed = true,
        Ok(agent) => {
            let mut first = Operator::of(&agent);
            tokio::select! {
                () = died.notified() => crashed = true,
                played = script.play(&world, &mut first) => {
                    crashed |= played.is_err();
                }
            }
            operator = Some(first);
            drop(agent);
        }
    }
    let agent = world.start().await;
    let mut operator = match operator {
        Some(mut operator) => {
            operator.follow(&agent);
            operator
        }
        None => Operator::of(&agent),
    };
    let played = script.play(&world, &mut operator);
    let limit = std::time::Duration::from_secs(60);
    let played = tokio::time::timeout(limit, played).await;
    played.unwrap_or_else(|_| panic!("stuck after a crash at step {at}")).unwrap();
    let report = report(&mut operator).await.unwrap();
    assert_eq!(world.secrets(), json!({"anthropic": SECOND}), "step {at}");
    assert_eq!(report.receipts.len(), 2, "step {at}: {:?}", report.receipts);
    assert_eq!(report.consumed.len(), 3, "step {at}");
    for receipt in &report.receipts {
        receipt.verify(&report.identity.public_key).unwrap();
    }
    assert_eq!(world.machine(|machine| machine.openclaw_config.clone()), json!({"a": 1}));
    eventually("the one-time key is erased", || async {
        let bootstrap = std::fs::read_to_string(world.layout.bootstrap()).unwrap();
        bootstrap.contains("\"enrolmentKey\":\"\"").then_some(())
    })
    .await;
    let leftovers = leftovers(world.root());
    assert!(leftovers.is_empty(), "step {at}: {leftovers:?}");
    crashed
}

fn leftovers(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(leftovers(&path));
        } else if path.to_string_lossy().ends_with("moorage-tmp") {
            found.push(path);
        }
    }
    found
}

/// Converges, then rolls back an unhealthy document with a crash at step `at`; whether that was
/// reached.
async fn roll_back(at: usize) -> bool {
    let mut world = World::new().await;
    let (good, unhealthy) =
        (desired(json!({"a": 1}), &[]), desired(json!({"fakeUnhealthy": 1}), &[]));
    let (agent, mut operator) = world.enrolled().await;
    operator.put_desired(&good).await;
    operator.wait_for(&good, ConvergenceState::Converged).await;
    drop(agent);

    world.settings.timing.health_deadline = std::time::Duration::from_secs(1);
    let script = Script { good, bad: unhealthy };
    let fall = async |operator: &mut Operator| script.fall(&world, operator).await;
    let (_agent, (), crashed) = in_two_lives(&world, &mut operator, at, fall).await;
    crashed
}

impl Script {
    /// Puts the unhealthy document and waits until the good configuration runs again.
    async fn fall(&self, world: &World, operator: &mut Operator) {
        let fallen = async |operator: &mut Operator| -> Result<(), String> {
            self.put(operator, &self.bad).await?;
            self.wait(operator, &self.bad, ConvergenceState::RolledBack).await
        };
        while fallen(operator).await.is_err() {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        eventually("the good configuration runs", || async {
            world.machine(|machine| (machine.openclaw_config == self.good.config).then_some(()))
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_survives_a_crash_at_any_write() {
    let crashes = count_crashes(roll_back, 8).await;
    assert!(crashes > 20, "only {crashes} steps were tried");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_at_any_write_of_a_whole_life_ends_in_the_same_state() {
    let crashes = count_crashes(live, 8).await;
    assert!(crashes > 60, "only {crashes} steps were tried");
    assert!(!crate::logs::LOGS.contains(SECOND) && !crate::logs::LOGS.contains(TUNNEL));
}
