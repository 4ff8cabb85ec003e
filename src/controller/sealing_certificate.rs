//! Keeps the certificate to seal to readable for tenants; only the leader runs this. What is written
//! where is in `credentials::published`.

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use super::context::Context;
use crate::{credentials::published, metrics::WriteKind};

/// One read per interval. What somebody deleted is back after it at the latest.
const INTERVAL: Duration = Duration::from_secs(30);

/// Publishes until `shutdown`.
pub async fn run(ctx: Arc<Context>, shutdown: CancellationToken) {
    let mut interval = tokio::time::interval(INTERVAL);
    while shutdown.run_until_cancelled(interval.tick()).await.is_some() {
        let ring = ctx.key_ring.read().await.clone();
        let Some(certificate) = ring.certificate() else { continue };
        match published::publish(&ctx.client, &ctx.namespace, certificate.pem()).await {
            Ok(true) => {
                ctx.metrics.api_write(WriteKind::Object);
                tracing::info!(fingerprint = %certificate.fingerprint(), "published the certificate");
            }
            Ok(false) => {}
            Err(error) => tracing::warn!(%error, "the certificate cannot be published"),
        }
    }
}
