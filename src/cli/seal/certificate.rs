//! Where `moorage seal` takes the certificate from: a file, an address, or a cluster.

use std::time::Duration;

use async_trait::async_trait;
use clap::Args;
use jiff::Timestamp;
use moorage_wire::sealing::SealingCertificate;
use tokio::io::AsyncReadExt as _;
use url::Url;

use super::SealError;
use crate::cli::cluster_error::ClusterReadError;

/// A certificate is 2 to 3 KiB.
const MAX_CERTIFICATE_BYTES: usize = 64 * 1024;
const FETCH_TIMEOUT: Duration = Duration::from_secs(15);

/// Why a certificate could not be read; shown as it is.
type LookupError = Box<dyn std::error::Error + Send + Sync>;

/// Finds certificates in a cluster.
#[async_trait]
pub trait CertificateSource: Send + Sync {
    /// PEM of the certificate that the operator in this namespace publishes for all.
    async fn published(&self, namespace: &str) -> Result<String, ClusterReadError>;

    /// PEM of the certificate in the status of a `HostingPool`.
    async fn of_pool(&self, pool: &str) -> Result<String, ClusterReadError>;

    /// PEM of the certificate in the status of an `OpenClawInstance`.
    async fn of_agent(&self, namespace: &str, instance: &str) -> Result<String, ClusterReadError>;
}

/// Which certificate to seal to: at most one of three ways, which [`super::SealArgs`] enforces; without
/// any, the one that the operator publishes for all.
#[derive(Args)]
#[command(next_help_heading = "Certificate")]
pub(crate) struct CertificateArgs {
    /// Seal to this certificate: a file, or the address of the operator's /v1/cert.pem
    #[arg(long, value_name = "FILE|URL")]
    cert: Option<String>,
    /// Seal to the certificate of the operator of this hosting pool; where you may not read pools, to
    /// the one that the operator publishes
    #[arg(long, value_name = "NAME")]
    pool: Option<String>,
    /// Namespace of the operator that publishes the certificate
    #[arg(long, value_name = "NAME", default_value = "moorage-system", env = "MOORAGE_NAMESPACE")]
    operator_namespace: String,
    /// Seal to the instance's own server, so that not even the operator can read the values
    /// (needs sealedTo: Agent in the spec)
    #[arg(long, requires = "instance")]
    to_agent: bool,
    /// Fetch --cert over plain HTTP from another machine too; whoever is in between can exchange it
    #[arg(long, requires = "cert")]
    allow_http: bool,
}

/// A certificate as it was read.
pub(super) struct FoundCertificate {
    pub(super) from: String,
    pub(super) pem: String,
}

impl FoundCertificate {
    /// Parses it and checks that it is still valid.
    pub(super) fn parse(&self, now: Timestamp) -> Result<SealingCertificate, SealError> {
        let from = || self.from.clone();
        let certificate = SealingCertificate::parse(&self.pem)
            .map_err(|_| SealError::InvalidCertificate(from()))?;
        let not_after = certificate.not_after();
        if not_after < now {
            return Err(SealError::ExpiredCertificate { from: from(), not_after });
        }
        Ok(certificate)
    }
}

impl CertificateArgs {
    pub(super) async fn read(
        &self,
        namespace: &str,
        instance: &str,
        source: &dyn CertificateSource,
    ) -> Result<FoundCertificate, SealError> {
        if let Some(place) = &self.cert {
            let read = match web_address(place) {
                Some(url) => download(self.check_scheme(url)?).await,
                None => read_file(place).await,
            };
            let from = place.clone();
            return match read {
                Ok(pem) => Ok(FoundCertificate { from, pem }),
                Err(source) => Err(SealError::UnreadableCertificate { from, source }),
            };
        }
        if self.to_agent {
            let pem = source.of_agent(namespace, instance).await?;
            let from = format!("OpenClawInstance {namespace}/{instance}");
            return Ok(FoundCertificate { from, pem });
        }
        if let Some(pool) = &self.pool {
            match source.of_pool(pool).await {
                Ok(pem) => {
                    return Ok(FoundCertificate { from: format!("HostingPool {pool}"), pem });
                }
                // Pools are for administrators. All of an operator's pools have the same certificate.
                Err(ClusterReadError::Forbidden { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let operator = &self.operator_namespace;
        match source.published(operator).await {
            Ok(pem) => Ok(FoundCertificate { from: format!("the operator in {operator}"), pem }),
            Err(ClusterReadError::Forbidden { .. } | ClusterReadError::NotFound { .. }) => {
                Err(SealError::NothingPublished { namespace: operator.clone() })
            }
            Err(error) => Err(error.into()),
        }
    }

    fn check_scheme(&self, url: Url) -> Result<Url, SealError> {
        let loopback = match url.host() {
            Some(url::Host::Domain(name)) => name == "localhost",
            Some(url::Host::Ipv4(address)) => address.is_loopback(),
            Some(url::Host::Ipv6(address)) => address.is_loopback(),
            None => false,
        };
        if url.scheme() == "https" || loopback || self.allow_http {
            Ok(url)
        } else {
            Err(SealError::PlainHttp(url))
        }
    }
}

fn web_address(place: &str) -> Option<Url> {
    Url::parse(place).ok().filter(|url| matches!(url.scheme(), "http" | "https"))
}

async fn read_file(path: &str) -> Result<String, LookupError> {
    let mut text = String::new();
    let file = tokio::fs::File::open(path).await?;
    file.take(MAX_CERTIFICATE_BYTES as u64).read_to_string(&mut text).await?;
    Ok(text)
}

async fn download(url: Url) -> Result<String, LookupError> {
    // No redirects: they could lead from https to http, or to anyone.
    let client = reqwest::Client::builder()
        .timeout(FETCH_TIMEOUT)
        .redirect(reqwest::redirect::Policy::none())
        .build()?;
    let mut answer = client.get(url).send().await?;
    if !answer.status().is_success() {
        return Err(format!("the server answered {}", answer.status()).into());
    }
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await? {
        if body.len() + chunk.len() > MAX_CERTIFICATE_BYTES {
            return Err("the answer is too large for a certificate".into());
        }
        body.extend_from_slice(&chunk);
    }
    Ok(String::from_utf8(body)?)
}
