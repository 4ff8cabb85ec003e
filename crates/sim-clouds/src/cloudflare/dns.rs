//! `/zones/{zone}/dns_records`: the handlers for single records and the list.

use axum::extract::Path;
use serde::Serialize;

use super::dns_records::{self, Record, RecordFields};
use super::envelope::{Answer, ApiError, Caller, JsonBody};
use crate::query::QueryPairs;

const DEFAULT_PER_PAGE: usize = 100;
const MAX_PER_PAGE: usize = 5000;

#[derive(Debug, Serialize)]
pub(crate) struct DeletedRecord {
    id: String,
}

/// `GET …/dns_records`
pub(crate) async fn list(
    caller: Caller,
    Path(zone): Path<String>,
    query: QueryPairs,
) -> Result<Answer<Vec<Record>>, ApiError> {
    let any = query.get("match") == Some("any");
    caller.zone(&zone, |zone| {
        let mut records: Vec<&Record> =
            zone.records.values().filter(|record| chosen(record, &query, any)).collect();
        let direction = query.get("direction").unwrap_or("asc");
        match query.get("order").unwrap_or("name") {
            "type" => records.sort_by(|a, b| (&a.kind, &a.name).cmp(&(&b.kind, &b.name))),
            "content" => records.sort_by(|a, b| (&a.content, &a.name).cmp(&(&b.content, &b.name))),
            "ttl" => records.sort_by(|a, b| (a.ttl, &a.name).cmp(&(b.ttl, &b.name))),
            "proxied" => records.sort_by(|a, b| (a.proxied, &a.name).cmp(&(b.proxied, &b.name))),
            _ => records.sort_by(|a, b| (&a.name, &a.kind, &a.id).cmp(&(&b.name, &b.kind, &b.id))),
        }
        if direction == "desc" {
            records.reverse();
        }
        Answer::page(records.into_iter().cloned().collect(), &query, DEFAULT_PER_PAGE, MAX_PER_PAGE)
    })
}

/// Whether a record passes all filters (or, with `match=any`, one of them).
fn chosen(record: &Record, query: &QueryPairs, any: bool) -> bool {
    let mut verdicts = Vec::new();
    let comment = record.comment.as_deref().unwrap_or_default();
    for (field, value) in
        [("name", record.name.as_str()), ("content", record.content.as_str()), ("comment", comment)]
    {
        for (suffix, test) in TEXT_FILTERS {
            if let Some(wanted) = query.get(&format!("{field}{suffix}")) {
                verdicts.push(test(&value.to_lowercase(), &wanted.to_lowercase()));
            }
        }
    }
    if query.get("comment.present").is_some() {
        verdicts.push(record.comment.is_some());
    }
    if query.get("comment.absent").is_some() {
        verdicts.push(record.comment.is_none());
    }
    if let Some(kind) = query.get("type") {
        verdicts.push(record.kind.eq_ignore_ascii_case(kind));
    }
    if let Some(proxied) = query.get("proxied") {
        verdicts.push(record.proxied == (proxied == "true"));
    }
    if let Some(text) = query.get("search") {
        verdicts.push(
            [record.name.as_str(), &record.content, comment]
                .iter()
                .any(|value| value.contains(text)),
        );
    }
    if any { verdicts.is_empty() || verdicts.contains(&true) } else { !verdicts.contains(&false) }
}

type TextFilter = fn(&str, &str) -> bool;

const TEXT_FILTERS: [(&str, TextFilter); 5] = [
    ("", |value, wanted| value == wanted),
    (".exact", |value, wanted| value == wanted),
    (".contains", |value, wanted| value.contains(wanted)),
    (".startswith", |value, wanted| value.starts_with(wanted)),
    (".endswith", |value, wanted| value.ends_with(wanted)),
];

/// `GET …/dns_records/{id}`
pub(crate) async fn get(
    caller: Caller,
    Path((zone, id)): Path<(String, String)>,
) -> Result<Answer<Record>, ApiError> {
    caller.zone(&zone, |zone| {
        zone.records.get(&id).cloned().map(Answer::ok).ok_or_else(dns_records::not_found)
    })
}

/// `POST …/dns_records`
pub(crate) async fn create(
    caller: Caller,
    Path(zone): Path<String>,
    JsonBody(fields): JsonBody<RecordFields>,
) -> Result<Answer<Record>, ApiError> {
    caller.zone(&zone, |zone| dns_records::insert(zone, fields).map(Answer::ok))
}

/// `PUT …/dns_records/{id}`
pub(crate) async fn replace(
    caller: Caller,
    Path((zone, id)): Path<(String, String)>,
    JsonBody(fields): JsonBody<RecordFields>,
) -> Result<Answer<Record>, ApiError> {
    caller.zone(&zone, |zone| dns_records::overwrite(zone, &id, fields).map(Answer::ok))
}

/// `PATCH …/dns_records/{id}`
pub(crate) async fn update(
    caller: Caller,
    Path((zone, id)): Path<(String, String)>,
    JsonBody(fields): JsonBody<RecordFields>,
) -> Result<Answer<Record>, ApiError> {
    caller.zone(&zone, |zone| dns_records::modify(zone, &id, fields).map(Answer::ok))
}

/// `DELETE …/dns_records/{id}`
pub(crate) async fn delete(
    caller: Caller,
    Path((zone, id)): Path<(String, String)>,
) -> Result<Answer<DeletedRecord>, ApiError> {
    caller.zone(&zone, |zone| {
        dns_records::remove(zone, &id)?;
        Ok(Answer::ok(DeletedRecord { id }))
    })
}
