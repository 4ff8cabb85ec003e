//! What cannot be done, or cannot be looked at: as a condition says it, and when it is tried again.
//! Messages are stable, without counters, times and ids of requests: the same problem twice is the same
//! status.

use std::time::Duration;

use crate::{
    agent::AgentError,
    api::conditions::{ConditionType, Reason, Verdict},
    cloud::{Classification, CloudError, Conflict, ErrorKind, InvalidField},
    hetzner::ServerId,
};

/// Something that cannot be done or looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The part that it belongs to.
    pub part: ConditionType,
    /// For programs; it also decides whether only a person can help.
    pub reason: Reason,
    /// For people: what is wrong, and what to do next.
    pub message: String,
    /// When to try again.
    pub retry: Retry,
}

/// When something is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// With the object's own growing delay.
    BackOff,
    /// Not before this long.
    After(Duration),
    /// When a person has changed something in the cluster. An instance is looked at every
    /// [`TERMINAL_RETRY`] all the same.
    OnChange,
    /// Every few minutes: a person has to help, and nothing in the cluster tells that they did.
    Slowly,
}

/// How often an instance is looked at that only a person can help: a quota may have been raised without
/// a trace here.
pub const TERMINAL_RETRY: Duration = Duration::from_mins(10);
/// How long to wait for somebody to lift a protection; the sweep mostly tells sooner.
pub const PROTECTED_RETRY: Duration = Duration::from_mins(1);
/// How long to wait when nothing is in stock.
pub const STOCK_RETRY: Duration = Duration::from_mins(5);

impl Problem {
    /// A problem that is tried again as its reason says: with a growing delay, or when somebody has
    /// changed something if only a person can help.
    pub fn new(part: ConditionType, reason: Reason, message: impl Into<String>) -> Self {
        let retry = if reason.needs_a_person(false) { Retry::OnChange } else { Retry::BackOff };
        Self { part, reason, message: message.into(), retry }
    }

    /// A problem of an object as a whole.
    pub fn whole(reason: Reason, message: impl Into<String>) -> Self {
        Self::new(ConditionType::Ready, reason, message)
    }

    /// The same, tried again at another time.
    #[must_use]
    pub fn retrying(self, retry: Retry) -> Self {
        Self { retry, ..self }
    }

    /// A field of the spec is wrong.
    pub fn invalid_spec(field: &str, what: &str) -> Self {
        Self::whole(Reason::InvalidSpec, format!("{field}: {what}. Correct the spec."))
    }

    /// Whether only a person can help.
    pub fn needs_a_person(&self) -> bool {
        self.reason.needs_a_person(false)
    }

    /// What a condition says of it.
    pub fn told(&self) -> (Reason, &str) {
        (self.reason, &self.message)
    }

    /// Whether it says nothing about the object that was to be looked at: the way to it is barred.
    pub fn is_of_the_way(&self) -> bool {
        matches!(
            self.reason,
            Reason::RateLimited
                | Reason::CloudUnavailable
                | Reason::Unauthorized
                | Reason::Forbidden
        )
    }

    /// What a cloud's error means for a pool. `token_secret` names the Secret of the cloud's token.
    pub fn of_pool(error: &CloudError, token_secret: &str) -> Self {
        Self::of_cloud_with(ConditionType::Ready, error, token_secret)
    }

    /// What a cloud's error means for a part of an instance.
    pub fn of_cloud(part: ConditionType, error: &CloudError) -> Self {
        Self::of_cloud_with(part, error, "the pool's token Secret")
    }

