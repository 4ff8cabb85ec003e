//! A server in a temporary folder: what user-data left, an installer, a gateway and a cloudflared.

use std::{
    collections::HashMap,
    fs, io,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, LazyLock, Mutex, Once},
    time::{Duration, Instant},
};

use axum::{Router, extract::State, http::StatusCode, routing::get};
use moorage_agent::{
    Agent, Disk, Layout, Listen, Settings, Timing,
    installer::protocol::{Answer, Reason, Request, Unit},
};
use moorage_wire::bootstrap::Bootstrap;
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, UnixListener, UnixStream},
    sync::OnceCell,
    task::JoinSet,
};

use crate::operator::{Operator, bootstrap};

/// What runs on the server.
#[derive(Default)]
pub(crate) struct Machine {
    pub(crate) running: HashMap<Unit, bool>,
    pub(crate) starts: HashMap<Unit, u32>,
    /// The configuration that OpenClaw was last started with.
    pub(crate) openclaw_config: Value,
    /// The token in cloudflared's file, the one that it was started with, the one that the edge takes.
    pub(crate) token_file: String,
    pub(crate) token_running: String,
    pub(crate) token_accepted: String,
}

pub(crate) struct World {
    pub(crate) layout: Layout,
    pub(crate) settings: Settings,
    pub(crate) machine: Arc<Mutex<Machine>>,
    /// Stops the stand-ins when dropped.
    tasks: JoinSet<()>,
    folder: tempfile::TempDir,
}

pub(crate) const FIRST_TUNNEL_TOKEN: &str = "first-tunnel-token-0123456789";

impl World {
    /// A server whose agent has made its keys before; making them takes long.
    pub(crate) async fn new() -> Self {
        static IDENTITY: OnceCell<Vec<u8>> = OnceCell::const_new();
        let identity = IDENTITY.get_or_init(|| async {
            let world = Self::without_keys().await;
            let _agent = world.start().await;
            eventually("the agent makes its keys", || async {
                fs::read(world.layout.identity()).ok()
            })
            .await
        });
        let world = Self::without_keys().await;
        fs::create_dir_all(world.layout.state()).unwrap();
        fs::write(world.layout.identity(), identity.await).unwrap();
        world
    }

    /// A server on its first start.
    pub(crate) async fn without_keys() -> Self {
        LOGS.begin();
        let folder = tempfile::tempdir().unwrap();
        let mut settings = Settings::new(folder.path().to_owned());
        let layout = settings.layout.clone();
        for path in [layout.bootstrap(), layout.installer_socket()] {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
        }
        let document: Bootstrap = bootstrap();
        fs::write(layout.bootstrap(), serde_json::to_vec(&document).unwrap()).unwrap();
        fs::write(layout.tunnel_token(), format!("{FIRST_TUNNEL_TOKEN}\n")).unwrap();
        let machine = Arc::new(Mutex::new(Machine {
            running: HashMap::from([(Unit::Cloudflared, true)]),
            token_running: FIRST_TUNNEL_TOKEN.to_owned(),
            token_accepted: FIRST_TUNNEL_TOKEN.to_owned(),
            ..Machine::default()
        }));
        let mut tasks = JoinSet::new();
        settings.gateway = serve(&mut tasks, gateway(Arc::clone(&machine))).await;
        settings.cloudflared_metrics = serve(&mut tasks, metrics(Arc::clone(&machine))).await;
        settings.listen = Listen::Tcp(SocketAddr::from(([127, 0, 0, 1], 0)));
        settings.openclaw_bin =
            PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/agent/fake-openclaw.sh"));
        settings.timing = quick();
        let mut world = Self { layout, settings, machine, tasks, folder };
        world.start_installer();
        world
    }

    pub(crate) fn start_installer(&mut self) {
        let listener = UnixListener::bind(self.layout.installer_socket()).unwrap();
        let (machine, layout) = (Arc::clone(&self.machine), self.layout.clone());
        self.tasks.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let _ = install(stream, &machine, &layout).await;
            }
        });
    }

    pub(crate) fn root(&self) -> &std::path::Path {
        self.folder.path()
    }

    pub(crate) async fn start(&self) -> Agent {
        self.start_on(Disk::default()).await.unwrap()
    }

    pub(crate) async fn start_on(&self, disk: Disk) -> Result<Agent, moorage_agent::StartError> {
        Agent::start(self.settings.clone(), disk).await
    }

    /// An agent and an operator that has enrolled it.
    pub(crate) async fn enrolled(&self) -> (Agent, Operator) {
        let agent = self.start().await;
        let mut operator = Operator::of(&agent);
        operator.enrol().await;
        (agent, operator)
    }

    pub(crate) fn secrets(&self) -> Value {
        let bytes = fs::read(self.layout.secrets()).unwrap_or_else(|_| b"{}".to_vec());
        serde_json::from_slice(&bytes).unwrap()
    }

    pub(crate) fn machine<T>(&self, look: impl FnOnce(&mut Machine) -> T) -> T {
        look(&mut self.machine.lock().unwrap())
    }

    /// How often OpenClaw's command line was asked for something.
    pub(crate) fn calls(&self, what: &str) -> usize {
        let path = self.layout.openclaw_state().join("calls");
        fs::read_to_string(path).map_or(0, |text| text.lines().filter(|line| *line == what).count())
    }
}

