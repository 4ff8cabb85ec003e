//! The nspawn backend: each server of the cloud is a Debian with its own systemd and cloud-init, booted
//! by systemd-nspawn on a disk image of its own, in a network that ends at the simulator. It needs root.
//!
//! What real servers have and these do not: a kernel of their own (so no modules, no clock that could
//! be set, no memory or processor limits), and a power cut never loses what was written. Where that
//! matters, a server can be a virtual machine instead, which is slower to boot and otherwise the same
//! to everybody. Everything a server consists of dies with the simulator; names carry a tag of its state
//! directory, by which the next start of any simulator finds what is left.

mod admin;
mod card;
mod cgroup;
mod disk;
mod exec;
mod guest_agent;
mod hardware;
pub mod inside;
pub mod launch;
mod leftovers;
mod machine;
mod monitor;
mod namespace;
mod network;
pub mod qemu;
mod running;
mod seed;
mod services;

use std::collections::HashMap;
use std::fs::{File, TryLockError};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use axum::Router;

use self::hardware::Catalogue;
use self::leftovers::{Registry, Tag};
use self::machine::{Host, Machine};
use self::network::Network;
use self::running::Button;
use self::services::Services;
use super::spawner::Spawner;
use moorage_sim_clouds::{BackendError, PowerAction, ServerBoot, VpsBackend};
use parking_lot::Mutex;

pub use self::hardware::Acceleration;
pub use self::services::ARTIFACTS_NAME;

/// What the nspawn backend needs.
#[derive(Debug, Clone)]
pub struct NspawnOptions {
    /// Where the servers' folders are made.
    pub state_dir: PathBuf,
    /// This simulator's own program.
    pub sim_bin: PathBuf,
    /// What `hack/lab.sh` has made: `root/`, `lab.json` and `lock`.
    pub rootfs: PathBuf,
    /// The folder that the artifact server shows.
    pub artifacts: Option<PathBuf>,
    /// Where the edge listens for connectors.
    pub connector_edge: SocketAddr,
    /// PEM of the authority that connectors trust.
    pub edge_ca: PathBuf,
    /// How services end TLS, with certificates of that authority.
    pub tls: Arc<rustls::ServerConfig>,
    /// URL of the npm registry behind the lab's one.
    pub npm_registry: String,
    /// Size of a server's disk, in bytes.
    pub disk_bytes: u64,
    /// How virtual machines run.
    pub acceleration: Acceleration,
}

/// The nspawn backend could not be made.
#[derive(Debug, thiserror::Error)]
pub enum NspawnError {
    #[error("the nspawn backend needs root")]
    NotRoot,
    /// The shared tree is not what it should be.
    #[error("{path} is no root filesystem of hack/lab.sh: {source}")]
    Rootfs {
        /// Where it was expected.
        path: PathBuf,
        source: io::Error,
    },
    /// The machine refuses something.
    #[error("cannot {what}: {source}")]
    Machine { what: &'static str, source: io::Error },
}

fn failed(what: &'static str) -> impl FnOnce(io::Error) -> NspawnError {
    move |source| NspawnError::Machine { what, source }
}

type Machines = Arc<Mutex<HashMap<u64, Arc<Machine>>>>;

/// Servers as containers of systemd-nspawn, or as virtual machines.
pub struct NspawnBackend {
    host: Arc<Host>,
    machines: Machines,
    services: Services,
    tag: Tag,
    /// Keeps the shared tree from being pruned.
    _rootfs: File,
}

impl NspawnBackend {
    /// Removes what killed simulators have left, and makes the network and its services.
    pub async fn start(mut options: NspawnOptions) -> Result<Self, NspawnError> {
        if !rustix::process::geteuid().is_root() {
            return Err(NspawnError::NotRoot);
        }
        let rootfs = open_rootfs(&mut options)?;
        options.state_dir =
            options.state_dir.canonicalize().map_err(failed("use the state directory"))?;
        let tag = prepare(&options).await?;
        let network = Network::make(tag.prefix()).map_err(failed("make the network"))?;
        let spawner = Spawner::start().map_err(failed("start a thread"))?;
        let prefix = tag.prefix().to_owned();
        let host =
            Arc::new(Host { options, network, prefix, spawner, catalogue: Catalogue::default() });
        let machines = Machines::default();
        let services = Services::start(&host, machines.clone());
        let services = services.map_err(failed("serve the servers' network"))?;
        Ok(Self { host, machines, services, tag, _rootfs: rootfs })
    }

    fn machine(&self, id: u64) -> Option<Arc<Machine>> {
        self.machines.lock().get(&id).cloned()
    }

