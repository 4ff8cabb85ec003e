//! Documents of before the worker opened credentials (`docs/decisions/0020-…`): what an agent of then
//! reports is understood now, and what is sent to it now has no field that it refuses.

use std::collections::BTreeSet;

use moorage_wire::{
    DesiredState, Report,
    bootstrap::Bootstrap,
    desired::{Artifact, Integration, IntegrationKind},
    enrolment::EnrolmentAnswer,
    report::{ConvergenceState, OpenClawState},
};
use serde_json::{Value, json};

const REPORT: &str = include_str!("older/report.json");
const DESIRED: &str = include_str!("older/desired.json");
const BOOTSTRAP: &str = include_str!("older/bootstrap.json");
const ENROLMENT: &str = include_str!("older/enrolment.json");

fn fields(value: &Value) -> BTreeSet<&str> {
    value.as_object().expect("it is an object").keys().map(String::as_str).collect()
}

#[test]
fn a_report_of_an_older_agent_is_read_whole() {
    let report: Report = serde_json::from_str(REPORT).unwrap();
    assert_eq!(report.desired.state, ConvergenceState::RolledBack);
    assert_eq!(report.desired.failed[0].path.as_deref(), Some("agents.defaults"));
    assert_eq!(report.openclaw.state, OpenClawState::Ready);
    assert_eq!((report.receipts.len(), report.consumed.len()), (1, 1));
    assert_eq!(report.details.last_rollback.as_ref().unwrap().reason, "unhealthy");
    // What it cannot say is taken as it was then.
    assert!(report.machine.setup_done && !report.details.packed_integrations);
    assert!(report.details.operator_keys.is_empty() && report.details.clock.is_none());
    assert_eq!(report.identity.tunnel_certificate, None, "it opens everything with one key");
}

#[test]
fn an_older_agents_first_answer_is_read() {
    let answer: EnrolmentAnswer = serde_json::from_str(ENROLMENT).unwrap();
    assert!(answer.challenge_proof.is_some() && answer.identity.tunnel_certificate.is_none());
}

#[test]
fn a_document_of_an_older_operator_is_read_and_written_alike() {
    let desired: DesiredState = serde_json::from_str(DESIRED).unwrap();
    let older: Value = serde_json::from_str(DESIRED).unwrap();
    assert_eq!(serde_json::to_value(&desired).unwrap(), older);
    let bootstrap: Bootstrap = serde_json::from_str(BOOTSTRAP).unwrap();
    let older: Value = serde_json::from_str(BOOTSTRAP).unwrap();
    assert_eq!(serde_json::to_value(&bootstrap).unwrap(), older);
}

/// It refuses a document with a field that it does not know. Only integrations have more: their artifact is
/// held back from agents that do not say `packedIntegrations`, their integrity is not.
#[test]
fn what_is_sent_to_an_older_agent_has_no_field_that_it_refuses() {
    let older: Value = serde_json::from_str(DESIRED).unwrap();
    let mut desired: DesiredState = serde_json::from_str(DESIRED).unwrap();
    let artifact =
        |version: &str| Artifact { version: version.to_owned(), ..desired.artifacts.agent.clone() };
    let packed = Integration {
        kind: IntegrationKind::Skill,
        name: "weather".to_owned(),
        version: "1".to_owned(),
        integrity: Some("sha512-".to_owned()),
        artifact: Some(artifact("1")),
        unpinned: true,
    };
    desired.integrations = vec![packed];
    let newer = serde_json::to_value(&desired).unwrap();
    assert_eq!(fields(&newer), fields(&older));
    for path in ["/artifacts", "/artifacts/openclaw"] {
        assert_eq!(fields(newer.pointer(path).unwrap()), fields(older.pointer(path).unwrap()));
    }
    let more: Vec<_> = fields(&newer["integrations"][0])
        .difference(&fields(&older["integrations"][0]))
        .map(|field| json!(field))
        .collect();
    assert_eq!(more, [json!("artifact"), json!("integrity"), json!("unpinned")]);
}
