//! `moorage seal`: turns API keys into a Secret manifest that is safe to keep in Git, or into one
//! sealed value. Works without a cluster if it is given a certificate.

mod certificate;
mod values;

use std::{collections::BTreeMap, io};

use clap::{ArgGroup, Args};
use jiff::Timestamp;
use k8s_openapi::{
    ByteString, api::core::v1::Secret as KubeSecret, apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use moorage_wire::{
    Secret,
    credential::FormatError,
    sealing::{SealingCertificate, strict_label},
};
use thiserror::Error;
use url::Url;

pub use certificate::CertificateSource;

use certificate::{CertificateArgs, FoundCertificate};
use values::{ValueArgs, collect};

use super::cluster_error::ClusterReadError;
use crate::credentials::{INSTANCE_LABEL, SEALED_SECRET_TYPE, SEALED_WITH_ANNOTATION};

/// Seal API keys for one instance
///
/// Prints a Secret manifest that only the operator (or, with --to-agent, only the instance's server)
/// can open. It is safe to commit and to apply; once its values are delivered it is deleted from the
/// cluster.
#[derive(Args)]
#[command(
    group = ArgGroup::new("certificate").args(["cert", "pool", "to_agent"]),
    after_help = "Example:\n  moorage seal -n tenants --instance ada --name ada-keys \\\n    --from-file anthropic=- --type anthropic=AnthropicApiKey | kubectl apply -f -"
)]
pub struct SealArgs {
    /// Name of the Secret; its values open under this name alone
    #[arg(long, required_unless_present = "inline", conflicts_with = "inline")]
    name: Option<String>,
    /// Namespace of the Secret and the instance
    #[arg(long, short)]
    namespace: String,
    /// The instance that the values are for
    #[arg(long, required_unless_present = "raw")]
    instance: Option<String>,
    /// Print one sealed value alone, for the data of a Secret called --name
    #[arg(long, conflicts_with = "inline")]
    raw: bool,
    /// Print one sealed value alone, for spec.credentials[].sealed of the instance
    #[arg(long)]
    inline: bool,
    #[command(flatten)]
    certificate: CertificateArgs,
    #[command(flatten)]
    values: ValueArgs,
}

/// What `moorage seal` prints.
#[derive(Debug, PartialEq, Eq)]
pub struct SealOutput {
    pub text: String,
    /// Lines for standard error.
    pub notes: Vec<String>,
}

/// Why nothing was sealed. No message contains a value.
#[derive(Debug, Error)]
pub enum SealError {
    /// A name that Kubernetes would not take.
    #[error("--{option} must be a name as Kubernetes takes it: at most {longest} characters of a-z, 0-9 and -{}, not starting or ending with -", if *.option == "namespace" { "" } else { " in parts joined by dots" })]
    InvalidName {
        option: &'static str,
        /// How long it may be.
        longest: usize,
    },
    /// An option for a value is not of the form key=value, or its key is not one of a Secret.
    #[error("--{option} needs the form KEY={form}, where KEY has only letters, digits, -, _ and .")]
    InvalidAssignment {
        option: &'static str,
        /// What stands behind the equals sign.
        form: &'static str,
    },
    /// The same key twice.
    #[error("the key {0} is given more than once")]
    DuplicateKey(String),
    /// No value at all.
    #[error("there is nothing to seal: give --from-file, --from-env or --from-literal")]
    NoValue,
    /// More than one where one alone can be printed.
    #[error("--raw and --inline print one value, but {0} are given")]
    NotOneValue(usize),
    #[error("the value of {0} is empty")]
    EmptyValue(String),
    /// A value is sealed already.
    #[error("the value of {0} is sealed already")]
    SealedAlready(String),
    /// A value cannot be read.
    #[error("the value of {key} cannot be read from {from}: {source}")]
    UnreadableValue {
        key: String,
        /// The file or variable.
        from: String,
        source: io::Error,
    },
    /// `--type` with an unknown type.
    #[error("{0} is not a type of credential; the types are {types}", types = crate::credentials::refusal::types())]
    UnknownType(String),
    /// `--type` for a key that is not given.
    #[error("--type names {0}, for which there is no value")]
    TypeWithoutValue(String),
    /// A value is not of its type.
    #[error("{key}: {source}")]
    InvalidFormat { key: String, source: FormatError },
    /// The certificate cannot be had.
    #[error("the certificate cannot be read from {from}: {source}")]
    UnreadableCertificate {
        /// The file, address or object.
        from: String,
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The cluster does not give it out.
    #[error(transparent)]
    Cluster(#[from] ClusterReadError),
    /// The operator's certificate is not there, or not for whoever asks.
    #[error(
        "No certificate for you is published in namespace {namespace}. Name the operator's namespace with --operator-namespace, or ask an administrator for the certificate and give it with --cert"
    )]
    NothingPublished { namespace: String },
    /// What was read is not a certificate.
    #[error("{0} is not a PEM certificate with an RSA key")]
    InvalidCertificate(String),
    /// The certificate is out of date.
    #[error(
        "the certificate from {from} expired on {not_after}; its key may be destroyed any time, so take the current one (without --cert, or from the operator's /v1/cert.pem)"
    )]
    ExpiredCertificate {
        /// Where it came from.
        from: String,
        not_after: Timestamp,
    },
    /// Plain HTTP from another machine.
    #[error(
        "{0} is fetched over plain HTTP, so anyone in between could exchange the certificate and read what you seal; use https, a port-forward, or --allow-http"
    )]
    PlainHttp(Url),
    /// Encryption or serialization failed.
    #[error("sealing failed: {0}")]
    Failed(String),
}

