//! The ingress rules of a tunnel: what the edge pushes and the connector applies. The JSON is that of
//! `PUT …/cfd_tunnel/{id}/configurations` and of cloudflared's `update-configuration` stream.

use serde::{Deserialize, Serialize};

/// The rules of a tunnel.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct IngressConfig {
    /// Tried in order; the last one must match everything.
    #[serde(default)]
    pub ingress: Vec<IngressRule>,
    /// Everything else (`originRequest`, `warp-routing`), carried and not looked at.
    #[serde(flatten)]
    pub other: serde_json::Map<String, serde_json::Value>,
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct IngressRule {
    /// The visitor's hostname, or `*.` and a domain; absent or empty matches every host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// `http://HOST:PORT`, `unix:/PATH` or `http_status:CODE`.
    pub service: String,
    /// Everything else, of which the connector refuses `path`.
    #[serde(flatten)]
    pub other: serde_json::Map<String, serde_json::Value>,
}

impl IngressRule {
    /// A rule for one hostname.
    pub fn host(hostname: &str, service: &str) -> Self {
        Self { hostname: Some(hostname.to_owned()), ..Self::catch_all(service) }
    }

    /// A rule for everything.
    pub fn catch_all(service: &str) -> Self {
        Self { hostname: None, service: service.to_owned(), other: serde_json::Map::new() }
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

    /// Whether the rule is for every request.
    pub fn matches_all(&self) -> bool {
        matches!(self.hostname.as_deref(), None | Some("" | "*"))
            && !self.other.contains_key("path")
    }
}

/// The body of an `update-configuration` stream.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ConfigurationPush {
    /// Grows with every change; anything not above the version in force is ignored.
    pub version: u64,
    /// The rules.
    pub config: IngressConfig,
}

/// The answer to an `update-configuration` stream.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ConfigurationApplied {
    /// The version in force now; -1 before the first.
    #[serde(rename = "lastAppliedVersion")]
    pub last_applied_version: i64,
    /// Set when the rules were refused. cloudflared sends an empty object and logs the reason.
    pub err: Option<serde_json::Value>,
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
