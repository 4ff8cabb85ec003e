//! SSH, the fall-back for when the tunnel is down. Without a network that may come in, sshd does not
//! even run.

use super::{
    UserDataError,
    bundle::Bundle,
    cloud_config::{User, UserKind},
};
use crate::{
    api::{pool::SshSpec, reserved_users::is_reserved},
    cidr::Network,
};

/// Who may log in: members of this group. The pool names the user, so that its name stands in no
/// configuration file.
pub(super) const SSH_GROUP: &str = "moorage-ssh";

/// The kinds of keys that sshd accepts, as they begin a line of `authorized_keys`.
const KEY_KINDS: &[&str] = &[
    "ssh-ed25519",
    "sk-ssh-ed25519@openssh.com",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ecdsa-sha2-nistp256@openssh.com",
    "ssh-rsa",
];

/// An SSH fall-back that is open to somebody, checked.
#[derive(Debug, Clone)]
pub(super) struct Ssh<'a> {
    spec: &'a SshSpec,
    pub(super) allow_from: Vec<Network>,
}

impl<'a> Ssh<'a> {
    /// `None` if it is open to nobody.
    pub(super) fn check(spec: Option<&'a SshSpec>) -> Result<Option<Self>, UserDataError> {
        let Some(spec) = spec.filter(|spec| !spec.allow_from.is_empty()) else { return Ok(None) };
        if is_reserved(&spec.user) || !is_user_name(&spec.user) {
            return Err(UserDataError::User(spec.user.clone()));
        }
        if let Some(index) = spec.keys.iter().position(|key| !is_public_key(key)) {
            return Err(UserDataError::Key(index));
        }
        let allow_from = spec.allow_from.iter().map(|text| text.parse());
        Ok(Some(Self { spec, allow_from: allow_from.collect::<Result<_, _>>()? }))
    }

    /// The user to log in as.
    pub(super) fn user(&self) -> User<'a> {
        let sudo = "ALL=(ALL) NOPASSWD:ALL";
        User {
            name: &self.spec.user,
            // The second field is for pam_umask: what this user makes is not for others.
            gecos: "Moorage SSH fall-back,umask=027",
            shell: "/bin/bash",
            lock_passwd: true,
            groups: &[SSH_GROUP],
            kind: UserKind::Person { sudo, ssh_authorized_keys: &self.spec.keys },
        }
    }
}

/// As in the schema of the pool; useradd is the one that must not be surprised.
fn is_user_name(name: &str) -> bool {
    let inner =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-".contains(&byte);
    name.len() <= 32
        && name.bytes().all(inner)
        && name.starts_with(|first: char| first == '_' || first.is_ascii_lowercase())
}

/// One line: a kind, the key, perhaps a comment. No options before the kind: they can set an
/// environment or run a command.
fn is_public_key(line: &str) -> bool {
    let mut words = line.split(' ');
    let (kind, key) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let base64 = |byte: u8| byte.is_ascii_alphanumeric() || b"+/=".contains(&byte);
    KEY_KINDS.contains(&kind)
        && !key.is_empty()
        && key.bytes().all(base64)
        && !line.chars().any(char::is_control)
}

/// The files for it, or for the lack of it.
pub(super) fn constants(bundle: &mut Bundle, open: bool) {
    bundle.add("/etc/ssh/sshd_config.d/00-moorage.conf", include_str!("files/sshd.conf"));
    if open {
        bundle.add("/etc/fail2ban/jail.d/moorage.local", include_str!("files/fail2ban.conf"));
    } else {
        for unit in STOPPED {
            bundle.mask(format!("/etc/systemd/system/{unit}"));
        }
    }
    bundle.mask("/etc/systemd/system-generators/systemd-ssh-generator");
}

/// Sockets for sshd that systemd makes by itself, from the next boot on no more.
pub(super) const UNWANTED_SOCKETS: &[&str] = &["sshd-vsock.socket", "sshd-unix-local.socket"];
/// What does not run unless somebody may come in.
pub(super) const STOPPED: &[&str] = &["ssh.service", "ssh.socket"];

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn spec(user: &str, key: &str, network: &str) -> SshSpec {
        let (keys, allow_from) = (vec![key.to_owned()], vec![network.to_owned()]);
        SshSpec { user: user.into(), keys, allow_from }
    }

    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5 ada@example.com";
    const HOME: &str = "203.0.113.7/32";

    #[rstest]
    #[case::usual("ops", KEY, HOME)]
    #[case::no_comment("_ops-1", "ssh-rsa AAAAB3Nza+/=", "2001:db8::/64")]
    #[case::odd_comment("ops", "ssh-ed25519 AAAA Ada's \"key\" #1", HOME)]
    fn an_open_fall_back_is_taken(#[case] user: &str, #[case] key: &str, #[case] network: &str) {
        assert!(Ssh::check(Some(&spec(user, key, network))).unwrap().is_some());
    }

    #[rstest]
    #[case::root("root", KEY, HOME)]
    #[case::who_tries_new_agents("nobody", KEY, HOME)]
    #[case::a_group("moorage-tunnel", KEY, HOME)]
    #[case::a_service("openclaw", KEY, HOME)]
    #[case::no_name("ops: x", KEY, HOME)]
    #[case::second_key("ops", "ssh-ed25519 AAAA\nssh-ed25519 BBBB", HOME)]
    #[case::options("ops", "command=\"/bin/sh\" ssh-ed25519 AAAA", HOME)]
    #[case::no_key("ops", "ssh-ed25519", HOME)]
    #[case::dsa("ops", "ssh-dss AAAA", HOME)]
    #[case::yaml("ops", "ssh-ed25519 AAAA\"]}\nruncmd: [reboot] #", HOME)]
    #[case::network("ops", KEY, "anywhere")]
    #[case::nft("ops", KEY, "0.0.0.0/0 }; flush ruleset")]
    fn what_could_do_more_than_it_should_is_refused(
        #[case] user: &str,
        #[case] key: &str,
        #[case] network: &str,
    ) {
        assert!(Ssh::check(Some(&spec(user, key, network))).is_err());
    }

    #[test]
    fn a_fall_back_that_is_open_to_nobody_is_none() {
        let closed = SshSpec { allow_from: Vec::new(), ..spec("ops", KEY, HOME) };
        assert!(Ssh::check(Some(&closed)).unwrap().is_none());
        assert!(Ssh::check(None).unwrap().is_none());
    }
}
