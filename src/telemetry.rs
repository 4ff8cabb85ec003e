//! Logging: to standard error, as text for people or as one JSON object per line.

use std::io::{IsTerminal as _, stderr};

use clap::ValueEnum;
use thiserror::Error;
use tracing::{Metadata, Subscriber};
use tracing_subscriber::{
    EnvFilter, Layer as _,
    filter::{FilterExt as _, filter_fn},
    fmt::{self, MakeWriter},
    layer::SubscriberExt as _,
    registry,
    util::{SubscriberInitExt as _, TryInitError},
};

/// Where kube logs the API server's answers: whole lists when one cannot be parsed. What went wrong is
/// logged by those who made the call, without the answer.
const QUOTING: [&str; 2] = ["kube_client::client", "kube_runtime::watcher"];

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One JSON object per line.
    Json,
    /// For people.
    Text,
}

/// Why there is no log.
#[derive(Debug, Error)]
pub enum TelemetryError {
    /// The filter cannot be parsed.
    #[error("{filter:?} is not a log filter such as info or info,moorage=debug: {source}")]
    Filter {
        /// As given.
        filter: String,
        /// What is wrong with it.
        source: tracing_subscriber::filter::ParseError,
    },
    /// There is one already.
    #[error("logging cannot be set up: {0}")]
    Init(#[from] TryInitError),
}

/// Begins to log what passes `filter`, such as `info,moorage=debug`. Content of the API server's
/// answers passes no filter.
pub fn init(format: LogFormat, filter: &str) -> Result<(), TelemetryError> {
    let colours = stderr().is_terminal();
    match format {
        LogFormat::Json => json(filter, stderr)?.try_init()?,
        LogFormat::Text => {
            let logs = fmt::layer().with_writer(stderr).with_ansi(colours);
            let filter = parse(filter)?.and(filter_fn(quotes_no_answer));
            registry().with(logs.with_filter(filter)).try_init()?;
        }
    }
    Ok(())
}

/// Logs JSON to `writer`.
pub(crate) fn json<W>(filter: &str, writer: W) -> Result<impl Subscriber, TelemetryError>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let filter = parse(filter)?.and(filter_fn(quotes_no_answer));
    let logs = fmt::layer().with_writer(writer).with_ansi(false).json().flatten_event(true);
    Ok(registry().with(logs.with_filter(filter)))
}

fn quotes_no_answer(line: &Metadata<'_>) -> bool {
    !line.is_event() || !QUOTING.contains(&line.target())
}

fn parse(filter: &str) -> Result<EnvFilter, TelemetryError> {
    EnvFilter::builder()
        .parse(filter)
        .map_err(|source| TelemetryError::Filter { filter: filter.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn a_filter_that_is_none_is_an_error_that_shows_one() {
        assert!(parse("info,moorage=debug").is_ok());
        let error = parse("moorage=loud=very").unwrap_err().to_string();
        assert!(error.contains("moorage=loud=very") && error.contains("info"), "{error}");
    }
}
