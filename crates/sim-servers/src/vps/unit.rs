//! One supervised unit: started when asked, restarted when it ends, stopped with its whole process
//! group.

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use moorage_agent::installer::protocol::{Ending, UnitFailure};
use parking_lot::Mutex;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::Unit;
use super::spawner::Spawner;

/// Waited before a unit that ended is started again.
const RESTART_DELAY: Duration = Duration::from_secs(1);
/// How long a unit may take to stop before it is killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);
/// `OpenClaw`'s exit code for a configuration that a restart cannot mend.
const CONFIGURATION_ERROR: i32 = 78;

/// What a unit runs.
#[derive(Debug, Clone)]
pub(super) struct UnitSpec {
    pub(super) unit: Unit,
    /// The guard, and the program that it becomes.
    pub(super) sim_bin: PathBuf,
    pub(super) program: PathBuf,
    pub(super) arguments: Vec<OsString>,
    pub(super) environment: Vec<(&'static str, OsString)>,
    pub(super) folder: PathBuf,
    pub(super) log: PathBuf,
}

impl UnitSpec {
    fn command(&self) -> io::Result<Command> {
        let log = OpenOptions::new().append(true).create(true).open(&self.log)?;
        let mut command = Command::new(&self.sim_bin);
        command
            .args(["guard", "--parent", &std::process::id().to_string(), "--"])
            .arg(&self.program)
            .args(&self.arguments)
            .envs(self.environment.iter().cloned())
            .current_dir(&self.folder)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0);
        Ok(command)
    }

    /// Writes a line of the supervisor's own to the unit's log.
    fn note(&self, text: &str) {
        let log = OpenOptions::new().append(true).create(true).open(&self.log);
        if let Err(error) = log.and_then(|mut log| writeln!(log, "supervisor: {text}")) {
            tracing::debug!(log = %self.log.display(), %error, "cannot write");
        }
    }
}

enum Order {
    Start,
    Stop,
    Restart,
    Cut,
}

type Reply = oneshot::Sender<io::Result<()>>;

/// What is known about a unit without asking its supervisor.
#[derive(Debug, Default)]
struct Observed {
    /// Zero while nothing runs.
    process: AtomicU32,
    starts: AtomicU32,
    /// How it failed, until it is started again.
    failure: Mutex<Option<UnitFailure>>,
}

/// A supervised unit. Dropping it kills the unit.
#[derive(Debug)]
pub(super) struct SupervisedUnit {
    orders: mpsc::Sender<(Order, Reply)>,
    observed: Arc<Observed>,
    supervisor: JoinHandle<()>,
}

impl SupervisedUnit {
    /// A unit that does not run yet.
    pub(super) fn new(spec: UnitSpec, spawner: Arc<Spawner>) -> Self {
        let (orders, inbox) = mpsc::channel(4);
        let observed = Arc::new(Observed::default());
        let supervisor =
            Supervisor { spec, spawner, inbox, restarts: 0, observed: observed.clone() };
        Self { orders, observed, supervisor: tokio::spawn(supervisor.run()) }
    }

    /// Starts the unit unless it runs.
    pub(super) async fn start(&self) -> io::Result<()> {
        self.order(Order::Start).await
    }

    /// Stops the unit if it runs.
    pub(super) async fn stop(&self) -> io::Result<()> {
        self.order(Order::Stop).await
    }

    /// Stops the unit if it runs, and starts it.
    pub(super) async fn restart(&self) -> io::Result<()> {
        self.order(Order::Restart).await
    }

    /// Kills the unit at once.
    pub(super) async fn cut(&self) -> io::Result<()> {
        self.order(Order::Cut).await
    }

    /// The id of its process, if it runs.
    pub(super) fn process(&self) -> Option<u32> {
        Some(self.observed.process.load(Ordering::Acquire)).filter(|process| *process != 0)
    }

    /// How often it was started.
    pub(super) fn starts(&self) -> u32 {
        self.observed.starts.load(Ordering::Acquire)
    }

    /// How it failed, while it is down for that.
    pub(super) fn failure(&self) -> Option<UnitFailure> {
        *self.observed.failure.lock()
    }

    async fn order(&self, order: Order) -> io::Result<()> {
        let gone = || io::Error::other("the server is powered off");
        let (reply, answer) = oneshot::channel();
        self.orders.send((order, reply)).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}

impl Drop for SupervisedUnit {
    fn drop(&mut self) {
        self.supervisor.abort();
    }
}

struct Supervisor {
    spec: UnitSpec,
    spawner: Arc<Spawner>,
    inbox: mpsc::Receiver<(Order, Reply)>,
    /// Since it was last asked for.
    restarts: u32,
    observed: Arc<Observed>,
}

/// What the supervisor does next.
enum Next {
    Idle,
    Start(Option<Reply>),
    Wait,
    End,
}

impl Supervisor {
    async fn run(mut self) {
        let mut next = Next::Idle;
        loop {
            next = match next {
                Next::Idle => self.idle().await,
                Next::Start(reply) => self.start(reply).await,
                Next::Wait => self.wait().await,
                Next::End => return,
            };
        }
    }

