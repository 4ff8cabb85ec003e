//! The hook through which metrics learn of cloud calls. The clients know no metrics library.

use std::time::Duration;

use super::Cloud;

/// Told of every request that was made, and of every one that its budget refused.
pub trait CallObserver: Send + Sync {
    /// `operation` is the method's name, such as `create_server`: a bounded set, fit for a label.
    /// `duration` runs from sending to the last byte of the answer, without the wait for the budget.
    fn call(&self, cloud: Cloud, operation: &'static str, class: StatusClass, duration: Duration);
}

/// How a request ended, coarse enough for a metrics label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StatusClass {
    /// 2xx.
    Success,
    /// 4xx but 429.
    ClientError,
    /// 429.
    RateLimited,
    /// 5xx.
    ServerError,
    /// 1xx or 3xx: no answer of an API.
    Unexpected,
    /// No answer, or none in time.
    NoAnswer,
    /// Not sent: the budget had no call left.
    OverBudget,
}

impl StatusClass {
    /// Its value of the metrics label `class`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::ClientError => "client_error",
            Self::RateLimited => "rate_limited",
            Self::ServerError => "server_error",
            Self::Unexpected => "unexpected",
            Self::NoAnswer => "no_answer",
            Self::OverBudget => "over_budget",
        }
    }

    pub(super) fn of(status: http::StatusCode) -> Self {
        match status.as_u16() {
            429 => Self::RateLimited,
            200..=299 => Self::Success,
            400..=499 => Self::ClientError,
            500..=599 => Self::ServerError,
            _ => Self::Unexpected,
        }
    }
}

/// For callers without metrics.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoObserver;

impl CallObserver for NoObserver {
    fn call(&self, _: Cloud, _: &'static str, _: StatusClass, _: Duration) {}
}
