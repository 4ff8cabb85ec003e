//! Zones and DNS records, as Cloudflare's API writes them.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{AccountId, ZoneId, is_opaque_id, text_id};
use crate::cloud::open_enum;

text_id!(
    /// A DNS record's id: 32 hexadecimal digits.
    RecordId, "a DNS record id", is_opaque_id, "letters, digits, `-` and `_`, 64 at most"
);

/// The longest comment on a record of a free zone.
pub const MAX_COMMENT_CHARS: usize = 100;

open_enum!(
    /// The type of a DNS record.
    RecordType {
        /// An IPv4 address.
        A = "A",
        /// An IPv6 address.
        Aaaa = "AAAA",
        Cname = "CNAME",
        Txt = "TXT",
    }
);

open_enum!(
    /// How far the zone's delegation is.
    ZoneStatus {
        /// Cloudflare answers for it.
        Active = "active",
        /// The registrar does not point at Cloudflare yet.
        Pending = "pending",
        Initializing = "initializing",
        /// Given to another account.
        Moved = "moved",
    }
);

/// A zone as Cloudflare lists it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Zone {
    pub id: ZoneId,
    /// The domain, such as `example.com`.
    pub name: String,
    /// How far the delegation is.
    #[serde(default)]
    pub status: Option<ZoneStatus>,
    /// Cloudflare answers for it, but sends visitors to the origin itself: no tunnel, no Access.
    #[serde(default)]
    pub paused: bool,
    /// Who answers for its names.
    #[serde(rename = "type", default)]
    pub kind: Option<ZoneKind>,
    /// The name servers that Cloudflare gave it.
    #[serde(default)]
    pub name_servers: Option<Vec<String>>,
    /// What is paid for it.
    #[serde(default)]
    pub plan: Option<ZonePlan>,
    /// When it was added.
    #[serde(default)]
    pub created_on: Option<Timestamp>,
    /// The account that holds it.
    pub account: ZoneAccount,
}

open_enum!(
    /// Who answers for a zone's names.
    ZoneKind {
        /// Cloudflare.
        Full = "full",
        /// Name servers elsewhere, which point single names at Cloudflare.
        Partial = "partial",
        /// Cloudflare, as a copy of a zone elsewhere.
        Secondary = "secondary",
        /// Nobody: names of its kind are for use inside only.
        Internal = "internal",
    }
);

/// What is paid for a zone.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct ZonePlan {
    /// Such as `free`.
    #[serde(default)]
    pub legacy_id: Option<String>,
}

/// The account that holds a zone.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct ZoneAccount {
    pub id: AccountId,
}

/// A DNS record as Cloudflare lists it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct DnsRecord {
    pub id: RecordId,
    /// The full name, such as `ada.example.com`.
    pub name: String,
    #[serde(rename = "type")]
    pub record_type: RecordType,
    /// What it says; some types carry `data` instead.
    #[serde(default)]
    pub content: Option<String>,
    /// Goes through Cloudflare's edge.
    #[serde(default)]
    pub proxied: Option<bool>,
    /// For people, and for telling whose it is.
    #[serde(default)]
    pub comment: Option<String>,
    /// When it was made.
    #[serde(default)]
    pub created_on: Option<Timestamp>,
}

/// A DNS record to make.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NewDnsRecord {
    pub name: String,
    #[serde(rename = "type")]
    pub record_type: RecordType,
    /// An address, a name or a text, after the type.
    pub content: String,
    /// Goes through Cloudflare's edge.
    pub proxied: bool,
    /// Seconds; 1 = automatic, the only value for proxied records.
    pub ttl: u32,
    /// At most [`MAX_COMMENT_CHARS`] characters.
    pub comment: String,
}

impl NewDnsRecord {
    /// The proxied CNAME of one of a tunnel's host names.
    pub fn tunnel_cname(
        name: impl Into<String>,
        tunnel: &super::TunnelId,
        comment: impl Into<String>,
    ) -> Self {
        Self {
            name: name.into(),
            record_type: RecordType::Cname,
            content: tunnel.dns_target(),
            proxied: true,
            ttl: 1,
            comment: comment.into(),
        }
    }

    /// A proxied name behind which nothing is: the edge answers for the address, which leads nowhere
    /// (RFC 6666), and never asks it.
    pub fn originless(name: impl Into<String>, comment: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            record_type: RecordType::Aaaa,
            content: "100::".to_owned(),
            proxied: true,
            ttl: 1,
            comment: comment.into(),
        }
    }
}

/// A change to a record; what is absent stays.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DnsPatch {
    pub id: RecordId,
    /// What it says from now on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
    /// Whether it goes through the edge from now on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxied: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
}

/// Changes that are carried out together or not at all: at most 200 on a free zone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DnsBatch {
    /// Carried out first.
    pub deletes: Vec<RecordId>,
    /// Carried out second.
    pub patches: Vec<DnsPatch>,
    /// Carried out last.
    pub posts: Vec<NewDnsRecord>,
}

impl DnsBatch {
    /// The number of changes.
    pub fn len(&self) -> usize {
        self.deletes.len() + self.patches.len() + self.posts.len()
    }

    /// True if there is nothing to change.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The records of a batch, in the order of its parts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct DnsBatchResult {
    /// The records that went.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub deletes: Vec<DnsRecord>,
    /// The records that were changed.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub patches: Vec<DnsRecord>,
    /// The records that were made.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub posts: Vec<DnsRecord>,
}

fn null_is_empty<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<DnsRecord>, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}
