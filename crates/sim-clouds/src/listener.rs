//! HTTP on a listener, plain or by TLS: connections are accepted and served until they are to end.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

/// Marks an answer that must not be sent: the listener closes the connection instead.
#[derive(Debug, Clone, Copy)]
pub struct LostResponse;

/// Serves `router` until it is told to stop. Requests carry their client's address as `ConnectInfo`.
pub async fn accept(listener: TcpListener, router: Router, stop: CancellationToken) {
    serve(listener, router, None, stop).await;
}

/// The same by TLS.
pub async fn accept_tls(
    listener: TcpListener,
    router: Router,
    tls: Arc<rustls::ServerConfig>,
    stop: CancellationToken,
) {
    serve(listener, router, Some(TlsAcceptor::from(tls)), stop).await;
}

async fn serve(
    listener: TcpListener,
    router: Router,
    tls: Option<TlsAcceptor>,
    stop: CancellationToken,
) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            (stream, peer) = next_connection(&listener) => {
                match tls.clone() {
                    None => connections.spawn(converse(stream, peer, router.clone())),
                    Some(tls) => connections.spawn(converse_tls(tls, stream, peer, router.clone())),
                };
            }
        }
    }
    connections.shutdown().await;
}

/// Accepts the next connection; waits a little when the process is out of file descriptors, because
/// connections that end free some.
pub async fn next_connection(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                // Only costs latency when it fails.
                let _ = stream.set_nodelay(true);
                return (stream, peer);
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn converse_tls(tls: TlsAcceptor, stream: TcpStream, peer: SocketAddr, router: Router) {
    match tls.accept(stream).await {
        Ok(stream) => converse(stream, peer, router).await,
        Err(error) => tracing::debug!(%error, "no TLS came about"),
    }
}

/// Serves one connection. An answer that a fault takes away becomes an error of the service, which
/// makes hyper close the connection without a byte.
pub async fn converse<S>(stream: S, peer: SocketAddr, router: Router)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(ConnectInfo(peer));
        let router = router.clone();
        async move {
            let response: Result<Response<axum::body::Body>, Infallible> =
                router.oneshot(request.map(axum::body::Body::new)).await;
            let Ok(response) = response;
            if response.extensions().get::<LostResponse>().is_some() {
                return Err(io::Error::other("the answer is lost on purpose"));
            }
            Ok(response)
        }
    });
    let connection =
        hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    if let Err(error) = connection.await {
        tracing::debug!(%error, "connection ended early");
    }
}
