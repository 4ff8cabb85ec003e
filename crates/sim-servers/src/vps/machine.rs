//! One server: its folder, its address, its user-data, and what happens between power on and power
//! off.

use std::ffi::OsString;
use std::io;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use moorage_wire::bootstrap::{AGENT_SOCKET_PATH, GATEWAY_PORT};
use parking_lot::Mutex;
use serde_json::json;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::address::{AGENT_PORT, METRICS_PORT, Reservation};
use super::installer::{self, Units};
use super::layout::Layout;
use super::spawner::Spawner;
use super::unit::{SupervisedUnit, UnitSpec};
use super::user_data::UserData;
use super::{ProcessOptions, Unit};
use moorage_sim_clouds::ServerBoot;

/// How long connections may take to end: less than a unit may take to stop, and demo and tests wait.
const CONNECTOR_GRACE_MS: u64 = 5_000;

/// How the power goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    Cut,
    /// Everything is asked to end, and killed when it takes too long.
    Orderly,
}

/// A server that exists.
pub(super) struct Machine {
    id: u64,
    layout: Layout,
    reservation: Reservation,
    boot: Mutex<ServerBoot>,
    /// Whether user-data was applied since the disk was empty.
    initialized: AtomicBool,
    options: Arc<ProcessOptions>,
    spawner: Arc<Spawner>,
    /// Held while the power button is pressed.
    power: tokio::sync::Mutex<Option<Life>>,
    /// The units of the present life.
    units: Mutex<Option<Arc<Units>>>,
}

/// The time between power on and power off.
struct Life {
    stop: oneshot::Sender<Stop>,
    task: JoinHandle<()>,
}

impl Machine {
    /// Makes the folder and takes an address. The power is off.
    pub(super) async fn make(
        boot: ServerBoot,
        options: Arc<ProcessOptions>,
        spawner: Arc<Spawner>,
    ) -> io::Result<Arc<Self>> {
        let layout = Layout::new(&options.state_dir, boot.id);
        let reservation = Reservation::take(boot.id)?;
        let machine = Arc::new(Self {
            id: boot.id,
            layout,
            reservation,
            boot: Mutex::new(boot.clone()),
            initialized: AtomicBool::new(false),
            options,
            spawner,
            power: tokio::sync::Mutex::default(),
            units: Mutex::default(),
        });
        machine.wipe(boot).await?;
        Ok(machine)
    }

    pub(super) fn id(&self) -> u64 {
        self.id
    }

    pub(super) fn address(&self) -> Ipv4Addr {
        self.reservation.address()
    }

    pub(super) fn root(&self) -> &Path {
        self.layout.root()
    }

    pub(super) fn processes(&self) -> Vec<(Unit, u32)> {
        let Some(units) = self.units.lock().clone() else { return Vec::new() };
        units.all().into_iter().filter_map(|(unit, held)| Some((unit, held.process()?))).collect()
    }

    /// Starts a life unless there is one.
    pub(super) async fn power_on(self: &Arc<Self>) {
        let mut power = self.power.lock().await;
        if power.is_none() {
            let (stop, stopped) = oneshot::channel();
            *power = Some(Life { stop, task: tokio::spawn(self.clone().live(stopped)) });
        }
    }

    /// Ends the present life, if there is one, and waits until nothing runs.
    pub(super) async fn power_off(&self, how: Stop) {
        let mut power = self.power.lock().await;
        if let Some(life) = power.take() {
            // A life that has ended by itself listens no longer.
            let _ = life.stop.send(how);
            if let Err(error) = life.task.await {
                tracing::error!(server = self.id, %error, "a server's supervisor failed");
            }
        }
    }

    /// Empties the disk; the next boot applies this user-data. The power must be off.
    pub(super) async fn wipe(&self, boot: ServerBoot) -> io::Result<()> {
        self.erase().await?;
        let card = json!({"id": self.id, "name": boot.name, "address": self.address()});
        std::fs::create_dir_all(self.layout.folder())?;
        std::fs::write(self.layout.card(), format!("{card:#}\n"))?;
        self.initialized.store(false, Ordering::Release);
        *self.boot.lock() = boot;
        Ok(())
    }

    /// Removes everything from the disk. The power must be off.
    pub(super) async fn erase(&self) -> io::Result<()> {
        let layout = self.layout.clone();
        tokio::task::spawn_blocking(move || layout.erase()).await.map_err(io::Error::other)?
    }

    async fn live(self: Arc<Self>, mut stopped: oneshot::Receiver<Stop>) {
        tokio::select! {
            _ = &mut stopped => return,
            () = tokio::time::sleep(self.options.boot_delay) => {}
        }
        let units = match self.boot() {
            Ok(units) => units,
            Err(error) => {
                tracing::error!(server = self.id, %error, "a server does not boot");
                return;
            }
        };
        let units = Arc::new(units);
        *self.units.lock() = Some(units.clone());
        let how = tokio::select! {
            how = &mut stopped => how.unwrap_or(Stop::Cut),
            () = self.run(&units) => Stop::Cut,
        };
        for (unit, held) in units.all() {
            let ended = match how {
                Stop::Cut => held.cut().await,
                Stop::Orderly => held.stop().await,
            };
            if let Err(error) = ended {
                tracing::error!(server = self.id, ?unit, %error, "a unit did not stop");
            }
        }
        *self.units.lock() = None;
    }

