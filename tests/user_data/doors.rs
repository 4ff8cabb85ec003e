//! Who gets through the doors of a booted server: people by SSH, and nobody to it from inside; upgrades,
//! and the reboot that they ask for.

use std::{net::IpAddr, path::Path, process::Command};

use moorage_testbed::{Executed, LabServer, Probed, wait_until};
use serde_json::Value;
use tempfile::TempDir;

use crate::machine::{PATIENCE, Patient as _};

/// Where people log in from, and where those come from who are refused: fail2ban remembers them.
pub(crate) const FRIEND: &str = "198.51.100.10";
/// Each attempt has an address of its own, for a few words of sshd about one are enough.
const INTRUDERS: [&str; 3] = ["198.51.100.12", "198.51.100.13", "198.51.100.14"];
const FRIEND_6: &str = "2001:db8:ffff::10";
/// The networks of the pool.
pub(crate) const NETWORKS: [&str; 3] =
    ["198.51.100.10/32", "198.51.100.12/30", "2001:db8:ffff::10/128"];
/// Says of each address what comes of a connection to port 22.
const KNOCK: &str = "
import socket, sys
for address in sys.argv[1:]:
    family, kind, _, _, target = socket.getaddrinfo(address, 22, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, kind) as client:
        client.settimeout(5)
        try:
            client.connect(target)
            print(address, 'open')
        except OSError as error:
            print(address, type(error).__name__)
";

/// A person's key pair, and the host keys that the person has seen.
pub(crate) struct Person {
    folder: TempDir,
    pub(crate) public_key: String,
}

impl Person {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let made = Command::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-C", "ada", "-f"])
            .arg(folder.path().join("key"))
            .status();
        assert!(made.expect("openssh-client is installed by hack/lab.sh").success());
        let public_key = std::fs::read_to_string(folder.path().join("key.pub")).unwrap();
        Self { public_key: public_key.trim_end().to_owned(), folder }
    }

    /// Runs `ssh` with the key, or without any, as `user` from an address outside.
    async fn ssh(
        &self,
        server: &LabServer,
        (user, from): (&str, &str),
        before: &[&str],
        after: &[&str],
    ) -> Executed {
        let addresses = server.state().await.unwrap().addresses;
        let to = addresses.iter().find(|address| address.is_ipv4()).unwrap().to_string();
        let named = |name: &str, file: &str| format!("{name}={}", self.file(file).display());
        let (identity, known) =
            (named("IdentityFile", "key"), named("UserKnownHostsFile", "known"));
        // A host key that changed is refused.
        let options = [&identity, &known, "IdentitiesOnly=yes", "StrictHostKeyChecking=accept-new"];
        let mut argv = before.to_vec();
        argv.extend(["ssh", "-F", "none", "-b", from, "-l", user, "-o", "BatchMode=yes"]);
        argv.extend(options.into_iter().flat_map(|option| ["-o", option]));
        argv.push("-oConnectTimeout=30");
        argv.extend(after.iter().take_while(|word| word.starts_with('-')));
        argv.push(&to);
        argv.extend(after.iter().skip_while(|word| word.starts_with('-')));
        server.run_outside(&argv).await.unwrap()
    }

    fn file(&self, name: &str) -> std::path::PathBuf {
        Path::new(self.folder.path()).join(name)
    }

    /// The pool's user is in, and root if need be.
    pub(crate) async fn logs_in(&self, server: &LabServer) {
        let login = self.ssh(server, ("ops", FRIEND), &[], &["sudo", "-n", "id", "-un"]).await;
        assert_eq!((login.exit_code, login.text().as_str()), (Some(0), "root"), "{login:?}");
        let mask = self.ssh(server, ("ops", FRIEND), &[], &["umask"]).await;
        assert_eq!((mask.exit_code, mask.text().as_str()), (Some(0), "0027"), "{mask:?}");
    }

    /// Whoever is in takes nothing along and gets no further.
    pub(crate) async fn forwards_nothing(&self, server: &LabServer) {
        let ops = ("ops", FRIEND);
        // As -L does for each connection.
        let tunnel = self.ssh(server, ops, &[], &["-W127.0.0.1:53"]).await;
        assert!(said(&tunnel).contains("administratively prohibited"), "{tunnel:?}");
        let back = ["-oExitOnForwardFailure=yes", "-R2222:127.0.0.1:22", "true"];
        let back = self.ssh(server, ops, &[], &back).await;
        assert!(said(&back).contains("remote port forwarding failed"), "{back:?}");
        let agent =
            self.ssh(server, ops, &["ssh-agent"], &["-A", "printenv", "SSH_AUTH_SOCK"]).await;
        assert_eq!((agent.exit_code, agent.text().as_str()), (Some(1), ""), "{agent:?}");
    }

    /// Others are not let in, the right key or not, and who tries too often is not heard any more.
    pub(crate) async fn others_are_refused(&self, server: &LabServer) {
        server.exec(&["useradd", "--create-home", "eve"]).await.unwrap();
        for (user, home) in [("root", "/root"), ("eve", "/home/eve")] {
            let (folder, keys) = (format!("{home}/.ssh"), format!("{home}/.ssh/authorized_keys"));
            let group = ["install", "-d", "-m", "0700", "-o", user, "-g", user, &folder];
            server.exec(&group).await.unwrap();
            server.write(&keys, &format!("{}\n", self.public_key)).await.unwrap();
            server.exec(&["chown", user, &keys]).await.unwrap();
        }
        // Root would be in the right group then.
        server.exec(&["usermod", "--append", "--groups", "moorage-ssh", "root"]).await.unwrap();
        let attempts = [("root", &[][..]), ("eve", &[]), ("ops", &["-oPubkeyAuthentication=no"])];
        for ((user, options), from) in attempts.into_iter().zip(INTRUDERS) {
            let words = [options, &["true"]].concat();
            let refused = self.ssh(server, (user, from), &[], &words).await;
            assert_eq!(refused.exit_code, Some(255), "{user}: {refused:?}");
            // What could be used instead: nothing.
            let said = said(&refused);
            assert!(said.contains("Permission denied (publickey)"), "{user}: {said}");
        }
        let banned =
            wait_until("fail2ban bans who is refused again and again", PATIENCE, || async {
                // A ban that comes in the middle of a connection leaves ssh waiting for minutes.
                let in_time = ["timeout", "10"];
                let refused = self.ssh(server, ("eve", INTRUDERS[1]), &in_time, &["true"]).await;
                match knock(server, INTRUDERS[1]).await {
                    Probed::Dropped => Ok(()),
                    open => Err(format!("{open:?} {refused:?}")),
                }
            });
        if let Err(late) = banned.await {
            let journal = server.journal(Some("ssh.service")).await.unwrap();
            panic!("{late}\n{journal}");
        }
        assert_eq!(knock(server, FRIEND).await, Probed::Open, "others are not banned");
    }
}

