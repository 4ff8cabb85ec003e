//! Calls without a token: whether something answers, over which version of IP, and what time it has there.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use http::{Method, StatusCode, header};
use jiff::{Timestamp, fmt::rfc2822};
use tokio::net::lookup_host;
use url::{Host, Url};

use super::{
    artifacts::{self, Way},
    operator::Reached,
};
use crate::cloud::ConfigError;

const PATIENCE: Duration = Duration::from_secs(15);
const CONNECT_PATIENCE: Duration = Duration::from_secs(5);

/// Versions of IP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    V4,
    V6,
}

impl Version {
    fn has(self, address: IpAddr) -> bool {
        address.is_ipv4() == (self == Self::V4)
    }

    /// A socket that is bound to it reaches addresses of its own version only.
    fn unspecified(self) -> IpAddr {
        match self {
            Self::V4 => Ipv4Addr::UNSPECIFIED.into(),
            Self::V6 => Ipv6Addr::UNSPECIFIED.into(),
        }
    }
}

/// What asks.
pub struct Web {
    /// PEM certificates to trust at the clouds' APIs beside the system's.
    extra_roots: Option<Vec<u8>>,
}

impl Web {
    /// One that trusts these authorities as well.
    pub fn new(extra_roots: Option<Vec<u8>>) -> Self {
        Self { extra_roots }
    }

    /// Whether other authorities than the system's are given.
    pub fn has_extra_roots(&self) -> bool {
        self.extra_roots.is_some()
    }

    fn builder(&self, url: &Url) -> Result<reqwest::ClientBuilder, ConfigError> {
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("moorage/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_PATIENCE)
            .timeout(PATIENCE);
        if is_loopback(url) {
            builder = builder.no_proxy();
        }
        if let Some(pem) = &self.extra_roots {
            let certificates = reqwest::Certificate::from_pem_bundle(pem)
                .map_err(ConfigError::RootCertificates)?;
            builder = builder.tls_certs_merge(certificates);
        }
        Ok(builder)
    }

    /// Whether an API answers at all; any answer counts.
    pub async fn reach(&self, url: &Url) -> Reached {
        let host = url.host_str().unwrap_or_default().to_owned();
        let addresses = addresses_of(url).await.map(|found| found.len());
        let addresses = addresses.map_err(|error| error.to_string());
        let answer = match &addresses {
            Err(_) => Err("it was not asked".to_owned()),
            Ok(_) => self.time_of(url).await,
        };
        Reached { host, addresses, answer, now: Timestamp::now() }
    }

    async fn time_of(&self, url: &Url) -> Result<Option<Timestamp>, String> {
        let client = self.builder(url).and_then(|builder| {
            let builder = builder.redirect(reqwest::redirect::Policy::none());
            builder.build().map_err(ConfigError::Client)
        });
        let client = client.map_err(|error| error.to_string())?;
        let answer = client.get(url.clone()).send().await.map_err(|error| causes(&error))?;
        let date = answer.headers().get(header::DATE).and_then(|date| date.to_str().ok());
        Ok(date.and_then(|date| rfc2822::parse(date).ok()).map(|date| date.timestamp()))
    }

    /// Asks for a file over both versions of IP.
    pub async fn head(&self, url: &str) -> artifacts::Seen {
        let (v4, v6) =
            tokio::join!(self.head_over(Version::V4, url), self.head_over(Version::V6, url));
        artifacts::Seen { v4, v6 }
    }

    async fn head_over(&self, version: Version, url: &str) -> Way {
        let Ok(url) = Url::parse(url) else {
            return Way::Failed("it is not a URL".to_owned());
        };
        match addresses_of(&url).await {
            Err(error) => return Way::Failed(error.to_string()),
            Ok(found) if !found.iter().any(|address| version.has(address.ip())) => {
                return Way::NoAddress;
            }
            Ok(_) => {}
        }
        let client = self.builder(&url).and_then(|builder| {
            builder.local_address(version.unspecified()).build().map_err(ConfigError::Client)
        });
        let client = match client {
            Ok(client) => client,
            Err(error) => return Way::Failed(error.to_string()),
        };
        match ask(&client, &url).await {
            Ok(answer) => {
                let length = answer.headers().get(header::CONTENT_LENGTH);
                let length = length.and_then(|length| length.to_str().ok()?.parse().ok());
                Way::Answer(answer.status().as_u16(), length)
            }
            Err(error) if has_no_route(&error) => Way::NoRoute,
            Err(error) => Way::Failed(causes(&error)),
        }
    }
}

/// HEAD, or GET without reading where a server takes no HEAD.
async fn ask(client: &reqwest::Client, url: &Url) -> reqwest::Result<reqwest::Response> {
    let head = client.request(Method::HEAD, url.clone()).send().await?;
    let takes_no_head =
        [StatusCode::METHOD_NOT_ALLOWED, StatusCode::NOT_IMPLEMENTED, StatusCode::FORBIDDEN];
    if takes_no_head.contains(&head.status()) {
        return client.get(url.clone()).send().await;
    }
    Ok(head)
}

async fn addresses_of(url: &Url) -> io::Result<Vec<SocketAddr>> {
    let port = url.port_or_known_default().unwrap_or(443);
    match url.host() {
        Some(Host::Ipv4(address)) => Ok(vec![(address, port).into()]),
        Some(Host::Ipv6(address)) => Ok(vec![(address, port).into()]),
        Some(Host::Domain(name)) => lookup_host((name, port)).await.map(Iterator::collect),
        None => Err(io::Error::other("there is no host in it")),
    }
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

fn has_no_route(error: &reqwest::Error) -> bool {
    use io::ErrorKind::{AddrNotAvailable, HostUnreachable, NetworkUnreachable};
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        if let Some(io) = error.downcast_ref::<io::Error>()
            && matches!(io.kind(), NetworkUnreachable | HostUnreachable | AddrNotAvailable)
        {
            return true;
        }
        cause = error.source();
    }
    false
}

/// Why there was no answer, without the address that was asked.
pub(super) fn causes(error: &reqwest::Error) -> String {
    let mut told = Vec::new();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        let text = error.to_string();
        if !told.contains(&text) {
            told.push(text);
        }
        cause = error.source();
    }
    if told.is_empty() && error.is_timeout() {
        return "no answer in time".to_owned();
    }
    crate::cloud::redact::redact(&told.join(": "), &[])
}
