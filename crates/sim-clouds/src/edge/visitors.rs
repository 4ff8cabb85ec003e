//! Visitors: TLS, HTTP/1.1 and HTTP/2, and the decision what happens to a request before it enters a
//! tunnel.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::connectors::LiveConnections;
use super::forward;
use super::pages::{CF_RAY, page, unreachable};
use super::registry::TunnelRegistry;
use crate::cloudflare::AccessDecision;
use crate::ids::random_bytes;
use crate::listener;
use moorage_sim_tunnel::body::ProxyBody;

const CLIENT_ID: HeaderName = HeaderName::from_static("cf-access-client-id");
const CLIENT_SECRET: HeaderName = HeaderName::from_static("cf-access-client-secret");

/// Requests for this name cloudflared answers itself: logs and diagnostics, for Cloudflare only.
const MANAGEMENT_HOST: &str = "management.argotunnel.com";

/// How long a visitor may take for the TLS handshake, and for the headers of a request.
const VISITOR_TIMEOUT: Duration = Duration::from_secs(15);

/// What every visitor's connection needs.
struct Reception {
    registry: Arc<dyn TunnelRegistry>,
    live: Arc<LiveConnections>,
}

/// Accepts visitors until `stop`.
pub(super) async fn accept(
    listener: TcpListener,
    tls: Arc<rustls::ServerConfig>,
    registry: Arc<dyn TunnelRegistry>,
    live: Arc<LiveConnections>,
    stop: CancellationToken,
) {
    let acceptor = TlsAcceptor::from(tls);
    let reception = Arc::new(Reception { registry, live });
    let mut visits = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            Some(_) = visits.join_next(), if !visits.is_empty() => {}
            (stream, peer) = listener::next_connection(&listener) => {
                visits.spawn(visit(stream, peer, acceptor.clone(), reception.clone()));
            }
        }
    }
    visits.shutdown().await;
}

async fn visit(
    stream: TcpStream,
    peer: SocketAddr,
    acceptor: TlsAcceptor,
    reception: Arc<Reception>,
) {
    let stream = match tokio::time::timeout(VISITOR_TIMEOUT, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            tracing::debug!(%peer, %error, "TLS handshake failed");
            return;
        }
        Err(_) => return,
    };
    let service = service_fn(move |request| {
        let reception = reception.clone();
        async move { Ok::<_, Infallible>(answer(&reception, request, peer.ip()).await) }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(VISITOR_TIMEOUT);
    builder.http2().timer(TokioTimer::new());
    if let Err(error) = builder.serve_connection_with_upgrades(TokioIo::new(stream), service).await
    {
        tracing::debug!(%peer, %error, "visit ended early");
    }
}

async fn answer(
    reception: &Reception,
    mut request: Request<Incoming>,
    peer: IpAddr,
) -> Response<ProxyBody> {
    // Cloudflare appends the data centre; this one is none of theirs.
    let ray = format!("{}-SIM", hex::encode(random_bytes::<8>()));
    let ray = HeaderValue::from_str(&ray).expect("hexadecimal digits are visible ASCII");
    let headers = request.headers_mut();
    let client_id = headers.remove(CLIENT_ID);
    let client_secret = headers.remove(CLIENT_SECRET);
    let mut response = match host_of(&request) {
        None => page(StatusCode::BAD_REQUEST, "error code: 400"),
        Some(host) => {
            let access = reception.registry.access_check(
                &host,
                text(client_id.as_ref()),
                text(client_secret.as_ref()),
            );
            let route = reception.registry.route(&host).filter(|_| host != MANAGEMENT_HOST);
            match (access, route) {
                (AccessDecision::Denied, _) => {
                    page(StatusCode::FORBIDDEN, "Access denied: a service token is required")
                }
                // 1016 is "origin DNS error": no tunnel is behind the name.
                (_, None) => page(unreachable(), "error code: 1016"),
                (_, Some(tunnel)) => {
                    forward::forward(&reception.live, &tunnel, &host, request, peer, &ray).await
                }
            }
        }
    };
    let headers = response.headers_mut();
    headers.insert(header::SERVER, HeaderValue::from_static("cloudflare"));
    headers.insert(CF_RAY, ray);
    response
}

/// The hostname that the visitor asks for, in lower case and without port.
fn host_of<B>(request: &Request<B>) -> Option<String> {
    let from_header = |headers: &HeaderMap| {
        headers.get(header::HOST)?.to_str().ok()?.parse::<http::uri::Authority>().ok()
    };
    let authority =
        request.uri().authority().cloned().or_else(|| from_header(request.headers()))?;
    Some(authority.host().to_ascii_lowercase())
}

fn text(value: Option<&HeaderValue>) -> Option<&str> {
    value.and_then(|value| value.to_str().ok())
}
