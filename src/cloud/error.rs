//! One error type for both clouds. It says which cloud, which operation, what kind of failure,
//! and above all what a caller may conclude: [`CloudError::classify`] and [`CloudError::outcome`].
//!
//! How a vendor's answer becomes an [`ErrorKind`] lives beside each client.

use std::fmt;
use std::time::Duration;

use super::Cloud;
use super::redact::redact;

/// A cloud call that did not succeed. Holds no token and no upstream text that was not redacted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct CloudError {
    pub cloud: Cloud,
    /// The client's method, such as `create_server`.
    pub operation: &'static str,
    pub kind: ErrorKind,
    message: String,
}

/// What went wrong, decided by HTTP status first and the vendor's code second.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ErrorKind {
    /// The token is wrong, expired or revoked.
    Unauthorized,
    /// The token is good but may not do this.
    Forbidden {
        /// The token can read but not write.
        read_only: bool,
    },
    /// The account does not have the product yet: Cloudflare Access without a Zero Trust organization.
    NotEnabled,
    /// The account's or zone's limit on the number of objects is reached.
    QuotaExceeded,
    /// The API itself says that the object does not exist.
    NotFound,
    /// Something that is there stands in the way.
    Conflict(Conflict),
    /// 429: the whole budget group pauses.
    RateLimited {
        /// How long the cloud asks to wait.
        retry_after: Duration,
    },
    /// No machine of this type in this location at the moment.
    OutOfStock,
    /// An action is running on the object.
    Locked,
    /// Deletion protection is on.
    Protected,
    /// 410: the vendor has removed this endpoint.
    Gone,
    /// The vendor is at work on this part of the API.
    Maintenance,
    /// The request was refused because of what it says.
    InvalidInput {
        /// The fields at fault, when the vendor names them.
        fields: Vec<InvalidField>,
    },
    /// The object cannot go while something uses it: a firewall's servers, a tunnel's connections.
    ResourceInUse,
    /// A failure of the network or of the vendor (5xx).
    Transient {
        /// A write may have been carried out all the same.
        maybe_applied: bool,
    },
    /// No answer before the deadline.
    Timeout {
        /// A write may have been carried out all the same.
        maybe_applied: bool,
    },
    /// The call was not sent: the budget has none left for its priority.
    BudgetExhausted {
        /// How long until it would have.
        wait: Duration,
    },
    /// An answer that is not what the API documents, or too large.
    Malformed {
        /// A write may have been carried out all the same.
        maybe_applied: bool,
    },
}

/// What stands in the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Conflict {
    /// The name is taken. It may be ours, from a call whose answer was lost.
    NameTaken,
    /// DNS: another A, AAAA or CNAME record has this host name (81053).
    HostExists,
    /// DNS: an identical record exists (81057, 81058).
    RecordExists,
    /// It is already as was asked for.
    AlreadyDone,
    /// Someone changed the object at the same time, or it is busy.
    Concurrent,
}

/// A field that the vendor refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidField {
    /// The field's name in the API.
    pub name: String,
    /// Why, redacted.
    pub messages: Vec<String>,
}

/// What to do about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Classification {
    /// Try again with the object's own back-off.
    Retry,
    /// Try again, but not before this much time has passed.
    RetryAfter(Duration),
    /// Retrying is of no use until a human changes something.
    Terminal,
    /// The outcome is unknown or the world is not as was thought: observe first.
    Confirm,
}

/// What an error tells about the effect of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing was changed. For a DNS batch: the whole transaction was refused.
    NotApplied,
    /// It may have been carried out, wholly.
    Unknown,
}

const QUOTA_RETRY: Duration = Duration::from_secs(15 * 60);
const STOCK_RETRY: Duration = Duration::from_secs(10 * 60);
const MAINTENANCE_RETRY: Duration = Duration::from_secs(2 * 60);
const BUSY_RETRY: Duration = Duration::from_secs(5);
const MALFORMED_RETRY: Duration = Duration::from_secs(60);

impl CloudError {
    /// Builds an error. `message` is redacted of everything that looks like a secret; a client
    /// whose token could be in it redacts that first, by name.
    pub fn new(cloud: Cloud, operation: &'static str, kind: ErrorKind, message: &str) -> Self {
        Self { cloud, operation, kind, message: redact(message, &[]) }
    }

