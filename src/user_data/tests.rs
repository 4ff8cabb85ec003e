use std::{fmt::Write as _, io::Read as _};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use flate2::read::GzDecoder;
use moorage_wire::{Epoch, InstanceId, OperatorPublicKey, Sha256, enrolment::EnrolmentKey};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::api::pool::MOST_SSH_KEY_TEXT;

const KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl ada";

const NOW: Timestamp = Timestamp::constant(1_788_264_000, 0);

fn bootstrap() -> Bootstrap {
    Bootstrap {
        instance_id: InstanceId::from_bytes([1; 16]),
        epoch: Epoch::from_bytes([2; 8]),
        operator_key: OperatorPublicKey::from_bytes([3; 32]),
        bearer_sha256: Sha256::of(b"bearer"),
        enrolment_key: EnrolmentKey::new(Secret::from([4; 32])).to_text(),
    }
}

fn artifacts(url: &str) -> Artifacts {
    let artifact = |name: &str| Artifact {
        version: "1".into(),
        url: format!("{url}{name}"),
        sha256: Sha256::of(name.as_bytes()),
        size: 1,
    };
    Artifacts {
        release: "2026.9.6-1".into(),
        openclaw: artifact("openclaw"),
        node: artifact("node"),
        cloudflared: artifact("cloudflared"),
        agent: artifact("agent"),
    }
}

fn ssh(keys: &[String], allow_from: &[&str]) -> SshSpec {
    spec("ops", keys, allow_from).unwrap()
}

fn spec(user: &str, keys: &[String], allow_from: &[&str]) -> Option<SshSpec> {
    Some(SshSpec {
        user: user.parse().ok()?,
        keys: keys.iter().map(|key| key.parse().ok()).collect::<Option<_>>()?,
        allow_from: allow_from.iter().map(|network| network.parse().ok()).collect::<Option<_>>()?,
    })
}

fn open_ssh() -> SshSpec {
    ssh(&[KEY.to_owned()], &["203.0.113.0/24", "2001:db8::/64"])
}

fn rendered_from(url: &str, ssh: Option<&SshSpec>) -> Result<SecretText, UserDataError> {
    let (bootstrap, artifacts) = (&bootstrap(), &artifacts(url));
    let token = &Secret::from("dG9rZW4=".to_owned());
    render(&UserDataInput {
        bootstrap,
        tunnel_token: token,
        artifacts,
        ssh,
        connector_protocol: ConnectorProtocol::Http2,
        now: NOW,
    })
}

fn rendered(ssh: Option<&SshSpec>) -> Result<SecretText, UserDataError> {
    rendered_from("https://example.com/", ssh)
}

fn document(text: &SecretText) -> Value {
    let json = text.expose_secret().strip_prefix("#cloud-config\n").unwrap();
    serde_json::from_str(json).unwrap()
}

/// What a file will hold, if it is text.
fn content(file: &Value) -> &str {
    assert!(file.get("encoding").is_none());
    file["content"].as_str().unwrap()
}

/// The files of the archive.
fn unpacked(file: &Value) -> Vec<(String, String)> {
    assert_eq!(file["encoding"], "b64");
    let packed = STANDARD.decode(file["content"].as_str().unwrap()).unwrap();
    let mut archive = tar::Archive::new(GzDecoder::new(packed.as_slice()));
    let read = |entry: std::io::Result<tar::Entry<'_, _>>| {
        let mut entry = entry.unwrap();
        let (mode, owner) = (entry.header().mode().unwrap(), entry.header().uid().unwrap());
        assert_eq!((mode, owner), (0o644, 0));
        let path = entry.path().unwrap().to_str().unwrap().to_owned();
        let mut text = String::new();
        entry.read_to_string(&mut text).unwrap();
        (path, text)
    };
    archive.entries().unwrap().map(read).collect()
}

fn file<'a>(document: &'a Value, path: &str) -> Option<&'a Value> {
    document["write_files"].as_array().unwrap().iter().find(|file| file["path"] == path)
}

