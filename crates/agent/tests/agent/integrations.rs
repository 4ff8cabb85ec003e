//! Integrations as artifacts: fetched, verified and unpacked before OpenClaw gets them; what is not the
//! pinned file, or is not pinned at all, does not disturb what runs.

use std::fs;

use flate2::{Compression, write::GzEncoder};
use moorage_agent::{Agent, Disk, artifacts::Store};
use moorage_wire::{
    DesiredState, Failure, Sha256,
    desired::{Artifact, Integration, IntegrationKind},
    failure::{FailureCode, Stage},
    report::{ConvergenceState, FailureReason, OpenClawState},
};
use serde_json::{Value, json};

use crate::{operator::Operator, world::World};

/// As `moorage release build --skill` makes it.
fn skill(name: &str, version: &str, text: &str) -> Vec<u8> {
    let mut builder = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
    let mut add = |path: &str, bytes: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(bytes.len() as u64);
        builder.append_data(&mut header, path, bytes).unwrap();
    };
    let index = json!({"kind": "Skill", "name": name, "version": version});
    add("integration.json", index.to_string().as_bytes());
    add("skill/SKILL.md", text.as_bytes());
    builder.into_inner().unwrap().finish().unwrap()
}

/// An integration whose artifact the server of artifacts has under this name.
fn packed(world: &World, file: &str, name: &str, bytes: &[u8]) -> Integration {
    world.machine(|machine| machine.files.insert(file.to_owned(), bytes.to_vec()));
    let artifact = Artifact {
        version: "1.0.0".to_owned(),
        url: format!("{}/{file}", world.artifacts),
        sha256: Sha256::of(bytes),
        size: bytes.len() as u64,
    };
    Integration {
        kind: IntegrationKind::Skill,
        name: name.to_owned(),
        version: "1.0.0".to_owned(),
        integrity: None,
        artifact: Some(artifact),
        unpinned: false,
    }
}

async fn server() -> (World, Agent, Operator) {
    let world = World::managed().await;
    let (agent, mut operator) = world.enrolled().await;
    let document = world.release(json!({"a": 1}), [1, 1, 1]);
    operator.put_desired(&document).await;
    operator.wait_for(&document, ConvergenceState::Converged).await;
    (world, agent, operator)
}

fn with(world: &World, config: Value, integration: Integration) -> DesiredState {
    let document = world.release(config, [1, 1, 1]);
    DesiredState { integrations: vec![integration], ..document }
}

fn text(world: &World) -> Option<String> {
    fs::read_to_string(world.layout.openclaw_state().join("skills/weather/SKILL.md")).ok()
}

fn kept(world: &World) -> usize {
    Store::at(&Disk::default(), &world.layout).integrations().unwrap().len()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_packed_skill_is_installed_replaced_and_removed() {
    let (world, _agent, mut operator) = server().await;
    for (file, words) in [("one", "sun"), ("two", "rain")] {
        let artifact = skill("@acme/weather", "1.0.0", words);
        let skill = packed(&world, file, "@acme/weather", &artifact);
        let document = with(&world, json!({"a": words}), skill);
        operator.put_desired(&document).await;
        operator.wait_for(&document, ConvergenceState::Converged).await;
        assert_eq!(
            text(&world).as_deref(),
            Some(words),
            "the version is the same, the file is not"
        );
        assert_eq!(kept(&world), 1);
    }
    let without = world.release(json!({"a": 3}), [1, 1, 1]);
    operator.put_desired(&without).await;
    operator.wait_for(&without, ConvergenceState::Converged).await;
    assert_eq!((text(&world), kept(&world), world.calls("skill")), (None, 0, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_artifact_of_a_skill_never_reaches_openclaw() {
    let (world, _agent, mut operator) = server().await;
    let good = skill("@acme/weather", "1.0.0", "sun");
    let exchanged = packed(&world, "one", "@acme/weather", &good);
    world.machine(|machine| {
        machine.files.insert("one".into(), skill("@acme/weather", "1.0.0", "!"))
    });
    let document = with(&world, json!({"a": 2}), exchanged);
    operator.put_desired(&document).await;
    let report = operator.wait_for(&document, ConvergenceState::RolledBack).await;
    assert_eq!(report.desired.failed.last().unwrap().reason, FailureReason::Artifact);

    let other = packed(&world, "two", "@acme/weather", &skill("@evil/weather", "1.0.0", "sun"));
    let document = with(&world, json!({"a": 3}), other);
    operator.put_desired(&document).await;
    let report = operator
        .report_when("refused", |report| {
            let failed = report.desired.failed.last();
            failed.is_some_and(|failed| failed.reason == FailureReason::Integration)
        })
        .await;
    let failed = report.desired.failed.last().unwrap();
    let bad = Failure::new(Stage::Verification, FailureCode::BadArtifact);
    let bad = bad.of_integration("@acme/weather");
    assert_eq!(failed.failure, Some(bad.with_detail("its artifact holds something else")));
    assert_eq!(report.openclaw.state, OpenClawState::Ready);
    assert_eq!((text(&world), world.calls("skill")), (None, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nothing_pins_is_not_fetched_and_openclaw_runs_on() {
    let (world, _agent, mut operator) = server().await;
    for kind in [IntegrationKind::Plugin, IntegrationKind::Skill] {
        let barred = Integration {
            kind,
            name: "@acme/weather".to_owned(),
            version: "1.0.0".to_owned(),
            integrity: Some(format!("sha512-{}==", "A".repeat(86))),
            artifact: None,
            unpinned: false,
        };
        let document = with(&world, json!({"a": format!("{kind:?}")}), barred);
        operator.put_desired(&document).await;
        let report = operator
            .report_when("refused", |report| {
                report.desired.failed.iter().any(|failed| failed.digest == document.digest())
            })
            .await;
        let failed = report.desired.failed.last().unwrap();
        assert_eq!(failed.reason, FailureReason::Integration);
        let barred = Failure::new(Stage::Installation, FailureCode::NotPinned);
        assert_eq!(failed.failure, Some(barred.of_integration("@acme/weather")));
        // For operators that do not read the fields.
        assert!(failed.message.contains("@acme/weather 1.0.0: the release"), "{}", failed.message);
        assert_eq!(report.openclaw.state, OpenClawState::Ready);
        assert_eq!(report.desired.state, ConvergenceState::Converging);
    }
    assert_eq!(world.machine(|machine| machine.openclaw_config.clone()), json!({"a": 1}));
}
