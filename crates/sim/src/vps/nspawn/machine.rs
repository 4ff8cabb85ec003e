//! One server: its disk, its place in the network, and what happens between power on and power off.

use std::fs::{self, File};
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use rustix::process::{Pid, Signal, kill_process};
use serde::Serialize;
use serde_json::Value;
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::disk::Disk;
use super::inside::{self, CardFile};
use super::launch::LaunchOptions;
use super::network::Network;
use super::{NspawnOptions, leftovers, seed};
use crate::backend::ServerBoot;
use crate::ids::lock;
use crate::vps::spawner::Spawner;

/// How systemd-nspawn ends when its container wants to be started again.
const REBOOT: i32 = 133;

/// What all machines share.
pub(super) struct Host {
    pub(super) options: NspawnOptions,
    pub(super) network: Network,
    pub(super) prefix: String,
    pub(super) spawner: Spawner,
}

/// A server that exists.
pub(super) struct Machine {
    host: Arc<Host>,
    id: u64,
    boot: Mutex<ServerBoot>,
    /// Held while the power is switched.
    power: tokio::sync::Mutex<Option<Life>>,
    /// The process that was started, 0 while the power is off.
    process: AtomicU32,
    starts: AtomicU32,
}

/// The time between power on and power off.
struct Life {
    buttons: mpsc::UnboundedSender<Button>,
    task: JoinHandle<()>,
}

/// What can be pressed while the power is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Button {
    /// The power is cut.
    Cut,
    /// The system is asked to power off.
    Shutdown,
    /// The system is asked to reboot.
    Reboot,
}

enum Ended {
    Off,
    Again,
}

/// A server as the admin API shows it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Card {
    id: u64,
    name: String,
    addresses: Vec<IpAddr>,
    power: Power,
    cloud_init: CloudInit,
    /// How often it was started.
    starts: u32,
    /// Its folder on this machine; `console.log` is in it.
    folder: PathBuf,
}

#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "lowercase")]
enum Power {
    On,
    Off,
}

/// How far cloud-init is in this life of the server.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "lowercase")]
enum CloudInit {
    Unfinished,
    Done,
    Failed,
}

impl Machine {
    /// Makes the disk. The power is off.
    pub(super) async fn make(host: Arc<Host>, boot: ServerBoot) -> io::Result<Arc<Self>> {
        let machine = Arc::new(Self {
            host,
            id: boot.id,
            boot: Mutex::new(boot.clone()),
            power: tokio::sync::Mutex::default(),
            process: AtomicU32::new(0),
            starts: AtomicU32::new(0),
        });
        machine.wipe(boot).await?;
        Ok(machine)
    }

    /// What it was booted with.
    pub(super) fn boot(&self) -> ServerBoot {
        lock(&self.boot).clone()
    }

    /// The first process inside.
    pub(super) fn leader(&self) -> Option<i32> {
        match self.process.load(Ordering::Acquire) {
            0 => None,
            process => inside::leader(process),
        }
    }

    pub(super) fn card(&self) -> Card {
        let boot = self.boot();
        let leader = self.leader();
        let on = self.process.load(Ordering::Acquire) != 0;
        Card {
            id: self.id,
            name: boot.name,
            addresses: boot
                .ipv4
                .map(IpAddr::from)
                .into_iter()
                .chain(boot.ipv6.map(IpAddr::from))
                .collect(),
            power: if on { Power::On } else { Power::Off },
            cloud_init: leader.map_or(CloudInit::Unfinished, cloud_init),
            starts: self.starts.load(Ordering::Acquire),
            folder: self.folder(),
        }
    }