/// The document, with its files one after the other as they will be on the server.
fn readable(text: &SecretText) -> String {
    let mut document = document(text);
    let files = document.as_object_mut().unwrap().remove("write_files").unwrap();
    let mut readable = serde_json::to_string_pretty(&document).unwrap();
    for file in files.as_array().unwrap() {
        let (path, owner) = (file["path"].as_str().unwrap(), file["owner"].as_str().unwrap());
        let permissions = file["permissions"].as_str().unwrap();
        let defer = if file.get("defer").is_some() { " deferred" } else { "" };
        write!(readable, "\n--- {path} {owner} {permissions}{defer}\n").unwrap();
        if path != CONSTANTS_PATH {
            readable += content(file);
            continue;
        }
        for (path, text) in unpacked(file) {
            // The script is a file of its own in this repository.
            let text = if text == FIRST_BOOT { "(first-boot.py)" } else { &text };
            write!(readable, "\n------ {path}\n{text}").unwrap();
        }
    }
    readable
}

#[test]
fn a_server_without_ssh() {
    insta::assert_snapshot!(readable(&rendered(None).unwrap()));
}

#[test]
fn what_ssh_adds() {
    let (closed, open) = (rendered(None).unwrap(), rendered(Some(&open_ssh())).unwrap());
    let closed = readable(&closed);
    let closed: Vec<&str> = closed.lines().collect();
    let added: Vec<String> = readable(&open)
        .lines()
        .filter(|line| !closed.contains(line))
        .map(ToOwned::to_owned)
        .collect();
    insta::assert_snapshot!(added.join("\n"));
}

#[test]
fn a_fall_back_that_nobody_may_use_is_the_same_as_none() {
    let (closed, none) = (rendered(Some(&ssh(&[KEY.into()], &[]))), rendered(None));
    assert_eq!(closed.unwrap().expose_secret(), none.unwrap().expose_secret());
}

#[test]
fn only_one_time_values_are_secret_for_one_reader_each() {
    let document = document(&rendered(Some(&open_ssh())).unwrap());
    let private: Vec<(&str, &str)> = document["write_files"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|file| file["permissions"] != "0644")
        .map(|file| {
            assert_eq!((&file["permissions"], &file["defer"]), (&json!("0640"), &json!(true)));
            (file["path"].as_str().unwrap(), file["owner"].as_str().unwrap())
        })
        .collect();
    assert_eq!(
        private,
        [(BOOTSTRAP_PATH, "root:moorage"), (TUNNEL_TOKEN_PATH, "root:moorage-tunnel")]
    );
}

#[test]
fn there_is_room_for_as_many_keys_as_a_pool_can_have() {
    let size = |ssh: Option<&SshSpec>| rendered(ssh).unwrap().expose_secret().len();
    let ed25519 = ssh(&vec![KEY.to_owned(); 20], &["203.0.113.0/24"; 50]);
    let sizes = [size(None), size(Some(&open_ssh())), size(Some(&ed25519))];
    // 4096 bits of RSA are 716 characters of base64.
    let rsa = format!("ssh-rsa {} ada@example.com", "A".repeat(716));
    let keys = vec![rsa.clone(); MOST_SSH_KEY_TEXT / rsa.len()];
    let networks = ["2001:db8:1111:2222:3333:4444:5555:6666/128"; 50];
    let url = format!("https://example.com/{}/", "a".repeat(500));
    let most = rendered_from(&url, Some(&ssh(&keys, &networks))).unwrap().expose_secret().len();
    let [without, typical, large] = sizes;
    let many = keys.len();
    println!("without SSH {without}, one key {typical}, 20 keys {large}, {many} RSA keys {most}");
    assert!(typical <= 19 * 1024, "{typical} bytes");
    assert!(large <= 21 * 1024, "{large} bytes");
    assert!(most <= MAX_USER_DATA - 1024, "{most} bytes, of {MAX_USER_DATA}");
}

#[test]
fn more_than_hetzner_takes_is_refused_before_it_is_sent() {
    let keys = vec![format!("ssh-rsa {}", "A".repeat(4000)); 10];
    let ssh = ssh(&keys, &["203.0.113.7/32"]);
    let error = rendered(Some(&ssh)).err().unwrap();
    assert!(matches!(error, UserDataError::TooLong(size) if size > MAX_USER_DATA), "{error}");
}

/// Everything but the values: keys of objects, lengths of lists, kinds of leaves.
fn shape(value: &Value) -> Value {
    match value {
        Value::Object(object) => object.iter().map(|(k, v)| (k.clone(), shape(v))).collect(),
        Value::Array(list) => list.iter().map(shape).collect(),
        Value::String(_) => "text".into(),
        other => other.clone(),
    }
}

