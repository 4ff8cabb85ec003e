//! What cloudflared serves on its metrics address, as far as anybody here asks for it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use http::StatusCode;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::Shared;

/// Binds the address and serves in the background.
pub(super) async fn serve(
    address: SocketAddr,
    shared: Arc<Shared>,
) -> std::io::Result<JoinHandle<()>> {
    let listener = TcpListener::bind(address).await?;
    let router = Router::new()
        .route("/ready", get(ready))
        .route("/healthcheck", get(async || "OK\n"))
        .route("/config", get(config))
        .with_state(shared);
    Ok(tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, router).await {
            tracing::error!(%error, "metrics are no longer served");
        }
    }))
}

async fn ready(State(shared): State<Arc<Shared>>) -> (StatusCode, Json<Value>) {
    let connections = shared.ready.load(Ordering::Relaxed);
    let status = if connections > 0 { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body = json!({
        "status": status.as_u16(),
        "readyConnections": connections,
        "connectorId": shared.client.id.to_string(),
    });
    (status, Json(body))
}

async fn config(State(shared): State<Arc<Shared>>) -> Json<Value> {
    let (version, config) = shared.rules.in_force();
    Json(json!({"version": version, "config": config}))
}
