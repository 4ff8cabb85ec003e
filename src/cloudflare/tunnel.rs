//! Tunnels and their routes, as Cloudflare's API writes them.

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize};

use super::{is_uuid, text_id};
use crate::{cloud::open_enum, master_key::TunnelSecret};

text_id!(TunnelId, "a tunnel id", is_uuid, "a UUID");

impl TunnelId {
    /// What a CNAME record of one of the tunnel's host names points at.
    pub fn dns_target(&self) -> String {
        format!("{self}.cfargotunnel.com")
    }

    /// The tunnel that a CNAME record leads to, if it leads to one.
    pub fn of_dns_target(target: &str) -> Option<Self> {
        Self::parse(target.strip_suffix(".cfargotunnel.com")?).ok()
    }
}

open_enum!(
    /// What Cloudflare sees of a tunnel's connectors.
    TunnelStatus {
        /// No connector has ever come.
        Inactive = "inactive",
        /// Some connections are missing.
        Degraded = "degraded",
        /// Connected.
        Healthy = "healthy",
        /// No longer connected.
        Down = "down",
    }
);

/// A tunnel as Cloudflare lists it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Tunnel {
    pub id: TunnelId,
    /// Unique among live tunnels.
    pub name: String,
    /// What Cloudflare sees of its connectors.
    #[serde(default)]
    pub status: Option<TunnelStatus>,
    /// When it was made.
    #[serde(default)]
    pub created_at: Option<Timestamp>,
    /// When it was deleted; deleted tunnels are kept.
    #[serde(default)]
    pub deleted_at: Option<Timestamp>,
}

/// A tunnel to make.
#[derive(Debug)]
pub struct CreateTunnel<'a> {
    /// Unique among live tunnels.
    pub name: &'a str,
    pub secret: &'a TunnelSecret,
}

/// A tunnel's routes. The last rule must match everything.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TunnelConfiguration {
    /// The rules, of which the first match counts.
    #[serde(default)]
    pub ingress: Vec<IngressRule>,
    /// What this version does not know, such as `warp-routing`; kept, so that drift is seen.
    #[serde(flatten)]
    pub other: serde_json::Map<String, serde_json::Value>,
}

/// Leads requests for a host name to a service of the server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IngressRule {
    /// The host name; absent in the rule that matches everything.
    #[serde(default, deserialize_with = "filled", skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// A regular expression for the path.
    #[serde(default, deserialize_with = "filled", skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Where requests go: `http://…`, `unix:/…` or `http_status:404`.
    pub service: String,
    /// How they go there.
    #[serde(default, deserialize_with = "meaningful", skip_serializing_if = "Option::is_none")]
    pub origin_request: Option<OriginRequest>,
}

/// Cloudflare may give back an empty text where none was put: both mean the same.
fn filled<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    Ok(Option::<String>::deserialize(from)?.filter(|text| !text.is_empty()))
}

/// The same of an empty document.
fn meaningful<'de, D: Deserializer<'de>>(from: D) -> Result<Option<OriginRequest>, D::Error> {
    Ok(Option::<OriginRequest>::deserialize(from)?.filter(|document| !document.is_empty()))
}

/// How cloudflared talks to a service, as a document in Cloudflare's own words.
pub type OriginRequest = serde_json::Map<String, serde_json::Value>;

/// A configuration with Cloudflare's count of its changes.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct VersionedTunnelConfiguration {
    /// Goes up with every change.
    #[serde(default)]
    pub version: Option<i64>,
    /// Absent before the first one is put.
    #[serde(default)]
    pub config: Option<TunnelConfiguration>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_uuid_is_no_tunnel_id() {
        for text in
            ["", "..", "6ff42ae2765d4adf811231c55c1551ef", "6ff42ae2-765d-4adf-8112-31c55c1551e/"]
        {
            assert!(TunnelId::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_rule_that_is_read_back_in_other_words_is_the_same() {
        let put = r#"{"hostname":"ada.example.com","service":"unix:/run/agent.sock"}"#;
        let read = r#"{"hostname":"ada.example.com","path":"","service":"unix:/run/agent.sock","originRequest":{}}"#;
        let rule = |json: &str| serde_json::from_str::<IngressRule>(json).unwrap();
        assert_eq!(rule(put), rule(read));
        let changed = read.replace("{}", r#"{"noTLSVerify":true}"#);
        assert_ne!(rule(put), rule(&changed));
    }

    #[test]
    fn a_configuration_keeps_what_it_does_not_know() {
        let json = r#"{"ingress":[{"service":"http_status:404"}],"warp-routing":{"enabled":true}}"#;
        let configuration: TunnelConfiguration = serde_json::from_str(json).unwrap();
        assert_eq!(serde_json::to_string(&configuration).unwrap(), json);
    }
}
