//! The summary of an instance, and its text.

use std::fmt::Write as _;

use jiff::Timestamp;
use kube::ResourceExt as _;
use moorage_wire::plain_text::printable;
use serde::Serialize;

use crate::api::{
    OpenClawInstance,
    conditions::{ConditionType, Reason, Severity},
    instance::{CredentialStatus, Phase, ProgramStatus, RollbackStatus},
};

/// How one instance is.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Summary {
    namespace: String,
    name: String,
    pool: String,
    release: Option<String>,
    phase: Option<Phase>,
    /// Whether the status speaks of an older spec.
    outdated: bool,
    server: Option<Server>,
    tunnel: Option<String>,
    dashboard: Option<String>,
    management: Option<String>,
    conditions: Vec<Condition>,
    credentials: Vec<Credential>,
    /// What to do next.
    next: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Server {
    id: Option<u64>,
    r#type: Option<String>,
    location: Option<String>,
    agent_version: Option<String>,
    openclaw_version: Option<String>,
    programs: Vec<ProgramStatus>,
    last_rollback: Option<RollbackStatus>,
    last_backup: Option<String>,
    reboot_pending: bool,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Condition {
    r#type: String,
    status: String,
    reason: String,
    message: String,
    since: Timestamp,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Credential {
    name: String,
    r#type: String,
    delivered_at: Option<String>,
}

impl Summary {
    pub(super) fn of(instance: &OpenClawInstance) -> Self {
        let status = instance.status.clone().unwrap_or_default();
        let epoch = status.server.as_ref().map(|server| server.epoch.clone()).unwrap_or_default();
        let agent = status.agent.as_ref();
        let server = status.server.as_ref().map(|server| Server {
            id: server.id,
            r#type: shown(server.r#type.as_ref()),
            location: shown(server.location.as_ref()),
            agent_version: shown(agent.and_then(|agent| agent.version.as_ref())),
            openclaw_version: shown(agent.and_then(|agent| agent.openclaw_version.as_ref())),
            programs: agent
                .map(|agent| agent.programs.iter().map(program).collect())
                .unwrap_or_default(),
            last_rollback: agent.and_then(|agent| agent.last_rollback.as_ref()).map(rollback),
            last_backup: shown(agent.and_then(|agent| agent.last_backup.as_ref())),
            reboot_pending: agent.is_some_and(|agent| agent.reboot_pending),
        });
        let delivered = |name: &str| -> Option<&CredentialStatus> {
            status.credentials.iter().find(|known| known.name == name && known.epoch == epoch)
        };
        let credentials = instance.spec.credentials.iter().map(|credential| Credential {
            name: printable(&credential.name),
            r#type: printable(&credential.r#type),
            delivered_at: shown(delivered(&credential.name).map(|known| &known.delivered_at)),
        });
        let mut conditions: Vec<_> = status.conditions.iter().map(condition).collect();
        conditions.sort_by_key(|condition| {
            let kind = ConditionType::named(&condition.r#type);
            (kind.is_none(), kind)
        });
        let mut summary = Self {
            namespace: instance.namespace().unwrap_or_default(),
            name: instance.name_any(),
            pool: instance.spec.pool.to_string(),
            release: shown(status.release.as_ref()),
            phase: status.phase,
            outdated: status.observed_generation != instance.metadata.generation,
            server,
            tunnel: shown(status.tunnel.as_ref().map(|tunnel| &tunnel.id)),
            dashboard: shown(status.urls.as_ref().map(|urls| &urls.dashboard)),
            management: shown(status.urls.as_ref().map(|urls| &urls.management)),
            credentials: credentials.collect(),
            conditions,
            next: String::new(),
        };
        summary.next = summary.next_thing();
        summary
    }

    fn next_thing(&self) -> String {
        let find = |kind: &str| self.conditions.iter().find(|known| known.r#type == kind);
        let holds = |kind: &str| find(kind).is_some_and(|known| known.status == "True");
        let Some(ready) = find("Ready") else {
            return format!(
                "No operator has looked at it yet: see that one runs and that HostingPool {} exists.",
                self.pool
            );
        };
        if holds("Ready") {
            let dashboard = self.dashboard.as_deref().unwrap_or_default();
            let wrong = |known: &&Condition| {
                let severity = Reason::named(&known.reason).map(Reason::severity);
                known.status == "False"
                    || !matches!(severity, None | Some(Severity::Fine | Severity::Passing))
            };
            let parts = self.conditions.iter().filter(|known| {
                ConditionType::named(&known.r#type).is_none_or(ConditionType::is_part)
            });
            return parts
                .filter(wrong)
                .map(|known| known.message.clone())
                .next()
                .unwrap_or_else(|| format!("Nothing: it is ready at {dashboard}"));
        }
        if holds("Stalled") || self.phase == Some(Phase::Suspended) {
            return ready.message.clone();
        }
        format!("Wait: {}", ready.message)
    }

    pub(super) fn to_text(&self, now: Timestamp) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = self.write(&mut text, now);
        text
    }

    fn write(&self, text: &mut String, now: Timestamp) -> std::fmt::Result {
        let or_none = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".to_owned());
        writeln!(text, "OpenClawInstance {}/{}", self.namespace, self.name)?;
        let phase =
            self.phase.map_or_else(|| "not looked at yet".to_owned(), |phase| format!("{phase:?}"));
        let outdated = if self.outdated && self.phase.is_some() {
            " (of an older spec: the operator has not looked at the newest yet)"
        } else {
            ""
        };
        writeln!(text, "  phase       {phase}{outdated}")?;
        writeln!(text, "  pool        {}", self.pool)?;
        writeln!(text, "  release     {}", or_none(&self.release))?;
        match &self.server {
            Some(Server {
                id: Some(id),
                r#type,
                location,
                agent_version,
                openclaw_version,
                ..
            }) => {
                writeln!(
                    text,
                    "  server      {id}, {} in {}; agent {}, OpenClaw {}",
                    or_none(r#type),
                    or_none(location),
                    or_none(agent_version),
                    or_none(openclaw_version),
                )?;
            }
            Some(_) => writeln!(text, "  server      being made")?,
            None => writeln!(text, "  server      -")?,
        }
        if let Some(server) = &self.server {
            server.write_programs(text, now)?;
        }
        writeln!(text, "  tunnel      {}", or_none(&self.tunnel))?;
        writeln!(text, "  dashboard   {}", or_none(&self.dashboard))?;
        writeln!(text, "  management  {}", or_none(&self.management))?;
        writeln!(text, "\nConditions")?;
        for known in &self.conditions {
            let age = age(known.since, now);
            writeln!(
                text,
                "  {:<21} {:<8} {age:>5}  {}: {}",
                known.r#type, known.status, known.reason, known.message
            )?;
        }
        if self.conditions.is_empty() {
            writeln!(text, "  none yet")?;
        }
        if !self.credentials.is_empty() {
            writeln!(text, "\nCredentials")?;
        }
        for credential in &self.credentials {
            let delivered = credential.delivered_at.as_ref().map_or_else(
                || "not on the server".to_owned(),
                |at| format!("delivered {}", ago(at, now)),
            );
            writeln!(text, "  {:<21} {:<20} {delivered}", credential.name, credential.r#type)?;
        }
        writeln!(text, "\nWhat to do next\n  {}", self.next)
    }
}

impl Server {
    /// What the agent says of programs, backup and reboot, as far as it says something.
    fn write_programs(&self, text: &mut String, now: Timestamp) -> std::fmt::Result {
        let programs = self.programs.iter().map(|program| {
            // The beginning of a digest is enough to find it in a release.
            let digest = program.sha256.get(..12).unwrap_or(&program.sha256);
            let version = program.version.as_deref().unwrap_or(digest);
            format!("{} {version}", program.name)
        });
        let programs: Vec<_> = programs.collect();
        if !programs.is_empty() {
            writeln!(text, "  programs    {}", programs.join(", "))?;
        }
        if let Some(RollbackStatus { program, sha256, reason, at }) = &self.last_rollback {
            let digest = sha256.get(..12).unwrap_or(sha256);
            writeln!(text, "  rolled back {program} {digest} {}: {reason}", ago(at, now))?;
        }
        if let Some(at) = &self.last_backup {
            writeln!(text, "  backup      {}", ago(at, now))?;
        }
        if self.reboot_pending {
            writeln!(text, "  reboot      pending, between 03:00 and 05:00 UTC")?;
        }
        Ok(())
    }
}

/// A moment, as people say it; as it is written if it is not one.
fn ago(at: &str, now: Timestamp) -> String {
    at.parse().map_or_else(|_| at.to_owned(), |at| format!("{} ago", age(at, now)))
}

/// A text of the status. An older operator wrote what a server said as it was.
fn shown(text: Option<&String>) -> Option<String> {
    text.map(|text| printable(text))
}

fn program(known: &ProgramStatus) -> ProgramStatus {
    ProgramStatus {
        name: printable(&known.name),
        version: shown(known.version.as_ref()),
        sha256: printable(&known.sha256),
    }
}

fn rollback(known: &RollbackStatus) -> RollbackStatus {
    RollbackStatus {
        program: printable(&known.program),
        sha256: printable(&known.sha256),
        reason: printable(&known.reason),
        at: printable(&known.at),
    }
}

fn condition(known: &k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition) -> Condition {
    Condition {
        r#type: printable(&known.type_),
        status: printable(&known.status),
        reason: printable(&known.reason),
        message: printable(&known.message),
        since: known.last_transition_time.0,
    }
}

/// How long ago, in the largest unit of which there is at least one, as kubectl shows ages.
fn age(since: Timestamp, now: Timestamp) -> String {
    let seconds = now.duration_since(since).as_secs().max(0);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m", seconds / 60),
        3_600..86_400 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}
