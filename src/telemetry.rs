//! Logging: to standard error, as text for people or as one JSON object per line.

use std::io::{IsTerminal as _, stderr};

use clap::ValueEnum;
use thiserror::Error;
use tracing_subscriber::{
    EnvFilter,
    util::{SubscriberInitExt as _, TryInitError},
};

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

/// Begins to log what passes `filter`, such as `info,moorage=debug`.
pub fn init(format: LogFormat, filter: &str) -> Result<(), TelemetryError> {
    let parsed = parse(filter)?;
    let logs = tracing_subscriber::fmt()
        .with_writer(stderr)
        .with_ansi(stderr().is_terminal())
        .with_env_filter(parsed);
    match format {
        LogFormat::Json => logs.json().flatten_event(true).finish().try_init()?,
        LogFormat::Text => logs.finish().try_init()?,
    }
    Ok(())
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
