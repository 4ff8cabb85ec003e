//! One HTTPS request and its answer: the token, the deadline, the budget, the size cap, retries
//! of reads, and redaction. What a vendor's answers mean comes in through a [`Dialect`].

use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderValue, StatusCode, header};
use tokio::time::Instant;
use url::Url;
use zeroize::Zeroizing;

use super::Cloud;
use super::budget::{Budget, Permit, RateFeedback};
use super::error::{CloudError, ErrorKind, InvalidField};
use super::observe::{CallObserver, StatusClass};
use super::redact::redact;
use super::secret::ApiToken;

mod config;
mod request;

pub use config::{CallLimits, ClientConfig, ConfigError};
pub(crate) use request::{Answer, Request};

/// How often a read is repeated after a temporary failure.
const READ_RETRIES: u32 = 2;

/// A `Retry-After` beyond this is not believed.
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);

/// What differs between the clouds on the wire.
pub(crate) struct Dialect {
    pub(crate) cloud: Cloud,
    /// What an answer other than 2xx means, and its message, unredacted.
    pub(crate) refusal: fn(&Refusal<'_>) -> (ErrorKind, String),
    /// How many calls the answer says are left.
    pub(crate) remaining: fn(&HeaderMap) -> Option<u32>,
}

/// An answer other than 2xx.
pub(crate) struct Refusal<'a> {
    pub(crate) status: StatusCode,
    pub(crate) body: &'a [u8],
    /// The request could change something.
    pub(crate) write: bool,
    /// How long to pause if it is a 429.
    pub(crate) pause: Duration,
}

impl Refusal<'_> {
    /// What the answer of something on the way means, of a proxy or Cloudflare's own edge for example:
    /// one without a document of the API. It proves nothing about an object: a bare 404 is not "gone".
    pub(crate) fn without_document(&self) -> (ErrorKind, String) {
        let maybe_applied = self.write;
        let kind = match self.status {
            StatusCode::UNAUTHORIZED => ErrorKind::Unauthorized,
            StatusCode::FORBIDDEN => ErrorKind::Forbidden { read_only: false },
            StatusCode::GONE => ErrorKind::Gone,
            StatusCode::TOO_MANY_REQUESTS => ErrorKind::RateLimited { retry_after: self.pause },
            status if status.is_server_error() => ErrorKind::Transient { maybe_applied },
            _ => ErrorKind::Malformed { maybe_applied },
        };
        (kind, format!("{} without an error document", self.status.as_u16()))
    }
}

/// Sends requests to one cloud with one token.
pub(crate) struct Transport {
    dialect: &'static Dialect,
    http: reqwest::Client,
    base_url: Url,
    token: ApiToken,
    authorization: HeaderValue,
    budget: Arc<Budget>,
    observer: Arc<dyn CallObserver>,
    limits: CallLimits,
}

impl Transport {
    pub(crate) fn new(
        dialect: &'static Dialect,
        config: ClientConfig,
    ) -> Result<Self, ConfigError> {
        let loopback = config::is_loopback(&config.base_url);
        config::check_base_url(&config.base_url, loopback)?;
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("moorage/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(config.limits.connect)
            .https_only(!loopback)
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .referer(false);
        if loopback {
            builder = builder.no_proxy();
        }
        if let Some(pem) = &config.extra_root_certificates {
            let certificates = reqwest::Certificate::from_pem_bundle(pem)
                .map_err(ConfigError::RootCertificates)?;
            builder = builder.tls_certs_merge(certificates);
        }
        let http = builder.build().map_err(ConfigError::Client)?;
        let bearer = Zeroizing::new(format!("Bearer {}", config.token.expose_secret()));
        let mut authorization =
            HeaderValue::from_str(&bearer).expect("an ApiToken holds visible ASCII only");
        authorization.set_sensitive(true);
        Ok(Self {
            dialect,
            http,
            base_url: config.base_url,
            token: config.token,
            authorization,
            budget: config.budget,
            observer: config.observer,
            limits: config.limits,
        })
    }

    /// Sends a request within its budget and deadline. A read is repeated after a temporary
    /// failure, a write never.
    pub(crate) async fn send(&self, request: Request) -> Result<Answer, CloudError> {
        let deadline = Instant::now() + self.limits.call;
        let mut attempt = 0;
        loop {
            let result = self.attempt(&request, deadline).await;
            let repeat = request.is_read()
                && attempt < READ_RETRIES
                && matches!(&result, Err(error) if is_temporary(error));
            let pause = jittered(self.limits.read_backoff * 2_u32.pow(attempt));
            if !repeat || Instant::now() + pause >= deadline {
                return result;
            }
            tokio::time::sleep(pause).await;
            attempt += 1;
        }
    }

    /// Upstream text that is passed on in something other than an error.
    pub(crate) fn redact(&self, text: &str) -> String {
        redact(text, &[self.token.expose_secret()])
    }

    /// An error of this cloud that needs no answer, such as input that is not worth sending.
    pub(crate) fn error(
        &self,
        operation: &'static str,
        kind: ErrorKind,
        message: &str,
    ) -> CloudError {
        let kind = match kind {
            ErrorKind::InvalidInput { fields } => {
                let clean = |text: &String| self.redact(text);
                let fields = fields.iter().map(|field| InvalidField {
                    name: clean(&field.name),
                    messages: field.messages.iter().map(clean).collect(),
                });
                ErrorKind::InvalidInput { fields: fields.collect() }
            }
            other => other,
        };
        CloudError::new(self.dialect.cloud, operation, kind, &self.redact(message))
    }

    async fn attempt(&self, request: &Request, deadline: Instant) -> Result<Answer, CloudError> {
        let permit = self.permit(request, deadline).await?;
        let started = Instant::now();
        let observe = |class| {
            self.observer.call(self.dialect.cloud, request.operation, class, started.elapsed());
        };
        match tokio::time::timeout_at(deadline, self.exchange(request, permit)).await {
            Ok(Ok((status, body))) => {
                observe(StatusClass::of(status));
                self.interpret(request, status, body)
            }
            Ok(Err(error)) => {
                observe(StatusClass::NoAnswer);
                Err(error)
            }
            Err(_) => {
                observe(StatusClass::NoAnswer);
                let kind = ErrorKind::Timeout { maybe_applied: !request.is_read() };
                Err(self.error(request.operation, kind, ""))
            }
        }
    }

    async fn permit(&self, request: &Request, deadline: Instant) -> Result<Permit<'_>, CloudError> {
        let patience = deadline.min(Instant::now() + self.limits.budget_wait);
        self.budget.acquire(request.priority, patience).await.map_err(|exhausted| {
            let class = StatusClass::OverBudget;
            self.observer.call(self.dialect.cloud, request.operation, class, Duration::ZERO);
            let kind = ErrorKind::BudgetExhausted { wait: exhausted.wait };
            self.error(request.operation, kind, "")
        })
    }

