//! One server: its disk, its place in the network, and what happens between power on and power off.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::process::Command;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::card::{Card, CloudInit, Power};
use super::disk::Disk;
use super::exec::{ExecAnswer, ExecRequest};
use super::hardware::{Catalogue, Hardware};
use super::inside::{self, CardFile};
use super::launch::LaunchOptions;
use super::network::{Cable, Network};
use super::running::{Button, Ended, Running};
use super::{NspawnOptions, guest_agent, leftovers, qemu, seed};
use crate::vps::spawner::Spawner;
use moorage_sim_clouds::ServerBoot;

/// What all machines share.
pub(super) struct Host {
    pub(super) options: NspawnOptions,
    pub(super) network: Network,
    pub(super) prefix: String,
    pub(super) spawner: Spawner,
    pub(super) catalogue: Catalogue,
}

/// A server that exists.
pub(super) struct Machine {
    host: Arc<Host>,
    id: u64,
    hardware: Hardware,
    boot: Mutex<ServerBoot>,
    /// Held while the power is switched.
    power: tokio::sync::Mutex<Option<Life>>,
    /// The process that was started, 0 while the power is off.
    process: AtomicU32,
    starts: AtomicU32,
    /// Whether its last life ended by itself.
    off_by_itself: AtomicBool,
}

/// The time between power on and power off.
struct Life {
    buttons: mpsc::UnboundedSender<Button>,
    task: JoinHandle<()>,
}

impl Machine {
    /// Makes the disk. The power is off.
    pub(super) async fn make(host: Arc<Host>, boot: ServerBoot) -> io::Result<Arc<Self>> {
        let hardware = host.catalogue.of(&boot.name);
        let machine = Arc::new(Self {
            host,
            id: boot.id,
            hardware,
            boot: Mutex::new(boot.clone()),
            power: tokio::sync::Mutex::default(),
            process: AtomicU32::new(0),
            starts: AtomicU32::new(0),
            off_by_itself: AtomicBool::new(false),
        });
        machine.wipe(boot).await?;
        Ok(machine)
    }

    /// What it was booted with.
    pub(super) fn boot(&self) -> ServerBoot {
        self.boot.lock().clone()
    }

    /// Runs a program inside; `None` while nothing can run there.
    pub(super) async fn exec(&self, request: ExecRequest) -> io::Result<Option<ExecAnswer>> {
        self.exec_within(guest_agent::ANSWER_TIMEOUT, request).await
    }

    /// `presence` is how long a virtual machine may take to be ready for it.
    async fn exec_within(
        &self,
        presence: Duration,
        request: ExecRequest,
    ) -> io::Result<Option<ExecAnswer>> {
        let process = self.process.load(Ordering::Acquire);
        let answer = match self.hardware {
            _ if process == 0 => return Ok(None),
            Hardware::Container => match inside::leader(process) {
                None => return Ok(None),
                Some(leader) => inside::exec(leader, request).await,
            },
            Hardware::VirtualMachine { .. } => {
                let agent = self.folder().join(qemu::AGENT_SOCKET);
                guest_agent::exec(&agent, presence, request).await
            }
        };
        answer.map(Some)
    }

    pub(super) async fn card(&self) -> Card {
        let boot = self.boot();
        let on = self.process.load(Ordering::Acquire) != 0;
        Card {
            id: self.id,
            name: boot.name,
            hardware: self.hardware,
            addresses: boot
                .ipv4
                .map(IpAddr::from)
                .into_iter()
                .chain(boot.ipv6.map(IpAddr::from))
                .collect(),
            power: if on { Power::On } else { Power::Off },
            cloud_init: self.cloud_init().await,
            starts: self.starts.load(Ordering::Acquire),
            folder: self.folder(),
            outside: self.host.network.outside(),
        }
    }

