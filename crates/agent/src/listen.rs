//! Where a process answers: as the command line says it, and the socket that comes of it. Who is
//! answered, and what, is not known here.

use std::{
    fs, io,
    net::SocketAddr,
    os::unix::fs::{FileTypeExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    str::FromStr,
};

use thiserror::Error;
use tokio::net::{TcpListener, UnixListener};

/// cloudflared is in the group of the agent's socket.
const AGENT_SOCKET_MODE: u32 = 0o660;

/// A Unix socket to answer on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UnixSocket {
    /// One that the process makes itself.
    Made(PathBuf),
    /// The one that systemd holds (`LISTEN_FDS`).
    Systemd,
}

/// Where the agent answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    /// A Unix socket; mode 0660 if the agent makes it.
    Unix(UnixSocket),
    /// A port on a loopback address, for where there is no systemd.
    Tcp(SocketAddr),
}

/// A text that does not say where to listen.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum InvalidListen {
    /// Not one of the two forms.
    #[error("expected unix:/absolute/path or systemd: this is served on a Unix socket only")]
    NotUnix,
    /// Not one of the three forms.
    #[error("expected unix:/absolute/path, tcp:127.x.y.z:PORT or systemd")]
    Form,
    /// The agent is reached through the tunnel, never through a network interface.
    #[error("TCP is allowed on a loopback address (127.0.0.0/8) only, not on {0}")]
    NotLoopback(SocketAddr),
}

impl FromStr for UnixSocket {
    type Err = InvalidListen;

    fn from_str(text: &str) -> Result<Self, InvalidListen> {
        if text == "systemd" {
            return Ok(Self::Systemd);
        }
        let path = text.strip_prefix("unix:").map(PathBuf::from);
        path.filter(|path| path.is_absolute()).map(Self::Made).ok_or(InvalidListen::NotUnix)
    }
}

impl FromStr for Listen {
    type Err = InvalidListen;

    fn from_str(text: &str) -> Result<Self, InvalidListen> {
        let Some(address) = text.strip_prefix("tcp:") else {
            return text.parse().map(Self::Unix).map_err(|_| InvalidListen::Form);
        };
        let address: SocketAddr = address.parse().map_err(|_| InvalidListen::Form)?;
        if address.is_ipv4() && address.ip().is_loopback() {
            Ok(Self::Tcp(address))
        } else {
            Err(InvalidListen::NotLoopback(address))
        }
    }
}

impl UnixSocket {
    /// Listens there; a socket that is made gets this mode. Whoever calls this knows that nobody else
    /// listens there: a socket file that is already there is a leftover.
    pub(crate) fn open(&self, mode: u32) -> io::Result<UnixListener> {
        match self {
            Self::Made(path) => bind(path, mode),
            Self::Systemd => passed_by_systemd(),
        }
    }
}

/// A socket of the agent that listens.
pub(crate) enum Listener {
    Unix(UnixListener),
    Tcp(TcpListener),
}

impl Listener {
    /// Opens the socket, as [`UnixSocket::open`] does.
    pub(crate) async fn open(listen: &Listen) -> io::Result<Self> {
        match listen {
            Listen::Tcp(address) => TcpListener::bind(address).await.map(Self::Tcp),
            Listen::Unix(socket) => socket.open(AGENT_SOCKET_MODE).map(Self::Unix),
        }
    }

    /// The address, if it is TCP.
    pub(crate) fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(listener) => listener.local_addr().ok(),
            Self::Unix(_) => None,
        }
    }
}

fn bind(path: &Path, mode: u32) -> io::Result<UnixListener> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    if fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket()) {
        fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    Ok(listener)
}

/// The socket of the unit that this process is started by.
fn passed_by_systemd() -> io::Result<UnixListener> {
    let missing = "systemd passed no Unix socket (LISTEN_FDS); is the unit's .socket active?";
    let passed = listenfd::ListenFd::from_env().take_unix_listener(0)?;
    let listener = passed.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, missing))?;
    listener.set_nonblocking(true)?;
    UnixListener::from_std(listener)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("tcp:127.0.0.1:8080", true)]
    #[case("tcp:127.7.8.9:0", true)]
    #[case("tcp:0.0.0.0:8080", false)]
    #[case("tcp:192.0.2.1:8080", false)]
    #[case("tcp:[::1]:8080", false)]
    #[case("tcp:localhost:8080", false)]
    #[case("unix:/run/agent.sock", true)]
    #[case("unix:agent.sock", false)]
    #[case("systemd", true)]
    #[case("", false)]
    fn only_loopback_and_unix_sockets_can_be_listened_on(#[case] text: &str, #[case] taken: bool) {
        assert_eq!(text.parse::<Listen>().is_ok(), taken);
    }
}
