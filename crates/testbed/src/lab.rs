//! Servers of the simulator's nspawn backend, looked into: programs run inside, files and the journal
//! read, ports knocked at from outside, power switched behind the cloud's back.

mod cloudflared;
mod parts;
mod seen;

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    process::Stdio,
    time::{Duration, Instant},
};

use serde::Deserialize;
use serde_json::{Value, json};
use thiserror::Error;

pub use cloudflared::Cloudflared;
pub use parts::{LabParts, NoLab};
pub use seen::{CloudInit, Executed, LabServerState, Probed};

use crate::{NotInTime, Simulator, SimulatorError, wait_until};

/// The power buttons of a server, as Hetzner has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Press {
    On,
    Off,
    /// Ask the system to power off.
    Shutdown,
    /// Ask the system to reboot.
    Reboot,
    /// Cut the power and give it back.
    Reset,
}

#[derive(Deserialize)]
struct ProbeAnswer {
    outcome: Probed,
}

/// Why a server could not be looked into.
#[derive(Debug, Error)]
pub enum LabError {
    /// The simulator did not do it.
    #[error(transparent)]
    Simulator(#[from] SimulatorError),
    /// A program of this machine could not be run.
    #[error("a program outside: {0}")]
    Outside(#[from] std::io::Error),
    /// A program inside failed.
    #[error("{command} ended with {code:?}: {said}")]
    Failed {
        command: String,
        /// `None` if a signal ended it.
        code: Option<i32>,
        said: String,
    },
    /// It took too long.
    #[error("{0}\n--- its console ---\n{1}")]
    NotInTime(NotInTime, String),
}

/// What tests see and do inside a server of the nspawn backend.
#[derive(Debug, Clone)]
pub struct LabServer {
    id: u64,
    admin: String,
    http: reqwest::Client,
}

impl Simulator {
    /// A server of the nspawn backend, by the id that the cloud gave it.
    pub fn lab_server(&self, id: u64) -> LabServer {
        LabServer { id, admin: self.endpoints().admin.clone(), http: self.http().clone() }
    }

    /// All servers of the nspawn backend.
    pub async fn lab_servers(&self) -> Result<Vec<LabServerState>, SimulatorError> {
        self.get("/admin/servers").await
    }

    /// Servers whose names are this, or begin with this and a hyphen, will be virtual machines: with a
    /// kernel of their own, and if given with a clock that shows this time (UTC,
    /// `1970-01-01T00:00:00`) whenever the power comes.
    pub async fn give_kernel(&self, name: &str, clock: Option<&str>) -> Result<(), SimulatorError> {
        let hardware = json!({"kind": "virtualMachine", "clock": clock});
        self.put(&format!("/admin/hardware/{name}"), &hardware).await
    }

    /// What was fetched from the artifact server: `from`, `path`, `range`, `status`.
    pub async fn artifact_requests(&self) -> Result<Vec<Value>, SimulatorError> {
        self.get("/admin/artifacts/requests").await
    }

    /// Replaces the faults of the artifact server: objects with `fault` (`{"kind": "down"}`,
    /// `{"kind": "status", "status": 503}`, `{"kind": "wrong-bytes"}`,
    /// `{"kind": "slow", "bytesPerSecond": 1000}`, `{"kind": "cut", "after": 1000}`), and if not for
    /// all files `path`, if not for ever `times`.
    pub async fn set_artifact_faults(&self, faults: &[Value]) -> Result<(), SimulatorError> {
        self.put("/admin/artifacts/faults", &json!(faults)).await
    }

    /// Replaces the faults of one file of the artifact server by these, given without `path`.
    pub async fn set_faults_of_artifact(
        &self,
        path: &str,
        faults: &[Value],
    ) -> Result<(), SimulatorError> {
        let with_path = |fault: &Value| {
            let mut fault = fault.clone();
            fault["path"] = json!(path);
            fault
        };
        let faults: Vec<_> = faults.iter().map(with_path).collect();
        // A version may have a plus sign, which means a space in a query.
        let call = format!("{}/admin/artifacts/faults", self.endpoints().admin);
        let url = reqwest::Url::parse_with_params(&call, [("path", path)])
            .expect("the simulator's address is a URL");
        crate::simulator::answer(&call, self.http().put(url).json(&faults)).await.map(drop)
    }
}

impl LabServer {
    /// Its id at the cloud.
    pub fn id(&self) -> u64 {
        self.id
    }

    pub async fn state(&self) -> Result<LabServerState, LabError> {
        let request = self.http.get(self.url(""));
        Ok(crate::simulator::answer("GET /admin/servers", request)
            .await?
            .json()
            .await
            .map_err(SimulatorError::from)?)
    }

    /// Runs a program inside as root, and gives what it left, whatever its exit code.
    pub async fn run(&self, argv: &[&str]) -> Result<Executed, LabError> {
        self.run_as(None, argv, "").await
    }

    /// Runs a program inside as `user` (whose group has the same name) with this input.
    pub async fn run_as(
        &self,
        user: Option<&str>,
        argv: &[&str],
        stdin: &str,
    ) -> Result<Executed, LabError> {
        let body = json!({"argv": argv, "user": user, "stdin": stdin, "timeoutMs": 120_000});
        // That of the program, and what a virtual machine may take to begin and to answer.
        let at_most = Duration::from_secs(250);
        let request = self.http.post(self.url("/exec")).timeout(at_most).json(&body);
        let response = crate::simulator::answer("exec", request).await?;
        Ok(response.json().await.map_err(SimulatorError::from)?)
    }

    /// Runs a program inside as root, which has to succeed, and gives its standard output.
    pub async fn exec(&self, argv: &[&str]) -> Result<String, LabError> {
        let executed = self.run(argv).await?;
        if executed.succeeded() {
            return Ok(executed.text());
        }
        let said = format!("{}{}", executed.text(), String::from_utf8_lossy(&executed.stderr));
        let said = said.trim().to_owned();
        Err(LabError::Failed { command: argv.join(" "), code: executed.exit_code, said })
    }

    /// The bytes of a file.
    pub async fn read(&self, path: &str) -> Result<Vec<u8>, LabError> {
        let argv = ["cat", "--", path];
        let executed = self.run(&argv).await?;
        if executed.succeeded() {
            return Ok(executed.stdout);
        }
        let said = String::from_utf8_lossy(&executed.stderr).trim().to_owned();
        Err(LabError::Failed { command: argv.join(" "), code: executed.exit_code, said })
    }

    /// Puts a file there, mode 0644.
    pub async fn write(&self, path: &str, content: &str) -> Result<(), LabError> {
        let target = format!("of={path}");
        let executed = self.run_as(None, &["dd", "status=none", &target], content).await?;
        if executed.succeeded() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&executed.stderr).trim().to_owned();
        Err(LabError::Failed { command: format!("dd {target}"), code: executed.exit_code, said })
    }

    /// The journal of this boot, of one unit or of all, as text without time stamps.
    pub async fn journal(&self, unit: Option<&str>) -> Result<String, LabError> {
        // What was said a moment ago may not be written yet.
        self.run(&["journalctl", "--sync"]).await?;
        let mut argv = vec!["journalctl", "--boot", "--no-pager", "--output=cat"];
        argv.extend(unit.iter().flat_map(|unit| ["--unit", unit]));
        self.exec(&argv).await
    }

    /// Kills the main process of a unit with SIGKILL.
    pub async fn kill_unit(&self, unit: &str) -> Result<(), LabError> {
        let argv = ["systemctl", "kill", "--kill-whom=main", "--signal=SIGKILL", unit];
        self.exec(&argv).await.map(drop)
    }

    /// Properties of a unit, as `systemctl show` names them.
    pub async fn unit(
        &self,
        unit: &str,
        properties: &[&str],
    ) -> Result<BTreeMap<String, String>, LabError> {
        let properties = format!("--property={}", properties.join(","));
        let text = self.exec(&["systemctl", "show", &properties, unit]).await?;
        let lines = text.lines().filter_map(|line| line.split_once('='));
        Ok(lines.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }

    /// Fills the disk to the last block, by one file, which it names.
    pub async fn fill_disk(&self) -> Result<&'static str, LabError> {
        const FILLER: &str = "/var/tmp/filler";
        // What the file system needs to note where the file is.
        const MARGIN: u64 = 16 << 20;
        let free = self.exec(&["df", "--output=avail", "--block-size=1", "/"]).await?;
        let free: u64 = free.lines().last().and_then(|line| line.trim().parse().ok()).unwrap_or(0);
        let most = free.saturating_sub(MARGIN).max(1).to_string();
        self.exec(&["fallocate", "--length", &most, FILLER]).await?;
        // Ends by an error when nothing more fits.
        let target = format!("of={FILLER}");
        let rest = ["dd", "if=/dev/zero", &target, "bs=4096", "oflag=append", "conv=notrunc"];
        self.run(&rest).await?;
        Ok(FILLER)
    }

    /// Presses a power button behind the cloud's back. Shutdown and reboot are only asked for.
    pub async fn power(&self, press: Press) -> Result<(), LabError> {
        let press = match press {
            Press::On => "on",
            Press::Off => "off",
            Press::Shutdown => "shutdown",
            Press::Reboot => "reboot",
            Press::Reset => "reset",
        };
        let request = self.http.post(self.url("/power")).json(&json!({"press": press}));
        crate::simulator::answer("power", request).await?;
        Ok(())
    }

    /// Knocks at a port of its IPv4 address, or of its IPv6 address if `from` is one. Outside are
    /// 198.51.100.0/24 and `2001:db8:ffff::/48`.
    pub async fn probe_port(&self, from: IpAddr, port: u16) -> Result<Probed, LabError> {
        let addresses = self.state().await?.addresses;
        let to = addresses.into_iter().find(|address| address.is_ipv4() == from.is_ipv4());
        let Some(to) = to else { return Ok(Probed::Unreachable) };
        let body = json!({"from": from, "to": SocketAddr::new(to, port)});
        let request = self.http.post(format!("{}/admin/probe", self.admin)).json(&body);
        let answer = crate::simulator::answer("probe", request).await?;
        let answer: ProbeAnswer = answer.json().await.map_err(SimulatorError::from)?;
        Ok(answer.outcome)
    }

    /// Waits until a knock comes out like this: on a busy machine an answer can come too late for one.
    pub async fn wait_probed(
        &self,
        from: IpAddr,
        port: u16,
        outcome: Probed,
        at_most: Duration,
    ) -> Result<(), LabError> {
        let what = format!("port {port} to be {outcome:?} for {from}");
        let knocked = wait_until(what, at_most, || async {
            let seen = self.probe_port(from, port).await.map_err(|error| error.to_string())?;
            if seen == outcome { Ok(()) } else { Err(format!("{seen:?}")) }
        });
        match knocked.await {
            Ok(()) => Ok(()),
            Err(late) => Err(self.late(late).await?),
        }
    }

    /// Runs a program of this machine in the network outside of the servers, as root and without input,
    /// and gives what it left, whatever its exit code.
    pub async fn run_outside(&self, argv: &[&str]) -> Result<Executed, LabError> {
        let network = format!("--net={}", self.state().await?.outside.display());
        let mut command = tokio::process::Command::new("nsenter");
        let command = command.arg(network).arg("--").args(argv).stdin(Stdio::null());
        let output = command.kill_on_drop(true).output().await?;
        let (stdout, stderr) = (output.stdout, output.stderr);
        Ok(Executed { exit_code: output.status.code(), stdout, stderr })
    }

    /// Waits until cloud-init has ended in start number `start` or a later one, and says how long that
    /// took and how it ended.
    pub async fn wait_boot(
        &self,
        start: u32,
        at_most: Duration,
    ) -> Result<(Duration, CloudInit), LabError> {
        let begin = Instant::now();
        let ended = self.wait("the end of cloud-init", at_most, |state| {
            state.power && state.starts >= start && state.cloud_init != CloudInit::Unfinished
        });
        let end = ended.await?.cloud_init;
        Ok((begin.elapsed(), end))
    }

    /// Waits until the power is off.
    pub async fn wait_off(&self, at_most: Duration) -> Result<(), LabError> {
        self.wait("the power to be off", at_most, |state| !state.power).await.map(drop)
    }

    async fn wait(
        &self,
        what: &str,
        at_most: Duration,
        holds: impl Fn(&LabServerState) -> bool,
    ) -> Result<LabServerState, LabError> {
        let waited = wait_until(what, at_most, || async {
            let state = self.state().await.map_err(|error| error.to_string())?;
            if holds(&state) { Ok(state) } else { Err(format!("{state:?}")) }
        });
        match waited.await {
            Ok(state) => Ok(state),
            Err(late) => Err(self.late(late).await?),
        }
    }

    async fn late(&self, late: NotInTime) -> Result<LabError, LabError> {
        let console = self.state().await?.folder.join("console.log");
        let console = std::fs::read(console).unwrap_or_default();
        Ok(LabError::NotInTime(late, String::from_utf8_lossy(&console).into_owned()))
    }

    fn url(&self, below: &str) -> String {
        format!("{}/admin/servers/{}{below}", self.admin, self.id)
    }
}
