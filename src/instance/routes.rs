//! The routes: the tunnel's ingress rules. The DNS records that lead to it are in [`super::records`].

use std::fmt;

use jiff::Timestamp;
use moorage_wire::{
    Sha256,
    bootstrap::{AGENT_SOCKET_PATH, GATEWAY_PORT},
};

use super::{
    Observed, Part, Wanted,
    observed::AgentState,
    plan::{SOON, Timing},
    step::{Own, PartStep},
    tunnel,
    wanted::Subject,
};
use crate::{
    api::conditions::{ConditionType::RoutesReady, Reason, Verdict},
    cloudflare::{IngressRule, TunnelConfiguration, TunnelId},
};

/// One thing to do about the ingress rules.
#[derive(Debug, Clone, PartialEq)]
pub enum RoutesStep {
    Put(TunnelId, TunnelConfiguration),
    /// Compare them with the wanted ones.
    Check(TunnelId, TunnelConfiguration),
}

/// Which rules the tunnel has, and when that was put or compared.
#[derive(Debug)]
pub struct AppliedRules {
    /// See [`digest`].
    pub digest: Sha256,
    pub at: Timestamp,
}

impl PartStep for RoutesStep {
    type Outcome = AppliedRules;

    fn touches_only_own(&self, own: &Own<'_>) -> bool {
        let (Self::Put(id, _) | Self::Check(id, _)) = self;
        own.tunnel(id)
    }

    fn foresee(&self, _: &Wanted, observed: &Observed) -> AppliedRules {
        let (Self::Put(_, rules) | Self::Check(_, rules)) = self;
        AppliedRules { digest: digest(rules), at: observed.now }
    }

    fn note(rules: AppliedRules, observed: &mut Observed) {
        observed.tunnel_memory.rules = Some((rules.digest, rules.at));
    }
}

impl fmt::Display for RoutesStep {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Put(id, rules) => {
                write!(formatter, "set the routes of {}: {}", tunnel::titled(id), listed(rules))
            }
            Self::Check(id, _) => write!(
                formatter,
                "compare the routes of {} and set them again if they differ",
                tunnel::titled(id)
            ),
        }
    }
}

fn listed(rules: &TunnelConfiguration) -> String {
    let named = rules
        .ingress
        .iter()
        .filter_map(|rule| Some(format!("{} to {}", rule.hostname.as_ref()?, rule.service)));
    named.collect::<Vec<_>>().join(", ")
}

/// The ingress rules: dashboard, management API, and nothing else.
pub fn configuration(subject: &Subject) -> TunnelConfiguration {
    let rule = |hostname: Option<String>, service: String| IngressRule {
        hostname,
        path: None,
        service,
        origin_request: None,
    };
    let ingress = vec![
        rule(Some(subject.dashboard_host()), format!("http://127.0.0.1:{GATEWAY_PORT}")),
        rule(Some(subject.management_host()), format!("unix:{AGENT_SOCKET_PATH}")),
        rule(None, "http_status:404".to_owned()),
    ];
    TunnelConfiguration { ingress, ..TunnelConfiguration::default() }
}

/// The digest by which rules that were applied are remembered.
pub fn digest(configuration: &TunnelConfiguration) -> Sha256 {
    // Only our own rules count: Cloudflare adds defaults of its own around them.
    Sha256::of(&serde_json::to_vec(&configuration.ingress).unwrap_or_default())
}

/// Rules first, records second: a name must never lead to a tunnel that has no rules.
pub fn plan(wanted: &Wanted, observed: &Observed, timing: Timing) -> Part {
    let Some(tunnel) = &observed.tunnel else {
        return Part::wait(
            Verdict::unknown(RoutesReady, Reason::Waiting, "Waits for the tunnel"),
            SOON,
        );
    };
    let rules = configuration(&wanted.subject);
    let step = rules_step(observed, tunnel.id.clone(), rules, timing);
    let verdict = match step {
        Some(RoutesStep::Put(..)) => {
            Verdict::no(RoutesReady, Reason::Progressing, "The routes are being set")
        }
        Some(RoutesStep::Check(..)) | None => {
            Verdict::yes(RoutesReady, Reason::Ready, "Both host names lead to the server")
        }
    };
    Part { steps: step.into_iter().map(Into::into).collect(), ..Part::done(verdict) }
}

fn rules_step(
    observed: &Observed,
    tunnel: TunnelId,
    rules: TunnelConfiguration,
    timing: Timing,
) -> Option<RoutesStep> {
    let wanted = digest(&rules);
    match observed.tunnel_memory.rules {
        Some((known, _)) if known != wanted => Some(RoutesStep::Put(tunnel, rules)),
        Some((_, at)) => {
            let due = observed.now.duration_since(at).unsigned_abs() >= timing.routes;
            due.then_some(RoutesStep::Check(tunnel, rules))
        }
        // An agent that answers through the tunnel shows that there are rules; a comparison is enough.
        None if matches!(observed.agent, AgentState::Reported(_)) => {
            Some(RoutesStep::Check(tunnel, rules))
        }
        None => Some(RoutesStep::Put(tunnel, rules)),
    }
}
