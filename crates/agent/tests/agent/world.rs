//! A server in a temporary folder: what user-data left, an installer, a gateway and a cloudflared.

use std::{
    collections::{HashMap, HashSet},
    fs, io,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, LazyLock, Mutex, Once},
    time::Duration,
};

use axum::{Router, extract::State, http::StatusCode, routing::get};
use moorage_agent::{
    Agent, Disk, Layout, Listen, OpenClawProgram, Programs, Settings, Timing, UnixSocket,
    installer::{
        enrolment_key,
        protocol::{
            Answer, ArtifactKind, FailedAgent, InstalledArtifact, Inventory, Reason, Request, Unit,
            UnitFailure,
        },
    },
    worker,
};
use moorage_wire::{DesiredState, Sha256, bootstrap::Bootstrap, desired::Artifact};
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
    /// The token that cloudflared was started with, and the one that the edge takes.
    pub(crate) token_running: String,
    pub(crate) token_accepted: String,
    /// What the installer has, and what it was asked to make current, in order.
    pub(crate) installed: Vec<InstalledArtifact>,
    pub(crate) activated: Vec<(ArtifactKind, Sha256)>,
    pub(crate) failed_agents: Vec<FailedAgent>,
    pub(crate) agents_asked_for: Vec<Sha256>,
    /// How often the one-time key was to be erased, and how many of these times that fails.
    pub(crate) erasures: u32,
    pub(crate) failing_erasures: u32,
    /// Files of the artifact server by name; without any it answers 503.
    pub(crate) files: HashMap<String, Vec<u8>>,
    /// Versions that do not work.
    pub(crate) broken: HashSet<Sha256>,
    /// Whether OpenClaw came up.
    pub(crate) healthy: bool,
    /// How OpenClaw ends while it is not healthy. Unless systemd has given up on it, it is started
    /// again between two looks.
    pub(crate) failure: Option<UnitFailure>,
    /// So many of its restarts bring it up after all.
    pub(crate) recovers_after: Option<u32>,
    /// The tokens that its gateway takes, and what makes it read them again.
    pub(crate) gateway_tokens: HashSet<String>,
    pub(crate) gateway: Gateway,
    /// How often the installer was asked whether OpenClaw runs: once for every pass, at least.
    pub(crate) looks: u32,
    /// How many reloads of secrets it has heeded.
    pub(crate) reloads: usize,
}

/// How OpenClaw's gateway takes up another token.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Gateway {
    /// As it should.
    #[default]
    Reloads,
    /// A reload does nothing; a start helps.
    IgnoresReloads,
    /// A reload adds the new token to the old one; a start helps.
    KeepsOld,
    /// It takes what it ever took.
    NeverForgets,
}

impl Machine {
    pub(crate) fn active(&self, kind: ArtifactKind) -> Option<Sha256> {
        let mut all = self.installed.iter();
        all.find(|one| one.kind == kind && one.active).map(|one| one.sha256)
    }
}

