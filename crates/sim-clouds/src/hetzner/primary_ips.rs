//! Primary IPs: those that came with servers. Making one on its own is not offered.

use axum::Json;
use http::StatusCode;
use serde::{Deserialize, Serialize};

use super::body::{JsonBody, PathId};
use super::labels::{self, Labels};
use super::model::PrimaryIp;
use super::page::{self, Key, Listed, Meta};
use super::{ApiError, Call};
use crate::query::QueryPairs;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct UpdatePrimaryIp {
    name: Option<String>,
    labels: Option<Labels>,
    auto_delete: Option<bool>,
}

#[derive(Serialize)]
pub(crate) struct OnePrimaryIp {
    primary_ip: PrimaryIp,
}

#[derive(Serialize)]
pub(crate) struct PrimaryIpList {
    primary_ips: Vec<PrimaryIp>,
    meta: Meta,
}

impl Listed for PrimaryIp {
    fn key(&self) -> Key<'_> {
        Key { id: self.id, name: &self.name, labels: Some(&self.labels) }
    }
}

/// `GET /primary_ips`
pub(crate) async fn list(call: Call, query: QueryPairs) -> Result<Json<PrimaryIpList>, ApiError> {
    let mut ips: Vec<PrimaryIp> = call.project().primary_ips.values().cloned().collect();
    if let Some(address) = query.get("ip") {
        ips.retain(|ip| ip.ip == address);
    }
    let (primary_ips, meta) = page::cut(page::choose(ips, &query)?, &query)?;
    Ok(Json(PrimaryIpList { primary_ips, meta }))
}

/// `GET /primary_ips/{id}`
pub(crate) async fn get(call: Call, PathId(id): PathId) -> Result<Json<OnePrimaryIp>, ApiError> {
    let primary_ip = call.project().primary_ips.get(&id).cloned().ok_or_else(|| not_found(id))?;
    Ok(Json(OnePrimaryIp { primary_ip }))
}

/// `PUT /primary_ips/{id}`
pub(crate) async fn update(
    call: Call,
    PathId(id): PathId,
    JsonBody(request): JsonBody<UpdatePrimaryIp>,
) -> Result<Json<OnePrimaryIp>, ApiError> {
    request.labels.as_ref().map_or(Ok(()), labels::check)?;
    let mut project = call.project();
    let ip = project.primary_ips.get_mut(&id).ok_or_else(|| not_found(id))?;
    ip.name = request.name.unwrap_or_else(|| ip.name.clone());
    ip.labels = request.labels.unwrap_or_else(|| ip.labels.clone());
    ip.auto_delete = request.auto_delete.unwrap_or(ip.auto_delete);
    Ok(Json(OnePrimaryIp { primary_ip: ip.clone() }))
}

/// `DELETE /primary_ips/{id}`: refused while a server has it.
pub(crate) async fn delete(call: Call, PathId(id): PathId) -> Result<StatusCode, ApiError> {
    let mut project = call.project();
    let ip = project.primary_ips.get(&id).ok_or_else(|| not_found(id))?;
    if ip.assignee_id.is_some() {
        return Err(ApiError::in_use("primary IP", id));
    }
    project.primary_ips.remove(&id);
    Ok(StatusCode::NO_CONTENT)
}

fn not_found(id: u64) -> ApiError {
    ApiError::not_found("primary IP with ID", format!("'{id}'"))
}
