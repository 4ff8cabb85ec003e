//! The documents around the objects: the envelope of every answer, and the bodies of requests.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::cloud::CloudError;
use crate::cloud::transport::Answer;
use crate::cloudflare::refusal::ApiError;
use crate::cloudflare::{
    AccessAppSpec, AccessDestination, AccessPolicyId, DnsPatch, NewDnsRecord, RecordId,
};

#[derive(Deserialize)]
pub(super) struct Envelope<T> {
    pub(super) success: bool,
    #[serde(default = "Option::default")]
    pub(super) errors: Option<Vec<ApiError>>,
    #[serde(default = "Option::default")]
    pub(super) result: Option<T>,
    #[serde(default)]
    pub(super) result_info: Option<ResultInfo>,
}

#[derive(Default, Deserialize)]
pub(super) struct ResultInfo {
    #[serde(default)]
    per_page: Option<u64>,
    #[serde(default)]
    pub(super) total_count: Option<u64>,
}

impl ResultInfo {
    /// Whether another page is worth asking for, after one of `count` entries.
    pub(super) fn more(&self, count: u64, fetched: u64, asked: u64) -> bool {
        match self.total_count {
            _ if count == 0 => false,
            Some(total) => fetched < total,
            // Cloudflare may give smaller pages than it was asked for.
            None => count >= self.per_page.unwrap_or(asked).min(asked),
        }
    }
}

pub(super) fn parse<T: DeserializeOwned>(answer: &Answer) -> Result<Envelope<T>, CloudError> {
    let envelope: Envelope<T> = answer.parse()?;
    if envelope.success {
        return Ok(envelope);
    }
    let errors = envelope.errors.unwrap_or_default();
    let codes: Vec<String> = errors.iter().map(|error| error.code.to_string()).collect();
    Err(answer.malformed(&format!("a refusal under a success status, codes: {}", codes.join(", "))))
}

/// Refuses what says itself that it is no success. A deletion's result is of no interest, and
/// whether the object is gone is asked again in any case, so an unreadable one passes.
pub(super) fn accepted(answer: &Answer) -> Result<(), CloudError> {
    match answer.parse::<Envelope<serde::de::IgnoredAny>>() {
        Ok(_) => parse::<serde::de::IgnoredAny>(answer).map(|_| ()),
        Err(_) => Ok(()),
    }
}

pub(super) fn result<T: DeserializeOwned>(answer: &Answer) -> Result<T, CloudError> {
    parse(answer)?.result.ok_or_else(|| answer.malformed("the result is missing"))
}

/// The body of `POST /cfd_tunnel`; also, with nothing but the secret, of its `PATCH`.
#[derive(Serialize)]
pub(super) struct TunnelBody<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) config_src: Option<&'static str>,
    pub(super) tunnel_secret: &'a str,
}

#[derive(Serialize)]
pub(super) struct TunnelName<'a> {
    pub(super) name: &'a str,
}

#[derive(Serialize)]
pub(super) struct BatchBody<'a> {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) deletes: Vec<RecordReference<'a>>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub(super) patches: &'a [DnsPatch],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub(super) posts: &'a [NewDnsRecord],
}

#[derive(Serialize)]
pub(super) struct RecordReference<'a> {
    pub(super) id: &'a RecordId,
}

#[derive(Serialize)]
pub(super) struct AppBody<'a> {
    name: &'a str,
    #[serde(rename = "type")]
    kind: &'static str,
    /// Older than `destinations`, and still required by the documented schema.
    #[serde(skip_serializing_if = "Option::is_none")]
    domain: Option<&'a str>,
    destinations: &'a [AccessDestination],
    policies: Vec<PolicyReference<'a>>,
    app_launcher_visible: bool,
    service_auth_401_redirect: bool,
}

#[derive(Serialize)]
pub(super) struct PolicyReference<'a> {
    id: &'a AccessPolicyId,
    precedence: usize,
}

impl<'a> From<&'a AccessAppSpec> for AppBody<'a> {
    fn from(app: &'a AccessAppSpec) -> Self {
        let policies =
            app.policies.iter().zip(1..).map(|(id, precedence)| PolicyReference { id, precedence });
        Self {
            name: &app.name,
            kind: "self_hosted",
            domain: app.destinations.first().and_then(|destination| destination.uri.as_deref()),
            destinations: &app.destinations,
            policies: policies.collect(),
            app_launcher_visible: false,
            service_auth_401_redirect: true,
        }
    }
}