    /// Starts a life unless there is one.
    pub(super) async fn power_on(self: &Arc<Self>) -> io::Result<()> {
        let mut power = self.power.lock().await;
        if let Some(life) = power.take() {
            if self.process.load(Ordering::Acquire) != 0 {
                *power = Some(life);
                return Ok(());
            }
            // It is off already, and still putting its things in order.
            self.end(life).await;
        }
        let child = self.start().await?;
        let (buttons, pressed) = mpsc::unbounded_channel();
        let task = tokio::spawn(self.clone().live(child, pressed));
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
        *lock(&self.boot) = boot.clone();
        blocking(move || disk.make(bytes, &seed::files(&boot, fs::read(authority)?))).await?;
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

    /// Plugs the cable in and starts the container.
    async fn start(&self) -> io::Result<Child> {
        let (host, boot) = (self.host.clone(), self.boot());
        let hostname = boot.name.clone();
        blocking(move || host.network.plug(&boot)).await?;
        let options = &self.host.options;
        let launch =
            LaunchOptions::new(&self.folder(), &options.rootfs.join("root"), self.name(), hostname);
        let console =
            File::options().create(true).append(true).open(self.folder().join("console.log"))?;
        let mut command = Command::new(&options.sim_bin);
        command
            .args(["guard", "--parent", &std::process::id().to_string(), "--"])
            .args(launch.command(&options.sim_bin))
            .stdin(Stdio::null())
            .stdout(console.try_clone()?)
            .stderr(console)
            // Ctrl-C is for the simulator.
            .process_group(0);
        let child = self.host.spawner.spawn(command).await?;
        self.process.store(child.id().unwrap_or(0), Ordering::Release);
        self.starts.fetch_add(1, Ordering::AcqRel);
        self.write_card()?;
        Ok(child)
    }

    async fn live(self: Arc<Self>, mut child: Child, mut buttons: mpsc::UnboundedReceiver<Button>) {
        while let Ended::Again = self.attend(&mut child, &mut buttons).await {
            tracing::info!(server = self.id, "a server reboots");
            match self.start().await {
                Ok(next) => child = next,
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

    /// Until the container ends, by itself or by a button.
    async fn attend(
        &self,
        child: &mut Child,
        buttons: &mut mpsc::UnboundedReceiver<Button>,
    ) -> Ended {
        loop {
            let pressed = tokio::select! {
                status = child.wait() => return self.ended(status),
                button = buttons.recv() => match button {
                    None | Some(Button::Cut) => {
                        cut(child).await;
                        return Ended::Off;
                    }
                    // systemd-nspawn passes it on as the signal to power off.
                    Some(Button::Shutdown) => supervisor(child).map(|it| kill_process(it, Signal::TERM)),
                    // As Ctrl-Alt-Del.
                    Some(Button::Reboot) => {
                        let leader = self.leader().and_then(Pid::from_raw);
                        leader.map(|it| kill_process(it, Signal::INT))
                    }
                }
            };
            // A system that is not up yet does not hear a button.
            if !matches!(pressed, Some(Ok(()))) {
                tracing::warn!(server = self.id, "a server does not hear its power button");
            }
        }
    }

    fn ended(&self, status: io::Result<ExitStatus>) -> Ended {
        match status {
            Ok(status) if status.code() == Some(REBOOT) => Ended::Again,
            Ok(status) if status.success() => Ended::Off,
            Ok(status) => {
                let console = fs::read(self.folder().join("console.log")).unwrap_or_default();
                let said = String::from_utf8_lossy(&console);
                let last = said.lines().last().unwrap_or_default();
                tracing::error!(server = self.id, %status, last, "a container failed");
                Ended::Off
            }
            Err(error) => {
                tracing::error!(server = self.id, %error, "cannot wait for a container");
                Ended::Off
            }
        }
    }

    fn write_card(&self) -> io::Result<()> {
        let process = self.process.load(Ordering::Acquire);
        let card = CardFile {
            id: self.id,
            name: self.boot().name,
            process: (process != 0).then_some(process),
        };
        fs::write(self.folder().join("server.json"), serde_json::to_vec(&card)?)
    }
}

/// systemd-nspawn, the only child of what was started.
fn supervisor(child: &Child) -> Option<Pid> {
    let supervisor = child.id().and_then(inside::only_child)?;
    Pid::from_raw(i32::try_from(supervisor).ok()?)
}

/// Kills the container's supervisor, with which the kernel ends the whole process namespace.
async fn cut(child: &mut Child) {
    match supervisor(child) {
        Some(supervisor) => {
            // It may have ended since.
            let _ = kill_process(supervisor, Signal::KILL);
            let _ = child.wait().await;
        }
        // It has not come that far.
        None => drop(child.kill().await),
    }
}

/// Reads the result through the container's own root, where it is on a tmpfs of this boot.
fn cloud_init(leader: i32) -> CloudInit {
    let result =
        Path::new("/proc").join(leader.to_string()).join("root/run/cloud-init/result.json");
    let Ok(text) = fs::read(result) else { return CloudInit::Unfinished };
    match serde_json::from_slice::<Value>(&text) {
        Ok(result) if result["v1"]["errors"].as_array().is_some_and(Vec::is_empty) => {
            CloudInit::Done
        }
        Ok(_) => CloudInit::Failed,
        // It is being written.
        Err(_) => CloudInit::Unfinished,
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}