fn said(ran: &Executed) -> String {
    String::from_utf8_lossy(&ran.stderr).into_owned()
}

async fn knock(server: &LabServer, from: &str) -> Probed {
    server.probe_port(from.parse::<IpAddr>().unwrap(), 22).await.unwrap()
}

/// Only the networks of the pool, by both protocols, also when neither side knows the other's
/// link address yet.
pub(crate) async fn port_22_is_open_to_its_networks_alone(server: &LabServer) {
    let forget = ["ip", "-6", "neighbour", "flush", "all"];
    server.exec(&forget).await.unwrap();
    assert!(server.run_outside(&forget).await.unwrap().succeeded());
    for (from, wanted) in [
        (FRIEND, Probed::Open),
        ("198.51.100.11", Probed::Dropped),
        (FRIEND_6, Probed::Open),
        ("2001:db8:ffff::11", Probed::Dropped),
    ] {
        assert_eq!(knock(server, from).await, wanted, "{from}");
    }
}

/// The tunnel ends on the server, and OpenClaw runs there: neither is a way to sshd.
pub(crate) async fn port_22_is_shut_from_inside(server: &LabServer) {
    let interfaces = server.exec(&["ip", "-json", "address"]).await.unwrap();
    let interfaces: Vec<Value> = serde_json::from_str(&interfaces).unwrap();
    let mut addresses =
        ["127.0.0.2", "0.0.0.0", "::", "::ffff:127.0.0.1"].map(str::to_owned).to_vec();
    for interface in interfaces {
        for address in interface["addr_info"].as_array().unwrap() {
            let local = address["local"].as_str().unwrap();
            let name = interface["ifname"].as_str().unwrap();
            let is_of_a_link = address["scope"] == "link";
            addresses.push(if is_of_a_link { format!("{local}%{name}") } else { local.to_owned() });
        }
    }
    // Both loopbacks, and both public addresses.
    assert!(addresses.len() >= 4 + 4, "{addresses:?}");
    let mut argv = vec!["python3", "-I", "-c", KNOCK];
    argv.extend(addresses.iter().map(String::as_str));
    let wanted: Vec<_> =
        addresses.iter().map(|address| format!("{address} ConnectionRefusedError")).collect();
    for user in [Some("cloudflared"), Some("openclaw"), Some("moorage"), None] {
        let seen = server.run_as(user, &argv, "").await.unwrap();
        assert_eq!(seen.text().lines().collect::<Vec<_>>(), wanted, "{user:?}: {seen:?}");
    }
}

