//! Integrations that a release pins as a whole, and those that it does not.

use moorage_wire::{
    Failure, Sha256,
    desired::{Artifact, Integration, IntegrationKind},
    failure::{FailureCode, Stage},
    report::{ConvergenceState, FailedDigest, FailureReason},
};
use serde_json::json;

use crate::{
    api::{annotation::Rebuild, conditions::Reason, instance::Phase},
    instance::{
        Observed, Step, Wanted, desired_state,
        desired_state::PutDesired,
        fixtures::{FIRST_EPOCH, nothing, now, plan_of, ready, status_of, wanted},
    },
};

fn with(artifact: Option<Artifact>, unpinned: bool) -> Wanted {
    let mut wanted = wanted();
    let integration = Integration {
        kind: IntegrationKind::Plugin,
        name: "@openclaw/zalo".to_owned(),
        version: "2026.9.5".to_owned(),
        integrity: Some("sha512-A".to_owned()),
        artifact,
        unpinned,
    };
    wanted.release.integrations.push(integration);
    wanted
}

fn packed() -> Wanted {
    let (version, url) = ("2026.9.5".to_owned(), "https://releases.example.com/zalo".to_owned());
    with(Some(Artifact { version, url, sha256: Sha256::of(b"zalo"), size: 4 }), false)
}

/// As releases of before there were artifacts of integrations have it.
fn barred() -> Wanted {
    with(None, false)
}

fn reason_of(wanted: &Wanted, observed: &Observed, condition: &str) -> (String, String) {
    let status = status_of(wanted, observed);
    let found = status.conditions.into_iter().find(|known| known.type_ == condition).unwrap();
    (found.reason, found.message)
}

#[test]
fn no_server_is_made_that_would_resolve_an_integration() {
    let wanted = barred();
    for epoch in [None, Some(FIRST_EPOCH)] {
        let observed = Observed { epoch, ..nothing() };
        assert_eq!(plan_of(&wanted, &observed).steps, [], "{epoch:?}");
        let (reason, message) = reason_of(&wanted, &observed, "Ready");
        assert_eq!(reason, Reason::IntegrationNotPinned);
        assert!(message.contains("@openclaw/zalo"), "{message}");
        assert_eq!(status_of(&wanted, &observed).phase, Some(Phase::Stalled));
    }
    let observed = ready(&with(None, true));
    let rebuild = Rebuild::Server(observed.server.present().unwrap().id.0);
    assert_eq!(plan_of(&Wanted { rebuild, ..barred() }, &observed).steps, []);
    let lost = nothing();
    for fine in [packed(), with(None, true)] {
        assert_ne!(plan_of(&fine, &lost).steps, []);
    }
}

#[test]
fn a_server_of_an_older_release_keeps_its_document_and_is_ready() {
    let observed = ready(&barred().without_bar());
    let document = desired_state::document(&barred(), observed.view());
    let written: serde_json::Value = serde_json::from_slice(&document.to_bytes()).unwrap();
    let integration = json!({
        "kind": "Plugin", "name": "@openclaw/zalo", "version": "2026.9.5", "integrity": "sha512-A",
    });
    assert_eq!(written["integrations"], json!([integration]), "as it was before");
    let observed = observed.with_view(|view| view.report.desired.digest = Some(document.digest()));
    assert_eq!(plan_of(&barred(), &observed).steps, []);
    assert_eq!(reason_of(&barred(), &observed, "Ready").0, Reason::Ready);
}

#[test]
fn an_agent_gets_artifacts_of_integrations_when_it_takes_them() {
    let wanted = packed();
    let observed = ready(&wanted);
    assert_eq!(desired_state::document(&wanted, observed.view()).integrations[0].artifact, None);
    let observed = observed.with_view(|view| view.report.details.packed_integrations = true);
    let document = desired_state::document(&wanted, observed.view());
    assert_eq!(document.integrations, wanted.release.integrations);
    let steps = plan_of(&wanted, &observed).steps;
    assert!(matches!(&steps[..], [Step::DesiredState(PutDesired { .. })]), "{steps:?}");
}

#[test]
fn an_unresolved_integration_says_what_helps() {
    let wanted = barred();
    let observed = ready(&wanted.clone().without_bar());
    let digest = desired_state::document(&wanted, observed.view()).digest();
    let observed = observed.with_view(|view| {
        let failure = Failure::new(Stage::Installation, FailureCode::NotPinned);
        view.report.desired.digest = Some(digest);
        view.report.desired.state = ConvergenceState::Converging;
        view.report.desired.failed = vec![FailedDigest {
            digest,
            reason: FailureReason::Integration,
            message: "in whatever words".into(),
            failure: Some(failure.of_integration("@openclaw/zalo")),
            path: None,
            issues: Vec::new(),
            at: now(),
        }];
    });
    let (reason, message) = reason_of(&wanted, &observed, "ConfigApplied");
    assert_eq!(reason, Reason::IntegrationNotPinned);
    assert!(message.contains("use a release with its artifact"), "{message}");
}

impl Wanted {
    /// To have a server at all.
    fn without_bar(mut self) -> Self {
        self.release.integrations.iter_mut().for_each(|one| one.unpinned = true);
        self
    }
}