    /// Reads the result, which is on a tmpfs of this boot.
    async fn cloud_init(&self) -> CloudInit {
        const RESULT: &str = "/run/cloud-init/result.json";
        let text = match self.hardware {
            Hardware::Container => {
                let leader = inside::leader(self.process.load(Ordering::Acquire));
                let read = |leader| fs::read(format!("/proc/{leader}/root{RESULT}")).ok();
                leader.and_then(read)
            }
            Hardware::VirtualMachine { .. } => {
                let request = ExecRequest::of(["cat", RESULT].map(str::to_owned).into(), None);
                let read = self.exec_within(guest_agent::PRESENCE_TIMEOUT, request).await;
                read.ok().flatten().map(|answer| answer.stdout)
            }
        };
        text.map_or(CloudInit::Unfinished, |text| CloudInit::of(&text))
    }

    /// Whether it has powered itself off.
    pub(super) fn is_off_by_itself(&self) -> bool {
        self.off_by_itself.load(Ordering::Acquire)
    }

    /// Starts a life unless there is one.
    pub(super) async fn power_on(self: &Arc<Self>) -> io::Result<()> {
        self.off_by_itself.store(false, Ordering::Release);
        let mut power = self.power.lock().await;
        if let Some(life) = power.take() {
            if self.process.load(Ordering::Acquire) != 0 {
                *power = Some(life);
                return Ok(());
            }
            // It is off already, and still putting its things in order.
            self.end(life).await;
        }
        let running = self.start().await?;
        let (buttons, pressed) = mpsc::unbounded_channel();
        let task = tokio::spawn(self.clone().live(running, pressed));
        *power = Some(Life { buttons, task });
        Ok(())
    }

    /// Ends the present life, if there is one, and waits until nothing runs.
    pub(super) async fn cut(&self) {
        let mut power = self.power.lock().await;
        if let Some(life) = power.take() {
            // A life that has ended by itself listens no longer.
            let _ = life.buttons.send(Button::Cut);
            self.end(life).await;
        }
    }

    async fn end(&self, life: Life) {
        if let Err(error) = life.task.await {
            tracing::error!(server = self.id, %error, "a server's supervisor failed");
        }
    }

    /// Presses a button, which does nothing when the power is off. Does not wait for what follows.
    pub(super) async fn press(&self, button: Button) {
        if let Some(life) = self.power.lock().await.as_ref() {
            let _ = life.buttons.send(button);
        }
    }

    /// Makes an empty disk; the next start is a first boot with this user-data. The power must be off.
    pub(super) async fn wipe(&self, boot: ServerBoot) -> io::Result<()> {
        let disk = Disk::of(&self.folder());
        let (bytes, authority) = (self.host.options.disk_bytes, self.host.options.edge_ca.clone());
        *self.boot.lock() = boot.clone();
        let hardware = self.hardware;
        let files = move || Ok::<_, io::Error>(seed::files(&boot, hardware, fs::read(authority)?));
        blocking(move || disk.make(bytes, hardware.extent(), &files()?)).await?;
        self.write_card()
    }

    /// Removes everything. The power must be off.
    pub(super) async fn erase(&self) -> io::Result<()> {
        let (host, id, group) = (self.host.clone(), self.id, self.name());
        let disk = Disk::of(&self.folder());
        blocking(move || {
            leftovers::remove_group(&group)?;
            host.network.unplug(id)?;
            disk.erase()
        })
        .await
    }

    fn folder(&self) -> PathBuf {
        self.host.options.state_dir.join("servers").join(self.id.to_string())
    }

    /// Of the machine, its network namespace and its control group.
    fn name(&self) -> String {
        format!("{}{}", self.host.prefix, self.id)
    }

