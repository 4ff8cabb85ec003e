//! The desired state: the one document that the agent converges to.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    time::Duration,
};

use moorage_wire::{
    CredentialName, DesiredState, Sha256,
    credential::{GATEWAY_TOKEN, TUNNEL_TOKEN},
    desired::Integration,
    report::{ConvergenceState, FailureReason, OpenClawHealth, OpenClawState},
};

use super::{
    Observed, Part, Wanted, failed_document,
    observed::{AgentState, AgentView},
    older_agents,
    plan::{SOON, Timing},
    programs, replacement,
    step::{Own, PartStep},
};
use crate::{
    api::conditions::{ConditionType::ConfigApplied, Reason, Verdict},
    openclaw::{self, RenderInput},
};

/// Send the desired state.
#[derive(Debug, Clone, PartialEq)]
pub struct PutDesired {
    pub document: Box<DesiredState>,
    /// The document that the agent has now.
    pub replaces: Option<Sha256>,
}

impl PartStep for PutDesired {
    /// The digest of what the agent has to converge to now; none if it has something else than it
    /// reported.
    type Outcome = Option<Sha256>;

    fn touches_only_own(&self, _: &Own<'_>) -> bool {
        true
    }

    fn needs_agent(&self) -> bool {
        true
    }

    fn ends_pass(&self) -> bool {
        true
    }

    fn foresee(&self, _: &Wanted, _: &Observed) -> Option<Sha256> {
        Some(self.document.digest())
    }

    fn note(taken: Option<Sha256>, observed: &mut Observed) {
        if let (Some(digest), AgentState::Reported(view)) = (taken, &mut observed.agent) {
            view.report.desired.digest = Some(digest);
            view.report.desired.state = ConvergenceState::Converging;
        }
    }
}

impl fmt::Display for PutDesired {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let release = &self.document.artifacts.release;
        write!(formatter, "send the server its configuration and release {release}")
    }
}

/// How soon an agent is asked again that waits for somebody else's server.
const HELD_UP_RETRY: Duration = Duration::from_secs(10);

/// The document for what is stored on the server now: references stand only for values that are
/// there.
pub fn document(wanted: &Wanted, view: &AgentView) -> DesiredState {
    let stored = |name: &CredentialName| Some((name.clone(), view.receipt(name)?.r#type));
    let stored: BTreeMap<_, _> = wanted.credential_names().filter_map(stored).collect();
    let own = [GATEWAY_TOKEN, TUNNEL_TOKEN].into_iter().filter_map(|name| name.parse().ok());
    let credentials: BTreeSet<_> = wanted.credential_names().cloned().chain(own).collect();
    let dashboard_url = format!("https://{}", wanted.subject.dashboard_host());
    let config = openclaw::render(&RenderInput {
        config: &wanted.config,
        dashboard_url: &dashboard_url,
        credentials: &stored,
    });
    DesiredState {
        config,
        credentials,
        artifacts: wanted.release.artifacts.clone(),
        integrations: integrations(wanted, view),
        approved_pairings: wanted.approved_pairings.clone(),
        retry: wanted.retry.as_ref().map(|mark| mark.as_str().to_owned()),
    }
}

/// What the agent understands of the integrations. One of before there were artifacts of them refuses a
/// document with any; it replaces itself with the rest of the document, and gets them then.
fn integrations(wanted: &Wanted, view: &AgentView) -> Vec<Integration> {
    let mut all = wanted.release.integrations.clone();
    if !view.report.details.packed_integrations {
        for one in &mut all {
            (one.artifact, one.unpinned) = (None, false);
        }
    }
    all
}

/// The agent has the document, and OpenClaw runs with it.
pub fn plan(wanted: &Wanted, observed: &Observed, _: Timing) -> Part {
    let Some(view) = observed.agent.view() else { return Part::default() };
    let document = document(wanted, view);
    let digest = document.digest();
    let progress = &view.report.desired;
    // Nothing after this depends on OpenClaw: the tunnel is rotated while it starts.
    let go_on = |part: Part| Part { passable: true, ..part };
    if let Some(message) = replacement::wrong_architecture(wanted, observed) {
        let reason = Reason::ArchitectureMismatch;
        return go_on(Part::stuck(Verdict::no(ConfigApplied, reason, message)));
    }
    if progress.digest != Some(digest) {
        let verdict =
            Verdict::no(ConfigApplied, Reason::Progressing, "The configuration is being sent");
        let step = PutDesired { document: Box::new(document), replaces: progress.digest };
        return go_on(Part { requeue_after: Some(SOON), ..Part::todo(step, verdict) });
    }
    let failed = progress.failed.iter().find(|failed| failed.digest == digest);
    match (progress.state, failed) {
        (ConvergenceState::Converged, _) => go_on(converged(view)),
        (ConvergenceState::RolledBack | ConvergenceState::Failed, Some(failed)) => {
            go_on(Part::stuck(failed_document::given_up(wanted, view, failed)))
        }
        (_, Some(trouble)) => {
            let remote = [FailureReason::Artifact, FailureReason::Integration];
            let requeue_after = if remote.contains(&trouble.reason) { HELD_UP_RETRY } else { SOON };
            go_on(Part::wait(failed_document::held_up(wanted, trouble), requeue_after))
        }
        (_, None) => {
            let of_programs = programs::progress(&wanted.release.artifacts, &view.report.details);
            let message = of_programs
                .unwrap_or_else(|| "OpenClaw starts with the new configuration".to_owned());
            go_on(Part::wait(Verdict::no(ConfigApplied, Reason::Progressing, message), SOON))
        }
    }
}

/// Warnings are for the owner to judge, and differ with every version.
fn insecure(view: &AgentView) -> Option<Verdict> {
    let critical =
        view.report.details.audit.map(|audit| audit.critical).filter(|found| *found > 0)?;
    let message = format!(
        "OpenClaw runs with the configuration, but its own security audit finds it insecure in {critical} critical points: `openclaw security audit` on the server names them; correct spec.config"
    );
    Some(Verdict::yes(ConfigApplied, Reason::InsecureConfig, message))
}

/// OpenClaw is ready, but not with all that it should have.
fn half_working(openclaw: &OpenClawHealth) -> Option<Verdict> {
    let what = match (&openclaw.failure, &openclaw.message) {
        (Some(failure), _) => failed_document::running(failure),
        (None, Some(words)) => older_agents::words(words),
        (None, None) => return None,
    };
    let message = format!("OpenClaw runs with the configuration, but {what}");
    Some(Verdict::yes(ConfigApplied, Reason::OldSecretsInUse, message))
}

fn converged(view: &AgentView) -> Part {
    let openclaw = &view.report.openclaw;
    match openclaw.state {
        OpenClawState::Ready => {
            let troubles = half_working(openclaw)
                .or_else(|| insecure(view))
                .or_else(|| failed_document::unpaired(view));
            Part::done(troubles.unwrap_or_else(|| {
                Verdict::yes(ConfigApplied, Reason::Ready, "OpenClaw runs with the configuration")
            }))
        }
        OpenClawState::Degraded => Part::done(Verdict::yes(
            ConfigApplied,
            Reason::OpenClawNotReady,
            "OpenClaw runs with the configuration, but its /readyz says that it is not ready, for example because of a channel. See its log on the server",
        )),
        _ => Part::wait(
            Verdict::no(
                ConfigApplied,
                Reason::Progressing,
                "OpenClaw is not up; its server restarts it",
            ),
            SOON,
        ),
    }
}