    /// The one table from what a cloud says to what a condition says.
    fn of_cloud_with(part: ConditionType, error: &CloudError, token_secret: &str) -> Self {
        let (cloud, call) = (error.cloud, error.operation);
        let refused = |reason, what: &str, remedy: &str| {
            (reason, format!("{cloud} refused {call}: {what}{}. {remedy}", said(error)))
        };
        let (reason, message) = match &error.kind {
            ErrorKind::Unauthorized => refused(
                Reason::Unauthorized,
                "the API token is not accepted",
                &format!(
                    "Put a valid one into {token_secret}; it is tried again when the Secret changes, and every few minutes"
                ),
            ),
            ErrorKind::Forbidden { read_only: true } => refused(
                Reason::Forbidden,
                "the API token is read-only",
                &format!("Put one that may write into {token_secret}"),
            ),
            ErrorKind::Forbidden { read_only: false } => refused(
                Reason::Forbidden,
                "the API token may not do this",
                &format!("Give the token of {token_secret} the missing permission, or replace it"),
            ),
            ErrorKind::NotEnabled => refused(
                Reason::ZeroTrustNotEnabled,
                "the account has no Zero Trust organization yet, so that management host names cannot be protected",
                "Open Zero Trust in Cloudflare's dashboard once and choose a team name; it is looked at again every few minutes",
            ),
            ErrorKind::QuotaExceeded => refused(
                Reason::QuotaExceeded,
                "a limit of the account is reached",
                "Delete what is unused, raise the account's limit, or use another pool",
            ),
            ErrorKind::OutOfStock => refused(
                Reason::OutOfStock,
                "it is out of stock",
                "It is tried again in 5 minutes; add server types or locations to have it sooner",
            ),
            ErrorKind::InvalidInput { fields } => refused(
                Reason::CloudRejected,
                &format!("the request is not valid{}", listed(fields)),
                "Correct the field that the message names",
            ),
            ErrorKind::Gone => refused(
                Reason::CloudRejected,
                "this call exists no more",
                "Use a newer version of Moorage",
            ),
            ErrorKind::Protected => refused(
                Reason::DeleteProtected,
                "the object is protected from deletion",
                "Switch its protection off; the deletion then continues",
            ),
            ErrorKind::NotFound => refused(Reason::CloudConflict, "it does not exist", RETRIES),
            ErrorKind::Conflict(conflict) => {
                refused(Reason::CloudConflict, in_words(*conflict), RETRIES)
            }
            ErrorKind::ResourceInUse => refused(
                Reason::Deleting,
                "the object is still in use",
                "Moorage retries automatically; if it is a firewall, detach it in Hetzner's console from the servers that you keep",
            ),
            // A cloud in trouble words it differently each time, with the id of the request in it; a
            // status that changed each time would wake its own object up. The words are logged.
            ErrorKind::RateLimited { .. } | ErrorKind::BudgetExhausted { .. } => (
                Reason::RateLimited,
                format!(
                    "The call {call} has to wait: the rate limit of {cloud} is used up. Moorage retries when calls are allowed again; pools that share an account or project should name the same budgetGroup"
                ),
            ),
            ErrorKind::Locked => {
                refused(Reason::Locked, "another action runs on the object", LOCKED_REMEDY)
            }
            ErrorKind::Maintenance
            | ErrorKind::Transient { .. }
            | ErrorKind::Timeout { .. }
            | ErrorKind::Malformed { .. } => {
                (Reason::CloudUnavailable, format!("The call {call} to {cloud} failed. {RETRIES}"))
            }
        };
        Self { part, reason, message, retry: retry(error) }
    }

    /// What a refused deletion of a server means for `part`.
    pub fn of_server_deletion(part: ConditionType, id: ServerId, error: &CloudError) -> Self {
        if error.kind != ErrorKind::Protected {
            return Self::of_cloud(part, error);
        }
        let message = format!(
            "Server {id} is protected from deletion at Hetzner. Switch its protection off in Hetzner's console; the deletion then continues"
        );
        let retry = Retry::After(PROTECTED_RETRY);
        Self::new(part, Reason::DeleteProtected, message).retrying(retry)
    }