    fn existing(&self, id: u64) -> Result<Arc<Machine>, BackendError> {
        self.machine(id).ok_or_else(|| BackendError(format!("there is no server {id}")))
    }
}

/// Takes the shared tree, so that nobody prunes it.
fn open_rootfs(options: &mut NspawnOptions) -> Result<File, NspawnError> {
    let wrong = |source| NspawnError::Rootfs { path: options.rootfs.clone(), source };
    let rootfs = options.rootfs.canonicalize().map_err(wrong)?;
    let lock = File::open(rootfs.join("lock")).map_err(wrong)?;
    lock.try_lock_shared().map_err(|error| match error {
        TryLockError::WouldBlock => wrong(io::Error::other("it is being removed")),
        TryLockError::Error(error) => wrong(error),
    })?;
    std::fs::metadata(rootfs.join("root/usr/lib/systemd/systemd")).map_err(wrong)?;
    options.rootfs = rootfs;
    Ok(lock)
}

/// Sweeps, and takes the tag of this simulator.
async fn prepare(options: &NspawnOptions) -> Result<Tag, NspawnError> {
    let state_dir = options.state_dir.clone();
    let work = move || {
        let registry = Registry::open()?;
        leftovers::sweep(&registry)?;
        let tag = Tag::take(&registry, &state_dir)?;
        leftovers::clean(tag.prefix())?;
        leftovers::remove_servers(&state_dir)?;
        Ok(tag)
    };
    let work = tokio::task::spawn_blocking(work).await.map_err(io::Error::other);
    work.and_then(|tag| tag).map_err(failed("remove what is left of an earlier simulator"))
}

fn of_server(id: u64) -> impl FnOnce(io::Error) -> BackendError {
    move |error| BackendError(format!("server {id}: {error}"))
}

/// The server that has this address.
fn by_address(machines: &Machines, address: IpAddr) -> Option<ServerBoot> {
    let machines = machines.lock();
    machines.values().map(|machine| machine.boot()).find(|boot| match address {
        IpAddr::V4(address) => boot.ipv4 == Some(address),
        IpAddr::V6(address) => boot.ipv6 == Some(address),
    })
}

#[async_trait]
impl VpsBackend for NspawnBackend {
    async fn create(&self, server: ServerBoot) -> Result<(), BackendError> {
        let id = server.id;
        if self.machine(id).is_some() {
            return Err(BackendError(format!("server {id} exists already")));
        }
        let machine = Machine::make(self.host.clone(), server).await.map_err(of_server(id))?;
        self.machines.lock().insert(id, machine.clone());
        machine.power_on().await.map_err(of_server(id))
    }

    async fn delete(&self, id: u64) -> Result<(), BackendError> {
        let Some(machine) = self.machines.lock().remove(&id) else { return Ok(()) };
        machine.cut().await;
        machine.erase().await.map_err(of_server(id))
    }

    async fn power(&self, id: u64, action: PowerAction) -> Result<(), BackendError> {
        let machine = self.existing(id)?;
        match action {
            PowerAction::On => machine.power_on().await.map_err(of_server(id))?,
            PowerAction::Off => machine.cut().await,
            PowerAction::Shutdown => machine.press(Button::Shutdown).await,
            PowerAction::Reboot => machine.press(Button::Reboot).await,
            PowerAction::Reset => {
                machine.cut().await;
                machine.power_on().await.map_err(of_server(id))?;
            }
        }
        Ok(())
    }

    async fn rebuild(&self, server: ServerBoot) -> Result<(), BackendError> {
        let id = server.id;
        let machine = self.existing(id)?;
        machine.cut().await;
        machine.wipe(server).await.map_err(of_server(id))?;
        machine.power_on().await.map_err(of_server(id))
    }

    fn is_off_by_itself(&self, id: u64) -> bool {
        self.machine(id).is_some_and(|machine| machine.is_off_by_itself())
    }

    async fn shutdown(&self) {
        let machines: Vec<_> = self.machines.lock().drain().map(|(_, machine)| machine).collect();
        let ends = machines.iter().map(|machine| async move {
            machine.cut().await;
            machine.erase().await
        });
        for ended in futures::future::join_all(ends).await {
            if let Err(error) = ended {
                tracing::warn!(%error, "a server leaves something behind");
            }
        }
        self.services.stop().await;
        if let Err(error) = self.host.network.remove() {
            tracing::warn!(%error, "cannot remove the network");
        }
        self.tag.release();
    }

    fn admin_routes(&self) -> Router {
        admin::router(self.host.clone(), self.machines.clone(), self.services.artifacts())
    }
}