    /// The request on the wire, and the whole answer, whatever its status.
    async fn exchange(
        &self,
        request: &Request,
        permit: Permit<'_>,
    ) -> Result<(StatusCode, Received), CloudError> {
        let mut outgoing = self
            .http
            .request(request.method.clone(), self.url(request))
            .header(header::AUTHORIZATION, self.authorization.clone())
            .header(header::ACCEPT, "application/json");
        if let Some(body) = &request.body {
            outgoing =
                outgoing.header(header::CONTENT_TYPE, "application/json").body(body.to_vec());
        }
        let mut response =
            outgoing.send().await.map_err(|error| self.unreachable(request, &error))?;
        let status = response.status();
        let feedback = self.feedback(status, response.headers());
        let headers = std::mem::take(response.headers_mut());
        // Settled at the headers: the body no longer concerns the limit.
        permit.settle(feedback);
        let mut body = Zeroizing::new(Vec::new());
        while let Some(chunk) =
            response.chunk().await.map_err(|error| self.unreachable(request, &error))?
        {
            if body.len() + chunk.len() > self.limits.response_bytes {
                let kind = ErrorKind::Malformed { maybe_applied: !request.is_read() };
                let message =
                    format!("the answer is larger than {} bytes", self.limits.response_bytes);
                return Err(self.error(request.operation, kind, &message));
            }
            body.extend_from_slice(&chunk);
        }
        let pause = feedback.retry_after.unwrap_or_else(|| self.budget.default_pause());
        Ok((status, Received { headers, body, pause }))
    }

    fn interpret(
        &self,
        request: &Request,
        status: StatusCode,
        received: Received,
    ) -> Result<Answer, CloudError> {
        let write = !request.is_read();
        let Received { headers, body, pause } = received;
        if status.is_success() {
            return Ok(Answer {
                cloud: self.dialect.cloud,
                operation: request.operation,
                write,
                headers,
                body,
            });
        }
        let (kind, message) =
            (self.dialect.refusal)(&Refusal { status, body: &body, write, pause });
        Err(self.error(request.operation, kind, &message))
    }

    fn feedback(&self, status: StatusCode, headers: &HeaderMap) -> RateFeedback {
        RateFeedback {
            remaining: (self.dialect.remaining)(headers),
            limited: status == StatusCode::TOO_MANY_REQUESTS,
            retry_after: retry_after(headers),
        }
    }

    /// No answer came. Only when no connection was made is it sure that nothing happened.
    fn unreachable(&self, request: &Request, error: &reqwest::Error) -> CloudError {
        let maybe_applied = !request.is_read() && !error.is_connect();
        let mut message = String::new();
        let mut source = error.source();
        while let Some(cause) = source {
            if !message.is_empty() {
                message.push_str(": ");
            }
            message.push_str(&cause.to_string());
            source = cause.source();
        }
        self.error(request.operation, ErrorKind::Transient { maybe_applied }, &message)
    }

    fn url(&self, request: &Request) -> Url {
        let mut url = self.base_url.clone();
        url.path_segments_mut()
            .expect("checked when the transport was built: the base URL has a host")
            .pop_if_empty()
            .extend(&request.path);
        if !request.query.is_empty() {
            url.query_pairs_mut().extend_pairs(&request.query);
        }
        url
    }
}

struct Received {
    headers: HeaderMap,
    body: Zeroizing<Vec<u8>>,
    pause: Duration,
}

/// Worth repeating at once, if it was a read.
fn is_temporary(error: &CloudError) -> bool {
    matches!(error.kind, ErrorKind::Transient { .. } | ErrorKind::Timeout { .. })
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    // Zero would mean "now", to a caller that was just refused.
    Some(Duration::from_secs(seconds).clamp(Duration::from_secs(1), LONGEST_PAUSE))
}

/// Between half of the pause and all of it.
fn jittered(pause: Duration) -> Duration {
    let mut byte = [0];
    // Without randomness the pause is merely not spread.
    let _ = aws_lc_rs::rand::fill(&mut byte);
    pause / 2 + pause / 2 * u32::from(byte[0]) / 255
}

#[cfg(test)]
mod tests;