/// The users of our services cannot log in, and what happened outlasts a reboot.
pub(crate) async fn services_have_no_shell_and_the_journal_is_kept(server: &LabServer) {
    for user in ["moorage", "openclaw", "cloudflared"] {
        let account = server.exec(&["getent", "passwd", user]).await.unwrap();
        assert!(account.ends_with(":/usr/sbin/nologin"), "{account}");
        let password = server.exec(&["passwd", "--status", user]).await.unwrap();
        assert!(password.starts_with(&format!("{user} L ")), "{password}");
    }
    let kept = server.exec(&["journalctl", "--list-boots", "--no-pager"]).await.unwrap();
    let starts = server.state().await.unwrap().starts as usize;
    assert!(kept.lines().filter(|line| !line.contains("IDX")).count() >= starts, "{kept}");
}

/// Security updates come every night, from where they should.
pub(crate) async fn upgrades_are_made_at_night(server: &LabServer) {
    for timer in ["apt-daily.timer", "apt-daily-upgrade.timer", "moorage-reboot.timer"] {
        server.exec_until(&["systemctl", "is-active", timer]).await;
    }
    let argv = ["unattended-upgrade", "--dry-run", "--verbose"];
    let tried = server.run(&argv).await.unwrap();
    let said = tried.text() + &said(&tried);
    assert!(tried.succeeded() && said.contains("label=Debian-Security"), "{said}");
}

/// Also one that touches no kernel: whatever runs goes on with what is no longer on the disk.
async fn an_upgrade_of_what_runs_asks_for_a_reboot(server: &LabServer) {
    let look = ["/usr/bin/python3", "-I", "/usr/local/lib/moorage/first-boot.py", "outdated"];
    let shown = ["ExecStopPost"];
    let after = server.unit("apt-daily-upgrade.service", &shown).await.unwrap();
    assert!(after["ExecStopPost"].contains(&look.join(" ")), "{after:?}");
    let program = "/usr/bin/moorage-test-sleep";
    server.exec(&["cp", "/usr/bin/sleep", program]).await.unwrap();
    server.exec(&["systemd-run", "--quiet", program, "3600"]).await.unwrap();
    server.exec(&look).await.unwrap();
    let asked = ["test", "-e", "/run/reboot-required"];
    assert!(!server.run(&asked).await.unwrap().succeeded(), "nothing was replaced yet");
    server.exec(&["cp", "/usr/bin/sleep", "/usr/bin/moorage-test-new"]).await.unwrap();
    server.exec(&["mv", "/usr/bin/moorage-test-new", program]).await.unwrap();
    let said = server.exec(&look).await.unwrap();
    assert!(said.contains(program), "{said}");
    server.exec(&asked).await.unwrap();
}

/// The server's own reboot, from inside its sandbox; afterwards it boots again.
pub(crate) async fn a_reboot_is_made_if_it_is_pending(server: &LabServer) {
    let unit = "moorage-reboot.service";
    let starts = server.state().await.unwrap().starts;
    server.exec(&["systemctl", "start", unit]).await.unwrap();
    assert_eq!(server.unit(unit, &["ConditionResult"]).await.unwrap()["ConditionResult"], "no");
    assert_eq!(server.state().await.unwrap().starts, starts, "nothing asked for a reboot");
    an_upgrade_of_what_runs_asks_for_a_reboot(server).await;
    server.exec(&["systemctl", "start", unit]).await.unwrap();
    let again = wait_until("another start", PATIENCE, || async {
        let state = server.state().await.map_err(|error| error.to_string())?;
        if state.starts == starts + 1 { Ok(()) } else { Err(format!("{state:?}")) }
    });
    again.await.unwrap();
}
