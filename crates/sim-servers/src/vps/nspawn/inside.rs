//! Looking into a running server: programs are run inside, as root or as a user. In a container that
//! is done by `nsenter`, in a virtual machine by [`super::guest_agent`].

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde::{Deserialize, Serialize};
use tokio::io::AsyncWriteExt as _;

use super::exec::{ExecAnswer, ExecRequest, as_user, with_limit};
use super::guest_agent;
use super::qemu::AGENT_SOCKET;

/// The container's first process, as this machine numbers it: the child of systemd-nspawn, which is
/// the child of the process that the backend has started.
pub(super) fn leader(started: u32) -> Option<i32> {
    let nspawn = only_child(started)?;
    let leader = only_child(nspawn)?;
    // Before systemd runs, there is nothing to look at.
    let name = std::fs::read_to_string(format!("/proc/{leader}/comm")).ok()?;
    (name.trim_end() == "systemd").then(|| i32::try_from(leader).ok()).flatten()
}

pub(super) fn only_child(process: u32) -> Option<u32> {
    let children =
        std::fs::read_to_string(format!("/proc/{process}/task/{process}/children")).ok()?;
    let mut children = children.split_ascii_whitespace();
    let child = children.next()?.parse().ok()?;
    children.next().is_none().then_some(child)
}

/// The command that runs `argv` in the container of `leader`.
fn command(
    leader: i32,
    user: Option<&str>,
    argv: impl IntoIterator<Item = OsString>,
) -> Vec<OsString> {
    let mut command: Vec<OsString> =
        vec!["nsenter".into(), "--target".into(), leader.to_string().into()];
    let namespaces = ["--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--"];
    command.extend(namespaces.map(OsString::from));
    command.extend(as_user(user).into_iter().map(OsString::from));
    command.extend(argv);
    command
}

/// Runs a program in the container of `leader` and waits for it.
pub(super) async fn exec(leader: i32, request: ExecRequest) -> io::Result<ExecAnswer> {
    let argv = with_limit(&request).map(OsString::from);
    let argv = command(leader, request.user.as_deref(), argv);
    let mut child = tokio::process::Command::new(&argv[0])
        .args(&argv[1..])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let mut stdin = child.stdin.take();
    let feed = async move {
        if let Some(stdin) = &mut stdin {
            // A program need not read its input.
            let _ = stdin.write_all(request.stdin.as_bytes()).await;
        }
    };
    let (output, ()) = tokio::join!(child.wait_with_output(), feed);
    let output = output?;
    Ok(ExecAnswer { exit_code: output.status.code(), stdout: output.stdout, stderr: output.stderr })
}

/// `moorage-sim exec`: runs a program inside a server, with this terminal.
#[derive(Debug, Clone, clap::Args)]
pub struct ExecOptions {
    /// The simulator's state directory
    #[arg(long, value_name = "DIR", env = "MOORAGE_SIM_STATE_DIR")]
    state_dir: PathBuf,
    /// As whom; as root when left out
    #[arg(long)]
    user: Option<String>,
    /// The server's id or name
    server: String,
    /// The program and its arguments; a login shell when left out, in a container
    #[arg(last = true)]
    argv: Vec<OsString>,
}

/// What the backend writes beside a server's disk, for people and scripts.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct CardFile {
    pub(super) id: u64,
    pub(super) name: String,
    /// The process that the backend has started, while the power is on.
    pub(super) process: Option<u32>,
    /// Whether it is a virtual machine.
    pub(super) virtual_machine: bool,
}

impl CardFile {
    const NAME: &str = "server.json";

    /// Written beside and renamed, so that a reader sees all of it.
    pub(super) fn write(&self, folder: &Path) -> io::Result<()> {
        let staged = folder.join("server.json.new");
        std::fs::write(&staged, serde_json::to_vec(self)?)?;
        std::fs::rename(staged, folder.join(Self::NAME))
    }

    /// Nothing in the folder of a server that is being made, or removed.
    fn read(folder: &Path) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(folder.join(Self::NAME)).ok()?).ok()
    }
}

/// Becomes the program, or in a virtual machine passes on what it left. Returns only when that failed.
pub fn run(options: ExecOptions) -> io::Error {
    match find(&options.state_dir, &options.server) {
        Ok(Place::Container(leader)) => become_inside(leader, options),
        Ok(Place::VirtualMachine(agent)) => match run_remotely(&agent, options) {
            Ok(code) => std::process::exit(code),
            Err(error) => error,
        },
        Err(error) => error,
    }
}

fn become_inside(leader: i32, options: ExecOptions) -> io::Error {
    use std::os::unix::process::CommandExt as _;
    let argv = if options.argv.is_empty() {
        ["bash", "--login"].map(OsString::from).into()
    } else {
        options.argv
    };
    let term = std::env::var_os("TERM").map(|term| {
        let mut text = OsString::from("TERM=");
        text.push(term);
        text
    });
    let argv = ["env".into()].into_iter().chain(term).chain(argv);
    let argv = command(leader, options.user.as_deref(), argv);
    std::process::Command::new(&argv[0]).args(&argv[1..]).exec()
}

fn run_remotely(agent: &Path, options: ExecOptions) -> io::Result<i32> {
    use std::io::Write as _;
    if options.argv.is_empty() {
        return Err(io::Error::other("a virtual machine offers no terminal: name a program"));
    }
    let argv = options.argv.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let answer = runtime.block_on(guest_agent::exec(
        agent,
        guest_agent::ANSWER_TIMEOUT,
        ExecRequest::of(argv, options.user),
    ))?;
    io::stdout().write_all(&answer.stdout)?;
    io::stderr().write_all(&answer.stderr)?;
    Ok(answer.exit_code.unwrap_or(1))
}

/// Where a program can be run.
enum Place {
    /// By its first process.
    Container(i32),
    /// By its guest agent's socket.
    VirtualMachine(PathBuf),
}

fn find(state_dir: &Path, server: &str) -> io::Result<Place> {
    for entry in std::fs::read_dir(state_dir.join("servers"))? {
        let folder = entry?.path();
        let Some(card) = CardFile::read(&folder) else { continue };
        if card.name == server || card.id.to_string() == server {
            let place = match card.process {
                Some(_) if card.virtual_machine => {
                    Some(Place::VirtualMachine(folder.join(AGENT_SOCKET)))
                }
                process => process.and_then(leader).map(Place::Container),
            };
            return place.ok_or_else(|| io::Error::other(format!("server {server} does not run")));
        }
    }
    Err(io::Error::new(io::ErrorKind::NotFound, format!("there is no server {server}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_found_beside_one_that_is_being_made() {
        let state = tempfile::tempdir().unwrap();
        let folder = |name: &str| {
            let folder = state.path().join("servers").join(name);
            std::fs::create_dir_all(&folder).unwrap();
            folder
        };
        folder("1");
        std::fs::write(folder("2").join("server.json"), "{\"id\": 2").unwrap();
        let card = CardFile { id: 3, name: "ada".into(), process: Some(1), virtual_machine: true };
        card.write(&folder("3")).unwrap();
        for server in ["ada", "3"] {
            let found = find(state.path(), server).unwrap();
            assert!(
                matches!(found, Place::VirtualMachine(agent) if agent.starts_with(folder("3")))
            );
        }
        let kind = find(state.path(), "2").err().map(|error| error.kind());
        assert_eq!(kind, Some(io::ErrorKind::NotFound));
    }
}
