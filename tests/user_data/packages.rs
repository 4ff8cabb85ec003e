//! A first boot that has to install packages, over a mirror that is not there at first and a power cut
//! in the middle of dpkg. The other tests find all packages in the lab's root filesystem.

use std::collections::BTreeSet;

use moorage_testbed::{Press, Probed, wait_until};
use serde_json::json;

use crate::{
    KEY,
    agent::Agent,
    document,
    doors::FRIEND,
    machine::{Lab, PATIENCE, Patient as _},
};

/// Runs first in the first boot.
const BARE: &str = include_str!("bare.sh");
/// What [`BARE`] takes away, or leaves unpacked.
const TAKEN: [&str; 4] = ["fail2ban", "nftables", "python3-apt", "unattended-upgrades"];

/// User-data for a server that is made bare first.
fn bare(user_data: &str) -> String {
    let mut document = document(user_data);
    document["bootcmd"].as_array_mut().unwrap().insert(0, json!(["sh", "-c", BARE]));
    format!("#cloud-config\n{document}\n")
}

impl Lab {
    /// The state of a package in dpkg's words; empty for one that it does not know.
    async fn package(&self, name: &str) -> String {
        let ask = ["dpkg-query", "-W", "-f", "${db:Status-Status}", name];
        self.server.run(&ask).await.unwrap().text()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn packages_come_whatever_fails_after_the_agent() {
    let Some(lab) = Lab::boot_with(&["198.51.100.10/32"], KEY, bare).await else { return };
    wait_until("a mirror that is not there is waited for", PATIENCE, || async {
        let journal = lab.server.journal(Some("moorage-setup.service")).await;
        let journal = journal.map_err(|error| error.to_string())?;
        if journal.contains("packages: ") { Ok(()) } else { Err(journal) }
    })
    .await
    .unwrap();
    // The agent waits for no package: it has its sealing key, and says how it is.
    let agent = Agent::enrol(&lab.server).await;
    assert!(!agent.report().await.machine.setup_done);
    for package in TAKEN {
        assert_ne!(lab.package(package).await, "installed", "{package}");
    }
    assert_eq!(lab.package("unattended-upgrades").await, "unpacked");
    assert_eq!(lab.package("rpcbind").await, "installed");

    // There it is; and the power goes while dpkg configures one of them.
    lab.exec(&["sed", "-i", "/deb.debian.org/d", "/etc/hosts"]).await;
    lab.server.exec_until(&["test", "-e", "/run/held"]).await;
    lab.exec(&["pgrep", "-x", "dpkg"]).await;
    assert!(!agent.report().await.machine.setup_done);
    lab.server.power(Press::Reset).await.unwrap();
    lab.settled(2).await;

    for package in TAKEN {
        assert_eq!(lab.package(package).await, "installed", "{package}");
    }
    let journal = lab.server.journal(Some("moorage-setup.service")).await.unwrap();
    assert!(journal.contains("deb.debian.org is asked alone"), "{journal}");
    assert_ne!(lab.package("rpcbind").await, "installed");
    assert_eq!(lab.exec(&["dpkg", "--audit"]).await, "", "nothing is half done");
    for unit in ["fail2ban.service", "unattended-upgrades.service", "nftables.service"] {
        lab.server.exec_until(&["systemctl", "is-active", unit]).await;
    }
    lab.server.exec_until(&["fail2ban-client", "status", "sshd"]).await;
    lab.is_hardened().await;
    assert_eq!(lab.public_ports().await, BTreeSet::from(["22".to_owned()]));
    assert_eq!(lab.knock(FRIEND, 22).await, Probed::Open);
    assert_eq!(lab.knock("198.51.100.11", 22).await, Probed::Dropped);
    assert!(agent.report().await.machine.setup_done);
}