    /// What an agent's error means for `part`.
    pub fn of_agent(part: ConditionType, error: &AgentError) -> Self {
        let soon = Retry::After(Duration::from_mins(1));
        match error {
            AgentError::Unreachable { .. } | AgentError::NotReady => Self::new(
                part,
                Reason::AgentUnreachable,
                "The agent does not answer through the tunnel. Check that the server runs (Hetzner) and that its tunnel is healthy (Cloudflare, Zero Trust, Tunnels); over the pool's SSH fallback, if it has one: journalctl -u moorage-agent -u cloudflared",
            ),
            AgentError::AccessDenied => Self::new(
                part,
                Reason::AgentUnreachable,
                "Cloudflare Access refuses the operator's service token. Check that the pool's Access application still has its policy; annotate the HostingPool with a new value of moorage.dev/reconcile-at to have Moorage check and repair it now",
            ),
            AgentError::Challenged => Self::new(
                part,
                Reason::EdgeChallenge,
                "Cloudflare's bot protection or WAF stops the operator's calls to the management host name. Switch Bot Fight Mode off for the zone (no rule can skip it), or let the WAF skip host names that end in -mgmt",
            )
            .retrying(soon),
            AgentError::NotAuthentic(why) => Self::new(
                part,
                Reason::EnrolmentRefused,
                format!(
                    "Something other than this server's agent answered ({why}). This may be an attack: do not ignore it. If nobody is changing the tunnel right now, check the tunnel and its routes in Cloudflare, then replace the server: annotate moorage.dev/rebuild=SERVER-ID (status.server.id); all its data is lost"
                ),
            )
            .retrying(soon),
            AgentError::Refused(refusal) => Self::new(
                part,
                Reason::CallRefused,
                format!("The agent refuses: {}", refusal.message),
            ),
            AgentError::Malformed(why) => Self::new(
                part,
                Reason::AgentUnreachable,
                format!("The agent's answer cannot be read: {why}"),
            ),
        }
    }
}

impl From<Problem> for Verdict {
    fn from(problem: Problem) -> Self {
        Self::no(problem.part, problem.reason, problem.message)
    }
}

const LOCKED_REMEDY: &str =
    "Moorage retries automatically; if it lasts, look at the object's actions in Hetzner's console";
const RETRIES: &str = "Moorage retries automatically; see the operator's log if it lasts";

fn retry(error: &CloudError) -> Retry {
    match (&error.kind, error.classify()) {
        (ErrorKind::OutOfStock, _) => Retry::After(STOCK_RETRY),
        (_, Classification::RetryAfter(wait)) => Retry::After(wait),
        (_, Classification::Terminal) => Retry::Slowly,
        (_, Classification::Retry | Classification::Confirm) => Retry::BackOff,
    }
}

fn in_words(conflict: Conflict) -> &'static str {
    match conflict {
        Conflict::NameTaken => "the name is taken",
        Conflict::HostExists => "another DNS record has this host name",
        Conflict::RecordExists => "an identical DNS record exists",
        Conflict::AlreadyDone => "it is already as was asked for",
        Conflict::Concurrent => "the object was changed at the same time",
    }
}

/// The fields that a cloud blames.
fn listed(fields: &[InvalidField]) -> String {
    let named = fields.iter().take(4).flat_map(|field| {
        ["; ".to_owned(), field.name.clone(), ": ".to_owned(), field.messages.join(", ")]
    });
    named.collect()
}