    /// Nothing runs and nothing is wanted.
    async fn idle(&mut self) -> Next {
        match self.inbox.recv().await {
            None => Next::End,
            Some((Order::Start | Order::Restart, reply)) => Next::Start(Some(reply)),
            Some((Order::Stop | Order::Cut, reply)) => {
                let _ = reply.send(Ok(()));
                Next::Idle
            }
        }
    }

    /// Waits before the next start, unless an order comes.
    async fn wait(&mut self) -> Next {
        tokio::select! {
            () = tokio::time::sleep(RESTART_DELAY) => Next::Start(None),
            order = self.inbox.recv() => match order {
                None => Next::End,
                Some((Order::Start | Order::Restart, reply)) => Next::Start(Some(reply)),
                Some((Order::Stop | Order::Cut, reply)) => {
                    self.note_failure(None);
                    let _ = reply.send(Ok(()));
                    Next::Idle
                }
            }
        }
    }

    async fn start(&mut self, reply: Option<Reply>) -> Next {
        self.restarts = if reply.is_some() { 0 } else { self.restarts.saturating_add(1) };
        self.note_failure(None);
        let spawned = match self.spec.command() {
            Ok(command) => self.spawner.spawn(command).await,
            Err(error) => Err(error),
        };
        self.observed.starts.fetch_add(1, Ordering::AcqRel);
        match spawned {
            Ok(child) => {
                let group = Group::of(&child);
                self.observed.process.store(child.id().unwrap_or(0), Ordering::Release);
                if let Some(reply) = reply {
                    let _ = reply.send(Ok(()));
                }
                let next = self.attend(child, &group).await;
                self.observed.process.store(0, Ordering::Release);
                next
            }
            Err(error) => {
                self.spec.note(&format!("cannot start: {error}"));
                if let Some(reply) = reply {
                    let _ = reply.send(Err(error));
                }
                self.failed(Ending::Other, false);
                Next::Wait
            }
        }
    }

    /// Watches a process until it ends, by itself or by order.
    async fn attend(&mut self, mut child: Child, group: &Group) -> Next {
        loop {
            tokio::select! {
                status = child.wait() => {
                    group.signal(Signal::KILL);
                    return self.ended(status);
                }
                order = self.inbox.recv() => match order {
                    None => {
                        kill(&mut child, group).await;
                        return Next::End;
                    }
                    Some((Order::Start, reply)) => {
                        let _ = reply.send(Ok(()));
                    }
                    Some((Order::Stop, reply)) => {
                        terminate(&mut child, group).await;
                        self.observed.process.store(0, Ordering::Release);
                        let _ = reply.send(Ok(()));
                        return Next::Idle;
                    }
                    Some((Order::Restart, reply)) => {
                        terminate(&mut child, group).await;
                        return Next::Start(Some(reply));
                    }
                    Some((Order::Cut, reply)) => {
                        kill(&mut child, group).await;
                        self.observed.process.store(0, Ordering::Release);
                        let _ = reply.send(Ok(()));
                        return Next::Idle;
                    }
                }
            }
        }
    }

    fn ended(&self, status: io::Result<ExitStatus>) -> Next {
        match status {
            Ok(status) => {
                self.spec.note(&format!("ended: {status}"));
                // As `RestartPreventExitStatus=78` in OpenClaw's unit.
                let given_up =
                    self.spec.unit == Unit::Openclaw && status.code() == Some(CONFIGURATION_ERROR);
                match (status.code(), status.signal()) {
                    (Some(0), _) => {}
                    (Some(status), _) => self.failed(Ending::Exited { status }, given_up),
                    (None, Some(signal)) => self.failed(Ending::Killed { signal }, given_up),
                    (None, None) => self.failed(Ending::Other, given_up),
                }
                if given_up {
                    return Next::Idle;
                }
            }
            Err(error) => self.spec.note(&format!("cannot wait for the process: {error}")),
        }
        Next::Wait
    }
}

impl Supervisor {
    fn failed(&self, ending: Ending, given_up: bool) {
        self.note_failure(Some(UnitFailure { ending, restarts: self.restarts, given_up }));
    }

    fn note_failure(&self, failure: Option<UnitFailure>) {
        *self.observed.failure.lock() = failure;
    }
}

/// The process group of a child, which bears the child's process id.
struct Group(Option<Pid>);

impl Group {
    fn of(child: &Child) -> Self {
        Self(child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw))
    }

    fn signal(&self, signal: Signal) {
        if let Some(group) = self.0 {
            // It may be empty already.
            let _ = kill_process_group(group, signal);
        }
    }
}

async fn kill(child: &mut Child, group: &Group) {
    group.signal(Signal::KILL);
    if let Err(error) = child.wait().await {
        tracing::warn!(%error, "cannot wait for a killed process");
    }
}

async fn terminate(child: &mut Child, group: &Group) {
    group.signal(Signal::TERM);
    // Ended or not: the rest of the group goes, too.
    let _ = tokio::time::timeout(STOP_TIMEOUT, child.wait()).await;
    kill(child, group).await;
}
