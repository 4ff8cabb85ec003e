//! An error of kube in words that quote nothing of an answer.

use kube::runtime::watcher;

/// What went wrong, for logs and conditions.
///
/// kube's own words for an answer that it cannot parse quote the value that does not fit.
pub fn told<E: Tellable + ?Sized>(error: &E) -> String {
    error.told()
}

/// Errors that [`told`] knows.
pub trait Tellable {
    /// In words that quote nothing of an answer.
    fn told(&self) -> String;
}

impl Tellable for kube::Error {
    fn told(&self) -> String {
        match self {
            Self::Api(status) => status.message.clone(),
            Self::SerdeError(error) => unreadable(error),
            Self::FromUtf8(_) => "the API server's answer is not UTF-8".to_owned(),
            // These speak of connections, certificates and configuration.
            Self::HyperError(error) => with_causes(error),
            Self::Service(error) => with_causes(error.as_ref()),
            other => other.to_string(),
        }
    }
}

impl Tellable for watcher::Error {
    fn told(&self) -> String {
        match self {
            Self::InitialListFailed(error) => format!("the list failed: {}", error.told()),
            Self::WatchStartFailed(error) => format!("the watch did not start: {}", error.told()),
            Self::WatchFailed(error) => format!("the watch failed: {}", error.told()),
            Self::WatchError(status) => {
                format!("the API server ended the watch: HTTP {}", status.code)
            }
            Self::NoResourceVersion => self.to_string(),
        }
    }
}

impl<E: Tellable + ?Sized> Tellable for Box<E> {
    fn told(&self) -> String {
        (**self).told()
    }
}

fn unreadable(error: &serde_json::Error) -> String {
    format!(
        "the API server's answer cannot be read (line {}, column {})",
        error.line(),
        error.column()
    )
}

fn with_causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut told = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !told.contains(&text) {
            told = format!("{told}: {text}");
        }
        cause = error.source();
    }
    told
}