/// What the cloud said: its status, code and text, without what differs from call to call.
fn said(error: &CloudError) -> String {
    let words = error.message().split_whitespace().map(|word| {
        let core = word.trim_matches(|end: char| !end.is_ascii_alphanumeric());
        let is_id =
            core.len() >= 16 && core.bytes().all(|byte| byte == b'-' || byte.is_ascii_hexdigit());
        if is_id { "…" } else { word }
    });
    let words = words.collect::<Vec<_>>().join(" ");
    let words = words.trim_end_matches(['.', ':', ' ']);
    if words.is_empty() { String::new() } else { format!(" ({words})") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cloud::Cloud;
    use rstest::rstest;

    const PAUSE: Duration = Duration::from_secs(7);

    fn of(kind: ErrorKind, message: &str) -> Problem {
        let error = CloudError::new(Cloud::Hetzner, "create_server", kind, message);
        let secret = "Secret moorage-system/hetzner";
        Problem::of_cloud_with(ConditionType::ServerReady, &error, secret)
    }

    #[rstest]
    #[case(ErrorKind::Unauthorized, Reason::Unauthorized, Retry::Slowly)]
    #[case(ErrorKind::Forbidden { read_only: true }, Reason::Forbidden, Retry::Slowly)]
    #[case(ErrorKind::Forbidden { read_only: false }, Reason::Forbidden, Retry::Slowly)]
    #[case(ErrorKind::NotEnabled, Reason::ZeroTrustNotEnabled, Retry::Slowly)]
    #[case(ErrorKind::InvalidInput { fields: vec![] }, Reason::CloudRejected, Retry::Slowly)]
    #[case(ErrorKind::Gone, Reason::CloudRejected, Retry::Slowly)]
    #[case(ErrorKind::Protected, Reason::DeleteProtected, Retry::Slowly)]
    #[case(ErrorKind::OutOfStock, Reason::OutOfStock, Retry::After(STOCK_RETRY))]
    #[case(ErrorKind::RateLimited { retry_after: PAUSE }, Reason::RateLimited, Retry::After(PAUSE))]
    #[case(ErrorKind::BudgetExhausted { wait: PAUSE }, Reason::RateLimited, Retry::After(PAUSE))]
    #[case(ErrorKind::Conflict(Conflict::NameTaken), Reason::CloudConflict, Retry::BackOff)]
    #[case(ErrorKind::NotFound, Reason::CloudConflict, Retry::BackOff)]
    #[case(ErrorKind::Timeout { maybe_applied: true }, Reason::CloudUnavailable, Retry::BackOff)]
    fn a_clouds_error_has_one_reason_and_one_time_to_retry(
        #[case] kind: ErrorKind,
        #[case] reason: Reason,
        #[case] retry: Retry,
    ) {
        let problem = of(kind, "");
        assert_eq!((problem.reason, problem.retry), (reason, retry));
        // A status is stalled exactly where no retry of the same call can succeed.
        assert_eq!(problem.needs_a_person(), retry == Retry::Slowly, "{reason}");
    }

    #[test]
    fn a_refused_token_names_cloud_call_and_secret() {
        let problem = of(ErrorKind::Unauthorized, "");
        for part in ["hetzner", "create_server", "Secret moorage-system/hetzner"] {
            assert!(problem.message.contains(part), "{}", problem.message);
        }
    }

    #[test]
    fn what_the_cloud_said_is_passed_on_with_its_code() {
        let problem =
            of(ErrorKind::QuotaExceeded, "403 resource_limit_exceeded: server limit reached.");
        let said = "(403 resource_limit_exceeded: server limit reached). Delete what is unused";
        assert!(problem.message.contains(said), "{}", problem.message);
    }

    #[rstest]
    #[case::of_a_pause(
        ErrorKind::RateLimited { retry_after: PAUSE },
        ErrorKind::RateLimited { retry_after: 2 * PAUSE },
        ["3 s", "9 s"]
    )]
    #[case::of_an_outage(
        ErrorKind::Transient { maybe_applied: true },
        ErrorKind::Transient { maybe_applied: true },
        ["request 4711", "request 4712"]
    )]
    #[case::of_a_refusal(
        ErrorKind::Conflict(Conflict::Concurrent),
        ErrorKind::Conflict(Conflict::Concurrent),
        ["409 conflict: ray 8f1d6c2e9b7a4c3d", "409 conflict: ray 0a1b2c3d4e5f6071"]
    )]
    fn equal_problems_have_equal_messages(
        #[case] first: ErrorKind,
        #[case] second: ErrorKind,
        #[case] words: [&str; 2],
    ) {
        assert_eq!(of(first, words[0]).told(), of(second, words[1]).told());
    }
}
