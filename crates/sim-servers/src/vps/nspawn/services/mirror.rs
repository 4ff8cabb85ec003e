//! The package mirror: passes GET requests for Debian's archive on to the mirror that this machine
//! itself uses, and nothing else.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderName, Method, StatusCode, header};
use serde::Deserialize;

use super::names::MIRROR_NAMES;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
const PASSED_TO_MIRROR: [HeaderName; 5] = [
    header::RANGE,
    header::IF_RANGE,
    header::IF_MODIFIED_SINCE,
    header::IF_NONE_MATCH,
    header::CACHE_CONTROL,
];
const PASSED_BACK: [HeaderName; 6] = [
    header::CONTENT_LENGTH,
    header::CONTENT_TYPE,
    header::CONTENT_RANGE,
    header::ACCEPT_RANGES,
    header::LAST_MODIFIED,
    header::ETAG,
];

/// What `hack/lab.sh` has found out about this machine.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct LabFile {
    /// URL of the archive.
    mirror: String,
    /// URL of the archive of security updates.
    security_mirror: String,
    /// URL of a proxy, or empty.
    proxy: String,
}

/// Where packages come from.
pub(super) struct Mirror {
    archive: String,
    security: String,
    client: reqwest::Client,
}

impl Mirror {
    pub(super) fn read(file: &Path) -> io::Result<Self> {
        let lab: LabFile = serde_json::from_slice(&std::fs::read(file)?)?;
        // A redirect to another host would lead out of the lab.
        let same_host = reqwest::redirect::Policy::custom(|attempt| {
            let from = attempt.previous().first().and_then(|url| url.host_str().map(str::to_owned));
            if attempt.previous().len() < 5 && attempt.url().host_str() == from.as_deref() {
                attempt.follow()
            } else {
                attempt.stop()
            }
        });
        let mut client = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .redirect(same_host)
            .no_proxy();
        if !lab.proxy.is_empty() {
            client = client.proxy(reqwest::Proxy::all(lab.proxy).map_err(io::Error::other)?);
        }
        let client = client.build().map_err(io::Error::other)?;
        Ok(Self { archive: lab.mirror, security: lab.security_mirror, client })
    }

    /// Where a path of the archive lies.
    fn locate(&self, path: &str) -> Option<String> {
        let below = |prefix: &str, base: &str| {
            path.strip_prefix(prefix).map(|rest| format!("{}/{rest}", base.trim_end_matches('/')))
        };
        if path.split('/').any(|part| matches!(part, "." | "..")) {
            return None;
        }
        below("/debian/", &self.archive).or_else(|| below("/debian-security/", &self.security))
    }
}

pub(super) fn router(mirror: Mirror) -> Router {
    Router::new().fallback(forward).with_state(Arc::new(mirror))
}

async fn forward(State(mirror): State<Arc<Mirror>>, request: Request) -> Response {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return StatusCode::METHOD_NOT_ALLOWED.into_response();
    }
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    let host = host.map(|host| host.split_once(':').map_or(host, |(name, _)| name));
    let url = mirror.locate(request.uri().path());
    let (Some(true), Some(url)) = (host.map(|host| MIRROR_NAMES.contains(&host)), url) else {
        return (StatusCode::FORBIDDEN, "not a mirror of that\n").into_response();
    };
    let mut upstream = mirror.client.request(request.method().clone(), url);
    for name in PASSED_TO_MIRROR {
        for value in request.headers().get_all(&name) {
            upstream = upstream.header(name.clone(), value);
        }
    }
    match upstream.send().await {
        Ok(response) => pass_back(response),
        Err(error) => {
            tracing::warn!(%error, "the package mirror does not answer");
            StatusCode::BAD_GATEWAY.into_response()
        }
    }
}

/// The answer, as it came.
pub(super) fn pass_back(upstream: reqwest::Response) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = upstream.status();
    for name in PASSED_BACK {
        for value in upstream.headers().get_all(&name) {
            response.headers_mut().append(name.clone(), value.clone());
        }
    }
    let chunks = futures::stream::try_unfold(upstream, async |mut upstream| {
        Ok::<_, reqwest::Error>(upstream.chunk().await?.map(|chunk| (chunk, upstream)))
    });
    *response.body_mut() = Body::from_stream(chunks);
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("/debian/dists/trixie/InRelease", Some("http://mirror/debian/dists/trixie/InRelease"))]
    #[case("/debian-security/pool/x.deb", Some("http://mirror/debian-security/pool/x.deb"))]
    #[case("/debian/../etc/passwd", None)]
    #[case("/other/file", None)]
    #[case("/debian", None)]
    fn only_the_archive_is_passed_on(#[case] path: &str, #[case] url: Option<&str>) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("lab.json");
        let lab = r#"{"mirror": "http://mirror/debian", "securityMirror": "http://mirror/debian-security", "proxy": ""}"#;
        std::fs::write(&file, lab).unwrap();
        assert_eq!(Mirror::read(&file).unwrap().locate(path).as_deref(), url);
    }
}
