//! systemd over D-Bus (`org.freedesktop.systemd1`). A job is waited for by its signal, which is
//! subscribed to before the job is asked for.

use std::{collections::HashMap, time::Duration};

use futures::StreamExt as _;
use tokio::time::timeout;
use zbus::{
    Connection, proxy,
    zvariant::{OwnedObjectPath, OwnedValue},
};

use super::{
    client::UnitStatus,
    protocol::{Ending, UnitFailure},
    units::{Down, Service, UnitError, Units},
};

/// OpenClaw takes up to 330 s to stop.
const JOB_PATIENCE: Duration = Duration::from_secs(390);
const CALL_PATIENCE: Duration = Duration::from_secs(20);

/// Codes of waitid(2), in which systemd says how a process ended.
const EXITED: i32 = 1;
const KILLED: i32 = 2;
const DUMPED: i32 = 3;

#[proxy(
    interface = "org.freedesktop.systemd1.Manager",
    default_service = "org.freedesktop.systemd1",
    default_path = "/org/freedesktop/systemd1",
    gen_blocking = false
)]
trait Manager {
    fn load_unit(&self, name: &str) -> zbus::Result<OwnedObjectPath>;
    fn start_unit(&self, name: &str, mode: &str) -> zbus::Result<OwnedObjectPath>;
    fn stop_unit(&self, name: &str, mode: &str) -> zbus::Result<OwnedObjectPath>;
    fn restart_unit(&self, name: &str, mode: &str) -> zbus::Result<OwnedObjectPath>;
    fn try_restart_unit(&self, name: &str, mode: &str) -> zbus::Result<OwnedObjectPath>;
    fn reset_failed_unit(&self, name: &str) -> zbus::Result<()>;
    fn subscribe(&self) -> zbus::Result<()>;

    /// As `systemctl is-system-running` says it.
    #[zbus(property)]
    fn system_state(&self) -> zbus::Result<String>;

    #[zbus(signal)]
    fn job_removed(
        &self,
        id: u32,
        job: OwnedObjectPath,
        unit: String,
        result: String,
    ) -> zbus::Result<()>;
}

#[proxy(
    interface = "org.freedesktop.DBus.Properties",
    default_service = "org.freedesktop.systemd1",
    gen_blocking = false
)]
trait Properties {
    fn get_all(&self, interface: &str) -> zbus::Result<HashMap<String, OwnedValue>>;
}

/// What is asked of systemd.
#[derive(Debug, Clone, Copy)]
enum Job {
    Start,
    Stop,
    Restart,
    Refresh,
}

impl Job {
    fn action(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Restart | Self::Refresh => "restart",
        }
    }
}

/// The systemd of this machine. Each call has a connection of its own: the bus may come late, and may
/// be restarted.
#[derive(Debug, Clone)]
pub struct Systemd {
    address: Option<String>,
}

impl Systemd {
    /// The one on the system bus, or on the bus at `address` (a D-Bus address).
    pub fn new(address: Option<String>) -> Self {
        Self { address }
    }

    async fn connect(&self) -> zbus::Result<Connection> {
        match &self.address {
            None => Connection::system().await,
            Some(address) => zbus::connection::Builder::address(address.as_str())?.build().await,
        }
    }

    async fn job(&self, job: Job, unit: &'static str) -> Result<(), UnitError> {
        let action = job.action();
        let result = match timeout(JOB_PATIENCE, self.run_job(job, unit)).await {
            Ok(result) => result.map_err(|error| bus_error(action, unit, &error))?,
            Err(_) => return Err(UnitError::Timeout { action, unit }),
        };
        // `skipped`: there was nothing to do.
        if matches!(result.as_str(), "done" | "skipped") {
            Ok(())
        } else {
            Err(UnitError::Job { action, unit, result })
        }
    }

    async fn run_job(&self, job: Job, unit: &'static str) -> zbus::Result<String> {
        let connection = self.connect().await?;
        let manager = ManagerProxy::new(&connection).await?;
        let mut ended = manager.receive_job_removed().await?;
        manager.subscribe().await?;
        let path = match job {
            Job::Start => manager.start_unit(unit, "replace").await?,
            Job::Stop => manager.stop_unit(unit, "replace").await?,
            Job::Restart => manager.restart_unit(unit, "replace").await?,
            Job::Refresh => manager.try_restart_unit(unit, "replace").await?,
        };
        while let Some(signal) = ended.next().await {
            let signal = signal.args()?;
            if *signal.job() == path {
                return Ok(signal.result().clone());
            }
        }
        Err(zbus::Error::Failure("the connection to the bus ended".to_owned()))
    }

