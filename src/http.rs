//! The operator's own HTTP server: metrics, probes, and the certificate to seal credentials with.
//! Nothing here is secret, nothing can be changed through it.

use std::sync::Arc;

use axum::{
    Router,
    extract::State,
    response::{IntoResponse, Response},
    routing::get,
};
use http::{StatusCode, header};
use parking_lot::RwLock;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{controller::context::Context, metrics::Metrics};

/// Whether the operator does its work, or waits to; else why not. Clones share it.
#[derive(Debug, Clone)]
pub struct Readiness(Arc<RwLock<Result<(), String>>>);

impl Default for Readiness {
    fn default() -> Self {
        Self(Arc::new(RwLock::new(Err("starting".to_owned()))))
    }
}

impl Readiness {
    /// It works, or stands by.
    pub fn ready(&self) {
        self.set(Ok(()));
    }

    /// It cannot work; `reason` says why and what a person does next.
    pub fn not_ready(&self, reason: impl Into<String>) {
        self.set(Err(reason.into()));
    }

    pub fn get(&self) -> Result<(), String> {
        self.0.read().clone()
    }

    fn set(&self, state: Result<(), String>) {
        *self.0.write() = state;
    }
}

/// The certificate at `/v1/cert.pem`. Clones share it.
#[derive(Clone, Default)]
pub struct PublishedCertificate(Arc<RwLock<CertificateOrigin>>);

#[derive(Clone, Default)]
enum CertificateOrigin {
    #[default]
    None,
    /// As read from the cluster by an operator that stands by.
    Pem(String),
    /// Of the leader's key ring.
    Ring(Arc<Context>),
}

impl PublishedCertificate {
    /// Publishes what an operator that stands by has read.
    pub fn publish(&self, pem: String) {
        self.set(CertificateOrigin::Pem(pem));
    }

    /// Publishes the certificate of the leader's key ring from now on, whichever that is.
    pub fn follow(&self, context: Arc<Context>) {
        self.set(CertificateOrigin::Ring(context));
    }

    async fn pem(&self) -> Option<String> {
        let origin = self.0.read().clone();
        match origin {
            CertificateOrigin::None => None,
            CertificateOrigin::Pem(pem) => Some(pem),
            CertificateOrigin::Ring(context) => {
                let ring = Arc::clone(&*context.key_ring.read().await);
                ring.certificate().map(|certificate| certificate.pem().to_owned())
            }
        }
    }

    fn set(&self, origin: CertificateOrigin) {
        *self.0.write() = origin;
    }
}

/// What the server shows.
#[derive(Clone)]
pub struct Shown {
    /// At `/metrics`.
    pub metrics: Arc<Metrics>,
    /// At `/readyz`.
    pub readiness: Readiness,
    /// At `/v1/cert.pem`.
    pub certificate: PublishedCertificate,
}

/// Answers until `stop`, then lets requests under way end.
pub async fn serve(
    listener: TcpListener,
    shown: Shown,
    stop: CancellationToken,
) -> std::io::Result<()> {
    axum::serve(listener, router(shown)).with_graceful_shutdown(stop.cancelled_owned()).await
}

pub fn router(shown: Shown) -> Router {
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/v1/cert.pem", get(certificate))
        .with_state(shown)
}

async fn readyz(State(shown): State<Shown>) -> Response {
    match shown.readiness.get() {
        Ok(()) => "ok\n".into_response(),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, reason + "\n").into_response(),
    }
}

async fn metrics(State(shown): State<Shown>) -> Response {
    let kind = [(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)];
    (kind, shown.metrics.render()).into_response()
}

async fn certificate(State(shown): State<Shown>) -> Response {
    if let Some(pem) = shown.certificate.pem().await {
        // A copy that some proxy kept would be sealed to after its key is gone.
        let headers =
            [(header::CONTENT_TYPE, "application/x-pem-file"), (header::CACHE_CONTROL, "no-store")];
        return (headers, pem).into_response();
    }
    let message = "there is no sealing certificate yet: the operator is starting, or cannot read its key ring; /readyz and its log say more\n";
    (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "5")], message).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::{Body, to_bytes};
    use http::Request;
    use tower::ServiceExt as _;

    fn shown() -> Shown {
        Shown {
            metrics: Metrics::new(),
            readiness: Readiness::default(),
            certificate: PublishedCertificate::default(),
        }
    }

    async fn ask(shown: &Shown, path: &str) -> (StatusCode, String, String) {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let response = router(shown.clone()).oneshot(request).await.unwrap();
        let status = response.status();
        let kind = response.headers()[header::CONTENT_TYPE].to_str().unwrap().to_owned();
        let body = to_bytes(response.into_body(), 1 << 20).await.unwrap();
        (status, kind, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn readiness_says_why_not_and_liveness_does_not_depend_on_it() {
        let shown = shown();
        let (status, _, body) = ask(&shown, "/readyz").await;
        assert_eq!((status, &*body), (StatusCode::SERVICE_UNAVAILABLE, "starting\n"));
        shown.readiness.not_ready("Secret moorage-master-key is missing; restore it");
        let (status, _, body) = ask(&shown, "/readyz").await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(body.contains("restore it"), "{body}");
        assert_eq!(ask(&shown, "/healthz").await.0, StatusCode::OK);
        shown.readiness.ready();
        assert_eq!(ask(&shown, "/readyz").await.0, StatusCode::OK);
    }

    #[tokio::test]
    async fn the_certificate_is_served_once_there_is_one() {
        let shown = shown();
        let (status, _, body) = ask(&shown, "/v1/cert.pem").await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(body.contains("/readyz"), "{body}");
        shown.certificate.publish("-----BEGIN CERTIFICATE-----".into());
        let (status, kind, body) = ask(&shown, "/v1/cert.pem").await;
        assert_eq!((status, &*kind), (StatusCode::OK, "application/x-pem-file"));
        assert_eq!(body, "-----BEGIN CERTIFICATE-----");
    }

    #[tokio::test]
    async fn metrics_are_served_in_the_text_format() {
        let (status, kind, body) = ask(&shown(), "/metrics").await;
        assert_eq!(status, StatusCode::OK);
        assert!(kind.starts_with("text/plain; version=0.0.4"), "{kind}");
        assert!(body.contains("moorage_instances{phase=\"Ready\"} 0"), "{body}");
    }

    #[tokio::test]
    async fn the_server_ends_when_it_is_told_to() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stop = CancellationToken::new();
        let server = tokio::spawn(serve(listener, shown(), stop.clone()));
        stop.cancel();
        server.await.unwrap().unwrap();
    }
}
