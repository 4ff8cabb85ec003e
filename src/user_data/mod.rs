//! User-data: what turns a stock Debian 13 into a locked-down server at its first boot. Here is the
//! whole document; each concern (packet filter, SSH, settings, units) has a file of its own. What the
//! server does with the files is in `files/first-boot.py`.
//!
//! It holds no lasting secret: the tunnel's first token is replaced after first contact, and the
//! enrolment key works once.

mod bundle;
mod cloud_config;
mod firewall;
mod ssh;
mod system;
#[cfg(test)]
mod tests;
mod unit;
mod units;

use jiff::Timestamp;
use moorage_wire::{
    Secret,
    bootstrap::{
        AGENT_USER, BOOTSTRAP_PATH, Bootstrap, CLOUDFLARED_USER, OPENCLAW_HOME, OPENCLAW_USER,
        RELEASE_PATH, TUNNEL_GROUP, TUNNEL_TOKEN_PATH,
    },
    desired::{Artifact, Artifacts},
};
use serde::Serialize;
use thiserror::Error;
use zeroize::Zeroizing;

use self::{
    bundle::Bundle,
    cloud_config::{CloudConfig, User, UserKind, WriteFile, json},
    ssh::{SSH_GROUP, Ssh},
};
use crate::{
    api::pool::{ConnectorProtocol, SshSpec},
    cidr::NotANetwork,
    cloud::SecretText,
    hetzner::MAX_USER_DATA,
};

/// The script of the first boot.
pub const FIRST_BOOT: &str = include_str!("files/first-boot.py");
/// Where it is on the server.
const FIRST_BOOT_PATH: &str = "/usr/local/lib/moorage/first-boot.py";
/// The archive of all files without a value in them.
const CONSTANTS_PATH: &str = "/usr/local/lib/moorage/constants.tar.gz";

/// Runs first at every boot. cloud-init does what it has begun only once per server, so a cut in the
/// middle would leave half of it undone for ever; until the jobs of the first boot have begun, it
/// therefore forgets. The text is constant.
const BEFORE: [&str; 3] = [
    "sh",
    "-c",
    "test -e /var/lib/moorage-first-boot/begun || rm -f /var/lib/cloud/instance/sem/config_*",
];
/// Runs with it: a clock without a battery starts in 1970, and systemd takes it no further than to its
/// own build date, where certificates and package lists are not valid yet. Until NTP says better it is
/// at least as late as user-data, and never set back. The text is constant; the time is its argument.
const CLOCK: [&str; 4] = [
    "/usr/bin/python3",
    "-I",
    "-c",
    "import sys,time; t=int(sys.argv[1]); time.time()<t and time.clock_settime(time.CLOCK_REALTIME,t)",
];
/// Runs last. Enabled first: once a job has begun, the next boot continues it.
const AFTER: &[&[&str]] = &[
    &["tar", "-xzf", CONSTANTS_PATH, "-C", "/", "--no-same-owner", "--no-overwrite-dir"],
    // A job that the next boot finds enabled may say that all files are there: then they must be.
    &["sync", "--file-system", "/"],
    &["systemctl", "daemon-reload"],
    // Before anything is fetched: of a connection that is older than the first rule about states, the
    // other side's next packet counts as a new one and is dropped, and the download stalls. An image
    // without nftables gets it by moorage-setup.
    &["systemctl", "enable", "--now", "nftables.service"],
    &["systemctl", "enable", "moorage-setup.service", "moorage-first-boot.service"],
    &["systemctl", "start", "--no-block", "moorage-setup.service", "moorage-first-boot.service"],
];

/// What user-data is made from.
#[derive(Debug, Clone, Copy)]
pub struct UserDataInput<'a> {
    /// For the agent.
    pub bootstrap: &'a Bootstrap,
    /// The first run token of the tunnel.
    pub tunnel_token: &'a Secret,
    /// The pinned programs; agent and cloudflared are needed before anybody can be asked.
    pub artifacts: &'a Artifacts,
    /// The pool's SSH fallback.
    pub ssh: Option<&'a SshSpec>,
    /// How the connector reaches Cloudflare.
    pub connector_protocol: ConnectorProtocol,
    /// Now: the server's clock cannot rightly be before this.
    pub now: Timestamp,
}

