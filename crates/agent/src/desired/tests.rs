//! What is remembered of documents.

use moorage_wire::{
    Failure,
    failure::{FailureCode, Stage},
    plain_text::LONGEST_TEXT,
};

use super::*;

#[test]
fn failed_documents_are_remembered_within_bounds() {
    let folder = tempfile::tempdir().unwrap();
    let layout = Layout::new(folder.path().to_owned());
    fs::create_dir_all(layout.state()).unwrap();
    let mut desired = Desired::open(&Disk::default(), &layout).unwrap();
    let digest = |number: usize| Sha256::of(&number.to_be_bytes());
    for number in 0..200 {
        let failed = FailedDigest {
            digest: digest(number),
            reason: FailureReason::Unhealthy,
            message: "\u{e9}".repeat(10_000 + number).into(),
            failure: None,
            path: None,
            issues: Vec::new(),
            at: Timestamp::UNIX_EPOCH,
        };
        desired.did_not_work(failed).unwrap();
    }
    for desired in [desired, Desired::open(&Disk::default(), &layout).unwrap()] {
        let failed = desired.progress().failed;
        assert_eq!(failed.len(), FAILED_CAPACITY);
        assert_eq!(failed[0].digest, digest(200 - FAILED_CAPACITY));
        assert_eq!(failed[FAILED_CAPACITY - 1].digest, digest(199));
        assert!(failed.iter().all(|failed| failed.message.len() <= LONGEST_TEXT));
    }
}

#[test]
fn what_held_up_a_document_is_not_told_of_the_next_one() {
    let folder = tempfile::tempdir().unwrap();
    let layout = Layout::new(folder.path().to_owned());
    fs::create_dir_all(layout.state()).unwrap();
    let mut desired = Desired::open(&Disk::default(), &layout).unwrap();
    let artifact = serde_json::json!({
        "version": "1", "url": "https://artifacts.invalid/x", "sha256": "1".repeat(64), "size": 1,
    });
    let artifacts = serde_json::json!({
        "release": "1", "openclaw": artifact, "node": artifact, "cloudflared": artifact,
        "agent": artifact,
    });
    let mut put = |number: u32| {
        let state = serde_json::json!({
            "config": {"number": number}, "credentials": [], "artifacts": artifacts,
        });
        let bytes = state.to_string().into_bytes();
        let document = parse(&bytes).unwrap();
        let digest = document.digest;
        desired.replace(document, &bytes, None, true).unwrap();
        digest
    };
    let (first, second) = (put(1), put(2));
    let trouble = || {
        let failure = Failure::new(Stage::Installation, FailureCode::CommandFailed);
        let words = "not found".to_owned();
        Some(DocumentFailure::new(FailureReason::Integration, words, failure))
    };
    desired.set_trouble(Some(first), trouble(), Timestamp::now());
    assert_eq!(desired.progress().failed, []);
    desired.set_trouble(Some(second), trouble(), Timestamp::now());
    assert_eq!(desired.progress().failed[0].digest, second);
    desired.set_trouble(Some(second), None, Timestamp::now());
    assert_eq!(desired.progress().failed, []);
}
