//! systemd's side of the bus, played on a private `dbus-daemon`: jobs that end well, end badly, and
//! are announced among those of others.
// A method of an interface has a receiver, needed or not.
#![allow(clippy::unused_self)]

use std::{collections::HashMap, path::Path, process::Stdio, sync::Arc};

use moorage_agent::installer::{
    protocol::{Ending, UnitFailure},
    systemd::Systemd,
    units::{Down, Service, UnitError, Units as _},
};
use rstest::rstest;
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
    sync::Mutex,
};
use zbus::{
    Connection, fdo, interface,
    object_server::SignalEmitter,
    zvariant::{ObjectPath, OwnedObjectPath, OwnedValue, Value},
};

const DAEMON: &str = "/usr/bin/dbus-daemon";

/// A bus that ends with the test.
struct Bus {
    address: String,
    _daemon: Child,
    _folder: TempDir,
}

async fn bus() -> Option<Bus> {
    if !Path::new(DAEMON).exists() {
        moorage_testbed::skip(format!("there is no {DAEMON}"));
        return None;
    }
    let folder = tempfile::tempdir().unwrap();
    let address = format!("unix:path={}/bus", folder.path().display());
    let config = folder.path().join("bus.conf");
    let text = format!(
        "<busconfig><type>session</type><listen>{address}</listen><auth>EXTERNAL</auth>\
         <policy context='default'><allow send_destination='*' eavesdrop='true'/>\
         <allow eavesdrop='true'/><allow own='*'/></policy></busconfig>"
    );
    std::fs::write(&config, text).unwrap();
    let mut daemon = Command::new(DAEMON)
        .arg(format!("--config-file={}", config.display()))
        .args(["--nofork", "--print-address=1"])
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(daemon.stdout.take().unwrap()).read_line(&mut line).await.unwrap();
    Some(Bus { address, _daemon: daemon, _folder: folder })
}

#[derive(Default)]
struct Seen {
    calls: Vec<String>,
    jobs: u32,
}

/// systemd, as far as the installer knows it.
struct Manager {
    seen: Arc<Mutex<Seen>>,
    /// Of the machine as a whole.
    state: &'static str,
}

impl Manager {
    async fn job(
        &self,
        verb: &str,
        unit: &str,
        mode: &str,
        emitter: &SignalEmitter<'_>,
    ) -> fdo::Result<OwnedObjectPath> {
        let mut seen = self.seen.lock().await;
        seen.calls.push(format!("{verb} {unit} {mode}"));
        if unit == "cloudflared.service" && verb == "start" {
            return Err(fdo::Error::Failed("Unit cloudflared.service not found.".to_owned()));
        }
        seen.jobs += 1;
        let number = seen.jobs;
        let path = ObjectPath::try_from(format!("/org/freedesktop/systemd1/job/{number}")).unwrap();
        let result =
            if unit == "openclaw.service" && verb == "restart" { "failed" } else { "done" };
        // Somebody else's job ends first. Both may be announced before the call is answered.
        let other = ObjectPath::from_static_str_unchecked("/org/freedesktop/systemd1/job/9999");
        Self::job_removed(emitter, 9999, other.into(), "ssh.service", "failed").await?;
        Self::job_removed(emitter, number, path.clone().into(), unit, result).await?;
        Ok(path.into())
    }
}

#[interface(name = "org.freedesktop.systemd1.Manager")]
impl Manager {
    async fn start_unit(
        &self,
        name: &str,
        mode: &str,
        #[zbus(signal_emitter)] emitter: SignalEmitter<'_>,
    ) -> fdo::Result<OwnedObjectPath> {
        self.job("start", name, mode, &emitter).await
    }

    async fn stop_unit(
        &self,
        name: &str,
        mode: &str,
        #[zbus(signal_emitter)] emitter: SignalEmitter<'_>,
    ) -> fdo::Result<OwnedObjectPath> {
        self.job("stop", name, mode, &emitter).await
    }

    async fn restart_unit(
        &self,
        name: &str,
        mode: &str,
        #[zbus(signal_emitter)] emitter: SignalEmitter<'_>,
    ) -> fdo::Result<OwnedObjectPath> {
        self.job("restart", name, mode, &emitter).await
    }

    async fn try_restart_unit(
        &self,
        name: &str,
        mode: &str,
        #[zbus(signal_emitter)] emitter: SignalEmitter<'_>,
    ) -> fdo::Result<OwnedObjectPath> {
        self.job("try-restart", name, mode, &emitter).await
    }