    /// Plugs the cable in and starts the container or virtual machine.
    async fn start(&self) -> io::Result<Running> {
        let (host, boot) = (self.host.clone(), self.boot());
        let cable = match self.hardware {
            Hardware::Container => Cable::ToNamespace,
            Hardware::VirtualMachine { .. } => Cable::Tap,
        };
        blocking(move || host.network.plug(&boot, cable)).await?;
        let options = &self.host.options;
        let console =
            File::options().create(true).append(true).open(self.folder().join("console.log"))?;
        let mut command = Command::new(&options.sim_bin);
        command
            .args(["guard", "--parent", &std::process::id().to_string(), "--"])
            .args(self.launch())
            .stdin(Stdio::null())
            .stdout(console.try_clone()?)
            .stderr(console)
            // Ctrl-C is for the simulator.
            .process_group(0);
        let child = self.host.spawner.spawn(command).await?;
        let running = match self.hardware {
            Hardware::Container => Running::container(child),
            Hardware::VirtualMachine { .. } => Running::virtual_machine(child, &self.folder()),
        };
        self.process.store(running.process().unwrap_or(0), Ordering::Release);
        self.starts.fetch_add(1, Ordering::AcqRel);
        self.write_card()?;
        Ok(running)
    }

    fn launch(&self) -> Vec<OsString> {
        let (options, folder, name) = (&self.host.options, self.folder(), self.name());
        let tree = options.rootfs.join("root");
        match self.hardware {
            Hardware::Container => {
                LaunchOptions::new(&folder, &tree, name, self.boot().name).command(&options.sim_bin)
            }
            Hardware::VirtualMachine { clock } => {
                let (network, cable) = self.host.network.tap(self.id);
                let parts = qemu::Parts {
                    tree: &tree,
                    machine: &name,
                    network: &network,
                    cable,
                    acceleration: options.acceleration,
                    clock,
                };
                qemu::command(&options.sim_bin, &folder, &parts)
            }
        }
    }

    async fn live(
        self: Arc<Self>,
        mut running: Running,
        mut buttons: mpsc::UnboundedReceiver<Button>,
    ) {
        while let Ended::Again = self.attend(running, &mut buttons).await {
            tracing::info!(server = self.id, "a server reboots");
            match self.start().await {
                Ok(next) => running = next,
                Err(error) => {
                    tracing::error!(server = self.id, %error, "a server does not boot again");
                    break;
                }
            }
        }
        self.process.store(0, Ordering::Release);
        let (host, id) = (self.host.clone(), self.id);
        let unplugged = blocking(move || host.network.unplug(id)).await;
        if let Err(error) = unplugged.and_then(|()| self.write_card()) {
            tracing::warn!(server = self.id, %error, "cannot put a server's things in order");
        }
    }

    /// Until it ends, by itself or by a button.
    async fn attend(
        &self,
        mut running: Running,
        buttons: &mut mpsc::UnboundedReceiver<Button>,
    ) -> Ended {
        loop {
            let button = tokio::select! {
                status = running.wait() => {
                    let ended = match status {
                        Ok(status) => running.ended(status).await,
                        Err(error) => Err(error),
                    };
                    return self.ended(ended);
                }
                button = buttons.recv() => button,
            };
            match button {
                None | Some(Button::Cut) => {
                    running.cut().await;
                    return Ended::Off;
                }
                Some(button) if running.press(button).await => {}
                Some(_) => {
                    tracing::warn!(server = self.id, "a server does not hear its power button");
                }
            }
        }
    }

    /// It ended by itself.
    fn ended(&self, ended: io::Result<Ended>) -> Ended {
        let ended = ended.unwrap_or_else(|error| {
            tracing::error!(server = self.id, %error, "cannot say how a server ended");
            Ended::Off
        });
        if let Ended::Failed(status) = ended {
            let console = fs::read(self.folder().join("console.log")).unwrap_or_default();
            let said = String::from_utf8_lossy(&console);
            let last = said.lines().last().unwrap_or_default();
            tracing::error!(server = self.id, %status, last, "a server failed");
        }
        self.off_by_itself.store(ended != Ended::Again, Ordering::Release);
        ended
    }

    fn write_card(&self) -> io::Result<()> {
        let process = self.process.load(Ordering::Acquire);
        CardFile {
            id: self.id,
            name: self.boot().name,
            process: (process != 0).then_some(process),
            virtual_machine: self.hardware != Hardware::Container,
        }
        .write(&self.folder())
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}
