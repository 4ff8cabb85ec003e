//! One stream of the edge, answered: by pushing rules into force, or by the origin that they name.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use http::{HeaderValue, Request, Response, StatusCode, Uri, Version, header};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use super::rules::{Rules, Service};
use moorage_sim_tunnel::body::{ProxyBody, channel, full, passing, pump};
use moorage_sim_tunnel::ingress::ConfigurationPush;
use moorage_sim_tunnel::streams::{
    FROM_CONNECTOR, FROM_ORIGIN, RESPONSE_HEADERS, RESPONSE_META, STREAM_TYPE,
    UPDATE_CONFIGURATION, WEBSOCKET, remove_hop_by_hop, remove_reserved, serialize_headers,
};

/// Longest rule document, in bytes.
const RULES_LIMIT: usize = 1 << 20;

/// One redirection of what the rules name, because a simulated server has no network of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mapping {
    /// Dial this address in place of that host, with the port of the rule.
    Host {
        /// As the rules write it.
        from: String,
        /// The server's own address.
        to: IpAddr,
    },
    /// Dial this address in place of a Unix socket.
    Unix {
        /// The socket's path as the rules write it.
        path: String,
        /// Where the same service listens.
        to: SocketAddr,
    },
}

impl FromStr for Mapping {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (from, to) = text.split_once('=').ok_or("expected FROM=TO")?;
        if let Some(path) = from.strip_prefix("unix:") {
            let to = to.parse().map_err(|_| format!("`{to}` is no address and port"))?;
            Ok(Self::Unix { path: path.to_owned(), to })
        } else {
            let to = to.parse().map_err(|_| format!("`{to}` is no IP address"))?;
            Ok(Self::Host { from: from.to_owned(), to })
        }
    }
}

/// Where to dial for what the rules name, by host and by socket.
#[derive(Debug, Default)]
pub struct AddressMap {
    hosts: HashMap<String, IpAddr>,
    sockets: HashMap<String, SocketAddr>,
}

impl AddressMap {
    /// Later mappings of the same thing win.
    pub fn new(mappings: Vec<Mapping>) -> Self {
        let mut map = Self::default();
        for mapping in mappings {
            match mapping {
                Mapping::Host { from, to } => {
                    map.hosts.insert(from, to);
                }
                Mapping::Unix { path, to } => {
                    map.sockets.insert(path, to);
                }
            }
        }
        map
    }
}

trait Transport: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Transport for T {}

async fn dial(service: &Service, map: &AddressMap) -> io::Result<Box<dyn Transport>> {
    let tcp = match service {
        Service::Http { host, port } => match map.hosts.get(host) {
            Some(address) => TcpStream::connect((*address, *port)).await?,
            None => TcpStream::connect((host.as_str(), *port)).await?,
        },
        Service::Unix(path) => match path.to_str().and_then(|path| map.sockets.get(path)) {
            Some(address) => TcpStream::connect(address).await?,
            None => return Ok(Box::new(UnixStream::connect(path).await?)),
        },
        Service::Status(_) => return Err(io::ErrorKind::Unsupported.into()),
    };
    tcp.set_nodelay(true)?;
    Ok(Box::new(tcp))
}

pub(super) async fn answer(
    rules: &Rules,
    map: &AddressMap,
    request: Request<Incoming>,
) -> Response<ProxyBody> {
    let kind = request.headers().get(STREAM_TYPE).map(HeaderValue::as_bytes);
    if kind == Some(UPDATE_CONFIGURATION.as_bytes()) {
        return update(rules, request).await;
    }
    let websocket = kind == Some(WEBSOCKET.as_bytes());
    let host = request.uri().host().unwrap_or_default().to_owned();
    match rules.service_for(&host) {
        None => own(StatusCode::SERVICE_UNAVAILABLE),
        Some(Service::Status(status)) => own(status),
        Some(service) => match carry(&service, map, request, websocket).await {
            Ok(response) => response,
            Err(error) => {
                tracing::error!(host, ?service, %error, "unable to reach the origin service");
                own(StatusCode::BAD_GATEWAY)
            }
        },
    }
}

