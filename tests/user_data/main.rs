//! User-data outside of the operator: the script of the first boot against a server that misbehaves,
//! and the rendered documents read by the programs that they are for.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod agent;
mod debian;
mod doors;
mod first_boot;
mod machine;
mod origin;
mod packages;

use moorage::{
    api::pool::{ConnectorProtocol, SshSpec},
    cloud::SecretText,
    user_data::{UserDataInput, render},
};
use moorage_wire::{
    Epoch, InstanceId, Secret, Sha256,
    bootstrap::Bootstrap,
    desired::{Artifact, Artifacts},
    enrolment::EnrolmentKey,
    signature::OperatorKey,
};
use serde_json::Value;

const KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl ada";

const INSTANCE: InstanceId = InstanceId::from_bytes([1; 16]);
const EPOCH: Epoch = Epoch::from_bytes([2; 8]);
const BEARER: &str = "bearer";

fn operator_key() -> OperatorKey {
    OperatorKey::from_seed(&Secret::from([3; 32]))
}

fn enrolment_key() -> EnrolmentKey {
    EnrolmentKey::new(Secret::from([4; 32]))
}

/// A release of which every program is this one.
fn pinned(program: &Artifact) -> Artifacts {
    Artifacts {
        release: "2026.9.6-1".into(),
        openclaw: program.clone(),
        node: program.clone(),
        cloudflared: program.clone(),
        agent: program.clone(),
    }
}

/// A program that nobody fetches.
fn some_program() -> Artifact {
    Artifact {
        version: "1".into(),
        url: "https://example.com/program".into(),
        sha256: Sha256::of(b"program"),
        size: 7,
    }
}

/// The user-data of a server whose pool lets these networks in.
fn user_data(allow_from: &[&str]) -> String {
    user_data_with(&pinned(&some_program()), allow_from, KEY)
}

/// The same, with these programs and this key.
fn user_data_with(artifacts: &Artifacts, allow_from: &[&str], key: &str) -> String {
    let user_data = user_data_for("ops", artifacts, allow_from, key);
    user_data.unwrap().expose_secret().to_owned()
}

/// The same with this user, if the pool may have it.
fn user_data_for(
    user: &str,
    artifacts: &Artifacts,
    allow_from: &[&str],
    key: &str,
) -> Option<SecretText> {
    let user = user.parse().ok()?;
    let bootstrap = Bootstrap {
        instance_id: INSTANCE,
        epoch: EPOCH,
        operator_key: operator_key().public_key(),
        bearer_sha256: Sha256::of(BEARER.as_bytes()),
        enrolment_key: enrolment_key().to_text(),
    };
    let ssh = SshSpec {
        user,
        keys: vec![key.parse().unwrap()],
        allow_from: allow_from.iter().map(|network| network.parse().unwrap()).collect(),
    };
    let input = UserDataInput {
        bootstrap: &bootstrap,
        tunnel_token: &Secret::from("dG9rZW4=".to_owned()),
        artifacts,
        ssh: Some(&ssh),
        connector_protocol: ConnectorProtocol::Http2,
        now: jiff::Timestamp::now(),
    };
    render(&input).ok()
}

/// Its cloud-config.
fn document(user_data: &str) -> Value {
    serde_json::from_str(user_data.strip_prefix("#cloud-config\n").unwrap()).unwrap()
}
