//! DNS records and the rules that a zone checks when one is written.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::envelope::{ApiError, now};
use super::state::Zone;
use crate::ids::hex32;

/// A record, as kept and as answered.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Record {
    pub(crate) id: String,
    pub(crate) name: String,
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) content: String,
    pub(crate) proxiable: bool,
    pub(crate) proxied: bool,
    pub(crate) ttl: u32,
    pub(crate) settings: Value,
    pub(crate) meta: Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) priority: Option<u16>,
    pub(crate) comment: Option<String>,
    pub(crate) tags: Vec<String>,
    pub(crate) created_on: Timestamp,
    pub(crate) modified_on: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) comment_modified_on: Option<Timestamp>,
}

/// What a write may say about a record. `POST` and `PUT` need name, type and content; `PATCH`
/// changes what is there.
#[derive(Debug, Clone, Default, Deserialize)]
pub(crate) struct RecordFields {
    name: Option<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
    content: Option<String>,
    proxied: Option<bool>,
    ttl: Option<f64>,
    priority: Option<u16>,
    comment: Option<String>,
    tags: Option<Vec<String>>,
}

const KINDS: &[&str] = &["A", "AAAA", "CNAME", "TXT", "MX", "NS"];

/// `POST`: a new record.
pub(crate) fn insert(zone: &mut Zone, fields: RecordFields) -> Result<Record, ApiError> {
    if zone.records.len() >= zone.plan.records() {
        return Err(ApiError::bad(81045, "The record quota has been exceeded."));
    }
    let time = now();
    let record = complete(zone, hex32(), time, None, fields)?;
    store(zone, record)
}

/// `PUT`: the whole record again; what is not said falls back to its default.
pub(crate) fn overwrite(
    zone: &mut Zone,
    id: &str,
    fields: RecordFields,
) -> Result<Record, ApiError> {
    let old = zone.records.get(id).cloned().ok_or_else(not_found)?;
    let record = complete(zone, old.id.clone(), old.created_on, Some(&old), fields)?;
    store(zone, record)
}

/// `PATCH`: only what is said changes.
pub(crate) fn modify(zone: &mut Zone, id: &str, fields: RecordFields) -> Result<Record, ApiError> {
    let old = zone.records.get(id).cloned().ok_or_else(not_found)?;
    let fields = RecordFields {
        name: fields.name.or_else(|| Some(old.name.clone())),
        kind: fields.kind.or_else(|| Some(old.kind.clone())),
        content: fields.content.or_else(|| Some(old.content.clone())),
        proxied: fields.proxied.or(Some(old.proxied)),
        ttl: fields.ttl.or(Some(f64::from(old.ttl))),
        priority: fields.priority.or(old.priority),
        comment: fields.comment.or_else(|| old.comment.clone()),
        tags: fields.tags.or_else(|| Some(old.tags.clone())),
    };
    let record = complete(zone, old.id.clone(), old.created_on, Some(&old), fields)?;
    store(zone, record)
}

/// `DELETE`
pub(crate) fn remove(zone: &mut Zone, id: &str) -> Result<Record, ApiError> {
    zone.records.remove(id).ok_or_else(not_found)
}