/// Runs the command. The caller prints what it gives.
pub async fn run(args: SealArgs, source: &dyn CertificateSource) -> Result<SealOutput, SealError> {
    let environment = |name: &str| std::env::var_os(name);
    check_names(&args)?;
    let (values, notes) = collect(&args.values, &mut io::stdin().lock(), &environment)?;
    let certificate = args.read_certificate(source).await?;
    seal(&args, values, notes, &certificate, Timestamp::now())
}

impl SealArgs {
    async fn read_certificate(
        &self,
        source: &dyn CertificateSource,
    ) -> Result<FoundCertificate, SealError> {
        let instance = self.instance.as_deref().unwrap_or_default();
        self.certificate.read(&self.namespace, instance, source).await
    }
}

/// Seals the values; what is left of [`run`] once all is read.
fn seal(
    args: &SealArgs,
    values: BTreeMap<String, Secret>,
    mut notes: Vec<String>,
    found: &FoundCertificate,
    now: Timestamp,
) -> Result<SealOutput, SealError> {
    let certificate = found.parse(now)?;
    let scope_name = if args.inline { &args.instance } else { &args.name };
    let scope_name = scope_name.as_deref().unwrap_or_default();
    let label = strict_label(&args.namespace, scope_name);
    let mut sealed = BTreeMap::new();
    for (key, value) in values {
        let envelope = certificate.seal(&value, &label);
        let envelope = envelope.map_err(|error| SealError::Failed(error.to_string()))?;
        sealed.insert(key, envelope.to_base64());
    }
    if args.raw || args.inline {
        let count = sealed.len();
        let value = sealed.into_values().next().filter(|_| count == 1);
        let text = value.ok_or(SealError::NotOneValue(count))? + "\n";
        return Ok(SealOutput { text, notes });
    }
    let text = manifest(args, scope_name, &certificate, &sealed)?;
    let keys = sealed.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
    notes.push(format!(
        "refer to it from spec.credentials of {} with secretRef: {{name: {scope_name}, key: …}} (keys: {keys})",
        args.instance.as_deref().unwrap_or_default(),
    ));
    Ok(SealOutput { text, notes })
}

/// The Secret, under `data` rather than `stringData`: that is write-only, so tools that compare with
/// Git would see a difference for ever.
fn manifest(
    args: &SealArgs,
    name: &str,
    certificate: &SealingCertificate,
    sealed: &BTreeMap<String, String>,
) -> Result<String, SealError> {
    let instance = args.instance.clone().unwrap_or_default();
    let fingerprint = certificate.fingerprint().to_string();
    let one = |key: &str, value| Some(BTreeMap::from([(key.to_owned(), value)]));
    let data = sealed.iter().map(|(key, text)| (key.clone(), ByteString(text.clone().into())));
    let secret = KubeSecret {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some(args.namespace.clone()),
            labels: one(INSTANCE_LABEL, instance),
            annotations: one(SEALED_WITH_ANNOTATION, fingerprint),
            ..ObjectMeta::default()
        },
        type_: Some(SEALED_SECRET_TYPE.to_owned()),
        data: Some(data.collect()),
        ..KubeSecret::default()
    };
    serde_saphyr::to_string(&secret).map_err(|error| SealError::Failed(error.to_string()))
}

/// Checks the names before anything is read.
fn check_names(args: &SealArgs) -> Result<(), SealError> {
    let check = |option, text: Option<&str>, valid: fn(&str) -> bool, longest| match text {
        Some(text) if text.len() > longest || !valid(text) => {
            Err(SealError::InvalidName { option, longest })
        }
        _ => Ok(()),
    };
    check("name", args.name.as_deref(), is_dns_subdomain, 253)?;
    check("namespace", Some(&args.namespace), is_dns_label, 63)?;
    // It becomes the value of a label.
    check("instance", args.instance.as_deref(), is_dns_subdomain, 63)?;
    Ok(())
}

/// RFC 1123 as Kubernetes checks it, but for the length.
pub(super) fn is_dns_subdomain(text: &str) -> bool {
    text.split('.').all(is_dns_label)
}

fn is_dns_label(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let inner = !text.starts_with('-') && !text.ends_with('-');
    !text.is_empty() && inner && text.bytes().all(allowed)
}

#[cfg(test)]
mod tests;
