//! What only a look at an account needs: the token itself, the organization, settings of the zone.

use jiff::Timestamp;
use serde::Deserialize;

use crate::cloud::open_enum;

open_enum!(
    /// Whether a token can be used.
    TokenStatus {
        /// It can.
        Active = "active",
        /// Somebody switched it off.
        Disabled = "disabled",
        /// Its time is over.
        Expired = "expired",
    }
);

/// What Cloudflare says of the token that asks.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct TokenCheck {
    /// Whether it can be used.
    pub status: TokenStatus,
    /// When it ends, if it does.
    #[serde(default)]
    pub expires_on: Option<Timestamp>,
    /// When it begins.
    #[serde(default)]
    pub not_before: Option<Timestamp>,
}

/// The Zero Trust organization of an account.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Organization {
    /// Such as `team.cloudflareaccess.com`.
    #[serde(default)]
    pub auth_domain: Option<String>,
}

/// Kinds of objects of which an account has a limited number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccountObjects {
    /// Live tunnels.
    Tunnels,
    /// Access applications.
    AccessApps,
    /// Reusable Access policies.
    AccessPolicies,
    /// Access service tokens.
    ServiceTokens,
}

/// Certificates of the edge for some names.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct CertificatePack {
    /// The names, of which one may begin with `*.`.
    #[serde(default)]
    pub hosts: Vec<String>,
    /// `active`, or how far it is.
    #[serde(default)]
    pub status: String,
    /// Such as `universal`.
    #[serde(rename = "type", default)]
    pub kind: String,
}

/// What the zone does about bots. What the plan does not have is absent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct BotManagement {
    /// Bot Fight Mode: no rule can make exceptions.
    #[serde(default)]
    pub fight_mode: Option<bool>,
    /// Super Bot Fight Mode: what happens to what is surely a program.
    #[serde(default)]
    pub sbfm_definitely_automated: Option<String>,
}
