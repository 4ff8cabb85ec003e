//! Images: the system images of the catalogue and the project's own snapshots.

use axum::Json;
use http::StatusCode;
use serde::Serialize;

use super::body::PathId;
use super::model::Image;
use super::page::{self, Key, Listed, Meta};
use super::{ApiError, Call, catalogue};
use crate::query::QueryPairs;

#[derive(Serialize)]
pub(crate) struct OneImage {
    image: Image,
}

#[derive(Serialize)]
pub(crate) struct ImageList {
    images: Vec<Image>,
    meta: Meta,
}

impl Listed for Image {
    fn key(&self) -> Key<'_> {
        Key {
            id: self.id,
            name: self.name.as_deref().unwrap_or_default(),
            labels: Some(&self.labels),
        }
    }
}

/// `GET /images`
pub(crate) async fn list(call: Call, query: QueryPairs) -> Result<Json<ImageList>, ApiError> {
    let mut images = catalogue::system_images();
    images.extend(call.project().snapshots.values().cloned());
    let among = |name: &str, value: &str| {
        query.get(name).is_none() || query.all(name).any(|wanted| wanted == value)
    };
    images.retain(|image| {
        among("type", image.kind)
            && among("status", image.status)
            && among("architecture", image.architecture)
            && (image.deprecated.is_none() || query.get("include_deprecated") == Some("true"))
    });
    let (images, meta) = page::cut(page::choose(images, &query)?, &query)?;
    Ok(Json(ImageList { images, meta }))
}

/// `GET /images/{id}`
pub(crate) async fn get(call: Call, PathId(id): PathId) -> Result<Json<OneImage>, ApiError> {
    let own = call.project().snapshots.get(&id).cloned();
    let image = own.or_else(|| catalogue::system_images().into_iter().find(|image| image.id == id));
    image.map(|image| Json(OneImage { image })).ok_or_else(|| ApiError::not_found("image", id))
}

/// `DELETE /images/{id}`: only snapshots and backups can go.
pub(crate) async fn delete(call: Call, PathId(id): PathId) -> Result<StatusCode, ApiError> {
    let removed = call.project().snapshots.remove(&id);
    removed.map(|_| StatusCode::NO_CONTENT).ok_or_else(|| ApiError::not_found("image", id))
}