proptest! {
    #[test]
    fn no_value_changes_the_structure(
        url in ".{0,200}",
        version in ".{0,64}",
        comment in ".{0,80}",
        user in "[a-z_][a-z0-9_-]{0,31}|.{0,20}",
        network in "[0-9a-f.:/]{1,20}|.{0,20}",
    ) {
        let key = format!("{KEY} {comment}");
        // What is no part of a spec leaves the rest to be tried.
        let hostile = spec(&user, std::slice::from_ref(&key), &[&network])
            .or_else(|| spec(&user, std::slice::from_ref(&key), &["::/0"]))
            .or_else(|| spec("ops", std::slice::from_ref(&key), &["::/0"]));
        let hostile = hostile.unwrap_or_else(open_ssh);
        let key = hostile.keys[0].clone();
        let mut pinned = artifacts(&url);
        pinned.agent.version = version;
        let (bootstrap, token) = (&bootstrap(), &Secret::from("dG9rZW4=".to_owned()));
        let input = UserDataInput {
            bootstrap, tunnel_token: token, artifacts: &pinned, ssh: Some(&hostile),
            connector_protocol: ConnectorProtocol::Http2, now: NOW,
        };
        let Ok(text) = render(&input) else { return Ok(()) };
        let (document, usual) = (document(&text), document(&rendered(Some(&open_ssh())).unwrap()));
        prop_assert_eq!(shape(&document), shape(&usual));
        prop_assert_eq!(text.expose_secret().lines().count(), 2);
        prop_assert_eq!(&document["users"][3]["ssh_authorized_keys"], &json!([key]));
        // What a value may reach: these files and no other.
        for (ours, theirs) in document["write_files"].as_array().unwrap().iter()
            .zip(usual["write_files"].as_array().unwrap())
        {
            let valued = [RELEASE_PATH, firewall::RULES_PATH].contains(&ours["path"].as_str().unwrap());
            prop_assert!(valued || ours == theirs);
        }
        let release = content(file(&document, RELEASE_PATH).unwrap());
        let release: Value = serde_json::from_str(release).unwrap();
        prop_assert_eq!(&release["agent"]["url"], &json!(pinned.agent.url));
        let rules = content(file(&document, firewall::RULES_PATH).unwrap());
        let last = rules.lines().last().unwrap();
        prop_assert!(last.starts_with("add element inet moorage ssh_from_"));
        prop_assert_eq!(last.matches(['{', '}', ';']).count(), 2);
    }
}

#[test]
fn every_unit_that_a_boot_wants_is_enabled_by_somebody() {
    let machine = system::machine(true);
    let enablers = [
        FIRST_BOOT.to_owned(),
        format!("{AFTER:?}"),
        serde_json::to_string(&machine).unwrap().replace("\\\"", "\""),
    ];
    for unit in units::all() {
        let name = unit.path().rsplit('/').next().unwrap().to_owned();
        let quoted = format!("\"{name}\"");
        let enabled = enablers.iter().any(|text| text.contains(&quoted));
        assert_eq!(enabled, unit.to_string().contains("WantedBy="), "{name}");
    }
}

#[test]
fn a_connector_takes_the_protocol_that_the_pool_names() {
    let settings = |connector_protocol| {
        let (bootstrap, artifacts) = (&bootstrap(), &artifacts("https://example.com/"));
        let token = &Secret::from("dG9rZW4=".to_owned());
        let text = render(&UserDataInput {
            bootstrap,
            tunnel_token: token,
            artifacts,
            ssh: None,
            connector_protocol,
            now: NOW,
        });
        let document = document(&text.unwrap());
        content(file(&document, "/etc/moorage/connector.env").unwrap()).to_owned()
    };
    assert_eq!(settings(ConnectorProtocol::Http2), "TUNNEL_TRANSPORT_PROTOCOL=http2\n");
    assert_eq!(settings(ConnectorProtocol::Quic), "TUNNEL_TRANSPORT_PROTOCOL=quic\n");
    assert_eq!(settings(ConnectorProtocol::Auto), "TUNNEL_TRANSPORT_PROTOCOL=auto\n");
}
