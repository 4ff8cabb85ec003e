//! The HTTP/2 streams between edge and connector, as cloudflared has them: which header names the
//! type of a stream, and how the origin's response headers travel.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use http::{HeaderMap, HeaderName, HeaderValue};

/// Names the type of a stream; absent on plain HTTP requests.
pub const STREAM_TYPE: HeaderName =
    HeaderName::from_static("cf-cloudflared-proxy-connection-upgrade");
/// The stream carries a WebSocket.
pub const WEBSOCKET: &str = "websocket";
/// The stream carries the registration, the first one of a connection.
pub const CONTROL_STREAM: &str = "control-stream";
/// The stream pushes ingress rules.
pub const UPDATE_CONFIGURATION: &str = "update-configuration";
/// Says who made the response: the origin or the connector itself.
pub const RESPONSE_META: HeaderName = HeaderName::from_static("cf-cloudflared-response-meta");
/// [`RESPONSE_META`] of a response that the origin made.
pub const FROM_ORIGIN: &str = r#"{"src":"origin"}"#;
/// [`RESPONSE_META`] of a response that the connector made.
pub const FROM_CONNECTOR: &str = r#"{"src":"cloudflared"}"#;
/// The origin's response headers: `name:value` pairs joined by `;`, each half in unpadded base64.
pub const RESPONSE_HEADERS: HeaderName = HeaderName::from_static("cf-cloudflared-response-headers");
/// Header names that begin with one of these belong to edge and connector; nobody else sets them.
pub const RESERVED_PREFIXES: [&str; 3] = ["cf-cloudflared-", "cf-int-", "cf-proxy-"];

/// Headers of one hop (RFC 9110, 7.6.1), which no proxy forwards.
const HOP_BY_HOP: [HeaderName; 8] = [
    http::header::CONNECTION,
    http::header::PROXY_AUTHENTICATE,
    http::header::PROXY_AUTHORIZATION,
    http::header::TE,
    http::header::TRAILER,
    http::header::TRANSFER_ENCODING,
    http::header::UPGRADE,
    HeaderName::from_static("keep-alive"),
];

/// Removes the headers that must not pass from one hop to the next, those that `Connection` lists
/// included.
pub fn remove_hop_by_hop(headers: &mut HeaderMap) {
    let listed: Vec<HeaderName> = headers
        .get_all(http::header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in listed.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
}

/// Removes the headers that only edge and connector may set.
pub fn remove_reserved(headers: &mut HeaderMap) {
    let reserved: Vec<HeaderName> = headers
        .keys()
        .filter(|name| RESERVED_PREFIXES.iter().any(|prefix| name.as_str().starts_with(prefix)))
        .cloned()
        .collect();
    for name in reserved {
        headers.remove(name);
    }
}

/// Writes headers in the form of [`RESPONSE_HEADERS`].
pub fn serialize_headers(headers: &HeaderMap) -> HeaderValue {
    let pairs: Vec<String> = headers
        .iter()
        .map(|(name, value)| {
            format!("{}:{}", STANDARD_NO_PAD.encode(name.as_str()), STANDARD_NO_PAD.encode(value))
        })
        .collect();
    HeaderValue::from_str(&pairs.join(";"))
        .expect("base64, colons and semicolons are visible ASCII")
}

/// Reads [`RESPONSE_HEADERS`]; `None` when it is not in that form.
pub fn deserialize_headers(text: &HeaderValue) -> Option<HeaderMap> {
    let text = text.to_str().ok()?;
    let mut headers = HeaderMap::new();
    for pair in text.split(';').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once(':')?;
        let name = HeaderName::from_bytes(&STANDARD_NO_PAD.decode(name).ok()?).ok()?;
        let value = HeaderValue::from_bytes(&STANDARD_NO_PAD.decode(value).ok()?).ok()?;
        headers.append(name, value);
    }
    Some(headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn response_headers_survive_serialization_with_their_repeats() {
        let mut headers = HeaderMap::new();
        headers.append("set-cookie", HeaderValue::from_static("a=1; Path=/"));
        headers.append("set-cookie", HeaderValue::from_static("b=2"));
        headers.append("content-type", HeaderValue::from_static("text/plain"));
        assert_eq!(deserialize_headers(&serialize_headers(&headers)), Some(headers));
        assert_eq!(deserialize_headers(&HeaderValue::from_static("")), Some(HeaderMap::new()));
        assert_eq!(deserialize_headers(&HeaderValue::from_static("nonsense")), None);
    }

    #[test]
    fn headers_that_connection_lists_do_not_pass() {
        let mut headers = HeaderMap::new();
        headers.insert("connection", HeaderValue::from_static("keep-alive, X-Private"));
        headers.insert("x-private", HeaderValue::from_static("1"));
        headers.insert("x-public", HeaderValue::from_static("1"));
        headers.insert("te", HeaderValue::from_static("trailers"));
        remove_hop_by_hop(&mut headers);
        assert_eq!(headers.len(), 1);
        assert!(headers.contains_key("x-public"));
    }
}
