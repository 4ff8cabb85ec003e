//! The npm registry: passes what npm asks for on to the registry that this machine itself uses. In what
//! comes back the addresses of packages are those of the lab's registry again.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::{Method, StatusCode, header};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::mirror::pass_back;
use super::names::REGISTRY_NAME;
use moorage_sim_clouds::listener;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
/// A client may take so long for the TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(15);

/// Where packages come from.
struct Registry {
    /// Without a slash at its end.
    upstream: String,
    client: reqwest::Client,
}

/// Relays to the registry at this address, by whatever proxy this machine's environment names.
pub(super) fn router(upstream: &str) -> io::Result<Router> {
    let client = reqwest::Client::builder().connect_timeout(CONNECT_TIMEOUT).build();
    let client = client.map_err(io::Error::other)?;
    let registry = Registry { upstream: upstream.trim_end_matches('/').to_owned(), client };
    Ok(Router::new().fallback(forward).with_state(Arc::new(registry)))
}

/// Serves until it is dropped, and all connections with it.
pub(super) async fn serve(listener: TcpListener, tls: Arc<rustls::ServerConfig>, router: Router) {
    let acceptor = TlsAcceptor::from(tls);
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            (stream, peer) = listener::next_connection(&listener) => {
                connections.spawn(talk(stream, peer, acceptor.clone(), router.clone()));
            }
        }
    }
}

async fn talk(stream: TcpStream, peer: SocketAddr, acceptor: TlsAcceptor, router: Router) {
    match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => listener::converse(stream, peer, router).await,
        Ok(Err(error)) => tracing::debug!(%peer, %error, "TLS handshake failed"),
        Err(_) => {}
    }
}

async fn forward(State(registry): State<Arc<Registry>>, request: Request) -> Response {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return StatusCode::METHOD_NOT_ALLOWED.into_response();
    }
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    let climbs = request.uri().path().split('/').any(|part| matches!(part, "." | ".."));
    if host != Some(REGISTRY_NAME) || climbs {
        return (StatusCode::FORBIDDEN, "not the npm registry\n").into_response();
    }
    let mut upstream =
        registry.client.request(request.method().clone(), format!("{}{path}", registry.upstream));
    // npm asks for a short form of documents by it.
    for value in request.headers().get_all(header::ACCEPT) {
        upstream = upstream.header(header::ACCEPT, value);
    }
    match upstream.send().await {
        Ok(response) if is_document(&response) => registry.translated(response).await,
        Ok(response) => pass_back(response),
        Err(error) => {
            tracing::warn!(%error, "the npm registry does not answer");
            StatusCode::BAD_GATEWAY.into_response()
        }
    }
}

fn is_document(response: &reqwest::Response) -> bool {
    let kind = response.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    kind.is_some_and(|kind| kind.split(';').next().is_some_and(|kind| kind.ends_with("json")))
}

impl Registry {
    async fn translated(&self, response: reqwest::Response) -> Response {
        let (status, kind) =
            (response.status(), response.headers().get(header::CONTENT_TYPE).cloned());
        match response.text().await {
            Ok(text) => {
                let mut response = Response::new(Body::from(self.translate(&text)));
                *response.status_mut() = status;
                response.headers_mut().extend(kind.map(|kind| (header::CONTENT_TYPE, kind)));
                response
            }
            Err(error) => {
                tracing::warn!(%error, "the npm registry breaks off");
                StatusCode::BAD_GATEWAY.into_response()
            }
        }
    }

    fn translate(&self, document: &str) -> String {
        let here = format!("https://{REGISTRY_NAME}/");
        document.replace(&format!("{}/", self.upstream), &here)
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use http_body_util::BodyExt as _;
    use tower::ServiceExt as _;

    use super::*;

    async fn upstream() -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}/npm", listener.local_addr().unwrap());
        let document = format!(r#"{{"dist":{{"tarball":"{base}/a/-/a-1.0.0.tgz"}}}}"#);
        let json = [(header::CONTENT_TYPE, "application/vnd.npm.install-v1+json")];
        let router = Router::new()
            .route("/npm/@s%2fa", get(move || async move { (json, document) }))
            .route("/npm/a/-/a-1.0.0.tgz", get(async || "bytes"));
        tokio::spawn(async move { axum::serve(listener, router).await });
        base
    }

    async fn ask(base: &str, host: &str, path: &str) -> (StatusCode, String) {
        let request = Request::get(path).header(header::HOST, host).body(Body::empty()).unwrap();
        let answer = router(base).unwrap().oneshot(request).await.unwrap();
        let (head, body) = answer.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        (head.status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn documents_name_packages_where_servers_find_them() {
        let base = upstream().await;
        let (status, document) = ask(&base, REGISTRY_NAME, "/@s%2fa").await;
        let wanted = r#"{"dist":{"tarball":"https://registry.npmjs.org/a/-/a-1.0.0.tgz"}}"#;
        assert_eq!((status, document.as_str()), (StatusCode::OK, wanted));
        let (status, bytes) = ask(&format!("{base}/"), REGISTRY_NAME, "/a/-/a-1.0.0.tgz").await;
        assert_eq!((status, bytes.as_str()), (StatusCode::OK, "bytes"));
    }

    #[tokio::test]
    async fn nothing_else_is_passed_on() {
        let base = upstream().await;
        for (host, path) in [("elsewhere.example", "/a"), (REGISTRY_NAME, "/../a")] {
            assert_eq!(ask(&base, host, path).await.0, StatusCode::FORBIDDEN, "{host} {path}");
        }
        assert_eq!(ask(&base, REGISTRY_NAME, "/b").await.0, StatusCode::NOT_FOUND);
    }
}
