//! What the edge itself says to visitors, without an origin.

use http::{HeaderName, HeaderValue, Response, StatusCode, header};

use moorage_sim_tunnel::body::{ProxyBody, full};

/// Names a request in the logs of edge and origin.
pub(super) const CF_RAY: HeaderName = HeaderName::from_static("cf-ray");

/// Cloudflare's own status for "the origin cannot be reached by its name".
pub(super) fn unreachable() -> StatusCode {
    StatusCode::from_u16(530).expect("530 is in the range of status codes")
}

/// A page that the edge itself makes, in the form that Cloudflare gives to programs.
pub(super) fn page(status: StatusCode, text: &'static str) -> Response<ProxyBody> {
    let mut response = Response::new(full(text));
    *response.status_mut() = status;
    let kind = HeaderValue::from_static("text/plain; charset=UTF-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}