pub(crate) struct World {
    pub(crate) layout: Layout,
    pub(crate) settings: Settings,
    pub(crate) machine: Arc<Mutex<Machine>>,
    /// Where artifacts are, in managed worlds.
    pub(crate) artifacts: String,
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
        let mut settings = Settings::new(Layout::new(folder.path().to_owned()));
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
        let router = gateway(Arc::clone(&machine)).merge(tools(Arc::clone(&machine), &layout));
        settings.gateway = serve(&mut tasks, router).await;
        settings.cloudflared_metrics = serve(&mut tasks, metrics(Arc::clone(&machine))).await;
        settings.listen = Listen::Tcp(SocketAddr::from(([127, 0, 0, 1], 0)));
        settings.programs = Programs::External;
        let fake = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/agent/fake-openclaw.sh");
        settings.openclaw = OpenClawProgram { openclaw: PathBuf::from(fake), node: None };
        settings.timing = quick();
        let artifacts = String::new();
        let mut world = Self { layout, settings, machine, artifacts, tasks, folder };
        world.start_installer();
        world
    }

    /// A server on which the agent installs programs and leaves OpenClaw's files to a worker.
    pub(crate) async fn managed() -> Self {
        let mut world = Self::new().await;
        let address = serve(&mut world.tasks, artifacts(Arc::clone(&world.machine))).await;
        world.artifacts = format!("http://{address}");
        let socket = world.layout.worker_socket();
        world.settings.programs = Programs::Managed { worker_socket: socket.clone() };
        let (layout, program) = (world.layout.clone(), world.settings.openclaw.clone());
        let gateway = world.settings.gateway;
        let client = rustix::process::getuid().as_raw().to_string().parse().unwrap();
        world.tasks.spawn(async move {
            worker::serve(&UnixSocket::Made(socket), client, layout, program, gateway)
                .await
                .unwrap();
        });
        // What user-data and the first boot brought.
        world.machine(|machine| {
            for kind in [ArtifactKind::Cloudflared, ArtifactKind::Agent] {
                let sha256 = Sha256::of(format!("{}-1", kind.folder()).as_bytes());
                machine.installed.push(InstalledArtifact { kind, sha256, active: true });
            }
        });
        world
    }

    /// A document with these versions of OpenClaw, cloudflared and the agent, all of them published.
    pub(crate) fn release(&self, config: Value, versions: [u32; 3]) -> DesiredState {
        let mut document = crate::operator::desired(config, &[]);
        let artifact = |name: &str, version: u32| {
            let bytes = format!("{name}-{version}").into_bytes();
            let artifact = Artifact {
                version: format!("2026.9.{version}"),
                url: format!("{}/{name}-{version}", self.artifacts),
                sha256: Sha256::of(&bytes),
                size: bytes.len() as u64,
            };
            self.machine(|machine| machine.files.insert(format!("{name}-{version}"), bytes));
            artifact
        };
        document.artifacts.openclaw = artifact("openclaw", versions[0]);
        document.artifacts.node = artifact("node", 1);
        document.artifacts.cloudflared = artifact("cloudflared", versions[1]);
        document.artifacts.agent = artifact("agent", versions[2]);
        document
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
        calls(&self.layout, what)
    }
}

