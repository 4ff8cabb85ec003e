use std::{fs, sync::Arc};

use moorage_wire::{Epoch, InstanceId, OperatorPublicKey, Sha256, bootstrap::EnrolmentKeyText};
use serde_json::json;

use super::*;
use crate::{
    settings::OpenClawProgram,
    worker::{Trust, Worker},
};

fn bootstrap() -> Bootstrap {
    Bootstrap {
        instance_id: InstanceId::from_bytes([1; 16]),
        epoch: Epoch::from_bytes([2; 8]),
        operator_key: OperatorPublicKey::from_bytes([3; 32]),
        bearer_sha256: Sha256::of(b""),
        enrolment_key: EnrolmentKeyText::new("5a".repeat(32)),
    }
}

fn server() -> (tempfile::TempDir, Layout, OpenClaw) {
    let folder = tempfile::tempdir().unwrap();
    let layout = Layout::new(folder.path().to_owned());
    Disk::default().create_folder(&layout.state()).unwrap();
    let program = OpenClawProgram { openclaw: "/none".into(), node: None };
    let address = ([127, 0, 0, 1], 1).into();
    let worker = Worker::new(Disk::default(), layout.clone(), program, address, Trust::Published);
    worker.prepare().unwrap();
    (folder, layout, OpenClaw::InProcess(Arc::new(worker)))
}

#[test]
fn the_agent_cannot_open_what_credentials_are_sealed_to() {
    let (_folder, layout, openclaw) = server();
    let bootstrap = bootstrap();
    let keys = Keys::load_or_make(&Disk::default(), &layout, &bootstrap, false, &openclaw).unwrap();
    let key = EnrolmentKey::from_text(&bootstrap.enrolment_key).unwrap();
    keys.identity.verify(&key, bootstrap.instance_id, bootstrap.epoch).unwrap();
    assert!(!keys.is_to_hand_over);
    assert_eq!(keys.identity.sealing_certificate, openclaw.certificate().unwrap());
    let stored = fs::read_to_string(layout.worker_key()).unwrap();
    let stored: serde_json::Value = serde_json::from_str(&stored).unwrap();
    let workers = stored["key"].as_str().unwrap();
    let own = fs::read_to_string(layout.identity()).unwrap();
    assert!(!own.contains(workers), "the agent has the worker's private key");
    let certificate =
        moorage_wire::sealing::SealingCertificate::parse(&keys.identity.sealing_certificate);
    let sealed = certificate.unwrap().seal(&"value".to_owned().into(), "label").unwrap();
    assert!(keys.tunnel.unseal(&sealed, "label").is_err());
}

#[test]
fn the_key_of_an_older_agent_moves_to_the_worker() {
    let (_folder, layout, openclaw) = server();
    let (disk, bootstrap) = (Disk::default(), bootstrap());
    let enrolment = EnrolmentKey::from_text(&bootstrap.enrolment_key).unwrap();
    let signing = AgentKey::from_seed(&Secret::from([7; 32]));
    let (sealing, pkcs8) =
        SealingKey::generate(KeyStrength::Agent, "old", Timestamp::now(), CERTIFICATE_LIFETIME)
            .unwrap();
    let identity = AgentIdentity::new(
        &enrolment,
        bootstrap.instance_id,
        bootstrap.epoch,
        signing.public_key(),
        sealing.certificate().pem().to_owned(),
    );
    let private = BASE64.encode(pkcs8.expose());
    let old = json!({
        "signingSeed": BASE64.encode([7; 32]), "sealingKey": private, "identity": identity,
    });
    disk.write_json(&layout.identity(), &old).unwrap();
    let before = Keys::load_or_make(&disk, &layout, &bootstrap, true, &openclaw).unwrap();
    assert!(before.is_to_hand_over, "it works as it did until the worker has the key");

    let after = Keys::hand_over(&disk, &layout, &bootstrap, &openclaw).unwrap().unwrap();
    assert!(!after.is_to_hand_over);
    after.identity.verify(&enrolment, bootstrap.instance_id, bootstrap.epoch).unwrap();
    assert_eq!(after.identity.proof, before.identity.proof);
    assert!(after.identity.tunnel_certificate.is_some());
    assert_eq!(openclaw.certificate().unwrap(), identity.sealing_certificate);
    assert!(!fs::read_to_string(layout.identity()).unwrap().contains(&private));
    assert!(fs::read_to_string(layout.worker_key()).unwrap().contains(&private));
    assert!(Keys::hand_over(&disk, &layout, &bootstrap, &openclaw).unwrap().is_none());

    // After a crash before the agent wrote its file.
    disk.write_json(&layout.identity(), &old).unwrap();
    assert!(Keys::hand_over(&disk, &layout, &bootstrap, &openclaw).unwrap().is_some());
    // Nobody exchanges the worker's key afterwards.
    let refused = openclaw.adopt_key(SecretText::new(&private), "another".to_owned());
    assert!(refused.is_err());
}
