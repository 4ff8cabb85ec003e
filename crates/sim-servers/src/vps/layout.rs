//! Where things lie on a simulated server, and the folders that a fresh Debian would have.

use std::io;
use std::path::{Path, PathBuf};

use moorage_wire::bootstrap::{BOOTSTRAP_PATH, INSTALLER_SOCKET_PATH, TUNNEL_TOKEN_PATH};

use super::Unit;

/// Longest path of a Unix socket on Linux, in bytes, without the closing NUL.
const SOCKET_PATH_LIMIT: usize = 107;
/// Digits that a server's id is expected to have at most.
const ID_DIGITS: usize = 10;
/// The home of the `openclaw` user.
const OPENCLAW_HOME: &str = "/var/lib/openclaw";
const OPENCLAW_PROGRAM: &str = "/usr/local/bin/openclaw";
/// The stand-in for npm, which lies beside it.
const NPM: &str = "npm";

const FOLDERS: [&str; 9] = [
    "etc/moorage",
    "var/lib/openclaw/.openclaw",
    "run/moorage",
    "tmp",
    "usr/local/bin",
    "var/lib/moorage",
    "var/log",
    "var/tmp",
    "opt",
];

/// The paths of one server.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    folder: PathBuf,
    root: PathBuf,
}

impl Layout {
    pub(super) fn new(state_dir: &Path, id: u64) -> Self {
        let folder = state_dir.join("servers").join(id.to_string());
        Self { root: folder.join("root"), folder }
    }

    /// By how many bytes sockets below this state directory would have names that are too long.
    pub(super) fn socket_path_excess(state_dir: &Path) -> usize {
        let below = "/servers/".len() + ID_DIGITS + "/root".len() + INSTALLER_SOCKET_PATH.len();
        (state_dir.as_os_str().len() + below).saturating_sub(SOCKET_PATH_LIMIT)
    }

    /// The folder that holds everything of the server.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The server's `/`.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// What the backend says about the server, for people and scripts.
    pub(super) fn card(&self) -> PathBuf {
        self.folder.join("server.json")
    }

    pub(super) fn installer_socket(&self) -> PathBuf {
        self.below_root(INSTALLER_SOCKET_PATH)
    }

    pub(super) fn bootstrap(&self) -> PathBuf {
        self.below_root(BOOTSTRAP_PATH)
    }

    pub(super) fn tunnel_token(&self) -> PathBuf {
        self.below_root(TUNNEL_TOKEN_PATH)
    }

    pub(super) fn openclaw_program(&self) -> PathBuf {
        self.below_root(OPENCLAW_PROGRAM)
    }

    pub(super) fn openclaw_state(&self) -> PathBuf {
        self.below_root(OPENCLAW_HOME).join(".openclaw")
    }

    pub(super) fn log_of(&self, unit: Unit) -> PathBuf {
        let name = match unit {
            Unit::Agent => "agent.log",
            Unit::Cloudflared => "cloudflared.log",
            Unit::Openclaw => "openclaw.log",
        };
        self.root.join("var/log").join(name)
    }

    /// What became of the user-data.
    pub(super) fn cloud_init_log(&self) -> PathBuf {
        self.root.join("var/log/cloud-init.log")
    }

    /// Makes the folders, empties `/run` as a boot does, and links OpenClaw's program and its npm to their
    /// stand-ins.
    pub(super) fn prepare(&self, sim_bin: &Path) -> io::Result<()> {
        remove_dir(&self.root.join("run"))?;
        for folder in FOLDERS {
            std::fs::create_dir_all(self.root.join(folder))?;
        }
        let program = self.openclaw_program();
        for program in [program.with_file_name(NPM), program] {
            match std::fs::remove_file(&program) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            std::os::unix::fs::symlink(sim_bin, program)?;
        }
        Ok(())
    }

    /// Removes everything of the server.
    pub(super) fn erase(&self) -> io::Result<()> {
        remove_dir(&self.folder)
    }

    fn below_root(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }
}

fn remove_dir(path: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