/// User-data that cannot be made.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum UserDataError {
    /// Hetzner would not take it.
    #[error(
        "user-data would be {0} bytes, more than Hetzner's {MAX_USER_DATA}; use fewer or shorter SSH keys in the pool"
    )]
    TooLong(usize),
    /// One of the pool's networks is something else.
    #[error("the pool's ssh.allowFrom: {0}")]
    Network(#[from] NotANetwork),
}

/// The programs that a server fetches by itself.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct FirstPrograms<'a> {
    agent: &'a Artifact,
    cloudflared: &'a Artifact,
}

pub fn render(input: &UserDataInput<'_>) -> Result<SecretText, UserDataError> {
    let ssh = Ssh::check(input.ssh)?;
    let config = CloudConfig {
        disable_root: true,
        ssh_pwauth: false,
        ssh_genkeytypes: ["ed25519"],
        bootcmd: [
            BEFORE.map(str::to_owned).to_vec(),
            CLOCK
                .map(str::to_owned)
                .into_iter()
                .chain([input.now.as_second().to_string()])
                .collect(),
        ],
        groups: vec![TUNNEL_GROUP, SSH_GROUP],
        users: users(ssh.as_ref()),
        write_files: files(input, ssh.as_ref()),
        runcmd: AFTER,
    };
    let text = format!("#cloud-config\n{}\n", *json(&config));
    let size = text.len();
    if size > MAX_USER_DATA { Err(UserDataError::TooLong(size)) } else { Ok(SecretText::new(text)) }
}

fn users<'a>(ssh: Option<&Ssh<'a>>) -> Vec<User<'a>> {
    let service = |name, homedir, groups| User {
        name,
        gecos: "Moorage",
        shell: "/usr/sbin/nologin",
        lock_passwd: true,
        groups,
        kind: UserKind::Service { system: true, homedir, no_create_home: true },
    };
    let mut users = vec![
        service(AGENT_USER, "/var/lib/moorage", &[TUNNEL_GROUP]),
        service(OPENCLAW_USER, OPENCLAW_HOME, &[]),
        service(CLOUDFLARED_USER, "/nonexistent", &[TUNNEL_GROUP]),
    ];
    users.extend(ssh.map(Ssh::user));
    users
}

fn files(input: &UserDataInput<'_>, ssh: Option<&Ssh<'_>>) -> Vec<WriteFile> {
    let programs =
        FirstPrograms { agent: &input.artifacts.agent, cloudflared: &input.artifacts.cloudflared };
    let token = input.tunnel_token.expose_str().unwrap_or_default();
    let token = Zeroizing::new(format!("{token}\n"));
    let allow_from = ssh.map_or(&[][..], |ssh| &ssh.allow_from);
    vec![
        WriteFile::private(BOOTSTRAP_PATH, "root:moorage", json(input.bootstrap)),
        WriteFile::private(TUNNEL_TOKEN_PATH, "root:moorage-tunnel", token),
        WriteFile::value(RELEASE_PATH, json(&programs)),
        WriteFile::value(firewall::RULES_PATH, Zeroizing::new(firewall::rules(allow_from))),
        system::machine(ssh.is_some()),
        units::connector_settings(input.connector_protocol),
        WriteFile::binary(CONSTANTS_PATH, constants(ssh.is_some()).packed()),
    ]
}

/// What is the same on every server with, or without, SSH.
fn constants(ssh: bool) -> Bundle {
    let mut bundle = Bundle::default();
    bundle.add(FIRST_BOOT_PATH, FIRST_BOOT);
    firewall::constants(&mut bundle);
    ssh::constants(&mut bundle, ssh);
    system::constants(&mut bundle);
    for unit in units::all() {
        bundle.add(unit.path(), unit.to_string());
    }
    bundle
}
