//! How a client is set up: where its cloud is, what to trust, and the limits of a call.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use url::{Host, Url};

use crate::cloud::budget::Budget;
use crate::cloud::observe::{CallObserver, NoObserver};
use crate::cloud::secret::ApiToken;

/// How a client reaches its cloud. Base URL and certificates come from the operator's flags,
/// never from a resource: whoever could edit them would be sent the token.
pub struct ClientConfig {
    /// The API's root, such as `https://api.hetzner.cloud/v1`. Plain HTTP only to loopback.
    pub base_url: Url,
    /// Sent with every request.
    pub token: ApiToken,
    /// The budget that every request is charged to.
    pub budget: Arc<Budget>,
    /// Told of every request.
    pub observer: Arc<dyn CallObserver>,
    /// PEM certificates to trust beside the system's.
    pub extra_root_certificates: Option<Vec<u8>>,
    /// Time and size limits.
    pub limits: CallLimits,
}

/// How long a call may take, and how large its answer may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallLimits {
    /// From asking the budget to the last byte, repeated reads included. 20 s.
    pub call: Duration,
    /// Part of it that connecting may take. 5 s.
    pub connect: Duration,
    /// Part of it that may be spent waiting for the budget. 5 s.
    pub budget_wait: Duration,
    /// The first pause before a read is repeated; doubled, then cut by jitter. 250 ms.
    pub read_backoff: Duration,
    /// The largest answer taken. 16 MiB.
    pub response_bytes: usize,
}

impl Default for CallLimits {
    fn default() -> Self {
        Self {
            call: Duration::from_secs(20),
            connect: Duration::from_secs(5),
            budget_wait: Duration::from_secs(5),
            read_backoff: Duration::from_millis(250),
            response_bytes: 16 * 1024 * 1024,
        }
    }
}

impl ClientConfig {
    /// The defaults for everything but the three things that have none.
    pub fn new(base_url: Url, token: ApiToken, budget: Arc<Budget>) -> Self {
        Self {
            base_url,
            token,
            budget,
            observer: Arc::new(NoObserver),
            extra_root_certificates: None,
            limits: CallLimits::default(),
        }
    }
}

impl fmt::Debug for ClientConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientConfig")
            .field("base_url", &self.base_url.as_str())
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

/// Why a client cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The token would travel in the clear.
    #[error("{url}: the API's URL must be https (http is allowed to loopback addresses only)")]
    Insecure {
        /// The URL as given.
        url: Url,
    },
    /// Credentials, a query or a fragment in the base URL.
    #[error(
        "the API's URL must be a plain root such as https://api.example.com/v1, without user, query or fragment"
    )]
    NotARoot,
    /// The extra root certificates cannot be used.
    #[error("the extra root certificates are no PEM certificates: {0}")]
    RootCertificates(#[source] reqwest::Error),
    /// The TLS stack could not be set up.
    #[error("cannot set up the HTTPS client: {0}")]
    Client(#[source] reqwest::Error),
}

pub(super) fn check_base_url(url: &Url, loopback: bool) -> Result<(), ConfigError> {
    let secure = url.scheme() == "https" || (url.scheme() == "http" && loopback);
    if !secure {
        return Err(ConfigError::Insecure { url: url.clone() });
    }
    let plain = url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none()
        && url.fragment().is_none()
        && !url.cannot_be_a_base();
    if plain { Ok(()) } else { Err(ConfigError::NotARoot) }
}

pub(super) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => IpAddr::V4(address).is_loopback(),
        Some(Host::Ipv6(address)) => IpAddr::V6(address).is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    }
}
