//! One visitor's request through a tunnel: plain HTTP and WebSocket.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use http::uri::{Authority, Scheme};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, Version, header,
};
use hyper::body::Incoming;

use super::connectors::LiveConnections;
use super::pages::{CF_RAY, page, unreachable};
use moorage_sim_tunnel::body::{BodySender, ProxyBody, channel, passing, pump};
use moorage_sim_tunnel::streams::{
    RESPONSE_HEADERS, STREAM_TYPE, WEBSOCKET, deserialize_headers, remove_hop_by_hop,
    remove_reserved,
};

const CF_CONNECTING_IP: HeaderName = HeaderName::from_static("cf-connecting-ip");
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// How long an origin may take to begin its answer; Cloudflare then says 524.
const ORIGIN_TIMEOUT: Duration = Duration::from_secs(100);

/// Forwards a request and brings back the answer.
pub(super) async fn forward(
    live: &LiveConnections,
    tunnel: &str,
    host: &str,
    mut request: Request<Incoming>,
    peer: IpAddr,
    ray: &HeaderValue,
) -> Response<ProxyBody> {
    let mut stream = None;
    for connection in live.of(tunnel) {
        stream = connection.ready().await;
        if stream.is_some() {
            break;
        }
    }
    let Some(mut stream) = stream else {
        return page(unreachable(), "error code: 1033");
    };

    let upgrade = wants_websocket(&request).then(|| hyper::upgrade::on(&mut request));
    let Some(uri) = tunnel_uri(host, request.uri()) else {
        return page(StatusCode::BAD_REQUEST, "error code: 400");
    };
    let (mut parts, visitor_body) = request.into_parts();
    parts.uri = uri;
    parts.version = Version::HTTP_2;
    edit_headers(&mut parts.headers, peer, ray);
    let (sender, body) = if upgrade.is_some() {
        parts.headers.insert(STREAM_TYPE, HeaderValue::from_static(WEBSOCKET));
        let (sender, body) = channel();
        (Some(sender), body)
    } else {
        (None, passing(visitor_body))
    };

    let sent = stream.send_request(Request::from_parts(parts, body));
    let response = match tokio::time::timeout(ORIGIN_TIMEOUT, sent).await {
        Ok(Ok(response)) => response,
        Ok(Err(error)) => {
            tracing::debug!(tunnel, %error, "a stream failed");
            return page(StatusCode::BAD_GATEWAY, "error code: 502");
        }
        Err(_) => {
            let timeout = StatusCode::from_u16(524).expect("524 is in the range of status codes");
            return page(timeout, "error code: 524");
        }
    };
    back_to_visitor(response, upgrade.zip(sender))
}

/// Turns the connector's answer into the visitor's.
fn back_to_visitor(
    response: Response<Incoming>,
    websocket: Option<(hyper::upgrade::OnUpgrade, BodySender)>,
) -> Response<ProxyBody> {
    let (parts, body) = response.into_parts();
    // The origin's headers are in one header; whatever else there is comes from the connector.
    let serialized = parts.headers.get(RESPONSE_HEADERS);
    let mut headers = serialized.and_then(deserialize_headers).unwrap_or_default();
    let switches =
        parts.status == StatusCode::OK && headers.contains_key(header::SEC_WEBSOCKET_ACCEPT);
    remove_hop_by_hop(&mut headers);
    match websocket {
        Some((upgrade, sender)) if switches => {
            tokio::spawn(async move {
                let carried = async { pump(upgrade.await?, sender, body).await };
                if let Err(error) = carried.await {
                    tracing::debug!(%error, "a WebSocket ended early");
                }
            });
            headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
            headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
            assemble(StatusCode::SWITCHING_PROTOCOLS, headers, moorage_sim_tunnel::body::full(""))
        }
        _ => assemble(parts.status, headers, passing(body)),
    }
}

fn assemble(status: StatusCode, headers: HeaderMap, body: ProxyBody) -> Response<ProxyBody> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

/// Web sockets come by HTTP/1.1 only; over HTTP/2 there is no `Upgrade`.
fn wants_websocket(request: &Request<Incoming>) -> bool {
    request.version() == Version::HTTP_11
        && request.method() == Method::GET
        && request
            .headers()
            .get(header::UPGRADE)
            .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"))
}

fn tunnel_uri(host: &str, visited: &Uri) -> Option<Uri> {
    let mut parts = http::uri::Parts::default();
    parts.scheme = Some(Scheme::HTTPS);
    parts.authority = Some(host.parse::<Authority>().ok()?);
    parts.path_and_query = visited.path_and_query().cloned();
    Uri::from_parts(parts).ok()
}

/// Visitors of a real edge come over the internet. One of loopback would look to an origin like a proxy
/// of its own, so it gets an address of those for documentation (RFC 5737): that of 127.0.0.7 is
/// 203.0.113.7.
fn as_seen_by_an_edge(peer: IpAddr) -> IpAddr {
    match peer {
        IpAddr::V4(address) if address.is_loopback() => {
            Ipv4Addr::new(203, 0, 113, address.octets()[3]).into()
        }
        IpAddr::V6(address) if address.is_loopback() => Ipv4Addr::new(203, 0, 113, 1).into(),
        _ => peer,
    }
}

/// Takes away what visitors may not say and adds what the edge knows.
fn edit_headers(headers: &mut HeaderMap, peer: IpAddr, ray: &HeaderValue) {
    remove_hop_by_hop(headers);
    remove_reserved(headers);
    headers.remove(header::HOST);
    let address = as_seen_by_an_edge(peer).to_string();
    let value = |text: &str| HeaderValue::from_str(text).expect("an address is visible ASCII");
    let forwarded_for = headers.get(X_FORWARDED_FOR).and_then(|before| {
        HeaderValue::from_str(&format!("{}, {address}", before.to_str().ok()?)).ok()
    });
    headers.insert(X_FORWARDED_FOR, forwarded_for.unwrap_or_else(|| value(&address)));
    headers.insert(CF_CONNECTING_IP, value(&address));
    headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static("https"));
    headers.insert(CF_RAY, ray.clone());
}