    async fn reset_failed_unit(&self, name: &str) -> fdo::Result<()> {
        self.seen.lock().await.calls.push(format!("reset-failed {name}"));
        Err(fdo::Error::Failed(format!("Unit {name} not loaded.")))
    }

    fn load_unit(&self, name: &str) -> OwnedObjectPath {
        assert_eq!(name, "openclaw.service");
        ObjectPath::from_static_str_unchecked("/org/freedesktop/systemd1/unit/one").into()
    }

    fn subscribe(&self) {}

    #[zbus(property)]
    fn system_state(&self) -> &'static str {
        self.state
    }

    #[zbus(signal)]
    async fn job_removed(
        emitter: &SignalEmitter<'_>,
        id: u32,
        job: OwnedObjectPath,
        unit: &str,
        result: &str,
    ) -> zbus::Result<()>;
}

/// What systemd says of a unit.
#[derive(Clone, Copy)]
struct Played {
    main_pid: u32,
    states: (&'static str, &'static str),
    result: &'static str,
    /// `si_code` of waitid(2), and the status or signal.
    ended: (i32, i32),
}

const RUNS: Played =
    Played { main_pid: 4711, states: ("active", "running"), result: "success", ended: (0, 0) };

/// The properties of every unit.
struct Unit1(Played);

#[interface(name = "org.freedesktop.systemd1.Unit")]
impl Unit1 {
    #[zbus(property)]
    fn active_state(&self) -> &str {
        self.0.states.0
    }

    #[zbus(property)]
    fn sub_state(&self) -> &str {
        self.0.states.1
    }
}

/// The properties of a unit's service.
struct Service1(Played);

#[interface(name = "org.freedesktop.systemd1.Service")]
impl Service1 {
    #[zbus(property, name = "MainPID")]
    fn main_pid(&self) -> u32 {
        self.0.main_pid
    }

    #[zbus(property)]
    fn result(&self) -> &str {
        self.0.result
    }

    #[zbus(property, name = "NRestarts")]
    fn n_restarts(&self) -> u32 {
        2
    }

    #[zbus(property)]
    fn exec_main_code(&self) -> i32 {
        self.0.ended.0
    }

    #[zbus(property)]
    fn exec_main_status(&self) -> i32 {
        self.0.ended.1
    }

    #[zbus(property)]
    fn exec_main_start_timestamp_monotonic(&self) -> u64 {
        12_345_678
    }
}

async fn play_systemd(bus: &Bus) -> (Connection, Arc<Mutex<Seen>>) {
    play_systemd_with(bus, RUNS, "running").await
}

async fn play_systemd_with(
    bus: &Bus,
    unit: Played,
    state: &'static str,
) -> (Connection, Arc<Mutex<Seen>>) {
    let seen = Arc::new(Mutex::new(Seen::default()));
    let connection = zbus::connection::Builder::address(bus.address.as_str())
        .unwrap()
        .serve_at("/org/freedesktop/systemd1", Manager { seen: Arc::clone(&seen), state })
        .unwrap()
        .serve_at("/org/freedesktop/systemd1/unit/one", Service1(unit))
        .unwrap()
        .serve_at("/org/freedesktop/systemd1/unit/one", Unit1(unit))
        .unwrap()
        .name("org.freedesktop.systemd1")
        .unwrap()
        .build()
        .await
        .unwrap();
    (connection, seen)
}

#[tokio::test]
async fn jobs_are_waited_for_and_their_results_told_apart() {
    let Some(bus) = bus().await else { return };
    let (_systemd, seen) = play_systemd(&bus).await;
    let units = Systemd::new(Some(bus.address.clone()));
    units.stop(Service::Openclaw).await.unwrap();
    units.refresh(Service::Worker).await.unwrap();
    let failed = units.restart(Service::Openclaw).await.unwrap_err();
    assert!(matches!(&failed, UnitError::Job { result, .. } if result == "failed"), "{failed}");
    let unknown = units.start(Service::Cloudflared).await.unwrap_err();
    assert!(matches!(&unknown, UnitError::Bus { cause, .. } if cause.contains("not found")));
    units.down(Down::Reboot).await.unwrap();
    assert_eq!(
        seen.lock().await.calls,
        [
            "stop openclaw.service replace",
            "try-restart moorage-worker.service replace",
            "reset-failed openclaw.service",
            "restart openclaw.service replace",
            "reset-failed cloudflared.service",
            "start cloudflared.service replace",
            "start reboot.target replace-irreversibly",
        ]
    );
}

