//! `moorage status`: how one instance is, for people.

mod render;
#[cfg(test)]
mod tests;

use clap::{Args, ValueEnum};
use jiff::Timestamp;
use thiserror::Error;

use super::cluster_reader::{ClusterReader, ReadError};

use render::Summary;

/// Show how an instance is and what to do next
///
/// Reads the instance from the cluster of your kubeconfig: its phase, its conditions with their age and
/// what they say, its server, tunnel and addresses, and which credentials are stored on the server.
#[derive(Args)]
#[command(after_help = "Example:\n  moorage status -n tenants ada")]
pub struct StatusArgs {
    /// Name of the instance
    name: String,
    /// Its namespace; that of the kubeconfig by default
    #[arg(long, short, value_name = "NS")]
    namespace: Option<String>,
    /// How to print it
    #[arg(long, short, value_name = "FORMAT", default_value = "text")]
    output: OutputFormat,
}

/// For whom the output is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OutputFormat {
    /// For people
    Text,
    /// For programs
    Json,
}

/// Why there is nothing to show.
#[derive(Debug, Error)]
pub enum StatusError {
    /// It does not exist.
    #[error(
        "there is no OpenClawInstance {namespace}/{name}; see kubectl get openclawinstances -A"
    )]
    Missing { namespace: String, name: String },
    /// The cluster did not answer, or refused.
    #[error("OpenClawInstance {namespace}/{name} cannot be read: {source}")]
    Unreadable { namespace: String, name: String, source: ReadError },
    /// It cannot be printed.
    #[error("the summary cannot be written as JSON: {0}")]
    Unprintable(#[from] serde_json::Error),
}

/// Runs the command. The caller prints what it gives.
pub async fn run(args: StatusArgs, cluster: &dyn ClusterReader) -> Result<String, StatusError> {
    let namespace = args.namespace.unwrap_or_else(|| cluster.namespace().to_owned());
    let name = args.name;
    let instance = match cluster.instance(&namespace, &name).await {
        Ok(Some(instance)) => instance,
        Ok(None) => return Err(StatusError::Missing { namespace, name }),
        Err(source) => return Err(StatusError::Unreadable { namespace, name, source }),
    };
    let summary = Summary::of(&instance);
    match args.output {
        OutputFormat::Text => Ok(summary.to_text(Timestamp::now())),
        OutputFormat::Json => Ok(serde_json::to_string_pretty(&summary)? + "\n"),
    }
}