    /// Everything before the first unit.
    fn boot(&self) -> io::Result<Units> {
        self.layout.prepare(&self.options.sim_bin)?;
        if !self.initialized.swap(true, Ordering::AcqRel) {
            self.initialize()?;
        }
        Ok(Units {
            agent: self.unit(Unit::Agent),
            cloudflared: self.unit(Unit::Cloudflared),
            openclaw: self.unit(Unit::Openclaw),
        })
    }

    /// Plays cloud-init. Wrong user-data does not keep a real server from booting either.
    fn initialize(&self) -> io::Result<()> {
        let boot = self.boot.lock().clone();
        let applied =
            UserData::parse(&boot.user_data).and_then(|data| data.apply(self.layout.root()));
        let line = match applied {
            Ok(files) => format!("user-data applied, {files} files written\n"),
            Err(error) => {
                tracing::warn!(server = self.id, %error, "user-data not applied");
                format!("user-data not applied: {error}\n")
            }
        };
        std::fs::write(self.layout.cloud_init_log(), line)
    }

    /// Starts the units that boot by themselves, and serves the installer.
    async fn run(&self, units: &Arc<Units>) {
        let socket = match installer::bind(&self.layout.installer_socket()) {
            Ok(socket) => socket,
            Err(error) => {
                tracing::error!(server = self.id, %error, "the installer's socket cannot be made");
                return;
            }
        };
        // As `ConditionPathExists=`: without what user-data brings there is nothing to run.
        let conditions = [
            (&units.cloudflared, self.layout.tunnel_token()),
            (&units.agent, self.layout.bootstrap()),
        ];
        for (unit, needed) in conditions {
            if needed.is_file()
                && let Err(error) = unit.start().await
            {
                tracing::error!(server = self.id, %error, "a unit does not start");
            }
        }
        installer::serve(socket, units.clone(), self.layout.tunnel_token()).await;
    }

    fn unit(&self, unit: Unit) -> SupervisedUnit {
        let address = self.address();
        let layout = &self.layout;
        let text = OsString::from;
        let flags = |flags: &[(&str, OsString)]| -> Vec<OsString> {
            flags.iter().flat_map(|(name, value)| [OsString::from(name), value.clone()]).collect()
        };
        let gateway = format!("{address}:{GATEWAY_PORT}");
        let metrics = format!("{address}:{METRICS_PORT}");
        let (program, verb, arguments, environment) = match unit {
            Unit::Agent => (
                self.options.agent_bin.clone(),
                "serve",
                flags(&[
                    ("--root", layout.root().into()),
                    ("--listen", text(format!("tcp:{address}:{AGENT_PORT}"))),
                    ("--gateway", text(gateway)),
                    ("--cloudflared-metrics", text(metrics)),
                    ("--installer-socket", layout.installer_socket().into()),
                    // Everything is there, and there is one user.
                    ("--programs", text("external".to_owned())),
                    ("--openclaw-bin", layout.openclaw_program().into()),
                ]),
                Vec::new(),
            ),
            Unit::Cloudflared => (
                self.options.sim_bin.clone(),
                "connector",
                flags(&[
                    ("--token-file", layout.tunnel_token().into()),
                    ("--edge", text(self.options.connector_edge.to_string())),
                    ("--cacert", self.options.edge_ca.clone().into()),
                    ("--metrics", text(metrics)),
                    ("--grace-ms", text(CONNECTOR_GRACE_MS.to_string())),
                    ("--map", text(format!("127.0.0.1={address}"))),
                    ("--map", text(format!("localhost={address}"))),
                    ("--map", text(format!("unix:{AGENT_SOCKET_PATH}={address}:{AGENT_PORT}"))),
                ]),
                Vec::new(),
            ),
            Unit::Openclaw => (
                layout.openclaw_program(),
                "gateway",
                Vec::new(),
                vec![
                    ("OPENCLAW_CONFIG_PATH", layout.openclaw_state().join("openclaw.json").into()),
                    ("OPENCLAW_STATE_DIR", layout.openclaw_state().into()),
                    ("OPENCLAW_STAND_IN_ADDRESS", text(gateway)),
                ],
            ),
        };
        let spec = UnitSpec {
            unit,
            sim_bin: self.options.sim_bin.clone(),
            program,
            arguments: std::iter::once(text(verb.to_owned())).chain(arguments).collect(),
            environment,
            folder: layout.root().to_owned(),
            log: layout.log_of(unit),
        };
        SupervisedUnit::new(spec, self.spawner.clone())
    }
}
