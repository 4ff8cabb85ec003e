//! What every request to a cloud passes through before its handler: the token, the rate limit, the
//! faults and the journal.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use jiff::Timestamp;
use serde_json::Value;

use crate::cloudflare::{self, Caller};
use crate::faults::{FaultKind, empty_lists, replace_enum};
use crate::hetzner::{self, ActionFailure, Boot, Call};
use crate::journal::{Arrival, Cloud};
use crate::listener::LostResponse;
use crate::ratelimit::BucketReading;
use crate::world::World;

/// The base path of the Hetzner API.
pub(crate) const HETZNER_BASE: &str = "/v1";
/// The base path of the Cloudflare API.
pub(crate) const CLOUDFLARE_BASE: &str = "/client/v4";

const BODY_LIMIT: usize = 4 << 20;

/// A request whose body has been read.
struct Received {
    parts: http::request::Parts,
    body: Bytes,
    path: String,
}

impl Received {
    async fn read(request: Request, base: &str) -> Result<Self, Response> {
        let (parts, body) = request.into_parts();
        let body = to_bytes(body, BODY_LIMIT)
            .await
            .map_err(|_| StatusCode::PAYLOAD_TOO_LARGE.into_response())?;
        let path = parts.uri.path();
        let path = path.strip_prefix(base).unwrap_or(path).to_owned();
        Ok(Self { parts, body, path })
    }

    fn note(&self, world: &World, cloud: Cloud, tenant: Option<&str>) -> u64 {
        world.journal.open(&Arrival {
            cloud,
            tenant,
            method: self.parts.method.as_str(),
            path: &self.path,
            query: self.parts.uri.query().unwrap_or_default(),
            body: &self.body,
        })
    }

    async fn strike(&self, world: &World, cloud: Cloud, tenant: &str) -> Option<FaultKind> {
        world.faults.strike(cloud, tenant, self.parts.method.as_str(), &self.path).await
    }

    fn into_request(self) -> Request {
        Request::from_parts(self.parts, Body::from(self.body))
    }
}

/// The gate of the Hetzner API.
pub(crate) async fn hetzner(
    State(world): State<Arc<World>>,
    request: Request,
    next: Next,
) -> Response {
    let mut received = match Received::read(request, HETZNER_BASE).await {
        Ok(received) => received,
        Err(response) => return response,
    };
    let token = bearer(&received.parts.headers).map(str::to_owned).unwrap_or_default();
    let project = world.hetzner.by_token(&token);
    let tenant = project.as_ref().map(|(name, _)| name.clone());
    let seq = received.note(&world, Cloud::Hetzner, tenant.as_deref());
    let response = if let Some((name, project)) = project {
        let reading = project.lock().rate.take(Instant::now(), world.timings.rate_limit_scale);
        let may_not = project.lock().read_only && received.parts.method != http::Method::GET;
        let mut response = if reading.allowed && may_not {
            hetzner::ApiError::read_only().into_response()
        } else if reading.allowed {
            let fault = received.strike(&world, Cloud::Hetzner, &name).await;
            received.parts.extensions.insert(Call {
                world: Arc::clone(&world),
                project,
                project_name: name,
                action_failure: ActionFailure::from_fault(fault.as_ref()),
                boot: Boot::from_fault(fault.as_ref()),
            });
            with_fault(fault, Cloud::Hetzner, &token, received, next).await
        } else {
            hetzner::ApiError::rate_limited(reading.limit, &token).into_response()
        };
        hetzner_headers(response.headers_mut(), &reading);
        response
    } else {
        hetzner::ApiError::unauthorized().into_response()
    };
    close(&world, seq, response)
}

/// The gate of the Cloudflare API.
pub(crate) async fn cloudflare(
    State(world): State<Arc<World>>,
    request: Request,
    next: Next,
) -> Response {
    let mut received = match Received::read(request, CLOUDFLARE_BASE).await {
        Ok(received) => received,
        Err(response) => return response,
    };
    let token = bearer(&received.parts.headers).map(str::to_owned).unwrap_or_default();
    let grant = world.cloudflare.grant(&token);
    let tenant = grant.as_ref().map(|grant| grant.tenant.clone());
    let seq = received.note(&world, Cloud::Cloudflare, tenant.as_deref());
    let response = if let Some(grant) = grant {
        match world.cloudflare.take_request(&grant.user, world.timings.rate_limit_scale) {
            Ok(()) => {
                let fault = received.strike(&world, Cloud::Cloudflare, &grant.tenant).await;
                received.parts.extensions.insert(Caller { state: world.cloudflare.clone(), grant });
                with_fault(fault, Cloud::Cloudflare, &token, received, next).await
            }
            Err(blocked) => too_many(blocked),
        }
    } else {
        cloudflare::ApiError::unknown_token(&received.path).into_response()
    };
    close(&world, seq, response)
}

