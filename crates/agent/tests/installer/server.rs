//! A server in a temporary folder: what user-data left, an installer, and a machine that starts what
//! `current` names, as systemd would.

use std::{
    collections::HashMap,
    fs, io,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use moorage_agent::{
    Disk, Layout, UnixSocket,
    accounts::User,
    installer::{
        client::{InstallerClient, UnitStatus},
        confirmation::Confirmation,
        protocol::{Inventory, SignedCall},
        roll_back,
        server::Installer,
        settings::InstallerSettings,
        units::{Down, Service, UnitError, Units},
        update::UpdateTiming,
    },
};
use moorage_wire::{Program, Sha256, desired::Artifact};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixListener,
    sync::mpsc,
    task::JoinSet,
};

use crate::{
    order::{Release, artifact, bootstrap},
    program::{Behaviour, program},
};

const AGENT: Program = Program::Agent;

/// What runs on the server.
#[derive(Default)]
pub(crate) struct Running {
    pub(crate) services: HashMap<Service, bool>,
    pub(crate) calls: Vec<String>,
    /// Whether the machine says that it still boots, and how often it was asked.
    pub(crate) boots: bool,
    pub(crate) asked_whether_it_boots: u32,
    /// The agent's process.
    agent: JoinSet<()>,
}

/// The stand-in for systemd.
#[derive(Clone)]
pub(crate) struct Machine {
    layout: Layout,
    pub(crate) running: Arc<Mutex<Running>>,
    installer_wanted: mpsc::UnboundedSender<()>,
}

impl Machine {
    fn note(&self, verb: &str, service: Service, runs: Option<bool>) {
        let mut running = self.running.lock().unwrap();
        running.calls.push(format!("{verb} {}", service.unit()));
        if let Some(runs) = runs {
            running.services.insert(service, runs);
        }
    }

    /// Starts the agent that `current` names.
    pub(crate) fn start_agent(&self) -> Result<(), UnitError> {
        let current = self.layout.programs().join("agent/current/moorage-agent");
        self.start_agent_that_is(Behaviour::of(&fs::read(current).unwrap()))
    }

    pub(crate) fn start_agent_that_is(&self, behaviour: Behaviour) -> Result<(), UnitError> {
        let mut running = self.running.lock().unwrap();
        running.agent = JoinSet::new();
        let _ = fs::remove_file(self.layout.agent_socket());
        match behaviour {
            Behaviour::Dead => {
                let (action, unit) = ("restart", Service::Agent.unit());
                return Err(UnitError::Job { action, unit, result: "failed".to_owned() });
            }
            Behaviour::Silent => {}
            _ => {
                let listener = UnixListener::bind(self.layout.agent_socket()).unwrap();
                running.agent.spawn(answer_health(listener));
            }
        }
        if matches!(behaviour, Behaviour::Good | Behaviour::WithoutInstaller) {
            let installer = InstallerClient::new(self.layout.installer_socket());
            running.agent.spawn(async move {
                let confirmation = Confirmation::default();
                confirmation.operator_called();
                confirmation.run(&installer).await;
            });
        }
        Ok(())
    }
}

async fn answer_health(listener: UnixListener) {
    while let Ok((mut stream, _)) = listener.accept().await {
        let mut request = [0; 1024];
        let _ = stream.read(&mut request).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
    }
}

impl Units for Machine {
    async fn status(&self, service: Service) -> Result<UnitStatus, UnitError> {
        let running = self.running.lock().unwrap().services.get(&service) == Some(&true);
        Ok(UnitStatus { running, starts: 1, failure: None })
    }

    async fn start(&self, service: Service) -> Result<(), UnitError> {
        self.note("start", service, Some(true));
        Ok(())
    }

    async fn stop(&self, service: Service) -> Result<(), UnitError> {
        self.note("stop", service, Some(false));
        Ok(())
    }

