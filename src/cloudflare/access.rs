//! Access applications, reusable policies and service tokens, as Cloudflare's API writes them.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{is_opaque_id, text_id};
use crate::cloud::{SecretText, open_enum};

text_id!(
    /// An Access application's id: a UUID.
    AccessAppId, "an Access application id", is_opaque_id, "letters, digits, `-` and `_`, 64 at most"
);
text_id!(
    /// A reusable Access policy's id: a UUID.
    AccessPolicyId, "an Access policy id", is_opaque_id, "letters, digits, `-` and `_`, 64 at most"
);
text_id!(
    /// A service token's id: a UUID. Not its client id, which ends in `.access`.
    ServiceTokenId, "a service token id", is_opaque_id, "letters, digits, `-` and `_`, 64 at most"
);

open_enum!(
    /// What a policy decides for those it matches.
    Decision {
        /// Lets people in who have signed in.
        Allow = "allow",
        Deny = "deny",
        /// Lets services in that show a token.
        NonIdentity = "non_identity",
        Bypass = "bypass",
    }
);

/// An Access application, which asks visitors of host names who they are.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct AccessApp {
    pub id: AccessAppId,
    #[serde(default)]
    pub name: String,
    /// Its type; only `self_hosted` ones are of interest.
    #[serde(rename = "type", default)]
    pub kind: Option<String>,
    /// The audience tag in the tokens that Access issues.
    #[serde(default)]
    pub aud: Option<String>,
    /// The host names that it protects.
    #[serde(default)]
    pub destinations: Option<Vec<AccessDestination>>,
    /// Its policies, in order.
    #[serde(default)]
    pub policies: Option<Vec<AttachedPolicy>>,
}

impl AccessApp {
    /// The ids of its policies, in order.
    pub fn policy_ids(&self) -> impl Iterator<Item = &AccessPolicyId> {
        self.policies.iter().flatten().filter_map(|policy| policy.id.as_ref())
    }
}

/// A policy as an application lists it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct AttachedPolicy {
    #[serde(default)]
    pub id: Option<AccessPolicyId>,
}

/// What an application protects.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessDestination {
    /// `public`, or a kind that this version does not know.
    #[serde(rename = "type", default = "public")]
    pub kind: String,
    /// A host name, which may hold a `*`, with an optional path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uri: Option<String>,
}

impl AccessDestination {
    /// A host name on the Internet.
    pub fn public(uri: impl Into<String>) -> Self {
        Self { kind: public(), uri: Some(uri.into()) }
    }
}

fn public() -> String {
    "public".to_owned()
}

/// A self-hosted application as it should be. Services that show no valid token get 401, no
/// redirect to a login page, and people do not see it in their launcher.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessAppSpec {
    pub name: String,
    pub destinations: Vec<AccessDestination>,
    /// Its policies, in order.
    pub policies: Vec<AccessPolicyId>,
}

/// A reusable Access policy: whom applications let in.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct AccessPolicy {
    pub id: AccessPolicyId,
    #[serde(default)]
    pub name: String,
    pub decision: Decision,
    /// Whom it matches: any of these.
    #[serde(default)]
    pub include: Vec<AccessRule>,
}

/// A reusable policy as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AccessPolicySpec {
    pub name: String,
    pub decision: Decision,
    /// Whom it matches: any of these.
    pub include: Vec<AccessRule>,
}

/// Whom a policy matches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum AccessRule {
    /// A service that shows this token.
    ServiceToken { service_token: ServiceTokenReference },
    /// A rule that this version does not know.
    Other(serde_json::Value),
}

impl AccessRule {
    /// A service that shows this token.
    pub fn service_token(token_id: ServiceTokenId) -> Self {
        Self::ServiceToken { service_token: ServiceTokenReference { token_id } }
    }
}

/// A service token named by a rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceTokenReference {
    pub token_id: ServiceTokenId,
}

/// A service token without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct ServiceToken {
    /// Its id, for policies and for rotation.
    pub id: ServiceTokenId,
    /// Its name; not unique.
    #[serde(default)]
    pub name: String,
    /// What goes into the header `CF-Access-Client-Id`.
    #[serde(default)]
    pub client_id: String,
    /// `None` if Cloudflare does not say when it expires.
    #[serde(default)]
    pub expires_at: Option<Timestamp>,
}

/// A service token with its secret, which Cloudflare shows at creation and rotation only.
#[derive(Debug, Deserialize)]
pub struct IssuedServiceToken {
    #[serde(flatten)]
    pub token: ServiceToken,
    /// What goes into the header `CF-Access-Client-Secret`.
    pub client_secret: SecretText,
}