    /// The vendor's or the transport's message: redacted, 300 characters at most.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// What to do about it.
    pub fn classify(&self) -> Classification {
        use Classification::{Confirm, Retry, RetryAfter, Terminal};
        if self.outcome() == Outcome::Unknown {
            return Confirm;
        }
        match &self.kind {
            ErrorKind::Unauthorized
            | ErrorKind::Forbidden { .. }
            | ErrorKind::NotEnabled
            | ErrorKind::Protected
            | ErrorKind::Gone
            | ErrorKind::InvalidInput { .. } => Terminal,
            ErrorKind::NotFound
            | ErrorKind::Conflict(
                Conflict::NameTaken
                | Conflict::HostExists
                | Conflict::RecordExists
                | Conflict::AlreadyDone,
            ) => Confirm,
            ErrorKind::Conflict(Conflict::Concurrent)
            | ErrorKind::Transient { .. }
            | ErrorKind::Timeout { .. } => Retry,
            ErrorKind::QuotaExceeded => RetryAfter(QUOTA_RETRY),
            ErrorKind::OutOfStock => RetryAfter(STOCK_RETRY),
            ErrorKind::Maintenance => RetryAfter(MAINTENANCE_RETRY),
            ErrorKind::Locked | ErrorKind::ResourceInUse => RetryAfter(BUSY_RETRY),
            ErrorKind::Malformed { .. } => RetryAfter(MALFORMED_RETRY),
            ErrorKind::RateLimited { retry_after } => RetryAfter(*retry_after),
            ErrorKind::BudgetExhausted { wait } => RetryAfter(*wait),
        }
    }

    /// Whether the call can have had an effect.
    pub fn outcome(&self) -> Outcome {
        match self.kind {
            ErrorKind::Transient { maybe_applied: true }
            | ErrorKind::Timeout { maybe_applied: true }
            | ErrorKind::Malformed { maybe_applied: true } => Outcome::Unknown,
            _ => Outcome::NotApplied,
        }
    }

    /// True when the content of the request was refused: for a batch, the sign to halve it and
    /// look for the culprit. False when the same refusal would meet every other request too.
    pub fn blames_the_request(&self) -> bool {
        matches!(
            self.kind,
            ErrorKind::Conflict(_)
                | ErrorKind::InvalidInput { .. }
                | ErrorKind::NotFound
                | ErrorKind::QuotaExceeded
        )
    }

    /// A short name for metrics and condition reasons, such as `RateLimited`.
    pub fn reason(&self) -> &'static str {
        self.kind.reason()
    }
}