    async fn restart(&self, service: Service) -> Result<(), UnitError> {
        self.note("restart", service, Some(true));
        match service {
            Service::Agent => self.start_agent()?,
            Service::Installer => self.installer_wanted.send(()).unwrap(),
            _ => {}
        }
        Ok(())
    }

    async fn refresh(&self, service: Service) -> Result<(), UnitError> {
        self.note("refresh", service, None);
        Ok(())
    }

    async fn is_booting(&self) -> Result<bool, UnitError> {
        let mut running = self.running.lock().unwrap();
        running.asked_whether_it_boots += 1;
        Ok(running.boots)
    }

    async fn down(&self, how: Down) -> Result<(), UnitError> {
        self.running.lock().unwrap().calls.push(format!("{how:?}"));
        Ok(())
    }
}

pub(crate) struct Server {
    pub(crate) layout: Layout,
    pub(crate) machine: Machine,
    /// Who may talk to the installer.
    pub(crate) client_user: u32,
    pub(crate) timing: UpdateTiming,
    installer: Option<Installer>,
    installer_wanted: mpsc::UnboundedReceiver<()>,
    _folder: TempDir,
}

impl Server {
    /// A server whose installer is short of patience where `behaviour` uses all of it up.
    pub(crate) fn expecting(behaviour: Behaviour) -> Self {
        let (mut server, short) = (Self::new(), Duration::from_millis(500));
        match behaviour {
            Behaviour::Silent => server.timing.socket = short,
            Behaviour::Lonely => server.timing.confirmation = short,
            Behaviour::Hanging => server.timing.trial = short,
            _ => {}
        }
        server
    }

    /// A server after its first boot: an agent that works is the current one. Nothing runs yet.
    pub(crate) fn new() -> Self {
        // Making things durable takes no time there.
        let memory = Path::new("/dev/shm");
        let folder =
            if memory.is_dir() { TempDir::new_in(memory) } else { TempDir::new() }.unwrap();
        // New agents are tried by another user.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let layout = Layout::new(folder.path().to_owned());
        for file in [layout.bootstrap(), layout.agent_socket()] {
            fs::create_dir_all(file.parent().unwrap()).unwrap();
        }
        fs::create_dir_all(layout.downloads()).unwrap();
        fs::write(layout.bootstrap(), serde_json::to_vec(&bootstrap()).unwrap()).unwrap();
        let (wanted, installer_wanted) = mpsc::unbounded_channel();
        let running = Arc::new(Mutex::new(Running::default()));
        let machine = Machine { layout: layout.clone(), running, installer_wanted: wanted };
        let client_user = fs::metadata(folder.path()).unwrap().uid();
        let server = Self {
            layout,
            machine,
            client_user,
            timing: UpdateTiming {
                poll: Duration::from_millis(10),
                own_end: Duration::from_secs(5),
                ..UpdateTiming::default()
            },
            installer: None,
            installer_wanted,
            _folder: folder,
        };
        server.put_first_agent();
        server
    }

    /// What the script of the first boot does.
    fn put_first_agent(&self) {
        let bytes = program("1.0.0", Behaviour::Good);
        let folder = self.layout.programs().join("agent");
        let version = folder.join(Sha256::of(&bytes).to_string());
        fs::create_dir_all(&version).unwrap();
        let file = version.join("moorage-agent");
        fs::write(&file, bytes).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
        symlink(version.file_name().unwrap(), folder.join("current")).unwrap();
    }

    pub(crate) fn current_agent(&self) -> Option<Sha256> {
        let link = fs::read_link(self.layout.programs().join("agent/current")).ok()?;
        link.to_str()?.parse().ok()
    }

    fn settings(&self) -> InstallerSettings {
        let own = fs::metadata(self.layout.programs()).unwrap();
        InstallerSettings {
            layout: self.layout.clone(),
            listen: UnixSocket::Made(self.layout.installer_socket()),
            client: self.client_user.to_string().parse().unwrap(),
            token_group: Some(own.gid()),
            trial_user: (own.uid() == 0).then_some(User { uid: 65534, gid: 65534 }),
            running: self.current_agent(),
            timing: self.timing.clone(),
        }
    }

