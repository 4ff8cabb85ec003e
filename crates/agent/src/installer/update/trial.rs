//! The first thing that is done with a new agent: it is started as an unprivileged user and has to
//! say its version.

use std::{io, path::Path, process::Stdio, time::Duration};

use thiserror::Error;
use tokio::{io::AsyncReadExt as _, process::Command, time::timeout};

use crate::accounts::User;

const LONGEST_OUTPUT: u64 = 4096;
/// The program's name, as it stands in front of its version.
const NAME: &str = "moorage-agent";

/// A trial that did not succeed.
#[derive(Debug, Error)]
pub enum TrialError {
    /// The program is to blame.
    #[error("the new agent {0}")]
    Program(String),
    /// The machine is: too little memory, too many processes.
    #[error("the new agent cannot be tried: {0}")]
    Machine(io::Error),
}

/// Has `program` say its version, as `user`, and compares it with the one of the release.
pub(crate) async fn says_its_version(
    program: &Path,
    version: &str,
    user: Option<User>,
    patience: Duration,
) -> Result<(), TrialError> {
    let mut command = Command::new(program);
    command
        .arg("--version")
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .process_group(0)
        .kill_on_drop(true);
    if let Some(user) = user {
        command.uid(user.uid).gid(user.gid);
    }
    let mut child = command.spawn().map_err(spawn_error)?;
    let output =
        child.stdout.take().ok_or(TrialError::Machine(io::ErrorKind::BrokenPipe.into()))?;
    let said = async {
        let mut text = Vec::new();
        output.take(LONGEST_OUTPUT).read_to_end(&mut text).await?;
        Ok::<_, io::Error>((text, child.wait().await?))
    };
    let (text, status) = match timeout(patience, said).await {
        Ok(said) => said.map_err(TrialError::Machine)?,
        Err(_) => {
            return Err(TrialError::Program("does not end when asked for its version".into()));
        }
    };
    if !status.success() {
        return Err(TrialError::Program(format!("does not start: {status}")));
    }
    let expected = format!("{NAME} {version}");
    if String::from_utf8_lossy(&text).trim_end() == expected {
        Ok(())
    } else {
        Err(TrialError::Program(format!("does not say that it is {expected}")))
    }
}

/// A program that the kernel refuses is to blame itself.
fn spawn_error(error: io::Error) -> TrialError {
    use rustix::io::Errno;
    let refused = [Errno::NOEXEC, Errno::ACCESS, Errno::NOENT, Errno::LIBBAD];
    if refused.iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error())) {
        TrialError::Program(format!("does not start: {error}"))
    } else {
        TrialError::Machine(error)
    }
}