fn quick() -> Timing {
    let milliseconds = Duration::from_millis;
    Timing {
        health_deadline: Duration::from_secs(5),
        reconcile_interval: milliseconds(200),
        retry_after_failure: milliseconds(20),
        reload_patience: milliseconds(100),
        fetch_retry: (milliseconds(20), milliseconds(100)),
        repair_interval: milliseconds(300),
        connect_deadline: Duration::from_secs(2),
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
        code(running && machine.healthy)
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

/// The call by which a token can be tried.
fn tools(machine: Shared, layout: &Layout) -> Router {
    async fn invoke(
        State((machine, layout)): State<(Shared, Layout)>,
        headers: axum::http::HeaderMap,
    ) -> StatusCode {
        let reloads = calls(&layout, "reload");
        let mut machine = machine.lock().unwrap();
        if reloads > machine.reloads {
            machine.reloads = reloads;
            read_gateway_token(&mut machine, &layout, false);
        }
        let shown = headers.get("authorization").and_then(|value| value.to_str().ok());
        let shown = shown.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default();
        let taken = machine.gateway_tokens.contains(shown);
        if taken { StatusCode::BAD_REQUEST } else { StatusCode::UNAUTHORIZED }
    }
    Router::new()
        .route("/tools/invoke", axum::routing::post(invoke))
        .with_state((machine, layout.clone()))
}

fn read_gateway_token(machine: &mut Machine, layout: &Layout, starts: bool) {
    let forgets = match machine.gateway {
        Gateway::Reloads => true,
        Gateway::IgnoresReloads if !starts => return,
        Gateway::IgnoresReloads => true,
        Gateway::KeepsOld => starts,
        Gateway::NeverForgets => false,
    };
    if forgets {
        machine.gateway_tokens.clear();
    }
    let secrets = fs::read(layout.secrets()).unwrap_or_else(|_| b"{}".to_vec());
    let secrets: Value = serde_json::from_slice(&secrets).unwrap();
    machine.gateway_tokens.extend(secrets["moorage-gateway"].as_str().map(str::to_owned));
}

fn calls(layout: &Layout, what: &str) -> usize {
    let path = layout.openclaw_state().join("calls");
    fs::read_to_string(path).map_or(0, |text| text.lines().filter(|line| *line == what).count())
}

fn artifacts(machine: Shared) -> Router {
    async fn file(
        State(machine): State<Shared>,
        axum::extract::Path(name): axum::extract::Path<String>,
    ) -> Result<Vec<u8>, StatusCode> {
        let machine = machine.lock().unwrap();
        if machine.files.is_empty() {
            return Err(StatusCode::SERVICE_UNAVAILABLE);
        }
        machine.files.get(&name).cloned().ok_or(StatusCode::NOT_FOUND)
    }
    Router::new().route("/{name}", get(file)).with_state(machine)
}

fn metrics(machine: Shared) -> Router {
    async fn ready(State(machine): State<Shared>) -> StatusCode {
        let machine = machine.lock().unwrap();
        let running = machine.running.get(&Unit::Cloudflared) == Some(&true);
        let works = machine
            .active(ArtifactKind::Cloudflared)
            .is_none_or(|version| !machine.broken.contains(&version));
        code(running && works && machine.token_running == machine.token_accepted)
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
            machine.looks += u32::from(unit == Unit::Openclaw);
            let running = machine.running.get(&unit) == Some(&true);
            let starts = machine.starts.get(&unit).copied().unwrap_or(0);
            let failure = machine.failure.filter(|_| unit == Unit::Openclaw && running);
            let Some(failure) = failure.filter(|_| !machine.healthy) else {
                return Answer::Status { running, starts, failure: None };
            };
            if !failure.given_up {
                let restarts = failure.restarts + 1;
                machine.failure = Some(UnitFailure { restarts, ..failure });
                let data = migrate(machine, layout);
                machine.healthy = data || machine.recovers_after == Some(restarts);
            }
            return Answer::Status { running: false, starts, failure: Some(failure) };
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
                    read_gateway_token(machine, layout, true);
                    let data = migrate(machine, layout);
                    machine.healthy =
                        data && machine.openclaw_config.get("fakeUnhealthy").is_none();
                }
                Unit::Cloudflared => {
                    let token = fs::read_to_string(layout.tunnel_token()).unwrap();
                    token.trim().clone_into(&mut machine.token_running);
                }
                Unit::Agent => {}
            }
        }
        Request::WriteTunnelToken { token } => {
            fs::write(layout.tunnel_token(), format!("{token}\n")).unwrap();
        }
        Request::EraseEnrolmentKey => {
            machine.erasures += 1;
            if machine.erasures <= machine.failing_erasures {
                return Answer::failed(Reason::System, "not now");
            }
            enrolment_key::erase(&Disk::default(), layout).unwrap();
        }
        Request::Installed => {
            return Answer::Installed(Inventory {
                artifacts: machine.installed.clone(),
                agent_update: None,
                failed_agents: machine.failed_agents.clone(),
            });
        }
        Request::Install { order, kind, file } => {
            let order = order.verify(&bootstrap()).unwrap();
            let sha256 = kind.of(&order.artifacts).sha256;
            if Sha256::of(&fs::read(file).unwrap()) != sha256 {
                return Answer::failed(Reason::WrongBytes, "other bytes");
            }
            machine.installed.push(InstalledArtifact { kind, sha256, active: false });
        }
        Request::Activate { kind, sha256 } => {
            let mut found = false;
            for one in machine.installed.iter_mut().filter(|one| one.kind == kind) {
                one.active = one.sha256 == sha256;
                found |= one.active;
            }
            assert!(found, "{kind:?} {sha256} is not installed");
            machine.activated.push((kind, sha256));
        }
        Request::UpdateAgent { order, file } => {
            let order = order.verify(&bootstrap()).unwrap();
            assert_eq!(Sha256::of(&fs::read(file).unwrap()), order.artifacts.agent.sha256);
            machine.agents_asked_for.push(order.artifacts.agent.sha256);
        }
        Request::ConfirmAgent => {}
        other @ (Request::PowerOff | Request::Reboot) => {
            return Answer::failed(Reason::Refused, format!("not played here: {other:?}"));
        }
    }
    Answer::Done
}

/// Plays what an OpenClaw does with its data: a newer one migrates it, an older one cannot read what
/// a newer one has migrated, a broken one ruins it. Whether it works.
fn migrate(machine: &Machine, layout: &Layout) -> bool {
    let Some(version) = machine.active(ArtifactKind::Openclaw) else { return true };
    let installed = machine.installed.iter().filter(|one| one.kind == ArtifactKind::Openclaw);
    let age = |version: &str| installed.clone().position(|one| one.sha256.to_string() == version);
    let path = layout.openclaw_state().join("data");
    let data = fs::read_to_string(&path).unwrap_or_default();
    let (data_age, own_age) = (age(&data), age(&version.to_string()));
    if !data.is_empty() && data_age > own_age {
        return false;
    }
    fs::write(path, version.to_string()).unwrap();
    !machine.broken.contains(&version)
}

/// Waits until `look` sees something.
pub(crate) async fn eventually<T>(what: &str, look: impl AsyncFnMut() -> Option<T>) -> T {
    moorage_testbed::eventually(what, Duration::from_secs(60), look).await
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