/// Lets the request meet its fault, if there is one.
async fn with_fault(
    fault: Option<FaultKind>,
    cloud: Cloud,
    token: &str,
    received: Received,
    next: Next,
) -> Response {
    match fault {
        // A request that was held is let go now.
        None
        | Some(
            FaultKind::ActionError { .. }
            | FaultKind::StaysOff
            | FaultKind::StaysInitializing
            | FaultKind::OutOfStock { .. }
            | FaultKind::Hold,
        ) => next.run(received.into_request()).await,
        Some(FaultKind::Status { status, code, message, retry_after }) => {
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            let mut response = match cloud {
                Cloud::Hetzner => {
                    hetzner::ApiError::injected(status, code, message, token).into_response()
                }
                Cloud::Cloudflare => {
                    cloudflare::ApiError::injected(status, code, message).into_response()
                }
            };
            // Cloudflare always says how long its block lasts; Hetzner never does.
            let default = (status == StatusCode::TOO_MANY_REQUESTS && cloud == Cloud::Cloudflare)
                .then_some(300);
            if let Some(seconds) = retry_after.or(default) {
                response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
            }
            response
        }
        Some(FaultKind::ResponseLost) => {
            let mut response = next.run(received.into_request()).await;
            response.extensions_mut().insert(LostResponse);
            response
        }
        Some(FaultKind::Delay { ms }) => {
            tokio::time::sleep(Duration::from_millis(ms)).await;
            next.run(received.into_request()).await
        }
        Some(FaultKind::Hang) => std::future::pending().await,
        Some(FaultKind::MalformedBody) => {
            rewrite(next.run(received.into_request()).await, |body| {
                let middle = body.len() / 2;
                body[..middle].to_vec()
            })
            .await
        }
        Some(FaultKind::UnknownEnum { field, value }) => {
            let field = field.unwrap_or_else(|| "status".to_owned());
            let unknown = value.unwrap_or_else(|| "quantum".to_owned());
            let response = next.run(received.into_request()).await;
            rewrite_json(response, |json| replace_enum(json, &field, &unknown)).await
        }
        Some(FaultKind::FirewallUnseen) => {
            let response = next.run(received.into_request()).await;
            rewrite_json(response, |json| empty_lists(json, "firewalls")).await
        }
    }
}

async fn rewrite_json(response: Response, change: impl FnOnce(&mut Value)) -> Response {
    rewrite(response, |body| {
        let Ok(mut json) = serde_json::from_slice::<Value>(body) else {
            return body.to_vec();
        };
        change(&mut json);
        json.to_string().into_bytes()
    })
    .await
}

async fn rewrite(response: Response, change: impl FnOnce(&[u8]) -> Vec<u8>) -> Response {
    let (mut parts, body) = response.into_parts();
    let body = to_bytes(body, usize::MAX).await.unwrap_or_default();
    parts.headers.remove(header::CONTENT_LENGTH);
    Response::from_parts(parts, Body::from(change(&body)))
}

fn close(world: &World, seq: u64, response: Response) -> Response {
    let lost = response.extensions().get::<LostResponse>().is_some();
    world.journal.close(seq, response.status().as_u16(), lost);
    response
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")
}

fn hetzner_headers(headers: &mut HeaderMap, reading: &BucketReading) {
    let until_full = i64::try_from(whole_seconds(reading.until_full)).unwrap_or(i64::MAX);
    let reset = Timestamp::now().as_second().saturating_add(until_full);
    headers.insert("ratelimit-limit", HeaderValue::from(reading.limit));
    headers.insert("ratelimit-remaining", HeaderValue::from(reading.remaining));
    headers.insert("ratelimit-reset", HeaderValue::from(reset));
}

fn too_many(blocked: Duration) -> Response {
    let mut response = cloudflare::ApiError::rate_limited().into_response();
    let seconds = whole_seconds(blocked);
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds.max(1)));
    response
}

/// Seconds, rounded up.
fn whole_seconds(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}
