//! Reports of older agents are still read, and what they hold is still sent under the same names.
//!
//! The files were written by the agent of before failures had fields; `first.json` is one of them
//! without what the first agents did not send.
#![allow(clippy::unwrap_used)]

use std::{fs, path::Path};

use moorage_wire::{
    Failure, Program, Report,
    failure::{FailureCode, Stage},
};
use serde_json::Value;

fn recorded(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/older_reports").join(name);
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

#[test]
fn an_older_report_is_read_and_written_without_change() {
    for name in ["agent", "artifact", "config", "integration", "rollback"] {
        let recorded = recorded(&format!("{name}.json"));
        let report: Report = serde_json::from_value(recorded.clone()).unwrap();
        assert!(report.desired.failed.iter().all(|failed| failed.failure.is_none()), "{name}");
        assert!(!report.desired.failed.is_empty(), "{name}");
        assert_eq!(serde_json::to_value(&report).unwrap(), recorded, "{name}");
    }
}

#[test]
fn a_report_of_the_first_agents_is_read() {
    let report: Report = serde_json::from_value(recorded("first.json")).unwrap();
    assert!(report.machine.setup_done, "those that do not say it are taken to be through it");
    assert_eq!(report.details, moorage_wire::report::Details::default());
    assert_eq!(report.desired.failed[0].path.as_deref(), Some("agents.unknownKey"));
}

#[test]
fn fields_of_a_failure_come_beside_what_was_sent_before() {
    for name in ["agent.json", "rollback.json"] {
        let recorded = recorded(name);
        let mut report: Report = serde_json::from_value(recorded.clone()).unwrap();
        let failure = Failure::new(Stage::Start, FailureCode::DeadlineExceeded).of(Program::Agent);
        let failure = || Some(failure.clone());
        report.desired.failed.iter_mut().for_each(|failed| failed.failure = failure());
        report.details.last_rollback.iter_mut().for_each(|one| one.failure = failure());
        report.details.failed_programs.iter_mut().for_each(|one| one.failure = failure());
        report.openclaw.failure = failure();
        let mut written = serde_json::to_value(&report).unwrap();
        assert_ne!(written, recorded);
        strip(&mut written);
        assert_eq!(written, recorded);
    }
}

/// As an operator sees it that does not know the fields.
fn strip(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.remove("failure");
            fields.values_mut().for_each(strip);
        }
        Value::Array(items) => items.iter_mut().for_each(strip),
        _ => {}
    }
}