#[tokio::test]
async fn an_agent_that_failed_is_forgiven_together_with_its_socket() {
    let Some(bus) = bus().await else { return };
    let (_systemd, seen) = play_systemd(&bus).await;
    Systemd::new(Some(bus.address.clone())).restart(Service::Agent).await.unwrap();
    assert_eq!(
        seen.lock().await.calls,
        [
            "reset-failed moorage-agent.service",
            "reset-failed moorage-agent.socket",
            "start moorage-agent.socket replace",
            "restart moorage-agent.service replace",
        ]
    );
}

#[tokio::test]
async fn a_status_is_read_from_the_services_properties() {
    let Some(bus) = bus().await else { return };
    let (_systemd, _seen) = play_systemd(&bus).await;
    let status = Systemd::new(Some(bus.address.clone())).status(Service::Openclaw).await.unwrap();
    assert!(status.running);
    assert_eq!((status.starts, status.failure), (1234, None));
}

#[rstest]
#[case::exited(("failed", "failed"), "exit-code", (1, 78), Ending::Exited { status: 78 }, true)]
#[case::too_often(("failed", "failed"), "start-limit-hit", (1, 1), Ending::Exited { status: 1 }, true)]
#[case::between(("activating", "auto-restart"), "signal", (2, 9), Ending::Killed { signal: 9 }, false)]
#[case::dumped(("activating", "auto-restart-queued"), "core-dump", (3, 6), Ending::Killed { signal: 6 }, false)]
#[case::memory(("activating", "auto-restart"), "oom-kill", (2, 9), Ending::OutOfMemory, false)]
#[case::never_ran(("failed", "failed"), "resources", (0, 0), Ending::Other, true)]
#[tokio::test]
async fn how_a_unit_failed_is_told(
    #[case] states: (&'static str, &'static str),
    #[case] result: &'static str,
    #[case] ended: (i32, i32),
    #[case] ending: Ending,
    #[case] given_up: bool,
) {
    let Some(bus) = bus().await else { return };
    let unit = Played { main_pid: 0, states, result, ended };
    let (_systemd, _seen) = play_systemd_with(&bus, unit, "degraded").await;
    let status = Systemd::new(Some(bus.address.clone())).status(Service::Openclaw).await.unwrap();
    assert!(!status.running);
    assert_eq!(status.failure, Some(UnitFailure { ending, restarts: 2, given_up }));
}

#[rstest]
#[case::stopped(("inactive", "dead"))]
#[case::ended_well(("activating", "auto-restart"))]
#[tokio::test]
async fn a_unit_that_is_down_without_a_failure_did_not_fail(
    #[case] states: (&'static str, &'static str),
) {
    let Some(bus) = bus().await else { return };
    let unit = Played { main_pid: 0, states, result: "success", ended: (1, 0) };
    let (_systemd, _seen) = play_systemd_with(&bus, unit, "degraded").await;
    let status = Systemd::new(Some(bus.address.clone())).status(Service::Openclaw).await.unwrap();
    assert!(!status.running && status.failure.is_none(), "{status:?}");
}

#[tokio::test]
async fn a_bus_that_is_not_there_is_said_clearly() {
    let nowhere = "unix:path=/nonexistent/bus".to_owned();
    let error = Systemd::new(Some(nowhere)).stop(Service::Cloudflared).await.unwrap_err();
    let text = error.to_string();
    assert!(text.starts_with("systemd cannot be asked to stop cloudflared.service"), "{text}");
}

/// The types of systemd's answers, so that a change of the library is noticed.
#[test]
fn numbers_are_read_as_systemd_sends_them() {
    let sent: HashMap<&str, OwnedValue> = HashMap::from([
        ("MainPID", Value::from(7u32).try_into().unwrap()),
        ("ExecMainStartTimestampMonotonic", Value::from(7u64).try_into().unwrap()),
    ]);
    assert_eq!(u32::try_from(&sent["MainPID"]).unwrap(), 7);
    assert_eq!(u64::try_from(&sent["ExecMainStartTimestampMonotonic"]).unwrap(), 7);
}

#[rstest]
#[case("initializing", true)]
#[case("starting", true)]
#[case("running", false)]
#[case("degraded", false)]
#[tokio::test]
async fn a_machine_boots_until_everything_was_started(
    #[case] state: &'static str,
    #[case] boots: bool,
) {
    let Some(bus) = bus().await else { return };
    let (_systemd, _seen) = play_systemd_with(&bus, RUNS, state).await;
    let units = Systemd::new(Some(bus.address.clone()));
    assert_eq!(units.is_booting().await.unwrap(), boots);
}
