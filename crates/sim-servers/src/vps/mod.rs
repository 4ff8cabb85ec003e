//! The process backend: each server of the cloud is a folder, an address of its own in 127.64.0.0/10
//! and a few processes: the real agent, the connector of [`crate::connector`] and the stand-in of
//! [`crate::openclaw`]. It needs neither root nor containers.
//!
//! What real servers have and these do not: cloudflared (ingress rules name `127.0.0.1` and the agent's
//! socket, which are at other addresses here; our connector maps them), cloud-init's modules other
//! than `write_files`, users (all files belong to whoever runs the simulator), packages, systemd. The
//! supervisor in `machine` plays systemd and the installer.

mod address;
pub mod agent_stand_in;
pub mod guard;
mod installer;
mod layout;
mod machine;
pub mod nspawn;
mod spawner;
mod state_dir;
mod unit;
pub mod user_data;

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use self::layout::Layout;
use self::machine::{Machine, Stop};
use self::spawner::Spawner;
use moorage_sim_clouds::{BackendError, PowerAction, ServerBoot, VpsBackend};
use parking_lot::Mutex;

pub use self::address::{AGENT_PORT, METRICS_PORT};
pub use self::state_dir::{StateDir, StateDirError};
pub use moorage_agent::installer::protocol::Unit;

/// What the process backend needs.
#[derive(Debug, Clone)]
pub struct ProcessOptions {
    /// Where the servers' folders are made.
    pub state_dir: PathBuf,
    /// This simulator's own program, for connectors, the OpenClaw stand-in and the guard.
    pub sim_bin: PathBuf,
    pub agent_bin: PathBuf,
    /// Where the edge listens for connectors.
    pub connector_edge: SocketAddr,
    /// PEM file with the authority of the edge; absolute, as the units have folders of their own.
    pub edge_ca: PathBuf,
    /// How long a server takes from power to its first unit.
    pub boot_delay: Duration,
}

/// The process backend could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ProcessBackendError {
    /// A program is missing.
    #[error("{what} `{path}` is no executable file: build it, or name another")]
    Program {
        what: &'static str,
        /// Where it was expected.
        path: PathBuf,
    },
    /// The folder is unusable.
    #[error("cannot use {path} as state directory")]
    StateDir { path: PathBuf, source: std::io::Error },
    /// Unix sockets below the folder would have names that are too long.
    #[error(
        "the state directory {path} is {excess} bytes too long for the Unix sockets below it: choose a shorter one"
    )]
    StateDirTooLong {
        path: PathBuf,
        /// In bytes.
        excess: usize,
    },
    /// The thread that starts processes could not be made.
    #[error("cannot start a thread: {0}")]
    Thread(std::io::Error),
}

/// Servers as processes of this machine, without root.
pub struct ProcessBackend {
    options: Arc<ProcessOptions>,
    spawner: Arc<Spawner>,
    machines: Mutex<HashMap<u64, Arc<Machine>>>,
}

impl ProcessBackend {
    /// Checks the programs and the state directory. Must be called within a tokio runtime.
    pub fn new(mut options: ProcessOptions) -> Result<Self, ProcessBackendError> {
        for (what, path) in
            [("the simulator", &mut options.sim_bin), ("the agent", &mut options.agent_bin)]
        {
            *path = executable(path)
                .ok_or_else(|| ProcessBackendError::Program { what, path: path.clone() })?;
        }
        let given = options.state_dir.clone();
        options.state_dir = std::fs::create_dir_all(given.join("servers"))
            .and_then(|()| given.canonicalize())
            .map_err(|source| ProcessBackendError::StateDir { path: given, source })?;
        let excess = Layout::socket_path_excess(&options.state_dir);
        if excess > 0 {
            return Err(ProcessBackendError::StateDirTooLong { path: options.state_dir, excess });
        }
        Ok(Self {
            options: Arc::new(options),
            spawner: Arc::new(Spawner::start().map_err(ProcessBackendError::Thread)?),
            machines: Mutex::default(),
        })
    }

    /// The address of a server.
    pub fn address(&self, id: u64) -> Option<Ipv4Addr> {
        self.machine(id).map(|machine| machine.address())
    }

    /// The folder that a server takes for `/`.
    pub fn root(&self, id: u64) -> Option<PathBuf> {
        self.machine(id).map(|machine| machine.root().to_owned())
    }

    /// The process ids of the units that run on a server.
    pub fn processes(&self, id: u64) -> Vec<(Unit, u32)> {
        self.machine(id).map(|machine| machine.processes()).unwrap_or_default()
    }

    fn machine(&self, id: u64) -> Option<Arc<Machine>> {
        self.machines.lock().get(&id).cloned()
    }

    fn existing(&self, id: u64) -> Result<Arc<Machine>, BackendError> {
        self.machine(id).ok_or_else(|| BackendError(format!("there is no server {id}")))
    }
}

fn executable(path: &Path) -> Option<PathBuf> {
    use std::os::unix::fs::PermissionsExt as _;
    // Absolute, but not canonical: a symlink's own name can choose what a multi-call program does.
    let path = std::path::absolute(path).ok()?;
    let metadata = std::fs::metadata(&path).ok()?;
    (metadata.is_file() && metadata.permissions().mode() & 0o111 != 0).then_some(path)
}

#[async_trait]
impl VpsBackend for ProcessBackend {
    async fn create(&self, server: ServerBoot) -> Result<(), BackendError> {
        let id = server.id;
        if self.machine(id).is_some() {
            return Err(BackendError(format!("server {id} exists already")));
        }
        let machine = Machine::make(server, self.options.clone(), self.spawner.clone())
            .await
            .map_err(|error| BackendError(format!("server {id}: {error}")))?;
        self.machines.lock().insert(id, machine.clone());
        machine.power_on().await;
        Ok(())
    }

    async fn delete(&self, id: u64) -> Result<(), BackendError> {
        let Some(machine) = self.machines.lock().remove(&id) else { return Ok(()) };
        machine.power_off(Stop::Cut).await;
        machine.erase().await.map_err(|error| BackendError(format!("server {id}: {error}")))
    }

    async fn power(&self, id: u64, action: PowerAction) -> Result<(), BackendError> {
        let machine = self.existing(id)?;
        match action {
            PowerAction::On => machine.power_on().await,
            PowerAction::Off => machine.power_off(Stop::Cut).await,
            PowerAction::Shutdown => machine.power_off(Stop::Orderly).await,
            PowerAction::Reboot => {
                machine.power_off(Stop::Orderly).await;
                machine.power_on().await;
            }
            PowerAction::Reset => {
                machine.power_off(Stop::Cut).await;
                machine.power_on().await;
            }
        }
        Ok(())
    }

    async fn rebuild(&self, server: ServerBoot) -> Result<(), BackendError> {
        let machine = self.existing(server.id)?;
        machine.power_off(Stop::Cut).await;
        machine
            .wipe(server)
            .await
            .map_err(|error| BackendError(format!("server {}: {error}", machine.id())))?;
        machine.power_on().await;
        Ok(())
    }

    async fn shutdown(&self) {
        let machines: Vec<_> = self.machines.lock().drain().map(|(_, machine)| machine).collect();
        let cuts = machines.iter().map(|machine| machine.power_off(Stop::Cut));
        futures::future::join_all(cuts).await;
    }
}
