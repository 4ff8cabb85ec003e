//! A server in a temporary folder: what user-data left, an installer, a gateway and a cloudflared.

use std::{
    collections::HashMap,
    fs,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::Router;
use moorage_agent::{
    Agent, Disk, Layout, Listen, OpenClawProgram, Programs, Settings, Timing, UnixSocket,
    installer::{
        self,
        protocol::{InstalledArtifact, Unit},
    },
    worker,
};
use moorage_wire::{DesiredState, Program, Sha256, bootstrap::Bootstrap, desired::Artifact};
use serde_json::Value;
use tokio::{
    net::{TcpListener, UnixListener},
    sync::OnceCell,
    task::{AbortHandle, JoinSet},
};

use crate::{
    installer::install,
    logs::LOGS,
    machine::{Machine, artifacts, calls, gateway, metrics, tools},
    operator::{Operator, bootstrap},
};

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
        static KEYS: OnceCell<[Vec<u8>; 2]> = OnceCell::const_new();
        let keys = KEYS.get_or_init(|| async {
            let world = Self::without_keys().await;
            let _agent = world.start().await;
            let own = eventually("the agent makes its keys", || async {
                fs::read(world.layout.identity()).ok()
            });
            [own.await, fs::read(world.layout.worker_key()).unwrap()]
        });
        let world = Self::without_keys().await;
        let [own, workers] = keys.await;
        for folder in [world.layout.state(), world.layout.worker_state()] {
            fs::create_dir_all(folder).unwrap();
        }
        fs::write(world.layout.identity(), own).unwrap();
        fs::write(world.layout.worker_key(), workers).unwrap();
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
        let mut world = Self::managed_without_worker().await;
        world.start_worker();
        world
    }

    /// The same before the worker runs.
    pub(crate) async fn managed_without_worker() -> Self {
        let mut world = Self::new().await;
        let address = serve(&mut world.tasks, artifacts(Arc::clone(&world.machine))).await;
        world.artifacts = format!("http://{address}");
        // As the installer does, which is played here.
        installer::operator::publish(&Disk::default(), &world.layout).unwrap();
        world.settings.programs = Programs::Managed { worker_socket: world.layout.worker_socket() };
        // What user-data and the first boot brought.
        world.machine(|machine| {
            for kind in [Program::Cloudflared, Program::Agent] {
                let sha256 = Sha256::of(format!("{}-1", kind.name()).as_bytes());
                machine.installed.push(InstalledArtifact { kind, sha256, active: true });
            }
        });
        world
    }

    /// Starts the worker; it ends when it is aborted.
    pub(crate) fn start_worker(&mut self) -> AbortHandle {
        let socket = UnixSocket::Made(self.layout.worker_socket());
        let (layout, program) = (self.layout.clone(), self.settings.openclaw.clone());
        let gateway = self.settings.gateway;
        let client = rustix::process::getuid().as_raw().to_string().parse().unwrap();
        self.tasks.spawn(async move {
            worker::serve(&socket, client, layout, program, gateway).await.unwrap();
        })
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
        audit_retry: (milliseconds(20), milliseconds(100)),
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

/// Waits until `look` sees something.
pub(crate) async fn eventually<T>(what: &str, look: impl AsyncFnMut() -> Option<T>) -> T {
    moorage_testbed::eventually(what, Duration::from_secs(60), look).await
}
