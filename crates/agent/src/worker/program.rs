//! OpenClaw's command line, and the npm that goes with it, run as argument vectors with a narrow environment. Its error output is
//! never read: it may repeat values of the configuration.

use std::{
    ffi::{OsStr, OsString},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::Value;
use thiserror::Error;
use tokio::{
    io::AsyncReadExt as _,
    process::{Child, Command},
    time::timeout,
};

use super::{issues, protocol::Validation};
use crate::{layout::Layout, secret_text::SecretText, settings::OpenClawProgram};

/// For what only reads or asks the gateway.
const PATIENCE: Duration = Duration::from_secs(60);
/// For what moves data or fetches packages.
const LONG_PATIENCE: Duration = Duration::from_secs(900);
const LONGEST_OUTPUT: u64 = 4 * 1024 * 1024;
/// The variable that hands a token to the command line; see [`Program::reload_secrets`].
const TOKEN_VARIABLE: &str = "MOORAGE_GATEWAY_TOKEN";

pub(super) struct Program {
    how: OpenClawProgram,
    layout: Layout,
    config: PathBuf,
}

/// Why a command did not do its work.
#[derive(Debug, Error)]
pub(crate) enum ProgramError {
    #[error("cannot run {}: {source}", program.display())]
    Start { program: PathBuf, source: std::io::Error },
    #[error("`openclaw {command}` did not end within {seconds} s")]
    Timeout { command: &'static str, seconds: u64 },
    #[error("`openclaw {command}` ended with {status} and no readable answer")]
    Failed { command: &'static str, status: String },
    #[error("the npm registry cannot be asked: `npm view` {0}")]
    Npm(String),
}

/// A command and how it is run.
struct Call<'a> {
    /// For messages: the fixed part of the arguments.
    command: &'static str,
    arguments: Vec<&'a OsStr>,
    config: &'a Path,
    token: Option<&'a SecretText>,
    patience: Duration,
}

pub(super) struct Output {
    status: std::process::ExitStatus,
    text: Vec<u8>,
}

impl Program {
    pub(super) fn new(how: OpenClawProgram, layout: Layout) -> Self {
        Self { config: layout.openclaw_config(), how, layout }
    }

    /// Asks `OpenClaw` whether the configuration at `path` is good.
    pub(super) async fn validate(&self, path: &Path) -> Result<Validation, ProgramError> {
        let command = "config validate";
        let call = Call { config: path, ..self.call(command, &["config", "validate", "--json"]) };
        let output = self.output(call).await?;
        if output.status.success() {
            return Ok(Validation::Valid);
        }
        let answer: Option<Value> = serde_json::from_slice(&output.text).ok();
        match answer.as_ref().and_then(|answer| answer.get("issues")).and_then(Value::as_array) {
            Some(found) => {
                let config = tokio::fs::read(path).await.unwrap_or_default();
                Ok(Validation::Invalid { issues: issues::read(found, &config) })
            }
            None => Err(failed(command, &output)),
        }
    }

    /// The version that `OpenClaw` says it has.
    pub(super) async fn version(&self) -> Result<String, ProgramError> {
        let command = "--version";
        let output = self.output(self.call(command, &["--version"])).await?;
        let text = String::from_utf8_lossy(&output.text);
        let is_version = |word: &&str| {
            word.len() <= 64
                && word.starts_with(|first: char| first.is_ascii_digit())
                && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-+".contains(&byte))
        };
        let version = text.split_whitespace().find(is_version).filter(|_| output.status.success());
        version.map(str::to_owned).ok_or_else(|| failed(command, &output))
    }

    /// Makes the running `OpenClaw` read its secrets again. The command line shows the gateway the
    /// token that the configuration refers to, which is the new one already; `config` and `token` are
    /// for showing it the old one.
    pub(super) async fn reload_secrets(
        &self,
        config: &Path,
        token: Option<&SecretText>,
    ) -> Result<(), ProgramError> {
        let command = "secrets reload";
        let call = self.call(command, &["secrets", "reload", "--json"]);
        let output = self.output(Call { config, token, ..call }).await?;
        if output.status.success() { Ok(()) } else { Err(failed(command, &output)) }
    }

    /// A command that answers with JSON.
    pub(super) async fn json(
        &self,
        command: &'static str,
        arguments: &[&str],
    ) -> Result<Value, ProgramError> {
        let output = self.output(self.call(command, arguments)).await?;
        let answer = serde_json::from_slice(&output.text).ok();
        answer.filter(|_| output.status.success()).ok_or_else(|| failed(command, &output))
    }

    /// A command that may take long and answers with JSON; `last` is its last argument.
    pub(super) async fn long_json(
        &self,
        command: &'static str,
        arguments: &[&str],
        last: &Path,
    ) -> Result<Value, ProgramError> {
        let mut call = self.call(command, arguments);
        call.arguments.push(last.as_os_str());
        let output = self.output(Call { patience: LONG_PATIENCE, ..call }).await?;
        let answer = serde_json::from_slice(&output.text).ok();
        answer.filter(|_| output.status.success()).ok_or_else(|| failed(command, &output))
    }

    /// A command that may take long, with the configuration at `config`; what counts is whether it
    /// succeeds.
    pub(super) async fn long(
        &self,
        command: &'static str,
        arguments: &[&str],
        config: &Path,
    ) -> Result<(), ProgramError> {
        let call = self.call(command, arguments);
        let output = self.output(Call { config, patience: LONG_PATIENCE, ..call }).await?;
        if output.status.success() { Ok(()) } else { Err(failed(command, &output)) }
    }

    /// What the npm registry says of a package: `npm view`, by the npm that `OpenClaw` uses.
    pub(super) async fn npm_view(&self, package: &str, field: &str) -> Result<Value, ProgramError> {
        let npm = Path::new("npm");
        let start = |source| ProgramError::Start { program: npm.to_owned(), source };
        let mut command = self.surroundings(npm, &self.config);
        command.args(["view", package, field, "--json"]);
        let mut child = command.spawn().map_err(start)?;
        let Ok(output) = timeout(PATIENCE, collect(&mut child)).await else {
            end_group(&child);
            return Err(ProgramError::Npm(format!("did not end within {} s", PATIENCE.as_secs())));
        };
        let output = output.map_err(start)?;
        let answer = serde_json::from_slice(&output.text).ok();
        let failed = || ProgramError::Npm(format!("ended with {}", output.status));
        answer.filter(|_| output.status.success()).ok_or_else(failed)
    }

    fn call<'a>(&'a self, command: &'static str, arguments: &[&'a str]) -> Call<'a> {
        let arguments = arguments.iter().copied().map(OsStr::new).collect();
        Call { command, arguments, config: &self.config, token: None, patience: PATIENCE }
    }

    async fn output(&self, call: Call<'_>) -> Result<Output, ProgramError> {
        let program = self.how.executable().to_owned();
        let start = |source| ProgramError::Start { program: program.clone(), source };
        let mut child = self.command(&call).spawn().map_err(start)?;
        if let Ok(output) = timeout(call.patience, collect(&mut child)).await {
            return output.map_err(start);
        }
        end_group(&child);
        let seconds = call.patience.as_secs();
        Err(ProgramError::Timeout { command: call.command, seconds })
    }

    fn command(&self, call: &Call<'_>) -> Command {
        let mut command = self.surroundings(self.how.executable(), call.config);
        command.args(self.how.first_argument()).args(&call.arguments);
        if let Some(token) = call.token {
            command.env(TOKEN_VARIABLE, token.expose());
        }
        command
    }

    /// A program with nothing of this environment.
    fn surroundings(&self, program: &Path, config: &Path) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("PATH", self.path())
            .env("HOME", self.layout.openclaw_home())
            .env("OPENCLAW_CONFIG_PATH", config)
            .env("OPENCLAW_STATE_DIR", self.layout.openclaw_state())
            .env("OPENCLAW_NO_AUTO_UPDATE", "1")
            .env("OPENCLAW_SERVICE_REPAIR_POLICY", "external")
            .current_dir(self.layout.openclaw_home())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .process_group(0)
            .kill_on_drop(true);
        // Where systemd gives a folder for temporary files, and where a test machine has its own
        // certificate authority.
        for name in ["TMPDIR", "NODE_EXTRA_CA_CERTS"] {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        command
    }

    /// Node.js first, for npm and what it starts look for `node`; then OpenClaw's folder, where a release
    /// has its npm.
    fn path(&self) -> OsString {
        let inherited = std::env::var_os("PATH");
        let mut path = OsString::new();
        for folder in self.how.node_folder().into_iter().chain(self.how.openclaw.parent()) {
            path.push(folder);
            path.push(":");
        }
        path.push(inherited.unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into()));
        path
    }
}

/// A configuration for the command line alone: it finds the gateway of `live`, and takes the token
/// from its environment.
pub(super) fn client_config(live: &Value) -> Value {
    let port = live.pointer("/gateway/port").cloned().unwrap_or(Value::Null);
    let mut config = serde_json::json!({
        "gateway": {
            "mode": "local",
            "bind": "loopback",
            "auth": {
                "mode": "token",
                "token": {"source": "env", "provider": "default", "id": TOKEN_VARIABLE},
            },
        },
    });
    if port.is_u64() {
        config["gateway"]["port"] = port;
    }
    config
}

fn failed(command: &'static str, output: &Output) -> ProgramError {
    ProgramError::Failed { command, status: output.status.to_string() }
}

/// Ends what the command started as well: npm, for example.
fn end_group(child: &Child) {
    let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    if let Some(pid) = pid {
        // It may have ended just now.
        let _ = kill_process_group(pid, Signal::KILL);
    }
}

async fn collect(child: &mut Child) -> std::io::Result<Output> {
    let mut text = Vec::new();
    if let Some(output) = child.stdout.take() {
        output.take(LONGEST_OUTPUT).read_to_end(&mut text).await?;
    }
    Ok(Output { status: child.wait().await?, text })
}
