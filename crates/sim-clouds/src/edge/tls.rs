//! The certificates of the edge: an authority, and one leaf per zone made when the first client asks
//! for a name of that zone. As Cloudflare's Universal SSL, a leaf covers a domain and the names one
//! level below it; connectors ask for a name of `cftunnel.com`.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use jiff::tz::TimeZone;
use parking_lot::Mutex;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::crypto::aws_lc_rs::sign::any_ecdsa_type;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

/// Leaves that are kept; visitors choose the names, so the number has to have an end.
const LEAVES_KEPT: usize = 1024;

/// Signs the leaves of the edge.
pub(super) struct CertificateAuthority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl CertificateAuthority {
    /// An authority with a new key.
    pub(super) fn new() -> Result<Self, rcgen::Error> {
        Self::with_key(KeyPair::generate()?)
    }

    /// The authority of a key that [`CertificateAuthority::key_pem`] gave: who trusts the old
    /// certificate trusts the new leaves.
    pub(super) fn from_key_pem(pem: &str) -> Result<Self, rcgen::Error> {
        Self::with_key(KeyPair::from_pem(pem)?)
    }

    fn with_key(key: KeyPair) -> Result<Self, rcgen::Error> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, "moorage-sim edge authority");
        let pem = params.self_signed(&key)?.pem();
        Ok(Self { issuer: Issuer::new(params, key), pem })
    }

    pub(super) fn key_pem(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    pub(super) fn pem(&self) -> &str {
        &self.pem
    }

    /// TLS configurations that make leaves on demand.
    pub(super) fn into_server_configs(self) -> ServerConfigs {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let leaves = Leaves { authority: self, made: Mutex::default() };
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider supports the default TLS versions")
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(leaves));
        let connectors = Arc::new(config.clone());
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        ServerConfigs { visitors: Arc::new(config), connectors }
    }

    fn leaf(&self, zone: &str) -> Result<CertifiedKey, Box<dyn std::error::Error>> {
        let mut params = CertificateParams::new(vec![zone.to_owned(), format!("*.{zone}")])?;
        // Whoever lives in the past refuses it, as it would Cloudflare's.
        let day = jiff::Timestamp::now().to_zoned(TimeZone::UTC).date().yesterday()?;
        let [month, day_of_month] = [day.month(), day.day()].map(i8::unsigned_abs);
        params.not_before = rcgen::date_time_ymd(day.year().into(), month, day_of_month);
        params.distinguished_name.push(DnType::CommonName, zone);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        Ok(CertifiedKey::new(vec![certificate.der().clone()], any_ecdsa_type(&key)?))
    }
}

/// How the edge ends TLS.
pub(super) struct ServerConfigs {
    /// For visitors, who choose between HTTP/2 and HTTP/1.1.
    pub(super) visitors: Arc<rustls::ServerConfig>,
    /// For connectors, who offer no choice.
    pub(super) connectors: Arc<rustls::ServerConfig>,
}

struct Leaves {
    authority: CertificateAuthority,
    made: Mutex<HashMap<String, Arc<CertifiedKey>>>,
}

impl fmt::Debug for Leaves {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Leaves")
    }
}

impl ResolvesServerCert for Leaves {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        // No name, or a name of one label: no zone could be meant.
        let (_, zone) = hello.server_name()?.split_once('.')?;
        let mut made = self.made.lock();
        if let Some(leaf) = made.get(zone) {
            return Some(leaf.clone());
        }
        let leaf = match self.authority.leaf(zone) {
            Ok(leaf) => Arc::new(leaf),
            Err(error) => {
                tracing::warn!(zone, %error, "cannot make a certificate");
                return None;
            }
        };
        if made.len() >= LEAVES_KEPT {
            made.clear();
        }
        made.insert(zone.to_owned(), leaf.clone());
        Some(leaf)
    }
}
