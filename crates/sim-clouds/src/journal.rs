//! The journal: every request that either cloud received, in the order of arrival, with its body
//! as it was sent. Nothing is redacted here: tests look for secrets in it.

use std::collections::BTreeMap;

use jiff::Timestamp;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Which cloud a request went to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Cloud {
    Hetzner,
    Cloudflare,
}

/// A request that a cloud's API got, and how it was answered.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// Counts up from 1 over the simulator's whole life, also across `DELETE /admin/journal`.
    pub seq: u64,
    /// When the request had been read.
    pub time: Timestamp,
    pub cloud: Cloud,
    /// Hetzner project or Cloudflare account; null when the token was not known.
    pub tenant: Option<String>,
    /// HTTP method.
    pub method: String,
    /// Path below the API's base, such as `/servers/1`.
    pub path: String,
    /// The query as it was sent.
    pub query: String,
    /// The JSON body; text that is no JSON is kept as a string.
    pub body: Option<Value>,
    /// Status of the answer; null while there is none.
    pub status: Option<u16>,
    /// True when the answer was thrown away on purpose.
    pub lost: bool,
}

/// How often one kind of request came.
#[derive(Debug, Clone, Serialize)]
pub struct Count {
    pub cloud: Cloud,
    /// The tenant, as in [`Entry`].
    pub tenant: Option<String>,
    /// HTTP method.
    pub method: String,
    /// The path with ids replaced by `{id}`.
    pub path: String,
    pub count: u64,
}

/// Which entries to return.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Filter {
    /// Only entries with a greater `seq`.
    #[serde(default)]
    pub since: u64,
    pub cloud: Option<Cloud>,
    pub tenant: Option<String>,
}

impl Filter {
    fn admits(&self, entry: &Entry) -> bool {
        entry.seq > self.since
            && self.cloud.is_none_or(|cloud| cloud == entry.cloud)
            && (self.tenant.is_none() || self.tenant == entry.tenant)
    }
}

#[derive(Debug, Default)]
struct Log {
    /// `seq` of the last entry that was cleared away.
    cleared: u64,
    entries: Vec<Entry>,
}

/// All requests so far.
#[derive(Debug, Default)]
pub struct Journal(Mutex<Log>);

/// A request that has just arrived.
pub(crate) struct Arrival<'a> {
    pub(crate) cloud: Cloud,
    pub(crate) tenant: Option<&'a str>,
    pub(crate) method: &'a str,
    pub(crate) path: &'a str,
    pub(crate) query: &'a str,
    pub(crate) body: &'a [u8],
}

impl Journal {
    /// Notes a request that has arrived and returns its `seq`.
    pub(crate) fn open(&self, arrival: &Arrival<'_>) -> u64 {
        let body = (!arrival.body.is_empty()).then(|| {
            serde_json::from_slice(arrival.body).unwrap_or_else(|_| {
                Value::String(String::from_utf8_lossy(arrival.body).into_owned())
            })
        });
        let mut log = self.0.lock();
        let seq = log.cleared + log.entries.len() as u64 + 1;
        log.entries.push(Entry {
            seq,
            time: Timestamp::now(),
            cloud: arrival.cloud,
            tenant: arrival.tenant.map(str::to_owned),
            method: arrival.method.to_owned(),
            path: arrival.path.to_owned(),
            query: arrival.query.to_owned(),
            body,
            status: None,
            lost: false,
        });
        seq
    }

    /// Notes the answer to request `seq`. Does nothing if the entry was cleared meanwhile.
    pub(crate) fn close(&self, seq: u64, status: u16, lost: bool) {
        let mut log = self.0.lock();
        let cleared = log.cleared;
        let index = seq.checked_sub(cleared + 1).and_then(|index| usize::try_from(index).ok());
        if let Some(entry) = index.and_then(|index| log.entries.get_mut(index)) {
            entry.status = Some(status);
            entry.lost = lost;
        }
    }

    /// The entries that `filter` admits, in order of arrival.
    pub fn entries(&self, filter: &Filter) -> Vec<Entry> {
        self.0.lock().entries.iter().filter(|entry| filter.admits(entry)).cloned().collect()
    }

    /// How often each kind of request came.
    pub fn counts(&self, filter: &Filter) -> Vec<Count> {
        let mut counts = BTreeMap::new();
        for entry in self.0.lock().entries.iter().filter(|entry| filter.admits(entry)) {
            let key =
                (entry.cloud, entry.tenant.clone(), entry.method.clone(), template(&entry.path));
            *counts.entry(key).or_insert(0) += 1;
        }
        counts
            .into_iter()
            .map(|((cloud, tenant, method, path), count)| Count {
                cloud,
                tenant,
                method,
                path,
                count,
            })
            .collect()
    }

    /// Forgets every entry. `seq` goes on counting.
    pub fn clear(&self) {
        let mut log = self.0.lock();
        log.cleared += log.entries.len() as u64;
        log.entries.clear();
    }
}

/// Replaces the segments of `path` that are ids by `{id}`.
fn template(path: &str) -> String {
    path.split('/')
        .map(|part| if is_id(part) { "{id}" } else { part })
        .collect::<Vec<_>>()
        .join("/")
}

fn is_id(segment: &str) -> bool {
    let digits = !segment.is_empty() && segment.bytes().all(|byte| byte.is_ascii_digit());
    let long_hex =
        segment.len() >= 32 && segment.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
    digits || long_hex
}
