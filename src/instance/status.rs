//! The status: a pure function of the subject, what was seen and what the planner says.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use moorage_wire::PlainText;

use super::{
    Observed, Wanted, credentials, failed_document, first_boot, host_health, programs, rotation,
    versions,
};
use crate::api::{
    OpenClawInstanceStatus,
    conditions::{ConditionStatus, ConditionType, Reason, Severity, Verdict, merge},
    instance::{
        AgentStatus, EarlierIdentity, Phase, ProgramStatus, RollbackStatus, ServerStatus,
        TunnelStatus, Urls,
    },
};
use crate::problem::Problem;

/// The longest reason of a rollback: a clause, and what the agent says of it.
const LONGEST_REASON: usize = 1024;

/// The outcome of a pass.
#[derive(Debug, Default)]
pub struct Outcome {
    /// The verdicts of the parts.
    pub verdicts: Vec<Verdict>,
    /// What stopped the pass; `None` if it came to its end.
    pub problem: Option<Problem>,
}

/// The status after a pass over an instance that should exist.
pub fn of_pass(
    wanted: &Wanted,
    observed: &Observed,
    outcome: &Outcome,
    master_key_id: Option<&str>,
    generation: Option<i64>,
) -> OpenClawInstanceStatus {
    let mut verdicts = outcome.verdicts.clone();
    if let Some(problem) = &outcome.problem {
        verdicts.retain(|known| known.kind != problem.part);
        verdicts.push(problem.clone().into());
    }
    let summary =
        summarize(&mut verdicts, outcome.problem.as_ref(), failed_document::is_final(observed));
    let degraded = verdicts.iter().any(|verdict| verdict.reason.severity() == Severity::Degraded);
    let phase = match summary {
        Summary::Ready if degraded => Phase::Degraded,
        Summary::Ready => Phase::Ready,
        Summary::Stalled => Phase::Stalled,
        Summary::Progressing if observed.status.agent.is_some() => Phase::Updating,
        Summary::Progressing => Phase::Provisioning,
    };
    let subject = &wanted.subject;
    OpenClawInstanceStatus {
        observed_generation: generation,
        conditions: merge(&observed.status.conditions, &verdicts, generation, observed.now),
        phase: Some(phase),
        release: Some(wanted.release.name.clone()),
        earlier_identity: subject.has_earlier_id().then(|| EarlierIdentity {
            id: subject.instance.to_string(),
            namespace: subject.namespace.clone(),
            name: subject.name.clone(),
        }),
        server: server(observed, master_key_id),
        tunnel: observed.tunnel.as_ref().map(|tunnel| TunnelStatus {
            id: tunnel.id.to_string(),
            rotating: rotation::is_unfinished(observed),
        }),
        urls: Some(Urls {
            dashboard: format!("https://{}", subject.dashboard_host()),
            management: format!("https://{}", subject.management_host()),
        }),
        agent: agent(wanted, observed),
        credentials: credentials::records(wanted, observed),
        dashboard_secret_name: observed.status.dashboard_secret_name.clone(),
    }
}

/// The status of an instance that cannot be worked on; all that is known of it stays.
pub fn of_refusal(
    old: &OpenClawInstanceStatus,
    refused: &Problem,
    generation: Option<i64>,
    now: Timestamp,
) -> OpenClawInstanceStatus {
    let (phase, second) = if refused.needs_a_person() {
        (Phase::Stalled, ConditionType::Stalled)
    } else {
        (Phase::Pending, ConditionType::Reconciling)
    };
    let verdicts = [
        Verdict::no(ConditionType::Ready, refused.reason, refused.message.clone()),
        Verdict::yes(second, refused.reason, refused.message.clone()),
    ];
    keep_parts(old, with(old, &verdicts, phase, generation, now))
}

/// The status of an instance that is suspended.
pub fn of_suspension(
    old: &OpenClawInstanceStatus,
    generation: Option<i64>,
    now: Timestamp,
) -> OpenClawInstanceStatus {
    let message = "spec.suspend is true: nothing is written anywhere until it is false";
    let verdicts = [Verdict::no(ConditionType::Ready, Reason::Suspended, message)];
    keep_parts(old, with(old, &verdicts, Phase::Suspended, generation, now))
}

/// What was known of the parts still stands, with the generation that it was known of: nobody has
/// looked since.
fn keep_parts(
    old: &OpenClawInstanceStatus,
    mut status: OpenClawInstanceStatus,
) -> OpenClawInstanceStatus {
    let is_part =
        |known: &&Condition| ConditionType::named(&known.type_).is_none_or(ConditionType::is_part);
    let parts = old.conditions.iter().filter(is_part);
    status.conditions.extend(parts.cloned());
    status.conditions.sort_by(|left, right| left.type_.cmp(&right.type_));
    status
}

/// The status of an instance that is being deleted.
pub fn of_deletion(
    old: &OpenClawInstanceStatus,
    problem: Option<&Problem>,
    generation: Option<i64>,
    now: Timestamp,
) -> OpenClawInstanceStatus {
    let (reason, message) = problem.map_or_else(
        || {
            (
                Reason::Deleting,
                "The server, the tunnel and the DNS records are being deleted".to_owned(),
            )
        },
        |problem| (problem.reason, problem.message.clone()),
    );
    let mut verdicts = vec![
        Verdict::no(ConditionType::Ready, reason, message.clone()),
        Verdict::yes(ConditionType::Reconciling, reason, message.clone()),
    ];
    if problem.is_some_and(Problem::needs_a_person) {
        verdicts[1] = Verdict::yes(ConditionType::Stalled, reason, message);
    }
    with(old, &verdicts, Phase::Deleting, generation, now)
}