fn quick() -> Timing {
    let milliseconds = Duration::from_millis;
    Timing {
        health_deadline: Duration::from_secs(5),
        reconcile_interval: milliseconds(200),
        retry_after_failure: milliseconds(20),
        health_poll: milliseconds(20),
        tunnel_poll: milliseconds(50),
        rotation_poll: milliseconds(20),
        disconnected_for: milliseconds(60),
        token_grace: milliseconds(150),
        ..Timing::default()
    }
}

async fn serve(tasks: &mut JoinSet<()>, router: Router) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tasks.spawn(async move { axum::serve(listener, router).await.unwrap() });
    address
}

type Shared = Arc<Mutex<Machine>>;

fn code(ok: bool) -> StatusCode {
    if ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}

/// OpenClaw's health: a configuration with `fakeUnhealthy` never starts, one with `fakeDegraded` has
/// a channel that is down.
fn gateway(machine: Shared) -> Router {
    async fn started(State(machine): State<Shared>) -> StatusCode {
        let machine = machine.lock().unwrap();
        let running = machine.running.get(&Unit::Openclaw) == Some(&true);
        code(running && machine.openclaw_config.get("fakeUnhealthy").is_none())
    }
    async fn ready(State(machine): State<Shared>) -> StatusCode {
        code(machine.lock().unwrap().openclaw_config.get("fakeDegraded").is_none())
    }
    Router::new()
        .route("/healthz", get(started))
        .route("/startupz", get(started))
        .route("/readyz", get(ready))
        .with_state(machine)
}

fn metrics(machine: Shared) -> Router {
    async fn ready(State(machine): State<Shared>) -> StatusCode {
        let machine = machine.lock().unwrap();
        let running = machine.running.get(&Unit::Cloudflared) == Some(&true);
        code(running && machine.token_running == machine.token_accepted)
    }
    Router::new().route("/ready", get(ready)).with_state(machine)
}

async fn install(stream: UnixStream, machine: &Shared, layout: &Layout) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    stream.read_line(&mut line).await?;
    let answer = perform(serde_json::from_str(&line)?, &mut machine.lock().unwrap(), layout);
    let mut answer = serde_json::to_vec(&answer)?;
    answer.push(b'\n');
    stream.write_all(&answer).await
}

fn perform(request: Request, machine: &mut Machine, layout: &Layout) -> Answer {
    match request {
        Request::Status { unit } => {
            return Answer::Status {
                running: machine.running.get(&unit) == Some(&true),
                starts: machine.starts.get(&unit).copied().unwrap_or(0),
            };
        }
        Request::Stop { unit } => {
            machine.running.insert(unit, false);
        }
        Request::Start { unit } | Request::Restart { unit } => {
            machine.running.insert(unit, true);
            *machine.starts.entry(unit).or_default() += 1;
            match unit {
                Unit::Openclaw => {
                    let bytes = fs::read(layout.openclaw_config()).unwrap();
                    machine.openclaw_config = serde_json::from_slice(&bytes).unwrap();
                }
                Unit::Cloudflared => machine.token_running = machine.token_file.clone(),
                Unit::Agent => {}
            }
        }
        Request::WriteTunnelToken { token } => machine.token_file = token,
        other => return Answer::failed(Reason::Refused, format!("not played here: {other:?}")),
    }
    Answer::Done
}

/// Waits until `look` sees something.
pub(crate) async fn eventually<T, F: Future<Output = Option<T>>>(
    what: &str,
    mut look: impl FnMut() -> F,
) -> T {
    let begin = Instant::now();
    loop {
        if let Some(seen) = look().await {
            return seen;
        }
        assert!(begin.elapsed() < Duration::from_secs(60), "never happened: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Everything that any test of this program logged, at the finest level.
pub(crate) static LOGS: LazyLock<Logs> = LazyLock::new(Logs::default);

#[derive(Clone, Default)]
pub(crate) struct Logs {
    text: Arc<Mutex<Vec<u8>>>,
    once: Arc<OnceHolder>,
}

struct OnceHolder(Once);

impl Default for OnceHolder {
    fn default() -> Self {
        Self(Once::new())
    }
}

impl Logs {
    fn begin(&self) {
        let logs = self.clone();
        self.once.0.call_once(|| {
            tracing_subscriber::fmt()
                .with_max_level(tracing::Level::TRACE)
                .with_ansi(false)
                .with_writer(move || logs.clone())
                .init();
        });
    }

    pub(crate) fn contains(&self, text: &str) -> bool {
        let logs = self.text.lock().unwrap();
        logs.windows(text.len()).any(|window| window == text.as_bytes())
    }
}

impl io::Write for Logs {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.text.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
