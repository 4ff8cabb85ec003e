//! The agent's HTTP server: accepts a bounded number of connections and gives each HTTP/1.1 with time limits.

use std::{
    io,
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::Duration,
};

use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::Semaphore,
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{api, core::Core, listen::Listener};

const MOST_CONNECTIONS: usize = 128;
const LARGEST_HEAD: usize = 32 * 1024;
/// For requests that are being answered when the agent is told to end.
const STOP_GRACE: Duration = Duration::from_secs(5);

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
