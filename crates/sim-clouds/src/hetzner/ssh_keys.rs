//! SSH keys.

use aws_lc_rs::digest;
use axum::Json;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::StatusCode;
use serde::{Deserialize, Serialize};

use super::body::{JsonBody, PathId};
use super::labels::{self, Labels};
use super::model::SshKey;
use super::page::{self, Key, Listed, Meta};
use super::project::now_in_seconds;
use super::{ApiError, Call, validate};
use crate::query::QueryPairs;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CreateKey {
    name: String,
    public_key: String,
    labels: Option<Labels>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct UpdateKey {
    name: Option<String>,
    labels: Option<Labels>,
}

#[derive(Serialize)]
pub(crate) struct OneKey {
    ssh_key: SshKey,
}

#[derive(Serialize)]
pub(crate) struct KeyList {
    ssh_keys: Vec<SshKey>,
    meta: Meta,
}

impl Listed for SshKey {
    fn key(&self) -> Key<'_> {
        Key { id: self.id, name: &self.name, labels: Some(&self.labels) }
    }
}

/// `GET /ssh_keys`
pub(crate) async fn list(call: Call, query: QueryPairs) -> Result<Json<KeyList>, ApiError> {
    let mut keys: Vec<SshKey> = call.project().ssh_keys.values().cloned().collect();
    if let Some(fingerprint) = query.get("fingerprint") {
        keys.retain(|key| key.fingerprint == fingerprint);
    }
    let (ssh_keys, meta) = page::cut(page::choose(keys, &query)?, &query)?;
    Ok(Json(KeyList { ssh_keys, meta }))
}

/// `GET /ssh_keys/{id}`
pub(crate) async fn get(call: Call, PathId(id): PathId) -> Result<Json<OneKey>, ApiError> {
    let ssh_key = call.project().ssh_keys.get(&id).cloned().ok_or_else(|| not_found(id))?;
    Ok(Json(OneKey { ssh_key }))
}

/// `POST /ssh_keys`
pub(crate) async fn create(
    call: Call,
    JsonBody(request): JsonBody<CreateKey>,
) -> Result<(StatusCode, Json<OneKey>), ApiError> {
    validate::plain_name(&request.name)?;
    request.labels.as_ref().map_or(Ok(()), labels::check)?;
    let fingerprint = fingerprint(&request.public_key)
        .ok_or_else(|| ApiError::invalid("public_key", "not a valid SSH public key"))?;
    let mut project = call.project();
    if project
        .ssh_keys
        .values()
        .any(|key| key.name == request.name || key.fingerprint == fingerprint)
    {
        return Err(ApiError::taken("SSH key not unique"));
    }
    let ssh_key = SshKey {
        id: call.next_id(),
        name: request.name,
        fingerprint,
        public_key: request.public_key,
        labels: request.labels.unwrap_or_default(),
        created: now_in_seconds(),
    };
    project.ssh_keys.insert(ssh_key.id, ssh_key.clone());
    Ok((StatusCode::CREATED, Json(OneKey { ssh_key })))
}

/// `PUT /ssh_keys/{id}`
pub(crate) async fn update(
    call: Call,
    PathId(id): PathId,
    JsonBody(request): JsonBody<UpdateKey>,
) -> Result<Json<OneKey>, ApiError> {
    request.labels.as_ref().map_or(Ok(()), labels::check)?;
    request.name.as_deref().map_or(Ok(()), validate::plain_name)?;
    let mut project = call.project();
    let taken =
        |name: &String| project.ssh_keys.values().any(|key| key.id != id && key.name == *name);
    if request.name.as_ref().is_some_and(taken) {
        return Err(ApiError::taken("SSH key not unique"));
    }
    let key = project.ssh_keys.get_mut(&id).ok_or_else(|| not_found(id))?;
    key.name = request.name.unwrap_or_else(|| key.name.clone());
    key.labels = request.labels.unwrap_or_else(|| key.labels.clone());
    Ok(Json(OneKey { ssh_key: key.clone() }))
}

/// `DELETE /ssh_keys/{id}`
pub(crate) async fn delete(call: Call, PathId(id): PathId) -> Result<StatusCode, ApiError> {
    call.project().ssh_keys.remove(&id).map(|_| StatusCode::NO_CONTENT).ok_or_else(|| not_found(id))
}

/// The MD5-shaped fingerprint that the API shows. It is cut from SHA-256: nobody but this simulator
/// compares it, and MD5 is not worth a dependency.
fn fingerprint(public_key: &str) -> Option<String> {
    let mut words = public_key.split_whitespace();
    let algorithm = words.next()?;
    let known = algorithm.starts_with("ssh-")
        || algorithm.starts_with("ecdsa-")
        || algorithm.starts_with("sk-");
    let blob = STANDARD.decode(words.next()?).ok().filter(|blob| known && blob.len() > 16)?;
    let hash = digest::digest(&digest::SHA256, &blob);
    Some(hash.as_ref()[..16].iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":"))
}

fn not_found(id: u64) -> ApiError {
    ApiError::not_found("SSH key with ID", format!("'{id}'"))
}
