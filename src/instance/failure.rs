//! Why a step could not be done, as a condition says it. Messages are stable: no counters, no times,
//! so that the same failure twice is the same status.

use std::time::Duration;

use crate::{
    agent::AgentError,
    api::conditions::{ConditionType, Reason},
    cloud::{Classification, CloudError, ErrorKind},
    hetzner::ServerId,
};

/// A step that could not be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The part that it belongs to.
    pub part: ConditionType,
    /// For programs.
    pub reason: Reason,
    /// What happened and what a person does next.
    pub message: String,
    /// When to try again.
    pub retry: Retry,
}

/// When a failed step is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// With the object's own growing delay.
    BackOff,
    /// Not before this long.
    After(Duration),
    /// When a person has changed something; looked at again every [`TERMINAL_RETRY`] all the same.
    Changed,
}

/// How often a terminal failure is looked at again: a quota may have been raised without a trace here.
pub const TERMINAL_RETRY: Duration = Duration::from_secs(10 * 60);
/// How long to wait for somebody to lift a protection; the sweep mostly tells sooner.
pub const PROTECTED_RETRY: Duration = Duration::from_secs(60);
/// How long to wait when nothing is in stock.
pub const STOCK_RETRY: Duration = Duration::from_secs(5 * 60);

impl Failure {
    /// A failure that only a person can mend.
    pub fn terminal(part: ConditionType, reason: Reason, message: impl Into<String>) -> Self {
        Self { part, reason, message: message.into(), retry: Retry::Changed }
    }

    /// A failure that passes.
    pub fn passing(part: ConditionType, reason: Reason, message: impl Into<String>) -> Self {
        Self { part, reason, message: message.into(), retry: Retry::BackOff }
    }

    /// What a cloud's error means for `part`.
    pub fn of_cloud(part: ConditionType, error: &CloudError) -> Self {
        let (cloud, operation) = (error.cloud, error.operation);
        let (reason, remedy) = match error.kind {
            ErrorKind::Unauthorized => {
                (Reason::Unauthorized, "put a valid token into the pool's token Secret")
            }
            ErrorKind::Forbidden { read_only: true } => {
                (Reason::Forbidden, "the token is read-only; make one that may write")
            }
            ErrorKind::Forbidden { .. } => {
                (Reason::Forbidden, "give the pool's token the missing permission")
            }
            ErrorKind::QuotaExceeded => {
                (Reason::QuotaExceeded, "raise the account's limit or use another pool")
            }
            ErrorKind::OutOfStock => (
                Reason::OutOfStock,
                "add server types or locations; it is tried again in 5 minutes",
            ),
            ErrorKind::RateLimited { .. } | ErrorKind::BudgetExhausted { .. } => (
                Reason::RateLimited,
                "The rate limit is used up; Moorage retries when calls are allowed again",
            ),
            ErrorKind::InvalidInput { .. } => {
                (Reason::CloudRejected, "correct the field that the message names")
            }
            _ => (Reason::CloudUnavailable, "Moorage retries automatically"),
        };
        let retry = match (&error.kind, error.classify()) {
            (ErrorKind::OutOfStock, _) => Retry::After(STOCK_RETRY),
            (_, Classification::RetryAfter(wait)) => Retry::After(wait),
            (_, Classification::Terminal) => Retry::Changed,
            (_, Classification::Retry | Classification::Confirm) => Retry::BackOff,
        };
        let message = if matches!(reason, Reason::CloudUnavailable | Reason::RateLimited) {
            // A cloud in trouble words it differently each time, with the id of the request in it;
            // a status that changed each time would wake its own instance up. The words are logged.
            format!("The call {operation} to {cloud} failed. {remedy}")
        } else {
            let said = error.message();
            let said = if said.is_empty() { String::new() } else { format!(" ({said})") };
            format!("{cloud} refused {operation}: {}{said}; {remedy}", error.reason())
        };
        Self { part, reason, message, retry }
    }

    /// What a refused deletion of a server means for `part`.
    pub fn of_server_deletion(part: ConditionType, id: ServerId, error: &CloudError) -> Self {
        if error.kind != ErrorKind::Protected {
            return Self::of_cloud(part, error);
        }
        let message = format!(
            "Server {id} is protected from deletion at Hetzner. Switch its protection off in Hetzner's console; the deletion then continues"
        );
        Self {
            retry: Retry::After(PROTECTED_RETRY),
            ..Self::terminal(part, Reason::DeleteProtected, message)
        }
    }

    /// Whether it says nothing about the object that was to be looked at: the way to it is barred.
    pub fn is_of_the_way(&self) -> bool {
        let barred = [
            Reason::RateLimited,
            Reason::CloudUnavailable,
            Reason::Unauthorized,
            Reason::Forbidden,
        ];
        barred.contains(&self.reason)
    }

    /// What an agent's error means for `part`.
    pub fn of_agent(part: ConditionType, error: &AgentError) -> Self {
        match error {
            AgentError::Unreachable { .. } | AgentError::NotReady => Self::passing(
                part,
                Reason::AgentUnreachable,
                "The agent does not answer through the tunnel. Check that the server runs (Hetzner) and that its tunnel is healthy (Cloudflare, Zero Trust, Tunnels); over the pool's SSH fall-back, if it has one: journalctl -u moorage-agent -u cloudflared",
            ),
            AgentError::AccessDenied => Self::passing(
                part,
                Reason::AgentUnreachable,
                "Cloudflare Access refuses the operator's service token. Check that the pool's Access application still has its policy; annotate the HostingPool with a new value of moorage.dev/reconcile-at to have Moorage check and repair it now",
            ),
            AgentError::Challenged => Self {
                part,
                reason: Reason::EdgeChallenge,
                message: "Cloudflare's bot protection or WAF stops the operator's calls to the management host name. Switch Bot Fight Mode off for the zone (no rule can skip it), or let the WAF skip host names that end in -mgmt".to_owned(),
                retry: Retry::After(Duration::from_secs(60)),
            },
            AgentError::NotAuthentic(why) => Self {
                part,
                reason: Reason::EnrolmentRefused,
                message: format!(
                    "Something other than this server's agent answered ({why}). This may be an attack: do not ignore it. If nobody is changing the tunnel right now, check the tunnel and its routes in Cloudflare, then replace the server: annotate moorage.dev/rebuild=SERVER-ID (status.server.id); all its data is lost"
                ),
                retry: Retry::After(Duration::from_secs(60)),
            },
            AgentError::Refused(problem) => Self::passing(
                part,
                Reason::CallRefused,
                format!("The agent refuses: {}", problem.message),
            ),
            AgentError::Malformed(why) => Self::passing(
                part,
                Reason::AgentUnreachable,
                format!("The agent's answer cannot be read: {why}"),
            ),
        }
    }
}
