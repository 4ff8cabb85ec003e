//! What stands in the way of a pool, as its conditions say it, and when to try again.

use std::time::Duration;

use crate::{
    api::conditions::Reason,
    cloud::{Classification, CloudError, ErrorKind},
    pool::Blocked,
};

/// When a pass that came to nothing is repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Again {
    /// Not before something changes: only a person can help.
    OnChange,
    /// Only a person can help, and nothing in the cluster will tell that they did.
    Slowly,
    /// With the pool's back-off.
    Backoff,
    /// Not before this much time has passed.
    After(Duration),
}

/// Why a pass came to nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// As the conditions and the pool's instances say it.
    pub blocked: Blocked,
    /// When to try again.
    pub again: Again,
}

impl Trouble {
    /// Only a change helps.
    pub fn terminal(blocked: Blocked) -> Self {
        Self { blocked, again: Again::OnChange }
    }

    /// A field of the spec is wrong.
    pub fn invalid_spec(field: &str, problem: &str) -> Self {
        let message = format!("{field}: {problem}. Correct the spec.");
        Self::terminal(Blocked { reason: Reason::InvalidSpec, message })
    }

    /// Whether only a person can help.
    pub fn is_stalled(&self) -> bool {
        matches!(self.again, Again::OnChange | Again::Slowly)
    }

    /// What a cloud's error means for a pool. `token_secret` names the Secret of the cloud's token.
    /// The message holds nothing that differs between two equal failures: it goes into the status.
    pub fn cloud(error: &CloudError, token_secret: &str) -> Self {
        let (cloud, operation) = (error.cloud, error.operation);
        let (reason, message) = match &error.kind {
            ErrorKind::Unauthorized => (
                Reason::Unauthorized,
                format!(
                    "{cloud} does not accept the API token of {token_secret}. Put a valid one into it; it is tried again when the Secret changes, and every few minutes."
                ),
            ),
            ErrorKind::Forbidden { .. } => (
                Reason::Forbidden,
                format!(
                    "The API token of {token_secret} may not do {operation} at {cloud}. Give it that permission, or replace it."
                ),
            ),
            ErrorKind::NotEnabled => (
                Reason::ZeroTrustNotEnabled,
                "The Cloudflare account has no Zero Trust organization yet, so that management host names cannot be protected. Open Zero Trust in Cloudflare's dashboard once and choose a team name; it is looked at again every few minutes.".to_owned(),
            ),
            ErrorKind::QuotaExceeded => (
                Reason::QuotaExceeded,
                format!(
                    "{cloud} refuses {operation}: a limit of the account is reached. Ask for a higher one or delete what is unused."
                ),
            ),
            ErrorKind::RateLimited { .. } | ErrorKind::BudgetExhausted { .. } => (
                Reason::RateLimited,
                format!(
                    "The rate limit of {cloud} is used up. Moorage retries automatically; pools that share an account or project should name the same budgetGroup."
                ),
            ),
            ErrorKind::Conflict(_) | ErrorKind::NotFound => {
                (Reason::CloudConflict, error.to_string())
            }
            ErrorKind::InvalidInput { .. }
            | ErrorKind::Protected
            | ErrorKind::Gone
            | ErrorKind::OutOfStock => (Reason::CloudRejected, error.to_string()),
            ErrorKind::ResourceInUse => (
                Reason::Deleting,
                format!(
                    "{cloud} still counts an object as in use ({operation}). Moorage tries again. If it is a firewall, detach it in Hetzner's console from the servers that you keep."
                ),
            ),
            ErrorKind::Locked
            | ErrorKind::Maintenance
            | ErrorKind::Transient { .. }
            | ErrorKind::Timeout { .. }
            | ErrorKind::Malformed { .. } => (
                Reason::CloudUnavailable,
                format!(
                    "The call {operation} to {cloud} failed. Moorage retries automatically; see the operator's log if it lasts."
                ),
            ),
        };
        let again = match error.classify() {
            Classification::Terminal => Again::Slowly,
            Classification::RetryAfter(pause) => Again::After(pause),
            Classification::Retry | Classification::Confirm => Again::Backoff,
        };
        Self { blocked: Blocked { reason, message }, again }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cloud::{Cloud, Conflict};
    use rstest::rstest;

    fn error(kind: ErrorKind) -> CloudError {
        CloudError::new(Cloud::Hetzner, "list_firewalls", kind, "request 4711")
    }

    const PAUSE: Duration = Duration::from_secs(7);

    #[rstest]
    #[case(ErrorKind::Unauthorized, Reason::Unauthorized, Again::Slowly)]
    #[case(ErrorKind::Forbidden { read_only: true }, Reason::Forbidden, Again::Slowly)]
    #[case(ErrorKind::NotEnabled, Reason::ZeroTrustNotEnabled, Again::Slowly)]
    #[case(ErrorKind::RateLimited { retry_after: PAUSE }, Reason::RateLimited, Again::After(PAUSE))]
    #[case(ErrorKind::Conflict(Conflict::NameTaken), Reason::CloudConflict, Again::Backoff)]
    #[case(ErrorKind::Timeout { maybe_applied: true }, Reason::CloudUnavailable, Again::Backoff)]
    fn every_error_has_a_reason_and_a_time_to_try_again(
        #[case] kind: ErrorKind,
        #[case] reason: Reason,
        #[case] again: Again,
    ) {
        let trouble = Trouble::cloud(&error(kind), "Secret moorage-system/hetzner");
        assert_eq!((trouble.blocked.reason, trouble.again), (reason, again));
    }

    #[test]
    fn the_message_of_a_bad_token_names_cloud_and_secret() {
        let trouble =
            Trouble::cloud(&error(ErrorKind::Unauthorized), "Secret moorage-system/hetzner");
        for part in ["hetzner", "Secret moorage-system/hetzner"] {
            assert!(trouble.blocked.message.contains(part), "{}", trouble.blocked.message);
        }
    }

    #[test]
    fn two_rate_limits_of_different_length_make_the_same_message() {
        let message = |seconds| {
            let retry_after = Duration::from_secs(seconds);
            Trouble::cloud(&error(ErrorKind::RateLimited { retry_after }), "Secret").blocked
        };
        assert_eq!(message(3), message(4));
    }
}
