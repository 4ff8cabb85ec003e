//! OpenClaw's command line, run as argument vectors with a narrow environment. Its error output is
//! never read: it may repeat values of the configuration.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use serde_json::Value;
use thiserror::Error;
use tokio::{
    io::AsyncReadExt as _,
    process::{Child, Command},
    time::timeout,
};

use crate::layout::Layout;

const PATIENCE: Duration = Duration::from_secs(60);
const LONGEST_OUTPUT: u64 = 1024 * 1024;
const LONGEST_PATH: usize = 200;

/// Runs `OpenClaw`'s program.
pub(crate) struct Cli {
    program: PathBuf,
    layout: Layout,
}

/// What `OpenClaw` thinks of a configuration.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Validation {
    /// It takes it.
    Valid,
    /// It rejects it, at this path if it names one.
    Invalid { path: Option<String> },
}

/// Why a command did not do its work.
#[derive(Debug, Error)]
pub(crate) enum CliError {
    #[error("cannot run {}: {source}", program.display())]
    Start { program: PathBuf, source: std::io::Error },
    #[error("`openclaw {0}` did not end within {seconds} s", seconds = PATIENCE.as_secs())]
    Timeout(&'static str),
    #[error("`openclaw {command}` ended with {status} and no readable answer")]
    Failed { command: &'static str, status: String },
}

struct Output {
    status: std::process::ExitStatus,
    text: Vec<u8>,
}

impl Cli {
    pub(crate) fn new(program: PathBuf, layout: Layout) -> Self {
        Self { program, layout }
    }

    /// Asks `OpenClaw` whether the configuration at `path` is good.
    pub(crate) async fn validate(&self, path: &Path) -> Result<Validation, CliError> {
        let command = "config validate";
        let output = self.run(command, ["config", "validate", "--json"], path).await?;
        if output.status.success() {
            return Ok(Validation::Valid);
        }
        let answer: Option<Value> = serde_json::from_slice(&output.text).ok();
        match answer.as_ref().and_then(|answer| answer.get("issues")).and_then(Value::as_array) {
            Some(issues) => Ok(Validation::Invalid { path: issues.iter().find_map(path_of) }),
            None => Err(CliError::Failed { command, status: output.status.to_string() }),
        }
    }

    /// Makes the running `OpenClaw` read its secrets again.
    pub(crate) async fn reload_secrets(&self) -> Result<(), CliError> {
        let command = "secrets reload";
        let config = self.layout.openclaw_config();
        let output = self.run(command, ["secrets", "reload"], &config).await?;
        if output.status.success() {
            return Ok(());
        }
        Err(CliError::Failed { command, status: output.status.to_string() })
    }

    /// The version that `OpenClaw` says it has.
    pub(crate) async fn version(&self) -> Result<String, CliError> {
        let command = "--version";
        let config = self.layout.openclaw_config();
        let output = self.run(command, ["--version"], &config).await?;
        let text = String::from_utf8_lossy(&output.text);
        let is_version = |word: &&str| {
            word.len() <= 64
                && word.starts_with(|first: char| first.is_ascii_digit())
                && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-+".contains(&byte))
        };
        let version = text.split_whitespace().find(is_version).filter(|_| output.status.success());
        version
            .map(str::to_owned)
            .ok_or_else(|| CliError::Failed { command, status: output.status.to_string() })
    }

    async fn run<I: IntoIterator<Item = &'static str>>(
        &self,
        name: &'static str,
        arguments: I,
        config: &Path,
    ) -> Result<Output, CliError> {
        let start = |source| CliError::Start { program: self.program.clone(), source };
        let mut child = self.command(config).args(arguments).spawn().map_err(start)?;
        match timeout(PATIENCE, collect(&mut child)).await {
            Ok(output) => output.map_err(start),
            Err(_) => Err(CliError::Timeout(name)),
        }
    }

    fn command(&self, config: &Path) -> Command {
        let mut command = Command::new(&self.program);
        let inherited = |name: &str| std::env::var_os(name);
        let path = inherited("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into());
        command
            .env_clear()
            .env("PATH", path)
            .env("HOME", self.layout.openclaw_home())
            .env("OPENCLAW_CONFIG_PATH", config)
            .env("OPENCLAW_STATE_DIR", self.layout.openclaw_state())
            .env("OPENCLAW_NO_AUTO_UPDATE", OsStr::new("1"))
            .env("OPENCLAW_SERVICE_REPAIR_POLICY", "external")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true);
        command
    }
}

async fn collect(child: &mut Child) -> std::io::Result<Output> {
    let mut text = Vec::new();
    if let Some(output) = child.stdout.take() {
        output.take(LONGEST_OUTPUT).read_to_end(&mut text).await?;
    }
    Ok(Output { status: child.wait().await?, text })
}

/// The path of an issue, as text or as a list of keys; never its message.
fn path_of(issue: &Value) -> Option<String> {
    let path = match issue.get("path")? {
        Value::String(text) => text.clone(),
        Value::Array(keys) => {
            let keys = keys.iter().map(|key| key.as_str().map_or(key.to_string(), str::to_owned));
            keys.collect::<Vec<_>>().join(".")
        }
        _ => return None,
    };
    let harmless = |char: char| char.is_ascii_graphic() || char == ' ';
    (!path.is_empty())
        .then(|| path.chars().filter(|char| harmless(*char)).take(LONGEST_PATH).collect())
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    #[rstest]
    #[case(json!({"path": "agents.defaults", "message": "x"}), Some("agents.defaults"))]
    #[case(json!({"path": ["channels", "telegram", 0]}), Some("channels.telegram.0"))]
    #[case(json!({"path": ""}), None)]
    #[case(json!({"message": "x"}), None)]
    #[case(json!({"path": "a\u{1b}[31m\nb"}), Some("a[31mb"))]
    fn the_path_of_an_issue_is_read_and_cleaned(#[case] issue: Value, #[case] path: Option<&str>) {
        assert_eq!(path_of(&issue).as_deref(), path);
    }
}
