//! User-data: what a new server reads at its first boot. A cloud-config built from typed values and
//! written as JSON, which is YAML without its surprises: nothing a value contains can change the
//! document around it.
//!
//! It holds no lasting secret: the tunnel's first token is replaced after first contact, and the
//! enrolment key works once.

use moorage_wire::{
    Secret,
    bootstrap::{BOOTSTRAP_PATH, Bootstrap, TUNNEL_TOKEN_PATH},
    desired::{Artifact, Artifacts},
};
use serde::Serialize;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::{api::pool::SshSpec, cloud::SecretText, hetzner::MAX_USER_DATA};

/// Where the server finds what to install first.
pub const RELEASE_PATH: &str = "/etc/moorage/release.json";

/// What user-data is made from.
#[derive(Debug, Clone, Copy)]
pub struct UserDataInput<'a> {
    /// For the agent.
    pub bootstrap: &'a Bootstrap,
    /// The first run token of the tunnel.
    pub tunnel_token: &'a Secret,
    /// The pinned programs; agent and cloudflared are needed before anybody can be asked.
    pub artifacts: &'a Artifacts,
    /// The pool's SSH fall-back.
    pub ssh: Option<&'a SshSpec>,
}

/// User-data that Hetzner would not take.
#[derive(Debug, Error, PartialEq, Eq)]
#[error(
    "user-data would be {size} bytes, more than Hetzner's {MAX_USER_DATA}; use fewer or shorter SSH keys in the pool"
)]
pub struct UserDataError {
    size: usize,
}

/// The part of cloud-config that is used (cloud-init 25.1).
#[derive(Serialize)]
struct CloudConfig<'a> {
    disable_root: bool,
    ssh_pwauth: bool,
    users: Vec<User<'a>>,
    write_files: Vec<WriteFile>,
}

#[derive(Serialize)]
struct User<'a> {
    name: &'a str,
    gecos: &'static str,
    shell: &'static str,
    sudo: &'static str,
    lock_passwd: bool,
    ssh_authorized_keys: &'a [String],
}

#[derive(Serialize)]
struct WriteFile {
    path: &'static str,
    owner: &'static str,
    permissions: &'static str,
    #[serde(serialize_with = "as_text")]
    content: Zeroizing<String>,
}

fn as_text<S: serde::Serializer>(
    text: &Zeroizing<String>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(text)
}

/// The programs that a server fetches by itself.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct FirstPrograms<'a> {
    agent: &'a Artifact,
    cloudflared: &'a Artifact,
}

/// Renders user-data.
pub fn render(input: &UserDataInput<'_>) -> Result<SecretText, UserDataError> {
    let programs =
        FirstPrograms { agent: &input.artifacts.agent, cloudflared: &input.artifacts.cloudflared };
    let token = input.tunnel_token.expose_str().unwrap_or_default();
    let config = CloudConfig {
        disable_root: true,
        ssh_pwauth: false,
        users: input.ssh.iter().map(|ssh| user(ssh)).collect(),
        write_files: vec![
            file(BOOTSTRAP_PATH, "0600", json(input.bootstrap)),
            file(TUNNEL_TOKEN_PATH, "0600", Zeroizing::new(format!("{token}\n"))),
            file(RELEASE_PATH, "0644", json(&programs)),
        ],
    };
    let text = format!("#cloud-config\n{}\n", *json(&config));
    let size = text.len();
    if size > MAX_USER_DATA { Err(UserDataError { size }) } else { Ok(SecretText::new(text)) }
}

fn user(ssh: &SshSpec) -> User<'_> {
    User {
        name: &ssh.user,
        gecos: "Moorage SSH fall-back",
        shell: "/bin/bash",
        sudo: "ALL=(ALL) NOPASSWD:ALL",
        lock_passwd: true,
        ssh_authorized_keys: &ssh.keys,
    }
}

fn file(path: &'static str, permissions: &'static str, content: Zeroizing<String>) -> WriteFile {
    WriteFile { path, owner: "root:root", permissions, content }
}

fn json<T: Serialize>(value: &T) -> Zeroizing<String> {
    // Strings, numbers, lists and structs only.
    Zeroizing::new(serde_json::to_string(value).expect("user-data is representable in JSON"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use moorage_wire::{Epoch, InstanceId, OperatorPublicKey, Sha256, enrolment::EnrolmentKey};

    fn bootstrap() -> Bootstrap {
        Bootstrap {
            instance_id: InstanceId::from_bytes([1; 16]),
            epoch: Epoch::from_bytes([2; 8]),
            operator_key: OperatorPublicKey::from_bytes([3; 32]),
            bearer_sha256: Sha256::of(b"bearer"),
            enrolment_key: EnrolmentKey::new(Secret::from([4; 32])).to_text(),
        }
    }

    fn artifacts() -> Artifacts {
        let artifact = |name: &str| Artifact {
            version: "1".into(),
            url: format!("https://example.com/{name}"),
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

    fn rendered(ssh: Option<&SshSpec>) -> Result<SecretText, UserDataError> {
        let (bootstrap, artifacts) = (bootstrap(), artifacts());
        let token = Secret::from("dG9rZW4=".to_owned());
        let (bootstrap, artifacts) = (&bootstrap, &artifacts);
        render(&UserDataInput { bootstrap, tunnel_token: &token, artifacts, ssh })
    }

    #[test]
    fn the_user_data_of_a_typical_server() {
        insta::assert_snapshot!(rendered(None).unwrap().expose_secret());
    }

    #[test]
    fn a_hostile_value_stays_a_value() {
        let key = "ssh-ed25519 AAAA\"]}\nruncmd: [reboot] #".to_owned();
        let ssh = SshSpec { user: "ops".into(), keys: vec![key.clone()], allow_from: Vec::new() };
        let text = rendered(Some(&ssh)).unwrap();
        let document = text.expose_secret().strip_prefix("#cloud-config\n").unwrap();
        let document: serde_json::Value = serde_json::from_str(document).unwrap();
        assert_eq!(document["users"][0]["ssh_authorized_keys"][0], key.as_str());
        assert!(document.get("runcmd").is_none());
    }

    #[test]
    fn more_than_hetzner_takes_is_refused_before_it_is_sent() {
        let keys = vec!["k".repeat(4000); 10];
        let ssh = SshSpec { user: "ops".into(), keys, allow_from: Vec::new() };
        assert!(rendered(Some(&ssh)).is_err_and(|error| error.size > MAX_USER_DATA));
    }
}