    /// Starts the installer that `current` names, as systemd would.
    pub(crate) async fn start_installer(&mut self, disk: Disk) {
        self.installer = None;
        let current = self.layout.programs().join("agent/current/moorage-agent");
        if Behaviour::of(&fs::read(current).unwrap()) == Behaviour::WithoutInstaller {
            let layout = self.layout.clone();
            // It asks for the installer to be started, or leaves it.
            let _ = roll_back::roll_back(&disk, &layout, &self.machine).await;
            return;
        }
        match Installer::start(&self.settings(), disk, self.machine.clone()) {
            Ok(installer) => self.installer = Some(installer),
            Err(error) => eprintln!("the installer does not start: {error}"),
        }
    }

    /// The machine comes up: everything is started from `current`.
    pub(crate) async fn boot(&mut self, disk: Disk) {
        self.power_cut();
        // A dead agent does not keep a machine from booting.
        let _ = self.machine.start_agent();
        self.start_installer(disk).await;
    }

    pub(crate) fn power_cut(&mut self) {
        self.installer = None;
        self.machine.running.lock().unwrap().agent = JoinSet::new();
        while self.installer_wanted.try_recv().is_ok() {}
    }

    pub(crate) fn client(&self) -> InstallerClient {
        InstallerClient::new(self.layout.installer_socket())
    }

    pub(crate) fn calls(&self) -> Vec<String> {
        self.machine.running.lock().unwrap().calls.clone()
    }

    /// Lets the machine run, with restarts of the installer, until the inventory is as wanted.
    pub(crate) async fn until(
        &mut self,
        what: &str,
        wanted: impl Fn(&Inventory) -> bool,
    ) -> Inventory {
        let begin = Instant::now();
        loop {
            if let Ok(inventory) = self.client().inventory().await
                && wanted(&inventory)
            {
                return inventory;
            }
            assert!(begin.elapsed() < Duration::from_secs(20), "{what}: not in time");
            self.run_for(Duration::from_millis(10)).await;
        }
    }

    /// Lets the machine run for a while.
    pub(crate) async fn run_for(&mut self, time: Duration) {
        tokio::select! {
            () = tokio::time::sleep(time) => {}
            Some(()) = self.installer_wanted.recv() => {
                self.start_installer(Disk::default()).await;
            }
        }
    }

    /// Until no update is under way.
    pub(crate) async fn until_settled(&mut self) -> Inventory {
        self.until("the update is over", |inventory| inventory.agent_update.is_none()).await
    }

    /// Puts a file among the downloads, as the agent does.
    pub(crate) fn fetched(&self, bytes: &[u8]) -> (Artifact, PathBuf) {
        let artifact = artifact("2.0.0", bytes);
        let file = self.layout.downloads().join(artifact.sha256.to_string());
        fs::write(&file, bytes).unwrap();
        (artifact, file)
    }

    /// A new agent with the order for it.
    pub(crate) fn new_agent(&self, behaviour: Behaviour) -> (Sha256, SignedCall, PathBuf) {
        let (artifact, file) = self.fetched(&program("2.0.0", behaviour));
        (artifact.sha256, Release::default().with(AGENT, artifact).order(), file)
    }
}

/// A disk that fails with `kind` from its step `at` on.
pub(crate) fn disk_that_fails_at(at: usize, kind: io::ErrorKind) -> (Disk, impl Fn() -> bool) {
    let steps = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counted = Arc::clone(&steps);
    let disk = Disk::with_failpoint(Arc::new(move |_, _| {
        let step = counted.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        if step < at { Ok(()) } else { Err(kind.into()) }
    }));
    (disk, move || steps.load(std::sync::atomic::Ordering::SeqCst) > at)
}