fn with(
    old: &OpenClawInstanceStatus,
    verdicts: &[Verdict],
    phase: Phase,
    generation: Option<i64>,
    now: Timestamp,
) -> OpenClawInstanceStatus {
    OpenClawInstanceStatus {
        observed_generation: generation,
        conditions: merge(&old.conditions, verdicts, generation, now),
        phase: Some(phase),
        ..old.clone()
    }
}

enum Summary {
    Ready,
    Progressing,
    Stalled,
}

/// Adds `Ready`, and `Reconciling` or `Stalled` where they apply. `given_up` tells whether the agent
/// does not try again by itself.
fn summarize(verdicts: &mut Vec<Verdict>, problem: Option<&Problem>, given_up: bool) -> Summary {
    let in_order = || ConditionType::ALL.iter().copied().filter(|kind| kind.decides_ready());
    let of = |kind| {
        verdicts
            .iter()
            .find(|verdict| verdict.kind == kind && verdict.status != ConditionStatus::True)
    };
    let wrong = |kind| of(kind).filter(|verdict| verdict.status == ConditionStatus::False);
    // What failed says more than what waits for it, whichever of them comes first.
    let failed = problem.and_then(|problem| of(problem.part));
    let worst = failed.or_else(|| in_order().find_map(wrong)).or_else(|| in_order().find_map(of));
    let worst = worst.cloned();
    verdicts.retain(|verdict| verdict.kind != ConditionType::Ready);
    let Some(worst) = worst else {
        verdicts.push(Verdict::yes(
            ConditionType::Ready,
            Reason::Ready,
            "The server is as the spec says",
        ));
        return Summary::Ready;
    };
    verdicts.push(Verdict::no(ConditionType::Ready, worst.reason, worst.message.clone()));
    let stalled = worst.reason.needs_a_person(given_up);
    let second = if stalled { ConditionType::Stalled } else { ConditionType::Reconciling };
    verdicts.push(Verdict::yes(second, worst.reason, worst.message));
    if stalled { Summary::Stalled } else { Summary::Progressing }
}

fn server(observed: &Observed, master_key_id: Option<&str>) -> Option<ServerStatus> {
    let epoch = observed.epoch?.to_string();
    let old = observed.status.server.clone().filter(|old| old.epoch == epoch).unwrap_or_default();
    let present = observed.server.present();
    let (first_boot, given_up) = first_boot::after_pass(observed, &old);
    Some(ServerStatus {
        first_boot,
        given_up,
        epoch,
        master_key_id: old.master_key_id.or_else(|| master_key_id.map(str::to_owned)),
        replaced_at: old.replaced_at,
        id: present.map(|server| server.id.0).or(old.id),
        r#type: present.map(|server| server.server_type.name.clone()).or(old.r#type),
        location: present
            .and_then(|server| server.location.as_ref())
            .map(|location| location.name.clone())
            .or(old.location),
    })
}

fn agent(wanted: &Wanted, observed: &Observed) -> Option<AgentStatus> {
    let current =
        |known: &AgentStatus| observed.epoch.is_some_and(|epoch| epoch.to_string() == known.epoch);
    let known = observed.status.agent.clone().filter(current);
    let Some(view) = observed.agent.view() else {
        return known.map(fit);
    };
    let pinned = &wanted.release.artifacts;
    let known = known.as_ref();
    let [version, openclaw_version] = [
        (
            known.and_then(|known| known.version.as_deref()),
            Some(&view.report.agent_version),
            &pinned.agent,
        ),
        (
            known.and_then(|known| known.openclaw_version.as_deref()),
            view.report.openclaw.version.as_ref(),
            &pinned.openclaw,
        ),
    ]
    .map(|(known, told, pinned)| {
        versions::settled(known, told.map(PlainText::as_str), &pinned.version, view)
    });
    let details = &view.report.details;
    let [disk_shortage, memory_shortage] = host_health::levels(observed, view);
    Some(AgentStatus {
        epoch: view.report.identity.epoch.to_string(),
        public_key: view.keys.public_key.to_string(),
        sealing_certificate: view.keys.certificate.pem().to_owned(),
        version,
        openclaw_version,
        programs: programs::status(&wanted.release.artifacts, details),
        last_rollback: programs::last_rollback(details),
        last_backup: details.backup.map(|backup| programs::to_the_second(backup.at)),
        reboot_pending: view.report.machine.reboot_pending,
        disk_shortage,
        memory_shortage,
    })
}

/// What an earlier operator took from a report as it was, within the bounds of today.
fn fit(known: AgentStatus) -> AgentStatus {
    let version = |text: Option<String>| text.as_deref().and_then(versions::plausible);
    let programs = known.programs.into_iter();
    AgentStatus {
        version: version(known.version),
        openclaw_version: version(known.openclaw_version),
        programs: programs
            .map(|one| ProgramStatus { version: version(one.version), ..one })
            .collect(),
        last_rollback: known.last_rollback.map(|one| RollbackStatus {
            reason: <PlainText<LONGEST_REASON>>::new(&one.reason).to_string(),
            ..one
        }),
        ..known
    }
}
