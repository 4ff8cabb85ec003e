//! `moorage-sim launch-container`: the last steps to a running container, done inside the mount and
//! process namespaces that end with it. Whatever is mounted here is gone when the container is. A
//! virtual machine is launched in the same way, by [`super::qemu`].

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::cgroup;
use super::disk::Disk;

/// What a container is started from.
#[derive(Debug, Clone, clap::Args)]
pub struct LaunchOptions {
    /// The server's folder
    #[arg(long)]
    folder: PathBuf,
    /// The tree that all servers share, read-only
    #[arg(long)]
    lower: PathBuf,
    /// Name of the machine, of its network namespace and of its control group
    #[arg(long)]
    machine: String,
    /// Host name
    #[arg(long)]
    hostname: String,
}

impl LaunchOptions {
    pub(super) fn new(folder: &Path, lower: &Path, machine: String, hostname: String) -> Self {
        Self { folder: folder.to_owned(), lower: lower.to_owned(), machine, hostname }
    }

    /// The command that becomes the container, apart from what makes it die with the simulator.
    pub(super) fn command(&self, sim_bin: &Path) -> Vec<OsString> {
        let mut command = within_namespaces(sim_bin, "launch-container");
        let options: [(&str, &OsStr); 4] = [
            ("--folder", self.folder.as_os_str()),
            ("--lower", self.lower.as_os_str()),
            ("--machine", self.machine.as_ref()),
            ("--hostname", self.hostname.as_ref()),
        ];
        for (name, value) in options {
            command.push(name.into());
            command.push(value.to_owned());
        }
        command
    }
}

/// `moorage-sim` with one of its words, as process 1 of a new process namespace: when it ends, however
/// it ends, the kernel kills all that it ever started, and the mounts go with the last of them.
pub(super) fn within_namespaces(sim_bin: &Path, word: &str) -> Vec<OsString> {
    let mut command: Vec<OsString> = [
        "unshare",
        "--mount",
        "--propagation",
        "private",
        "--pid",
        "--fork",
        "--mount-proc",
        "--kill-child=SIGKILL",
        "--",
    ]
    .map(OsString::from)
    .into();
    command.push(sim_bin.into());
    command.push(word.into());
    command
}

/// Mounts the disk and becomes systemd-nspawn. Returns only when that failed.
pub fn run(options: &LaunchOptions) -> io::Error {
    match prepare(options) {
        Ok(root) => nspawn(options, &root).exec(),
        Err(error) => error,
    }
}

fn prepare(options: &LaunchOptions) -> io::Result<PathBuf> {
    cgroup::enter(&options.machine)?;
    Disk::of(&options.folder).mount(&options.lower)
}

fn nspawn(options: &LaunchOptions, root: &Path) -> Command {
    let mut command = Command::new("systemd-nspawn");
    command
        // As on every Debian of today, whatever this machine has.
        .env("SYSTEMD_NSPAWN_UNIFIED_HIERARCHY", "1")
        .arg("--directory")
        .arg(root)
        .arg(format!("--machine={}", options.machine))
        .arg(format!("--hostname={}", options.hostname))
        .arg(format!("--network-namespace-path=/run/netns/{}", options.machine))
        .args([
            "--boot",
            "--quiet",
            "--console=pipe",
            "--settings=no",
            // Neither machined nor a scope: this machine may run no systemd.
            "--register=no",
            "--keep-unit",
            "--resolv-conf=off",
            "--timezone=off",
            "--link-journal=no",
            // What SIGTERM becomes inside: power off.
            "--kill-signal=SIGRTMIN+4",
            // nft needs it.
            "--capability=CAP_NET_ADMIN",
        ]);
    command
}
