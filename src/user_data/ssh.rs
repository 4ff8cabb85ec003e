//! SSH, the fallback for when the tunnel is down. Without a network that may come in, sshd does not
//! even run.

use super::{
    UserDataError,
    bundle::Bundle,
    cloud_config::{User, UserKind},
};
use crate::{api::pool::SshSpec, cidr::Network};

/// Who may log in: members of this group. The pool names the user, so that its name stands in no
/// configuration file.
pub(super) const SSH_GROUP: &str = "moorage-ssh";

/// An SSH fallback that is open to somebody, checked.
#[derive(Debug, Clone)]
pub(super) struct Ssh<'a> {
    spec: &'a SshSpec,
    pub(super) allow_from: Vec<Network>,
}

impl<'a> Ssh<'a> {
    /// `None` if it is open to nobody.
    pub(super) fn check(spec: Option<&'a SshSpec>) -> Result<Option<Self>, UserDataError> {
        let Some(spec) = spec.filter(|spec| !spec.allow_from.is_empty()) else { return Ok(None) };
        let allow_from = spec.allow_from.iter().map(|text| text.parse());
        Ok(Some(Self { spec, allow_from: allow_from.collect::<Result<_, _>>()? }))
    }

    /// The user to log in as.
    pub(super) fn user(&self) -> User<'a> {
        let sudo = "ALL=(ALL) NOPASSWD:ALL";
        User {
            name: &self.spec.user,
            // The second field is for pam_umask: what this user makes is not for others.
            gecos: "Moorage SSH fallback,umask=027",
            shell: "/bin/bash",
            lock_passwd: true,
            groups: &[SSH_GROUP],
            kind: UserKind::Person { sudo, ssh_authorized_keys: &self.spec.keys },
        }
    }
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

    fn spec(user: &str, key: &str, network: &str) -> Option<SshSpec> {
        let (user, keys) = (user.parse().ok()?, vec![key.parse().ok()?]);
        Some(SshSpec { user, keys, allow_from: vec![network.parse().ok()?] })
    }

    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5 ada@example.com";
    const HOME: &str = "203.0.113.7/32";

    #[rstest]
    #[case::usual("ops", KEY, HOME)]
    #[case::no_comment("_ops-1", "ssh-rsa AAAAB3Nza+/=", "2001:db8::/64")]
    #[case::odd_comment("ops", "ssh-ed25519 AAAA Ada's \"key\" #1", HOME)]
    fn an_open_fall_back_is_taken(#[case] user: &str, #[case] key: &str, #[case] network: &str) {
        assert!(Ssh::check(spec(user, key, network).as_ref()).unwrap().is_some());
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
    fn what_could_do_more_than_it_should_is_no_part_of_a_spec(
        #[case] user: &str,
        #[case] key: &str,
        #[case] network: &str,
    ) {
        assert!(spec(user, key, network).is_none());
    }

    #[test]
    fn a_fall_back_that_is_open_to_nobody_is_none() {
        let closed = SshSpec { allow_from: Vec::new(), ..spec("ops", KEY, HOME).unwrap() };
        assert!(Ssh::check(Some(&closed)).unwrap().is_none());
        assert!(Ssh::check(None).unwrap().is_none());
    }
}
