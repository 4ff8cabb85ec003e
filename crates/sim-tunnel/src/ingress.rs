//! The ingress rules of a tunnel: what the edge pushes and the connector applies. The JSON is that of
//! `PUT …/cfd_tunnel/{id}/configurations` and of cloudflared's `update-configuration` stream.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The document that `PUT …/configurations` takes and that the edge pushes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct IngressConfig {
    /// The rules, the first match wins.
    #[serde(default)]
    pub ingress: Vec<IngressRule>,
    /// Defaults for how cloudflared talks to origins.
    #[serde(rename = "originRequest", skip_serializing_if = "Option::is_none")]
    pub origin_request: Option<Value>,
    /// Routing for private networks, not used here.
    #[serde(rename = "warp-routing", skip_serializing_if = "Option::is_none")]
    pub warp_routing: Option<Value>,
}

/// Leads a visitor's request to an origin of the server.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct IngressRule {
    /// The visitor's host name; none, or an empty one, matches all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// A regular expression for the path; none matches all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The origin, such as `http://127.0.0.1:18789` or `unix:/run/moorage/agent.sock`.
    pub service: String,
    /// How cloudflared talks to this origin.
    #[serde(rename = "originRequest", skip_serializing_if = "Option::is_none")]
    pub origin_request: Option<Value>,
}

impl IngressRule {
    /// A rule for one hostname.
    pub fn host(hostname: &str, service: &str) -> Self {
        Self { hostname: Some(hostname.to_owned()), ..Self::catch_all(service) }
    }

    /// A rule for everything.
    pub fn catch_all(service: &str) -> Self {
        Self { hostname: None, path: None, service: service.to_owned(), origin_request: None }
    }

    /// Whether the rule is for every request.
    pub fn matches_all(&self) -> bool {
        self.hostname.as_deref().is_none_or(|hostname| hostname.is_empty() || hostname == "*")
            && self.path.as_deref().is_none_or(str::is_empty)
    }

    /// Whether the rule is for this hostname (lower case, without port).
    pub fn matches(&self, hostname: &str) -> bool {
        match self.hostname.as_deref() {
            None | Some("" | "*") => true,
            Some(pattern) => match pattern.strip_prefix('*') {
                Some(suffix) => {
                    suffix.starts_with('.')
                        && hostname.len() > suffix.len()
                        && hostname.ends_with(suffix)
                }
                None => pattern == hostname,
            },
        }
    }
}

/// The body of an `update-configuration` stream.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ConfigurationPush {
    /// Grows with every change; anything not above the version in force is ignored.
    pub version: u64,
    pub config: IngressConfig,
}

/// The answer to an `update-configuration` stream.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ConfigurationApplied {
    /// The version in force now; -1 before the first.
    #[serde(rename = "lastAppliedVersion")]
    pub last_applied_version: i64,
    /// Set when the rules were refused. cloudflared sends an empty object and logs the reason.
    pub err: Option<Value>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[rstest::rstest]
    #[case("ada.example.com", "ada.example.com", true)]
    #[case("ada.example.com", "eve.example.com", false)]
    #[case("*.example.com", "ada.example.com", true)]
    #[case("*.example.com", "example.com", false)]
    #[case("*.example.com", "badexample.com", false)]
    #[case("*", "anything.test", true)]
    #[case("", "anything.test", true)]
    fn a_rule_matches_its_hostnames(
        #[case] pattern: &str,
        #[case] host: &str,
        #[case] expected: bool,
    ) {
        assert_eq!(IngressRule::host(pattern, "http_status:404").matches(host), expected);
    }
}