fn complete(
    zone: &Zone,
    id: String,
    created_on: Timestamp,
    old: Option<&Record>,
    fields: RecordFields,
) -> Result<Record, ApiError> {
    let kind = fields.kind.ok_or_else(|| ApiError::bad(9020, "Invalid DNS record type"))?;
    if !KINDS.contains(&kind.as_str()) {
        return Err(ApiError::bad(9020, "Invalid DNS record type"));
    }
    let name = full_name(zone, fields.name.as_deref().unwrap_or_default())?;
    let content = fields.content.unwrap_or_default().trim_end_matches('.').to_owned();
    check_content(&kind, &content)?;
    let proxiable = ["A", "AAAA", "CNAME"].contains(&kind.as_str());
    let proxied = fields.proxied.unwrap_or(false);
    if proxied && !proxiable {
        return Err(ApiError::bad(9004, "This record type cannot be proxied."));
    }
    let ttl = fields.ttl.unwrap_or(1.0);
    if ttl.fract() != 0.0 || !((60.0..=86400.0).contains(&ttl) || (ttl - 1.0).abs() < f64::EPSILON)
    {
        return Err(ApiError::bad(
            9021,
            "Invalid TTL. Must be between 60 and 86400 seconds, or 1 for Automatic.",
        ));
    }
    if kind == "MX" && fields.priority.is_none() {
        return Err(ApiError::bad(9101, "priority is a required data field."));
    }
    let comment = fields.comment.filter(|comment| !comment.is_empty());
    let most = zone.plan.comment_length();
    if comment.as_ref().is_some_and(|comment| comment.chars().count() > most) {
        // The code has no public source.
        return Err(ApiError::bad(
            9313,
            format!("DNS record comments have at most {most} characters on this plan."),
        ));
    }
    let tags = fields.tags.unwrap_or_default();
    if !tags.is_empty() && zone.plan.records() == 200 {
        return Err(ApiError::bad(9300, "DNS record has 1 tags, exceeding the quota of 0."));
    }
    let comment_changed = old.map(|old| &old.comment) != Some(&comment) && comment.is_some();
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let ttl = if proxied { 1 } else { ttl as u32 };
    Ok(Record {
        id,
        name,
        kind,
        content,
        proxiable,
        proxied,
        ttl,
        settings: Value::Object(serde_json::Map::new()),
        meta: Value::Object(serde_json::Map::new()),
        priority: fields.priority,
        comment_modified_on: if comment_changed {
            Some(now())
        } else {
            old.and_then(|old| old.comment_modified_on)
        },
        comment,
        tags,
        created_on,
        modified_on: now(),
    })
}

/// Names may come without the zone's; `@` is the zone itself.
fn full_name(zone: &Zone, name: &str) -> Result<String, ApiError> {
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    let full = if name == "@" || name == zone.name {
        zone.name.clone()
    } else if name.ends_with(&format!(".{}", zone.name)) {
        name
    } else {
        format!("{name}.{}", zone.name)
    };
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    let labels = full.strip_prefix("*.").unwrap_or(&full);
    if full.len() > 255 || !labels.split('.').all(label) {
        return Err(ApiError::bad(9000, "DNS name is invalid."));
    }
    Ok(full)
}

fn check_content(kind: &str, content: &str) -> Result<(), ApiError> {
    let valid = match kind {
        "A" => content.parse::<std::net::Ipv4Addr>().is_ok(),
        "AAAA" => content.parse::<std::net::Ipv6Addr>().is_ok(),
        "TXT" => content.len() <= 4096 && !content.is_empty(),
        _ => {
            !content.is_empty()
                && content.len() <= 255
                && content.split('.').all(|label| !label.is_empty())
        }
    };
    match (valid, kind) {
        (true, _) => Ok(()),
        (false, "A") => {
            Err(ApiError::bad(9005, "Content for A record must be a valid IPv4 address."))
        }
        (false, "AAAA") => {
            Err(ApiError::bad(9006, "Content for AAAA record must be a valid IPv6 address."))
        }
        (false, _) => Err(ApiError::bad(9007, format!("Content for {kind} record is invalid."))),
    }
}

/// Puts a record into the zone unless another is in its way.
fn store(zone: &mut Zone, record: Record) -> Result<Record, ApiError> {
    let is_host = |kind: &str| ["A", "AAAA", "CNAME"].contains(&kind);
    let same_name =
        || zone.records.values().filter(|other| other.id != record.id && other.name == record.name);
    if same_name().any(|other| other.kind == record.kind && other.content == record.content) {
        return Err(ApiError::bad(81058, "An identical record already exists."));
    }
    if record.kind == "CNAME" && same_name().any(|other| is_host(&other.kind)) {
        return Err(ApiError::bad(
            81053,
            "An A, AAAA, or CNAME record with that host already exists.",
        ));
    }
    if is_host(&record.kind) && same_name().any(|other| other.kind == "CNAME") {
        return Err(ApiError::bad(81054, "A CNAME record with that host already exists."));
    }
    zone.records.insert(record.id.clone(), record.clone());
    Ok(record)
}

pub(crate) fn not_found() -> ApiError {
    ApiError::new(http::StatusCode::NOT_FOUND, 81044, "Record does not exist.")
}