async fn update(rules: &Rules, request: Request<Incoming>) -> Response<ProxyBody> {
    let body = Limited::new(request.into_body(), RULES_LIMIT).collect().await;
    let push = body
        .ok()
        .and_then(|body| serde_json::from_slice::<ConfigurationPush>(&body.to_bytes()).ok());
    match push {
        Some(push) => {
            let applied = rules.apply(push);
            Response::new(full(serde_json::to_vec(&applied).expect("the answer always serializes")))
        }
        None => own(StatusCode::BAD_GATEWAY),
    }
}

/// An answer that the connector makes itself.
fn own(status: StatusCode) -> Response<ProxyBody> {
    let mut response = Response::new(full(""));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(RESPONSE_META, HeaderValue::from_static(FROM_CONNECTOR));
    headers.insert(RESPONSE_HEADERS, HeaderValue::from_static(""));
    response
}

async fn carry(
    service: &Service,
    map: &AddressMap,
    request: Request<Incoming>,
    websocket: bool,
) -> Result<Response<ProxyBody>, moorage_sim_tunnel::body::BodyError> {
    let transport = dial(service, map).await?;
    let (mut origin, connection) = http1::handshake(TokioIo::new(transport)).await?;
    // Ends when the exchange does; errors reach whoever reads the body.
    tokio::spawn(connection.with_upgrades());
    let (mut parts, body) = request.into_parts();
    let host = parts.uri.authority().map(ToString::to_string).unwrap_or_default();
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    parts.uri = path.parse::<Uri>()?;
    parts.version = Version::HTTP_11;
    remove_hop_by_hop(&mut parts.headers);
    remove_reserved(&mut parts.headers);
    parts.headers.insert(header::HOST, HeaderValue::from_str(&host)?);
    if !websocket {
        let response = origin.send_request(Request::from_parts(parts, passing(body))).await?;
        let (parts, body) = response.into_parts();
        return Ok(from_origin(parts, passing(body)));
    }
    parts.headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    parts.headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    parts.headers.insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    let mut response = origin.send_request(Request::from_parts(parts, full(""))).await?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        let (parts, answer) = response.into_parts();
        return Ok(from_origin(parts, passing(answer)));
    }
    let upgrade = hyper::upgrade::on(&mut response);
    let (sender, answer) = channel();
    tokio::spawn(async move {
        let carried = async { pump(upgrade.await?, sender, body).await };
        if let Err(error) = carried.await {
            tracing::debug!(%error, "a WebSocket ended early");
        }
    });
    let (mut parts, _) = response.into_parts();
    // HTTP/2 knows no 101.
    parts.status = StatusCode::OK;
    Ok(from_origin(parts, answer))
}

/// Packs the origin's answer into the form that the edge expects.
fn from_origin(mut origin: http::response::Parts, body: ProxyBody) -> Response<ProxyBody> {
    remove_hop_by_hop(&mut origin.headers);
    remove_reserved(&mut origin.headers);
    let mut response = Response::new(body);
    *response.status_mut() = origin.status;
    let headers = response.headers_mut();
    headers.insert(RESPONSE_META, HeaderValue::from_static(FROM_ORIGIN));
    headers.insert(RESPONSE_HEADERS, serialize_headers(&origin.headers));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mappings_are_read_from_the_command_line() {
        assert_eq!(
            "127.0.0.1=127.64.0.5".parse(),
            Ok(Mapping::Host { from: "127.0.0.1".into(), to: "127.64.0.5".parse().unwrap() })
        );
        assert_eq!(
            "unix:/run/a.sock=127.64.0.5:7443".parse(),
            Ok(Mapping::Unix {
                path: "/run/a.sock".into(),
                to: "127.64.0.5:7443".parse().unwrap()
            })
        );
        assert!("127.0.0.1".parse::<Mapping>().is_err());
        assert!("unix:/run/a.sock=127.64.0.5".parse::<Mapping>().is_err());
    }
}
