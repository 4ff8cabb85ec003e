//! The listener: accepts a bounded number of connections and gives each HTTP/1.1 with time limits.

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    os::unix::fs::{FileTypeExt as _, PermissionsExt as _},
    path::Path,
    sync::Arc,
    time::Duration,
};

use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener},
    sync::Semaphore,
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{api, core::Core, settings::Listen};

const MOST_CONNECTIONS: usize = 128;
const LARGEST_HEAD: usize = 32 * 1024;
/// For requests that are being answered when the agent is told to end.
const STOP_GRACE: Duration = Duration::from_secs(5);
/// cloudflared is in the socket's group.
const SOCKET_MODE: u32 = 0o660;

/// A socket that listens.
pub(crate) enum Listener {
    Unix(UnixListener),
    Tcp(TcpListener),
}

impl Listener {
    /// Opens the socket. Only the holder of the state's lock may call this: a socket file that is
    /// already there is a leftover.
    pub(crate) async fn open(listen: &Listen) -> io::Result<Self> {
        match listen {
            Listen::Tcp(address) => TcpListener::bind(address).await.map(Self::Tcp),
            Listen::Unix(path) => bind_unix(path, SOCKET_MODE).map(Self::Unix),
            Listen::Systemd => passed_by_systemd().map(Self::Unix),
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

/// Makes a socket. Whoever calls this knows that nobody else listens there: a socket file that is
/// already there is a leftover.
pub(crate) fn bind_unix(path: &Path, mode: u32) -> io::Result<UnixListener> {
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
pub(crate) fn passed_by_systemd() -> io::Result<UnixListener> {
    let missing = "systemd passed no Unix socket (LISTEN_FDS); is the unit's .socket active?";
    let passed = listenfd::ListenFd::from_env().take_unix_listener(0)?;
    let listener = passed.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, missing))?;
    listener.set_nonblocking(true)?;
    UnixListener::from_std(listener)
}

/// Answers until `stop`, then lets the requests under way end.
pub(crate) async fn serve(core: Arc<Core>, listener: Listener, stop: CancellationToken) {
    let slots = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = accept(&listener, &slots) => accepted,
            Some(_) = connections.join_next() => continue,
        };
        match accepted {
            Ok((slot, stream, client)) => {
                let (core, stop) = (Arc::clone(&core), stop.clone());
                connections.spawn(async move {
                    let _slot = slot;
                    match stream {
                        Stream::Unix(stream) => connection(core, stream, client, stop).await,
                        Stream::Tcp(stream) => connection(core, stream, client, stop).await,
                    }
                });
            }
            Err(error) => {
                // Out of file descriptors, for example: others have to end first.
                tracing::warn!(%error, "cannot accept a connection");
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
    let _ = timeout(STOP_GRACE, async { while connections.join_next().await.is_some() {} }).await;
}

enum Stream {
    Unix(tokio::net::UnixStream),
    Tcp(tokio::net::TcpStream),
}

async fn accept(
    listener: &Listener,
    slots: &Arc<Semaphore>,
) -> io::Result<(tokio::sync::OwnedSemaphorePermit, Stream, IpAddr)> {
    let slot = Arc::clone(slots).acquire_owned().await.map_err(io::Error::other)?;
    match listener {
        Listener::Unix(listener) => {
            let (stream, _) = listener.accept().await?;
            Ok((slot, Stream::Unix(stream), Ipv4Addr::UNSPECIFIED.into()))
        }
        Listener::Tcp(listener) => {
            let (stream, peer) = listener.accept().await?;
            Ok((slot, Stream::Tcp(stream), peer.ip()))
        }
    }
}

async fn connection<S>(core: Arc<Core>, stream: S, client: IpAddr, stop: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let read_timeout = core.settings.timing.read_timeout;
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let core = Arc::clone(&core);
        async move { Ok::<_, std::convert::Infallible>(api::handle(core, request, client).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(read_timeout)
        .max_buf_size(LARGEST_HEAD)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
}