impl ErrorKind {
    fn reason(&self) -> &'static str {
        match self {
            Self::Unauthorized => "Unauthorized",
            Self::Forbidden { read_only: false } => "Forbidden",
            Self::Forbidden { read_only: true } => "ReadOnlyToken",
            Self::NotEnabled => "NotEnabled",
            Self::QuotaExceeded => "QuotaExceeded",
            Self::NotFound => "NotFound",
            Self::Conflict(Conflict::NameTaken) => "NameTaken",
            Self::Conflict(Conflict::HostExists) => "HostExists",
            Self::Conflict(Conflict::RecordExists) => "RecordExists",
            Self::Conflict(Conflict::AlreadyDone) => "AlreadyDone",
            Self::Conflict(Conflict::Concurrent) => "Conflict",
            Self::RateLimited { .. } => "RateLimited",
            Self::OutOfStock => "OutOfStock",
            Self::Locked => "Locked",
            Self::Protected => "Protected",
            Self::Gone => "EndpointGone",
            Self::Maintenance => "Maintenance",
            Self::InvalidInput { .. } => "InvalidInput",
            Self::ResourceInUse => "ResourceInUse",
            Self::Transient { .. } => "Transient",
            Self::Timeout { .. } => "Timeout",
            Self::BudgetExhausted { .. } => "BudgetExhausted",
            Self::Malformed { .. } => "Malformed",
        }
    }

    /// What a person reads; the vendor's message follows it.
    fn explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::Unauthorized => {
                "the API token is not accepted; put a valid one into the pool's token Secret"
            }
            Self::Forbidden { read_only: false } => {
                "the API token lacks a permission this call needs"
            }
            Self::Forbidden { read_only: true } => {
                "the API token is read-only; the operator needs one that can write"
            }
            Self::NotEnabled => "the account does not have this product; enable it first",
            Self::QuotaExceeded => {
                "a limit of the account is reached; ask the vendor to raise it or use another pool"
            }
            Self::NotFound => "there is no such object",
            Self::Conflict(Conflict::NameTaken) => "the name is taken",
            Self::Conflict(Conflict::HostExists) => "another DNS record has this host name",
            Self::Conflict(Conflict::RecordExists) => "an identical DNS record exists",
            Self::Conflict(Conflict::AlreadyDone) => "it is already as was asked for",
            Self::Conflict(Conflict::Concurrent) => "the object was changed at the same time",
            Self::RateLimited { retry_after } => {
                return write!(f, "rate limited for {} s", retry_after.as_secs());
            }
            Self::OutOfStock => "out of stock in this location",
            Self::Locked => "another action is running on the object",
            Self::Protected => "deletion protection is on; switch it off first",
            Self::Gone => "the vendor has removed this endpoint; a newer operator is needed",
            Self::Maintenance => "under maintenance",
            Self::InvalidInput { .. } => "the request was refused",
            Self::ResourceInUse => "still in use",
            Self::Transient { maybe_applied: false } => "temporary failure",
            Self::Transient { maybe_applied: true } => "temporary failure, outcome unknown",
            Self::Timeout { maybe_applied: false } => "no answer in time",
            Self::Timeout { maybe_applied: true } => "no answer in time, outcome unknown",
            Self::BudgetExhausted { wait } => {
                return write!(
                    f,
                    "the call budget is used up for another {} s",
                    wait.as_secs().max(1)
                );
            }
            Self::Malformed { .. } => "an answer that the API does not document",
        };
        f.write_str(text)?;
        if let Self::InvalidInput { fields } = self {
            for field in fields {
                write!(f, "; {}: {}", field.name, field.messages.join(", "))?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for CloudError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: ", self.cloud, self.operation)?;
        self.kind.explain(f)?;
        if !self.message.is_empty() {
            write!(f, " ({})", self.message)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[rstest]
    #[case(ErrorKind::Unauthorized, Classification::Terminal)]
    #[case(ErrorKind::InvalidInput { fields: vec![] }, Classification::Terminal)]
    #[case(ErrorKind::NotFound, Classification::Confirm)]
    #[case(ErrorKind::Conflict(Conflict::NameTaken), Classification::Confirm)]
    #[case(ErrorKind::Conflict(Conflict::Concurrent), Classification::Retry)]
    #[case(ErrorKind::RateLimited { retry_after: MINUTE }, Classification::RetryAfter(MINUTE))]
    #[case(ErrorKind::BudgetExhausted { wait: MINUTE }, Classification::RetryAfter(MINUTE))]
    #[case(ErrorKind::Transient { maybe_applied: false }, Classification::Retry)]
    #[case(ErrorKind::Transient { maybe_applied: true }, Classification::Confirm)]
    #[case(ErrorKind::Timeout { maybe_applied: true }, Classification::Confirm)]
    #[case(ErrorKind::Malformed { maybe_applied: true }, Classification::Confirm)]
    #[case(ErrorKind::Malformed { maybe_applied: false }, Classification::RetryAfter(MALFORMED_RETRY))]
    fn every_kind_says_what_to_do(#[case] kind: ErrorKind, #[case] expected: Classification) {
        let error = CloudError::new(Cloud::Hetzner, "create_server", kind, "");
        assert_eq!(error.classify(), expected);
    }

    #[test]
    fn an_error_names_cloud_operation_and_reason() {
        let error = CloudError::new(
            Cloud::Cloudflare,
            "create_tunnel",
            ErrorKind::Conflict(Conflict::NameTaken),
            "1013",
        );
        assert_eq!(error.to_string(), "cloudflare create_tunnel: the name is taken (1013)");
    }
}