    /// Lets a unit start that was started too often or failed. One that did not fail does not mind.
    async fn forgive(&self, unit: &'static str) {
        let forgive = async {
            ManagerProxy::new(&self.connect().await?).await?.reset_failed_unit(unit).await
        };
        match timeout(CALL_PATIENCE, forgive).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(unit, %error, "nothing to forgive"),
            Err(_) => tracing::warn!(unit, "systemd does not answer"),
        }
    }

    /// Before a start: resets earlier failures, and makes sure of the socket.
    async fn prepare(&self, service: Service) {
        self.forgive(service.unit()).await;
        if let Some(socket) = service.socket() {
            self.forgive(socket).await;
            // A socket that is there is left alone; one that fails makes the start fail.
            if let Err(error) = self.job(Job::Start, socket).await {
                tracing::warn!(%error, "a socket is not there");
            }
        }
    }

    async fn read_status(&self, unit: &str) -> zbus::Result<UnitStatus> {
        let connection = self.connect().await?;
        let path = ManagerProxy::new(&connection).await?.load_unit(unit).await?;
        let properties = PropertiesProxy::builder(&connection).path(path)?.build().await?;
        let service = Seen(properties.get_all("org.freedesktop.systemd1.Service").await?);
        let running = service.number::<u32>("MainPID") != 0;
        // Hundredths of a second since boot: grows with every start, and lasts for 497 days.
        let started = service.number::<u64>("ExecMainStartTimestampMonotonic") / 10_000;
        let failure = if running {
            None
        } else {
            failure(&service, &Seen(properties.get_all("org.freedesktop.systemd1.Unit").await?))
        };
        Ok(UnitStatus { running, starts: u32::try_from(started).unwrap_or(u32::MAX), failure })
    }
}

/// Properties of a unit.
struct Seen(HashMap<String, OwnedValue>);

impl Seen {
    /// A number; 0 if there is none of that type.
    fn number<'a, T: TryFrom<&'a OwnedValue> + Default>(&'a self, name: &str) -> T {
        self.0.get(name).and_then(|value| T::try_from(value).ok()).unwrap_or_default()
    }

    fn text(&self, name: &str) -> &str {
        self.0.get(name).and_then(|value| <&str>::try_from(value).ok()).unwrap_or_default()
    }
}

/// How a service failed that waits to be started again, or is not started again.
fn failure(service: &Seen, unit: &Seen) -> Option<UnitFailure> {
    let result = service.text("Result");
    let given_up = unit.text("ActiveState") == "failed";
    let waits = result != "success" && unit.text("SubState").starts_with("auto-restart");
    if !given_up && !waits {
        return None;
    }
    let status = service.number("ExecMainStatus");
    let ending = match (result, service.number("ExecMainCode")) {
        ("oom-kill", _) => Ending::OutOfMemory,
        (_, EXITED) => Ending::Exited { status },
        (_, KILLED | DUMPED) => Ending::Killed { signal: status },
        _ => Ending::Other,
    };
    Some(UnitFailure { ending, restarts: service.number("NRestarts"), given_up })
}

fn bus_error(action: &'static str, unit: &'static str, error: &zbus::Error) -> UnitError {
    UnitError::Bus { action, unit, cause: error.to_string() }
}

impl Units for Systemd {
    async fn status(&self, service: Service) -> Result<UnitStatus, UnitError> {
        let unit = service.unit();
        match timeout(CALL_PATIENCE, self.read_status(unit)).await {
            Ok(status) => status.map_err(|error| bus_error("tell about", unit, &error)),
            Err(_) => Err(UnitError::Timeout { action: "tell about itself", unit }),
        }
    }

    async fn start(&self, service: Service) -> Result<(), UnitError> {
        self.prepare(service).await;
        self.job(Job::Start, service.unit()).await
    }

    async fn stop(&self, service: Service) -> Result<(), UnitError> {
        self.job(Job::Stop, service.unit()).await
    }

    async fn restart(&self, service: Service) -> Result<(), UnitError> {
        self.prepare(service).await;
        self.job(Job::Restart, service.unit()).await
    }

    async fn refresh(&self, service: Service) -> Result<(), UnitError> {
        self.job(Job::Refresh, service.unit()).await
    }

    async fn is_booting(&self) -> Result<bool, UnitError> {
        let (action, unit) = ("tell about", "the machine");
        let ask = async { ManagerProxy::new(&self.connect().await?).await?.system_state().await };
        match timeout(CALL_PATIENCE, ask).await {
            Ok(Ok(state)) => Ok(matches!(state.as_str(), "initializing" | "starting")),
            Ok(Err(error)) => Err(bus_error(action, unit, &error)),
            Err(_) => Err(UnitError::Timeout { action: "tell about itself", unit }),
        }
    }

    async fn down(&self, how: Down) -> Result<(), UnitError> {
        let (action, unit) = match how {
            Down::PowerOff => ("start", "poweroff.target"),
            Down::Reboot => ("start", "reboot.target"),
        };
        let ask = async {
            let manager = ManagerProxy::new(&self.connect().await?).await?;
            manager.start_unit(unit, "replace-irreversibly").await
        };
        match timeout(CALL_PATIENCE, ask).await {
            Ok(job) => job.map(drop).map_err(|error| bus_error(action, unit, &error)),
            Err(_) => Err(UnitError::Timeout { action, unit }),
        }
    }
}
